//! How do any number of words of the directory change at once?
//!
//! The directory is written anew, and the superblock's word then names the new one, in one store. So it becomes longer and shorter, and so a
//! segment is replaced by more than two. It costs as much as the directory is long: what two words can say is done by an intent (`split`).
//!
//! Invariants: K11. 1. The new directory, and every segment that it names, is durable before the superblock names it. 2. Nobody else changes a
//! word meanwhile: who changes one splits. 3. The old directory lies still while readers are pinned.

use super::split::Image;
use super::{Index, Segment, root_parts};
use crate::chunks::ChunkKind;
use crate::env::Env;
use crate::error::{Error, Result};
use crate::layout::superblock::DIRECTORY;
use crate::media::Media;
use crate::mutation::{self, Mutation};
use crate::pages::PageKind;
use crate::sealed::seal;
use crate::superblock::store;
use daxstore::sync::atomic::Ordering;

impl Index {
    /// Puts a directory of 2^`bits` words in the place of the old one, with the same segments but for what `edit` changes. No segment is deeper than
    /// `bits`. The caller sees to it that nobody splits.
    ///
    /// # Errors
    /// [`Error::NoSpace`], before anything changed.
    pub(super) fn rewrite<M: Media>(
        &self,
        env: &Env<M>,
        bits: u32,
        edit: impl FnOnce(&mut [u64]),
    ) -> Result<()> {
        let (old, had) = root_parts(self.root.load(Ordering::Acquire));
        let (every, times) = (1 << had.saturating_sub(bits), 1 << bits.saturating_sub(had));
        let found = (0..1_u64 << had).step_by(every).map(|index| env.media.load(old + index * 8));
        let mut words: Vec<u64> = found.flat_map(|word| std::iter::repeat_n(word, times)).collect();
        edit(&mut words);
        let at = env.alloc_bytes(words.len() as u64 * 8, PageKind::Directory, ChunkKind::Directory)?;
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        env.media.write_through(at, &bytes);
        if !mutation::is(Mutation::DirectoryFirst) {
            env.media.fence()?;
        }
        let root = at | u64::from(bits);
        store(&env.media, DIRECTORY, seal(self.salt, DIRECTORY, root));
        env.media.fence()?;
        self.root.store(root, Ordering::Release);
        env.retire(old);
        Ok(())
    }

    /// Puts `images`, more than two, in the place of `segment`, that of `hash`. As [`Self::install`].
    ///
    /// # Errors
    /// [`Error::NoSpace`], before anything changed.
    pub(super) fn install_many<M: Media>(
        &self,
        env: &Env<M>,
        hash: u64,
        segment: Segment,
        images: Vec<Image>,
    ) -> Result<()> {
        let bits =
            images.iter().map(Image::depth).fold(root_parts(self.root.load(Ordering::Acquire)).1, u32::max);
        // Keys that agree in that much are no reason for a directory that is longer than everything else.
        if 8 << bits > env.media.len() {
            return Err(Error::NoSpace { needed: 8 << bits });
        }
        let depths: Vec<u32> = images.iter().map(Image::depth).collect();
        let words = Image::write_all(env, images)?;
        let mut at = match segment.depth {
            0 => 0,
            depth => (hash >> (64 - depth) << (bits - depth)) as usize,
        };
        let rewritten = self.rewrite(env, bits, |directory| {
            for (word, depth) in words.iter().zip(depths) {
                directory[at..at + (1 << (bits - depth))].fill(*word);
                at += 1 << (bits - depth);
            }
        });
        match rewritten {
            Ok(()) => env.retire(segment.at),
            Err(Error::NoSpace { needed }) => {
                words.iter().try_for_each(|word| env.free(Segment::of(*word).at))?;
                return Err(Error::NoSpace { needed });
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }
}
