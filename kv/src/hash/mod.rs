//! Where does the newest record of a key lie?
//!
//! An extendible hash index: the first bits of a hash choose a word of the directory, which names a segment of 4 to 7 pages; the
//! next 12 bits a pair of lines in it. An entry is one word: 28 bits of the hash, and where the record lies. A key's entry is in one of
//! the 8 lines that begin with its pair, in the first that had room.
//!
//! | bits of a directory word | what |
//! | ---: | --- |
//! | 0-2 | pages of the segment |
//! | 3-8 | depth: how many bits of the hash all keys of the segment have in common |
//! | 11-47 | offset of the segment |
//! | 48-53 | window: which bit of the hash an entry's bits begin with |
//!
//! | bits of an entry | what |
//! | ---: | --- |
//! | 0-35 | offset of the record in units of 8 bytes; 0: empty, 1: was used, 2: held for a change under way |
//! | 36-63 | 28 bits of the hash from the window on |
//!
//! Invariants:
//! 1. An entry does not move within its segment, and a line that had no empty entry never has one again: so a search ends at an empty entry.
//!    K21: not after a crash either: who takes an entry behind full lines flushes these under its own fence. What they have may be held by a change
//!    that power cuts off, and then nothing would fill their place again, and the search for the key end there.
//! 2. Who stores entries holds the lock of the hash; who replaces a segment holds those of all its hashes.
//! 3. K11: a segment is durable before the directory names it, and the words of the directory that change together do so by an intent.
//! 4. Readers take no lock: they see a segment as it is or as it was when it was replaced, and both lie still while they are pinned.

mod directory;
mod merge;
mod rewrite;
mod split;
mod walk;

pub use split::Room;

use crate::env::Env;
use crate::error::{Damage, Result, Structure};
use crate::layout::superblock::DIRECTORY;
use crate::layout::{PAGE, SLOT_BITS};
use crate::media::Media;
use crate::mutation::{self, Mutation};
use crate::pages::PageKind;
use crate::record::{self, Head, Key};
use crate::sealed::seal;
use crate::sizes::Sizes;
use crate::superblock::{self, store};
use daxstore::sync::Mutex;
use daxstore::sync::atomic::{AtomicU64, Ordering};

const SLOT: u64 = (1 << SLOT_BITS) - 1;
/// An entry that was used.
const WAS_USED: u64 = 1;
/// An entry that a change under way holds.
const HELD: u64 = 2;
/// Lines that may hold a key.
const LINES: u64 = 8;
/// Bytes of a pair of lines.
const PAIR: u64 = 128;
/// Bits of the hash that choose the pair.
const PAIR_BITS: u32 = 12;

/// The bits of `hash` that an entry keeps.
#[inline]
const fn tag_of(hash: u64, window: u32) -> u64 {
    (hash << window) >> SLOT_BITS
}

/// A segment, as a word of the directory names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Segment {
    at: u64,
    pages: u64,
    depth: u32,
    window: u32,
}

impl Segment {
    const fn word(&self) -> u64 {
        self.at | self.pages | (self.depth as u64) << 3 | (self.window as u64) << 48
    }

    #[inline]
    const fn of(word: u64) -> Self {
        Self {
            at: word & 0xffff_ffff_f800,
            pages: word & 7,
            depth: (word >> 3 & 63) as u32,
            window: (word >> 48 & 63) as u32,
        }
    }

    const fn pairs(&self) -> u64 {
        self.pages * (PAGE / PAIR)
    }

    const fn bytes(&self) -> u64 {
        self.pages * PAGE
    }

    /// The line that is the `n`-th where a key with these bits may lie.
    #[inline]
    const fn line(&self, first_pair: u64, tag: u64, n: u64) -> u64 {
        let pair = first_pair + n / 2;
        let pair = if pair >= self.pairs() { pair - self.pairs() } else { pair };
        self.at + pair * PAIR + ((tag ^ n) & 1) * 64
    }

    /// The first pair of an entry with these bits.
    #[inline]
    const fn pair_of(&self, tag: u64) -> u64 {
        self.pair((tag << SLOT_BITS) << (self.depth - self.window))
    }

    /// The first pair of a hash, whose bits from the depth on are `rest`.
    #[inline]
    const fn pair(&self, rest: u64) -> u64 {
        ((rest >> (64 - PAIR_BITS)) * self.pairs()) >> PAIR_BITS
    }
}

/// The hash index.
#[derive(Debug)]
pub struct Index {
    /// The word of the superblock, as it is.
    root: AtomicU64,
    splitting: Mutex<()>,
    salt: u64,
}

/// An entry of a key.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    /// Where the entry lies.
    pub place: Place,
    /// Where its record lies.
    pub at: u64,
    /// The record's header.
    pub head: Head,
}

/// Where an entry lies.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// Offset of the entry.
    pub at: u64,
    window: u32,
}

/// An entry that could be held.
#[derive(Clone, Copy, Debug)]
pub struct Free {
    place: Place,
    was: u64,
    /// Lines before its own where the key could have lain.
    passed: u64,
}

/// What was found where a key's entry may be.
#[derive(Clone, Copy, Debug)]
pub enum Look {
    /// The entry.
    Found(Found),
    /// None, and the first that the key could have.
    Free(Free),
    /// None, and no room for one.
    Full(Full),
}

/// An entry that was seen by somebody who is not pinned, and the words that led to it.
#[derive(Clone, Copy, Debug)]
pub struct Glimpse {
    root: u64,
    word_at: u64,
    word: u64,
    entry_at: u64,
    entry: u64,
}

impl Glimpse {
    /// Where the record lies.
    #[inline]
    pub const fn at(&self) -> u64 {
        (self.entry & SLOT) * 8
    }
}

/// That there is no room for a key in its segment, which is to be replaced.
#[derive(Clone, Copy, Debug)]
pub struct Full {
    word: u64,
}

impl Full {
    /// The least of the hashes that the segment is for, one of which is `hash`.
    pub const fn first(&self, hash: u64) -> u64 {
        let rest = 64 - Segment::of(self.word).depth;
        if rest < 64 { hash >> rest << rest } else { 0 }
    }
}

/// Starts writing back the first `passed` lines where the entry of `hash` could have been: they are full, and must be so after a crash.
fn flush_passed<M: Media>(media: &M, segment: &Segment, hash: u64, passed: u64) {
    let (tag, pair) = (tag_of(hash, segment.window), segment.pair(hash << segment.depth));
    if !mutation::is(Mutation::NoPassedFlush) {
        (0..passed).for_each(|n| media.flush(segment.line(pair, tag, n), 64));
    }
}

/// Which entries of a line have the tag, as bits, and whether one is empty. Without a branch for each: which it is follows no pattern.
#[inline]
fn alike(entries: &[u64; 8], tag: u64) -> (u32, bool) {
    let bits = entries.iter().enumerate().map(|(i, entry)| u32::from(entry >> SLOT_BITS == tag) << i);
    (bits.fold(0, |all, bit| all | bit), entries.iter().fold(false, |is, entry| is | (*entry == 0)))
}

#[inline]
const fn root_parts(root: u64) -> (u64, u32) {
    (root & !0xff, (root & 0xff) as u32)
}

impl Index {
    /// A new one, durable with this thread's fence.
    ///
    /// # Errors
    /// [`crate::Error::NoSpace`].
    pub fn create<M: Media>(env: &Env<M>, salt: u64) -> Result<Self> {
        let Sizes { least: pages, bits, .. } = env.sizes;
        let at = env.alloc_pages(PageKind::Segment(pages as u16))?;
        let segment = Segment { at, pages, depth: 0, window: 0 };
        env.media.write_through(at, &vec![0; segment.bytes() as usize]);
        let directory = env.alloc_pages(PageKind::Directory(1))?;
        env.media.write_through(directory, &segment.word().to_le_bytes().repeat(1 << bits));
        env.media.fence()?;
        let root = directory | u64::from(bits);
        store(&env.media, DIRECTORY, seal(salt, DIRECTORY, root));
        Ok(Self { root: AtomicU64::new(root), splitting: Mutex::default(), salt })
    }

    /// The one in `env`, with a split finished that was under way.
    ///
    /// # Errors
    /// [`Damage`] of the superblock's word.
    pub fn open<M: Media>(env: &Env<M>, salt: u64, writable: bool) -> Result<Self> {
        let root = superblock::load(&env.media, salt, DIRECTORY)?;
        let (at, bits) = root_parts(root);
        if !(env.sizes.bits..40).contains(&bits) || at + (8 << bits) > env.media.len() {
            let what = "a directory within the file";
            return Err(Damage::new(Structure::Superblock, DIRECTORY, what, env.media.len(), root).into());
        }
        let index = Self { root: AtomicU64::new(root), splitting: Mutex::default(), salt };
        if writable {
            index.finish_split(env)?;
        }
        index.check_directory(env)?;
        Ok(index)
    }

    /// The segment of `hash`.
    #[inline]
    fn segment<M: Media>(&self, media: &M, hash: u64) -> Result<Segment> {
        let (at, bits) = root_parts(self.root.load(Ordering::Acquire));
        let word_at = at + (hash >> (64 - bits)) * 8;
        let word = media.load(word_at);
        let segment = Segment::of(word);
        if segment.pages == 0 || segment.at + segment.bytes() > media.len() || segment.depth > bits {
            let what = "a segment within the file";
            return Err(Damage::new(Structure::Directory, word_at, what, media.len(), word).into());
        }
        Ok(segment)
    }

    /// Asks for the lines where the entry of `hash` may be.
    #[inline]
    pub fn prefetch<M: Media>(&self, media: &M, hash: u64) {
        if let Ok(segment) = self.segment(media, hash) {
            let tag = tag_of(hash, segment.window);
            let pair = segment.pair(hash << segment.depth);
            media.prefetch(segment.line(pair, tag, 0));
        }
    }

    /// An entry that `hash` could have, if its first line says that it has none; else asks for the record that it most likely leads to, and for the
    /// next line where the first is full. The caller holds the key's lock.
    #[inline]
    pub fn free_at_once<M: Media>(&self, media: &M, hash: u64) -> Option<Free> {
        let segment = self.segment(media, hash).ok()?;
        let tag = tag_of(hash, segment.window);
        let line = segment.line(segment.pair(hash << segment.depth), tag, 0);
        let entries = media.load_line(line);
        // Entries are taken from the first on: what is empty lies behind all that are not.
        let (mut used, mut doubt) = (0, false);
        for entry in entries {
            used += u64::from(entry != 0);
            doubt |= (entry >> SLOT_BITS == tag) | (entry & SLOT == WAS_USED);
        }
        if used < 8 && !doubt {
            let place = Place { at: line + used * 8, window: segment.window };
            return Some(Free { place, was: 0, passed: 0 });
        }
        let mut alike =
            entries.into_iter().filter(|entry| entry >> SLOT_BITS == tag && entry & SLOT > HELD).peekable();
        if used == 8 && alike.peek().is_none() {
            media.prefetch(segment.line(segment.pair(hash << segment.depth), tag, 1));
        }
        for entry in alike {
            let at = (entry & SLOT) * 8;
            media.prefetch(at);
            media.prefetch(at + 32);
        }
        None
    }

    /// Where the record that `hash` most likely leads to lies, which is at `hint` or not; 0: nobody knows. Who looks there compares the
    /// key, and calls [`Self::find`] where that differs; he is pinned from before the call.
    #[inline]
    pub fn guess<M: Media>(&self, media: &M, hash: u64, hint: u64) -> u64 {
        let Ok(segment) = self.segment(media, hash) else { return 0 };
        let tag = tag_of(hash, segment.window);
        let line = media.load_line(segment.line(segment.pair(hash << segment.depth), tag, 0));
        let hinted = (tag << SLOT_BITS) | (hint / 8);
        // Without a branch for each entry: which of them it is follows no pattern.
        if hint / 8 > HELD && line.iter().fold(false, |is, entry| is | (*entry == hinted)) {
            return hint;
        }
        let named = |entry: &&u64| **entry >> SLOT_BITS == tag && **entry & SLOT > HELD;
        line.iter().find(named).map_or(0, |entry| (entry & SLOT) * 8)
    }

    /// Asks for the header and the key of the record that `hash` most likely leads to. The caller need not be pinned.
    #[inline]
    pub fn prefetch_head<M: Media>(&self, media: &M, hash: u64) {
        let Some(glimpse) = self.glimpse(media, hash) else { return };
        media.prefetch(glimpse.at());
        media.prefetch(glimpse.at() + 32);
    }

    /// The record that `hash` most likely leads to, for who is not pinned; `None`: who wants to know has to look, pinned.
    #[inline]
    pub fn glimpse<M: Media>(&self, media: &M, hash: u64) -> Option<Glimpse> {
        let root = self.root.load(Ordering::Acquire);
        let (at, bits) = root_parts(root);
        let word_at = at + (hash >> (64 - bits)) * 8;
        let word = media.load(word_at);
        let segment = Segment::of(word);
        if segment.pages == 0 || segment.depth > bits {
            return None;
        }
        let tag = tag_of(hash, segment.window);
        let pair = segment.pair(hash << segment.depth);
        for n in 0..LINES {
            let line = segment.line(pair, tag, n);
            let entries = media.load_line(line);
            let (alike, has_empty) = alike(&entries, tag);
            if let Some(entry) = entries.get(alike.trailing_zeros() as usize) {
                let entry_at = line + u64::from(alike.trailing_zeros()) * 8;
                let glimpse = Glimpse { root, word_at, word, entry_at, entry: *entry };
                return (entry & SLOT > HELD).then_some(glimpse);
            }
            if has_empty {
                return None;
            }
        }
        None
    }

    /// Whether what led to `glimpse` is what it was: then its record was named all the while, or again.
    #[inline]
    pub fn is_still<M: Media>(&self, media: &M, glimpse: &Glimpse) -> bool {
        media.load(glimpse.entry_at) == glimpse.entry
            && media.load(glimpse.word_at) == glimpse.word
            && self.root.load(Ordering::Acquire) == glimpse.root
    }

    /// Asks for the record that `hash` most likely leads to.
    #[inline]
    pub fn prefetch_record<M: Media>(&self, media: &M, hash: u64) {
        let Ok(segment) = self.segment(media, hash) else { return };
        let tag = tag_of(hash, segment.window);
        let line = media.load_line(segment.line(segment.pair(hash << segment.depth), tag, 0));
        for entry in line {
            if entry >> SLOT_BITS == tag && entry & SLOT > HELD {
                let at = (entry & SLOT) * 8;
                media.prefetch(at);
                media.prefetch(at + 64);
                media.prefetch(at + 128);
            }
        }
    }

    /// The entry of `key`. The caller is pinned, or holds the key's lock.
    ///
    /// # Errors
    /// [`Damage`] of what the search meets.
    #[inline]
    pub fn find<M: Media>(&self, media: &M, key: &Key<'_>) -> Result<Option<Found>> {
        Ok(match self.look(media, key)? {
            Look::Found(found) => Some(found),
            Look::Free(_) | Look::Full(_) => None,
        })
    }

    /// The entry of `key`, or where it could have one. The caller is pinned, or holds the key's lock.
    ///
    /// # Errors
    /// [`Damage`] of what the search meets.
    #[inline]
    pub fn look<M: Media>(&self, media: &M, key: &Key<'_>) -> Result<Look> {
        let segment = self.segment(media, key.hash)?;
        let tag = tag_of(key.hash, segment.window);
        let pair = segment.pair(key.hash << segment.depth);
        let mut free = None;
        for n in 0..LINES {
            let line = segment.line(pair, tag, n);
            let entries = media.load_line(line);
            let (mut alike, has_empty) = alike(&entries, tag);
            while alike != 0 {
                let i = alike.trailing_zeros();
                alike &= alike - 1;
                let at = entries[i as usize] & SLOT;
                let place = Place { at: line + u64::from(i) * 8, window: segment.window };
                if at > HELD
                    && let Some(found) = self.look_at(media, key, place, at * 8)?
                {
                    return Ok(Look::Found(found));
                }
            }
            if free.is_none()
                && let Some(i) = entries.iter().position(|entry| entry & SLOT <= WAS_USED)
            {
                let place = Place { at: line + i as u64 * 8, window: segment.window };
                free = Some(Free { place, was: entries[i], passed: n });
            }
            if has_empty {
                break;
            }
        }
        Ok(free.map_or(Look::Full(Full { word: segment.word() }), Look::Free))
    }

    /// The entry at `place` if the record at `at` is one of `key`.
    #[inline]
    fn look_at<M: Media>(&self, media: &M, key: &Key<'_>, place: Place, at: u64) -> Result<Option<Found>> {
        if at > media.len() - 64 {
            let what = "a record within the file";
            return Err(Damage::new(Structure::Entry, place.at, what, media.len(), at).into());
        }
        let head = Head::load(media, at);
        if head.fits(at, media.len()) && head.is_of(media, at, key) {
            return Ok(Some(Found { place, at, head }));
        }
        self.look_at_other(media, place, at)
    }

    /// What an entry leads to that is not what was looked for: the record of another key with the same bits, or damage.
    #[cold]
    fn look_at_other<M: Media>(&self, media: &M, place: Place, at: u64) -> Result<Option<Found>> {
        let head = Head::load(media, at);
        if head.fits(at, media.len()) {
            let mut bytes = Vec::new();
            media.append_to(at + head.before_key(), head.key_len(), &mut bytes);
            let hash = record::hash(self.salt, head.tree(media, at), &bytes);
            let entry = media.load(place.at);
            if entry & SLOT != at / 8 || tag_of(hash, place.window) == entry >> SLOT_BITS {
                return Ok(None);
            }
        }
        let whole = record::read(media, self.salt, at)?;
        let what = "the bits of the hash of its record's key";
        Err(Damage::new(Structure::Entry, place.at, what, tag_of(whole.hash, place.window), at).into())
    }

    /// Whether the entry of `hash` names the record at `at`.
    ///
    /// # Errors
    /// [`Damage`] of the directory.
    pub fn names<M: Media>(&self, media: &M, hash: u64, at: u64) -> Result<Option<Place>> {
        let segment = self.segment(media, hash)?;
        let tag = tag_of(hash, segment.window);
        let pair = segment.pair(hash << segment.depth);
        for n in 0..LINES {
            let line = segment.line(pair, tag, n);
            let entries = media.load_line(line);
            if let Some(i) = entries.iter().position(|entry| *entry == (tag << SLOT_BITS) | (at / 8)) {
                return Ok(Some(Place { at: line + i as u64 * 8, window: segment.window }));
            }
            if entries.contains(&0) {
                return Ok(None);
            }
        }
        Ok(None)
    }

    /// Holds the entry that [`Self::look`] found free for a key that has none, or another where that is not free any more. The caller has had the
    /// key's lock since before, and fills it or lets it go.
    ///
    /// # Errors
    /// [`Damage`] of the directory.
    #[inline]
    pub fn hold_free<M: Media>(&self, media: &M, hash: u64, free: Free) -> Result<Result<Place, Full>> {
        match media.compare_exchange(free.place.at, free.was, HELD) {
            Ok(_) if free.passed == 0 => Ok(Ok(free.place)),
            Ok(_) => {
                let segment = self.segment(media, hash)?;
                flush_passed(media, &segment, hash, free.passed);
                Ok(Ok(free.place))
            }
            Err(_) => self.hold(media, hash),
        }
    }

    /// Holds an entry for a key that has none. The caller has the key's lock, and fills it or lets it go.
    ///
    /// # Errors
    /// [`Damage`] of the directory.
    #[inline]
    pub fn hold<M: Media>(&self, media: &M, hash: u64) -> Result<Result<Place, Full>> {
        let segment = self.segment(media, hash)?;
        let tag = tag_of(hash, segment.window);
        let pair = segment.pair(hash << segment.depth);
        for n in 0..LINES {
            let line = segment.line(pair, tag, n);
            for (i, entry) in media.load_line(line).into_iter().enumerate() {
                let at = line + i as u64 * 8;
                let is_free = entry & SLOT <= WAS_USED;
                if is_free && media.compare_exchange(at, entry, HELD).is_ok() {
                    flush_passed(media, &segment, hash, n);
                    return Ok(Ok(Place { at, window: segment.window }));
                }
            }
        }
        Ok(Err(Full { word: segment.word() }))
    }

    /// Makes the entry at `place` name the record at `at`. The caller has the lock of `hash`.
    #[inline]
    pub fn fill<M: Media>(&self, media: &M, place: Place, hash: u64, at: u64) {
        media.store(place.at, (tag_of(hash, place.window) << SLOT_BITS) | (at / 8));
    }

    /// Gives the entry at `place` up. The caller has the lock of its hash.
    #[inline]
    pub fn clear<M: Media>(&self, media: &M, place: Place) {
        media.store(place.at, WAS_USED);
    }
}
