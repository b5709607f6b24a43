//! Does every word of the directory name a segment that is one?
//!
//! A word has no checksum. But the map of pages says where segments lie and how long they are, the words of a segment are equal, as many as its
//! depth says, and begin at a multiple of that: so a word that changed is found, when the database is opened, without a look at any segment.
//! (A window that changed is not: the check of the whole database finds that entries are not where their keys lead.)

use super::{HELD, Index, SLOT, Segment, root_parts};
use crate::env::Env;
use crate::error::{Damage, Error, Result, Structure};
use crate::layout::PAGE;
use crate::media::Media;
use crate::pages::{self, PageKind};
use crate::stripes::Stripes;
use daxstore::sync::atomic::Ordering;

/// Words ahead of which the code in a map of pages is asked for.
const AHEAD: u64 = 32;

/// Bits of pages.
struct PageSet(Vec<u64>);

impl PageSet {
    /// Adds the page at byte `at`: whether it was not there.
    fn insert(&mut self, at: u64) -> bool {
        let (word, bit) = ((at / PAGE / 64) as usize, 1 << (at / PAGE % 64));
        let Some(word) = self.0.get_mut(word) else { return true };
        let is_new = *word & bit == 0;
        *word |= bit;
        is_new
    }
}

fn damage(at: u64, what: &'static str, expected: u64, found: u64) -> Error {
    Damage::new(Structure::Directory, at, what, expected, found).into()
}

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
        let mut all = PageSet(vec![0; (env.media.len() / PAGE / 64 + 1) as usize]);
        let mut index = 0_u64;
        while index < 1 << bits {
            let word_at = at + index * 8;
            if index + AHEAD < 1 << bits {
                let ahead = Segment::of(env.media.load(word_at + AHEAD * 8));
                env.media.prefetch(pages::code_word(ahead.at));
            }
            let segment = check_segment(env, word_at, bits)?;
            let count = 1 << (bits - segment.depth);
            if !index.is_multiple_of(count) {
                let what = "a segment that begins where its depth says";
                return Err(damage(word_at, what, u64::from(segment.depth), segment.word()));
            }
            for other in (index..index + count).map(|other| at + other * 8) {
                let found = env.media.load(other);
                if found != segment.word() {
                    let what = "the same word as others of its segment";
                    return Err(damage(other, what, segment.word(), found));
                }
            }
            if !all.insert(segment.at) {
                return Err(damage(word_at, "a segment that is named once", 1, segment.at));
            }
            index += count;
        }
        Ok(())
    }
}

/// The segment that the word at `word_at` names, if it can be one.
fn check_segment<M: Media>(env: &Env<M>, word_at: u64, bits: u32) -> Result<Segment> {
    let word = env.media.load(word_at);
    let segment = Segment::of(word);
    let fits = segment.at + segment.bytes() <= env.media.len();
    if segment.word() != word || segment.depth > bits || !fits {
        return Err(damage(word_at, "a segment within the file", env.media.len(), word));
    }
    let kind = pages::kind_at(&env.media, segment.at)?;
    if kind != PageKind::Segment(segment.pages as u16) || segment.pages < env.sizes.least {
        return Err(damage(word_at, "a segment, by the map of pages", u64::from(kind.code()), word));
    }
    Ok(segment)
}
