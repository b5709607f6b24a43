//! Which record of a key does a snapshot see, and where does it lie?
//!
//! The hash index names the newest; older ones that a snapshot needs are noted in memory. A scan has guesses where a record may lie, and
//! believes what is there by the record alone.
//!
//! Invariants:
//! 1. K15: a record at its hint is believed if it has the hint's sequence number, is right, and is not marked as superseded. The number is the
//!    snapshot's or an older one: so every change that superseded it before the snapshot has marked it.
//! 2. A record that the hash index named after the snapshot was taken, with the snapshot's number or an older one, is what the snapshot sees: what
//!    superseded it before would have been named instead, and its slot is not used again while the snapshot lives.

use crate::core::Core;
use crate::env::TreeId;
use crate::error::Result;
use crate::iter::Seen;
use crate::media::Media;
use crate::ordered::Hint;
use crate::ordered::copies::{Origin, Source};
use crate::record::{self, Head, Key, TOLD, TOMBSTONE};

/// A record is looked at where it may lie only with so many bytes behind it: its header lies within.
const LEAST: u64 = 64;

impl<M: Media> Core<M> {
    /// The record of `key` that a snapshot with this number sees. The caller is pinned.
    #[inline]
    pub(crate) fn find_at(&self, key: &Key<'_>, sequence: u64) -> Result<Option<Seen>> {
        if let Some(found) = self.index.find(self.media(), key)?
            && found.head.sequence() <= sequence
        {
            return Ok((!found.head.is(TOMBSTONE)).then_some((found.at, found.head)));
        }
        self.find_older(key, sequence)
    }

    #[cold]
    fn find_older(&self, key: &Key<'_>, sequence: u64) -> Result<Option<Seen>> {
        for (at, number) in self.snapshots.find(key.hash, sequence) {
            let head = Head::load(self.media(), at);
            let fits = head.fits(at, self.media().len()) && head.sequence() == number;
            if fits && head.is_of(self.media(), at, key) {
                return Ok(Some((at, head)));
            }
            // It is right, and of another key with the same hash, or damaged, and may be this key's.
            record::read(self.media(), self.salt, at)?;
        }
        Ok(None)
    }

    /// Appends what may be the record at `hint`, whole, to `buf`, if it has the hint's number, that is not above `sequence`, and it has at most
    /// `most` bytes: whether something was appended. The caller is pinned, and goes on with [`Self::is_newest`].
    #[inline]
    pub(crate) fn append_hinted(&self, hint: Hint, sequence: u64, most: u64, buf: &mut Vec<u8>) -> bool {
        let (media, at) = (self.media(), hint.at());
        let len = media.len();
        if at == 0 || at > len - LEAST {
            return false;
        }
        let head = Head::load(media, at);
        let is_seen = head.is(TOLD) && head.sequence() <= sequence && hint.is_of(head.sequence());
        if is_seen && head.fits(at, len) && head.bytes() <= most {
            media.append_to(at, head.bytes() as usize, buf);
            return true;
        }
        false
    }

    /// Whether `record`, which was copied out at `at`, is right, and the newest of a key of `tree` that `is_key` knows.
    #[inline]
    pub(crate) fn is_newest(
        &self,
        tree: TreeId,
        at: u64,
        record: &[u8],
        is_key: impl FnOnce(&[u8]) -> bool,
    ) -> bool {
        let head = Head::of(record);
        let (its_tree, key, value) = head.parts(record);
        its_tree == tree
            && is_key(key)
            && head.is_newest(self.salt, at, record::hash(self.salt, tree, key), value)
    }

    /// Appends what may be the record at `guess`, which the hash index named since the snapshot with this number was taken, whole, to `buf`:
    /// whether something was appended. The caller is pinned, and goes on with [`Self::is_seen`].
    #[inline]
    pub(crate) fn append_named(&self, guess: u64, sequence: u64, buf: &mut Vec<u8>) -> bool {
        let Some(head) = self.head_named(guess, sequence) else { return false };
        self.media().append_to(guess, head.bytes() as usize, buf);
        true
    }

    /// Whether `record`, which was copied out at `at`, is right, and of the key of `tree` that `is_key` knows, whose hash is `hash`.
    #[inline]
    pub(crate) fn is_seen(
        &self,
        tree: TreeId,
        (hash, at): (u64, u64),
        record: &[u8],
        is_key: impl FnOnce(&[u8]) -> bool,
    ) -> bool {
        let head = Head::of(record);
        let (its_tree, key, value) = head.parts(record);
        its_tree == tree && is_key(key) && head.is_right(self.salt, at, hash, value)
    }

    /// Whether the record at `guess`, as for [`Self::append_named`], is what the snapshot sees of `key`; its value is not read.
    pub(crate) fn is_named(&self, key: &Key<'_>, guess: u64, sequence: u64) -> bool {
        self.head_named(guess, sequence).is_some_and(|head| head.is_of(self.media(), guess, key))
    }

    /// Whether the record that was copied from `origin` is the newest of its key, whose hash is `hash`, still. The caller is pinned.
    #[inline]
    pub(crate) fn is_still(&self, origin: &Origin, hash: u64) -> bool {
        let is_found = match origin.source {
            Source::Told => true,
            Source::Named => self.index.guess(self.media(), hash, origin.at) == origin.at,
            Source::Unknown => false,
        };
        is_found && Head::load(self.media(), origin.at) == origin.head
    }

    #[inline]
    fn head_named(&self, guess: u64, sequence: u64) -> Option<Head> {
        let len = self.media().len();
        if guess == 0 || guess > len - LEAST {
            return None;
        }
        let head = Head::load(self.media(), guess);
        let is_seen = !head.is(TOMBSTONE) && head.sequence() <= sequence;
        (is_seen && head.fits(guess, len)).then_some(head)
    }
}
