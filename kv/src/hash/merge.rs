//! How does the hash index get fewer segments, when most of its keys are gone?
//!
//! The reverse of a split: two segments whose keys have all bits of the hash but one in common give way to one with the entries of both, where that
//! takes fewer pages and has room for more. Their words change with a directory that is written anew (`rewrite`), for all pairs of a region of
//! hashes at once. When no segment is as deep as the directory, the directory becomes shorter.
//!
//! Invariants: K11. 1. Who merges has the locks of all hashes of the region, and nobody splits. 2. The old segments are given back when the
//! superblock durably names a directory without them, and the readers that were there have left.

use super::split::{Image, ROOMY, roomy};
use super::{Index, Segment, root_parts};
use crate::env::Env;
use crate::error::{Error, Result};
use crate::media::Media;
use crate::mutation::{self, Mutation};
use crate::sizes::Sizes;
use crate::stripes::Stripes;
use daxstore::sync::atomic::Ordering;

/// How many bits of the hash the keys of a region have in common: a 256th of all waits while its segments are merged.
const REGION: u32 = 8;

/// Entries of a page, of 256, that a segment which took two's has at most where it can not grow: so that it is not split at once.
const CALM: u64 = ROOMY * 9 / 10;

/// Where there is no space, things stay as they are.
pub(super) fn unless_full(done: Result<()>) -> Result<()> {
    match done {
        Err(Error::NoSpace { .. }) => Ok(()),
        done => done,
    }
}

/// A segment, and the first hash of its keys.
type Placed = (u64, Segment);

/// The first hash of what comes `1 << (64 - depth)` hashes after `hash`.
fn after(hash: u64, depth: u32) -> Option<u64> {
    hash.checked_add(1_u64.checked_shl(64 - depth)?)
}

impl Index {
    /// Puts one segment in the place of two, wherever that takes fewer pages, and a shorter directory in the place of one that is longer than the
    /// deepest segment needs. The caller holds no lock of a key.
    ///
    /// # Errors
    /// [`crate::error::Damage`] of what the search meets; those of the fences. Where there is no space, it ends early.
    pub fn merge<M: Media>(&self, env: &Env<M>, stripes: &Stripes) -> Result<()> {
        // Those of two that were merged may be merged again.
        while self.merge_once(env, stripes)? {}
        unless_full(self.narrow(env))
    }

    /// Goes over all segments once: whether any were merged.
    fn merge_once<M: Media>(&self, env: &Env<M>, stripes: &Stripes) -> Result<bool> {
        let (mut any, mut hash) = (false, Some(0));
        while let Some(first) = hash {
            let _one = self.splitting.lock();
            let segment = self.segment(&env.media, first)?;
            let depth = REGION.min(segment.depth.saturating_sub(1));
            // Regions begin where a segment does: a deep one's neighbour is of its region.
            let first = first >> (63 - depth) >> 1 << (63 - depth) << 1;
            let held = stripes.lock_prefix(first, depth);
            match self.merge_region(env, first, depth) {
                Err(Error::NoSpace { .. }) => return Ok(false),
                done => any |= done?,
            }
            drop(held);
            env.collect()?;
            hash = after(first, depth);
        }
        Ok(any)
    }

    /// Merges what can be of the segments of a region, whose locks the caller has: whether anything was.
    fn merge_region<M: Media>(&self, env: &Env<M>, first: u64, depth: u32) -> Result<bool> {
        let end = after(first, depth);
        let mut segments: Vec<Placed> = Vec::new();
        let mut hash = Some(first);
        while let Some(at) = hash.filter(|at| end.is_none_or(|end| *at < end)) {
            let segment = self.segment(&env.media, at)?;
            segments.push((at, segment));
            hash = after(at, segment.depth);
        }
        let (mut images, mut places, mut old) = (Vec::new(), Vec::new(), Vec::new());
        for pair in segments.windows(2) {
            let [(at, left), (_, right)] = pair else { continue };
            let is_pair =
                left.depth == right.depth && left.depth > depth && (at << (left.depth - 1)) >> 63 == 0;
            if !is_pair {
                continue;
            }
            if let Some(image) = self.merged(env, left, right) {
                images.push(image);
                places.push((*at, left.depth - 1));
                old.extend([left.at, right.at]);
            }
        }
        if images.is_empty() {
            return Ok(false);
        }
        let words = Image::write_all(env, images)?;
        if !mutation::is(Mutation::SplitFirst) {
            env.media.fence()?;
        }
        let bits = root_parts(self.root.load(Ordering::Acquire)).1;
        let rewritten = self.rewrite(env, bits, |directory| {
            for (word, (hash, depth)) in words.iter().zip(places) {
                let at = (hash >> (64 - bits)) as usize;
                directory[at..at + (1 << (bits - depth))].fill(*word);
            }
        });
        if rewritten.is_err() {
            words.iter().try_for_each(|word| env.free(Segment::of(*word).at))?;
        }
        rewritten?;
        old.into_iter().for_each(|at| env.retire(at));
        Ok(true)
    }

    /// What takes the place of two neighbours, if that is smaller and has room.
    fn merged<M: Media>(&self, env: &Env<M>, left: &Segment, right: &Segment) -> Option<Image> {
        let mut entries = left.named(&env.media);
        entries.extend(right.named(&env.media));
        let Sizes { least, most, .. } = env.sizes;
        if entries.len() as u64 > most * CALM {
            return None;
        }
        let depth = left.depth - 1;
        let mut window = left.window;
        if left.window != right.window || window > depth {
            // The entries have bits of which the common segment does not know where they begin.
            if self.retag(&env.media, &mut entries, depth).is_err() {
                // A damaged record is told of when it is read.
                return None;
            }
            window = depth;
        }
        let image = Image::of(&entries, depth, window, least.max(roomy(entries.len()))..=most);
        image.filter(|image| image.pages() < left.pages + right.pages)
    }

    /// Puts a directory in the place of one that is longer than the deepest segment needs.
    fn narrow<M: Media>(&self, env: &Env<M>) -> Result<()> {
        let _one = self.splitting.lock();
        let bits = root_parts(self.root.load(Ordering::Acquire)).1;
        let (mut deepest, mut hash) = (env.sizes.bits, Some(0));
        while let Some(first) = hash {
            let segment = self.segment(&env.media, first)?;
            deepest = deepest.max(segment.depth);
            hash = after(first, segment.depth);
        }
        if deepest < bits { self.rewrite(env, deepest, |_| ()) } else { Ok(()) }
    }
}
