//! Does every word of the directory name a segment that is one?
//!
//! A word has no checksum. But the map of pages says where segments lie and how long they are, the words of a segment are equal, as many as its
//! depth says, and begin at a multiple of that: so a word that changed is found, when the database is opened, without a look at any segment.
//! (A window that changed is not: the check of the whole database finds that entries are not where their keys lead.)

use super::{HELD, Index, SLOT, Segment, root_parts};
use crate::env::Env;
use crate::error::{Damage, Error, Result, Structure};
use crate::media::Media;
use crate::pages::{self, PageKind};
use crate::stripes::Stripes;
use daxstore::sync::atomic::Ordering;

impl Index {
    /// What is wrong with entries that name nothing: these have no bits of a hash, so that one that named a record, and lost where that lies, is
    /// told from one that is empty.
    ///
    /// # Errors
    /// [`Damage`] of the directory: what comes after it was not looked at.
    pub fn check_empty<M: Media>(&self, media: &M, stripes: &Stripes, faults: &mut Vec<Error>) -> Result<()> {
        let mut hash = Some(0);
        while let Some(first) = hash {
            let segment = self.segment(media, first)?;
            let _held = stripes.lock_prefix(first, segment.depth);
            if self.segment(media, first)? != segment {
                continue;
            }
            for at in (segment.at..segment.at + segment.bytes()).step_by(8) {
                let entry = media.load(at);
                if entry > HELD && entry & SLOT <= HELD {
                    let what = "an entry that names a record, or has no bits of a hash";
                    faults.push(Damage::new(Structure::Entry, at, what, 0, entry).into());
                }
            }
            hash = segment.next(first);
        }
        Ok(())
    }

    /// Checks every word.
    ///
    /// # Errors
    /// [`Damage`] of the first that can not be.
    pub fn check_directory<M: Media>(&self, env: &Env<M>) -> Result<()> {
        let _one = self.splitting.lock();
        let (at, bits) = root_parts(self.root.load(Ordering::Acquire));
        let (mut index, mut all) = (0_u64, Vec::new());
        while index < 1 << bits {
            let word_at = at + index * 8;
            let word = env.media.load(word_at);
            let segment = Segment::of(word);
            let damage = |at, what, expected, found| {
                Err(Damage::new(Structure::Directory, at, what, expected, found).into())
            };
            if segment.word() != word
                || segment.depth > bits
                || segment.at + segment.bytes() > env.media.len()
            {
                return damage(word_at, "a segment within the file", env.media.len(), word);
            }
            let kind = pages::kind_at(&env.media, segment.at)?;
            if kind != PageKind::Segment(segment.pages as u16) || segment.pages < env.sizes.least {
                return damage(word_at, "a segment, by the map of pages", u64::from(kind.code()), word);
            }
            let count = 1 << (bits - segment.depth);
            if !index.is_multiple_of(count) {
                return damage(
                    word_at,
                    "a segment that begins where its depth says",
                    u64::from(segment.depth),
                    word,
                );
            }
            for other in (index..index + count).map(|other| at + other * 8) {
                let found = env.media.load(other);
                if found != word {
                    return damage(other, "the same word as others of its segment", word, found);
                }
            }
            all.push((segment.at, word_at));
            index += count;
        }
        all.sort_unstable();
        match all.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            Some(pair) => {
                let (at, word_at) = pair[1];
                Err(Damage::new(Structure::Directory, word_at, "a segment that is named once", 1, at).into())
            }
            None => Ok(()),
        }
    }
}
