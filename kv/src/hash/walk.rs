//! How is all of the hash index looked at, and how does it become smaller?
//!
//! Segments grow page by page while keys come, and stay as they are while keys go: [`Index::shrink`] puts smaller ones in their place, as a
//! split does; [`Index::merge`] then puts one in the place of two.
//!
//! Invariant: who goes over the segments meets each entry, whatever is split meanwhile: a segment is looked at under the locks of all its
//! hashes, and the next one is looked for where it ends.

use super::merge::unless_full;
use super::split::{Image, roomy};
use super::{HELD, Index, SLOT, Segment, root_parts};
use crate::env::Env;
use crate::error::{Error, Result};
use crate::media::Media;
use crate::sizes::Sizes;
use crate::stripes::Stripes;
use daxstore::sync::atomic::Ordering;

impl Segment {
    /// The hash that the next segment begins with; `None`: this is the last.
    pub(super) fn next(&self, hash: u64) -> Option<u64> {
        hash.checked_add(1_u64.checked_shl(64 - self.depth)?)
    }

    /// Its entries that name records.
    pub(super) fn named<M: Media>(&self, media: &M) -> Vec<u64> {
        let lines = (0..self.bytes() / 64).map(|line| media.load_line(self.at + line * 64));
        lines.flatten().filter(|entry| entry & SLOT > HELD).collect()
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
            let entries = places.map(|place| (place, (media.load(place) & SLOT) * 8));
            each(&entries.filter(|(_, at)| *at > HELD * 8).collect::<Vec<_>>());
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
