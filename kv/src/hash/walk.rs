//! How is all of the hash index looked at, and how does it become smaller?
//!
//! Segments grow page by page while keys come, and stay as they are while keys go: [`Index::shrink`] puts smaller ones in their place, as a
//! split does; [`Index::merge`] then puts one in the place of two.
//!
//! Invariant: who goes over the segments meets each entry once, whatever is split or merged meanwhile: a segment is looked at under the locks of all
//! its hashes, from the hash on where the one before ended, and the next one is looked for where it ends.

use super::merge::unless_full;
use super::split::{Image, roomy};
use super::{HELD, Index, SLOT, Segment, WAS_USED, root_parts};
use crate::env::Env;
use crate::error::{Error, Result};
use crate::media::Media;
use crate::sizes::Sizes;
use crate::stripes::Stripes;
use daxstore::sync::atomic::Ordering;

/// How many bytes of a segment that is read are asked for ahead.
const AHEAD: u64 = 24 * 64;

impl Segment {
    /// The hash that the next segment begins with, after this one, which is that of `hash`; `None`: this is the last.
    pub(super) fn next(&self, hash: u64) -> Option<u64> {
        let bytes = 1_u64.checked_shl(64 - self.depth)?;
        (hash & !(bytes - 1)).checked_add(bytes)
    }

    /// Whether `hash`, one of its own, is the first.
    fn begins_with(&self, hash: u64) -> bool {
        hash.checked_shl(self.depth).unwrap_or(0) == 0
    }

    /// Whether the hash of an entry, so far as it says, is that of `from`, one of the segment's, or above.
    const fn is_from(&self, entry: u64, from: u64) -> bool {
        let rest = (u64::MAX >> self.window) & from;
        // Of the bits that all hashes of the segment have in common, the entry need not say anything.
        (entry & !SLOT) >> self.window >= rest & (!SLOT >> self.window)
    }

    /// Its entries that name records.
    pub(super) fn named<M: Media>(&self, media: &M) -> Vec<u64> {
        media.prefetch_bytes(self.at, AHEAD);
        let mut named = vec![0; (self.bytes() / 8) as usize];
        let mut count = 0;
        for line in (self.at..self.at + self.bytes()).step_by(64) {
            media.prefetch(line + AHEAD);
            // Without a branch for each: which of them name something follows no pattern.
            for entry in media.load_line(line) {
                named[count] = entry;
                count += usize::from(entry & SLOT > HELD);
            }
        }
        named.truncate(count);
        named
    }

    /// How many of its words are left of keys that went.
    pub(super) fn former<M: Media>(&self, media: &M) -> u64 {
        let lines = (self.at..self.at + self.bytes()).step_by(64).map(|line| media.load_line(line));
        lines.map(|line| line.iter().map(|entry| u64::from(*entry == WAS_USED)).sum::<u64>()).sum()
    }
}

impl Index {
    /// Calls `each` with the entries of a segment that name records, where they lie and where the records do, segment by segment, while nobody
    /// changes that one.
    ///
    /// # Errors
    /// [`crate::error::Damage`] of the directory: what comes after it was not looked at.
    pub fn each_segment<M: Media>(
        &self,
        media: &M,
        stripes: &Stripes,
        mut each: impl FnMut(&[(u64, u64)]),
    ) -> Result<()> {
        let mut hash = Some(0);
        while let Some(first) = hash {
            let segment = self.segment(media, first)?;
            let _held = stripes.lock_prefix(first, segment.depth);
            // What was split before the locks were there is looked at again.
            if self.segment(media, first)? != segment {
                continue;
            }
            let places = (segment.at..segment.at + segment.bytes()).step_by(8);
            let entries = places.map(|place| (place, media.load(place)));
            // What lies before was met, if this segment took the place of one that was looked at.
            let is_new = |entry| segment.begins_with(first) || segment.is_from(entry, first);
            let entries = entries.filter(|(_, entry)| entry & SLOT > HELD && is_new(*entry));
            each(&entries.map(|(place, entry)| (place, (entry & SLOT) * 8)).collect::<Vec<_>>());
            hash = segment.next(first);
        }
        Ok(())
    }

    /// Calls `each` with where the directory and the segments lie; none is replaced meanwhile.
    ///
    /// # Errors
    /// [`crate::error::Damage`] of the directory.
    pub fn each_page<M: Media>(&self, env: &Env<M>, mut each: impl FnMut(u64)) -> Result<()> {
        let _one = self.splitting.lock();
        each(root_parts(self.root.load(Ordering::Acquire)).0);
        let mut hash = Some(0);
        while let Some(first) = hash {
            let segment = self.segment(&env.media, first)?;
            each(segment.at);
            hash = segment.next(first);
        }
        Ok(())
    }

    /// The records that the entries of the segment of `hash` name, which begins with it, and the hash that the next one begins with.
    ///
    /// # Errors
    /// [`crate::error::Damage`] of the directory.
    pub fn records_of<M: Media>(&self, media: &M, hash: u64) -> Result<(Vec<u64>, Option<u64>)> {
        let segment = self.segment(media, hash)?;
        let records = segment.named(media).iter().map(|entry| (entry & SLOT) * 8).collect();
        Ok((records, segment.next(hash)))
    }

    /// Puts smaller segments in the place of those that are larger than their entries need, and others in the place of those, and of the directory,
    /// that lie where pages are to be left. The caller holds no lock of a key.
    ///
    /// # Errors
    /// [`crate::error::Damage`] of the directory; those of the fences. Where there is no space, it ends early.
    pub fn shrink<M: Media>(&self, env: &Env<M>, stripes: &Stripes) -> Result<()> {
        let mut hash = Some(0);
        while let Some(first) = hash {
            let _one = self.splitting.lock();
            let segment = self.segment(&env.media, first)?;
            let held = stripes.lock_prefix(first, segment.depth);
            let is_leaving = env.pages.is_closed(segment.at);
            let entries = segment.named(&env.media);
            let Sizes { least, most, .. } = env.sizes;
            let least = least.max(roomy(entries.len()).min(segment.pages));
            let image = Image::of(&entries, segment.depth, segment.window, least..=most);
            if let Some(image) = image.filter(|image| image.pages() < segment.pages || is_leaving) {
                match self.install(env, first, segment, vec![image]) {
                    Err(Error::NoSpace { .. }) => return Ok(()),
                    done => done?,
                }
            }
            drop(held);
            // What was replaced is free for the next ones.
            env.collect()?;
            hash = segment.next(first);
        }
        let _one = self.splitting.lock();
        let (at, bits) = root_parts(self.root.load(Ordering::Acquire));
        match env.pages.is_closed(at) {
            true => unless_full(self.rewrite(env, bits, |_| ())),
            false => Ok(()),
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::hash::{SLOT_BITS, tag_of};

    /// Who looked at the left one of two segments, which then became one, meets what the right one had, and nothing twice.
    #[test]
    fn what_was_merged_is_gone_over_from_its_middle() {
        for (window, depth) in [(0, 5), (3, 5), (5, 5), (20, 30)] {
            let segment = Segment { at: 0, pages: 4, depth, window };
            let hash = |rest: u64| (0xabcd_ef01_2345_6789 & !(u64::MAX >> depth)) | rest >> depth;
            let entry = |hash| tag_of(hash, window) << SLOT_BITS | 99;
            let (start, middle) = (hash(0), hash(1 << 63));
            assert!(segment.begins_with(start) && !segment.begins_with(middle));
            assert_eq!(segment.next(middle), segment.next(start));
            assert_eq!(segment.next(start), start.checked_add(1 << (64 - depth)));
            for rest in [0, 1 << 62, (1 << 63) - 1, 1 << 63, 3 << 62, u64::MAX] {
                assert_eq!(segment.is_from(entry(hash(rest)), middle), rest >> 63 == 1, "{rest:x}");
            }
        }
        assert_eq!(Segment { at: 0, pages: 4, depth: 0, window: 0 }.next(7), None);
    }
}
