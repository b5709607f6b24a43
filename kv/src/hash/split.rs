//! How does the hash index grow while it is used?
//!
//! A segment without room is replaced: by one with a page more, or by two of twice the depth's reach. What is new is durable before the
//! directory names it, and the old one stays as it is for who still reads it. Only changes of its own keys wait, some microseconds.
//!
//! | byte of the intent | what |
//! | ---: | --- |
//! | 0 | checksum; 0: no split is under way |
//! | 8 | the first word of the directory that changes |
//! | 16 | how many change |
//! | 24 | what they are |
//! | 32 | what the first half becomes |
//! | 40 | what the second half becomes |
//!
//! Invariants: K11. 1. The intent is durable before the first word changes, where several do. 2. It is gone durably before the old
//! segment can be used again. So every crash leaves words that recovery can bring to the one or the other state.
//! (Each word by itself leads to its keys either way, as the old segment still has them all; the intent keeps the words of a segment
//! equal, on which whoever goes over the segments relies.)

use super::{Full, HELD, Index, LINES, PAIR_BITS, SLOT, SLOT_BITS, Segment, root_parts, tag_of};
use crate::chunks::ChunkKind;
use crate::env::Env;
use crate::error::{Error, Result};
use crate::layout::PAGE;
use crate::layout::superblock::{DIRECTORY, SPLIT};
use crate::media::Media;
use crate::mutation::{self, Mutation};
use crate::pages::PageKind;
use crate::record::{self, Head};
use crate::sealed::seal;
use crate::sizes::Sizes;
use crate::stripes::Stripes;
use crate::superblock::store;
use daxstore::sync::atomic::Ordering;
use std::ops::RangeInclusive;
use xxhash_rust::xxh3::xxh3_64_with_seed;

// The bits that choose a pair are among those that an entry keeps, however far depth and window are apart.
const _: () = assert!(PAIR_BITS + Sizes::DEFAULT.apart < 64 - SLOT_BITS);

/// Entries that a page has when there is room for some more: of 256.
const ROOMY: u64 = 200;

/// Entries of a page when it is full of former ones rather than of entries: of 256.
const SPARSE: u64 = 128;

/// How much room is to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// For a key.
    Enough,
    /// For many: the segment grows, whatever it is full of.
    More,
}

/// A segment that is being made.
struct Image {
    segment: Segment,
    words: Vec<u64>,
}

impl Image {
    fn new(pages: u64, depth: u32, window: u32) -> Self {
        let segment = Segment { at: 0, pages, depth, window };
        Self { segment, words: vec![0; (segment.bytes() / 8) as usize] }
    }

    /// Enters an entry of the window; whether there was room.
    fn enter(&mut self, entry: u64) -> bool {
        let tag = entry >> SLOT_BITS;
        let pair = self.segment.pair((tag << SLOT_BITS) << (self.segment.depth - self.segment.window));
        for n in 0..LINES {
            let line = (self.segment.line(pair, tag, n) / 8) as usize;
            if let Some(free) = self.words[line..line + 8].iter_mut().find(|word| **word == 0) {
                *free = entry;
                return true;
            }
        }
        false
    }

    /// The smallest segment for these entries, of so many pages.
    fn of(entries: &[u64], depth: u32, window: u32, pages: RangeInclusive<u64>) -> Option<Self> {
        let least = (entries.len() as u64).div_ceil(ROOMY).max(*pages.start());
        (least..=*pages.end()).find_map(|pages| {
            let mut image = Self::new(pages, depth, window);
            entries.iter().all(|entry| image.enter(*entry)).then_some(image)
        })
    }

    fn write<M: Media>(&mut self, env: &Env<M>) -> Result<u64> {
        self.segment.at = env.alloc_pages(PageKind::Segment(self.segment.pages as u16))?;
        let bytes: Vec<u8> = self.words.iter().flat_map(|word| word.to_le_bytes()).collect();
        env.media.write_through(self.segment.at, &bytes);
        Ok(self.segment.word())
    }
}

/// The words of the directory that change.
#[derive(Clone, Copy)]
struct Change {
    first: u64,
    count: u64,
    old: u64,
    left: u64,
    right: u64,
}

impl Change {
    fn check(&self, salt: u64) -> u64 {
        let words = [self.first, self.count, self.old, self.left, self.right];
        xxh3_64_with_seed(words.map(u64::to_le_bytes).as_flattened(), salt) | 1
    }

    fn load<M: Media>(media: &M, salt: u64) -> Option<Self> {
        let word = |n: u64| media.load(SPLIT + n * 8);
        let change = Self { first: word(1), count: word(2), old: word(3), left: word(4), right: word(5) };
        (word(0) == change.check(salt)).then_some(change)
    }

    fn announce<M: Media>(&self, media: &M, salt: u64) -> Result<()> {
        for (n, word) in (1..).zip([self.first, self.count, self.old, self.left, self.right]) {
            media.store(SPLIT + n * 8, word);
        }
        store(media, SPLIT, self.check(salt));
        media.flush(SPLIT, 64);
        media.fence()
    }

    fn apply<M: Media>(&self, media: &M, directory: u64) -> Result<()> {
        let at = directory + self.first * 8;
        for n in 0..self.count {
            if media.load(at + n * 8) == self.old {
                media.store(at + n * 8, if n < self.count / 2 { self.left } else { self.right });
            }
        }
        media.flush(at, self.count * 8);
        media.fence()
    }

    fn forget<M: Media>(media: &M) -> Result<()> {
        store(media, SPLIT, 0);
        media.fence()
    }
}

impl Index {
    /// Replaces the segment that had no room for `hash`. The caller holds no lock of a key.
    ///
    /// # Errors
    /// [`Error::NoSpace`], before anything changed; damage.
    pub fn split<M: Media>(
        &self,
        env: &Env<M>,
        stripes: &Stripes,
        hash: u64,
        full: Full,
        room: Room,
    ) -> Result<()> {
        let _one = self.splitting.lock();
        let segment = self.segment(&env.media, hash)?;
        if segment.word() != full.word {
            return Ok(());
        }
        let _held = stripes.lock_prefix(hash, segment.depth);
        let images = self.images(env, segment, room)?;
        let depth = images[0].segment.depth;
        while root_parts(self.root.load(Ordering::Acquire)).1 < depth {
            self.double(env)?;
        }
        let mut words = Vec::new();
        for mut image in images {
            words.push(image.write(env)?);
        }
        if !mutation::is(Mutation::SplitFirst) {
            env.media.fence()?;
        }
        let (directory, bits) = root_parts(self.root.load(Ordering::Acquire));
        let count = 1 << (bits - segment.depth);
        let first = (hash >> (64 - bits)) / count * count;
        let change =
            Change { first, count, old: segment.word(), left: words[0], right: words[words.len() - 1] };
        if count == 1 {
            change.apply(&env.media, directory)?;
        } else {
            change.announce(&env.media, self.salt)?;
            change.apply(&env.media, directory)?;
            Change::forget(&env.media)?;
        }
        env.retire(segment.at);
        Ok(())
    }

    /// What takes the place of `segment`.
    fn images<M: Media>(&self, env: &Env<M>, segment: Segment, room: Room) -> Result<Vec<Image>> {
        let lines = (0..segment.bytes() / 64).map(|line| env.media.load_line(segment.at + line * 64));
        let entries: Vec<u64> = lines.flatten().filter(|entry| entry & SLOT > HELD).collect();
        // What was full of entries gets more room; what was full of former ones is only cleaned.
        let is_cleaned = room == Room::Enough && entries.len() as u64 <= segment.pages * SPARSE;
        let Sizes { least, most, .. } = env.sizes;
        let least = if is_cleaned { least } else { segment.pages + 1 };
        if let Some(image) = Image::of(&entries, segment.depth, segment.window, least..=most) {
            return Ok(vec![image]);
        }
        self.halves(env, segment, entries)
    }

    fn halves<M: Media>(&self, env: &Env<M>, segment: Segment, mut entries: Vec<u64>) -> Result<Vec<Image>> {
        let depth = segment.depth + 1;
        let mut window = segment.window;
        let mut right_bit = 1 << (63 - (segment.depth - window));
        let Sizes { least, most, apart, .. } = env.sizes;
        if depth - window > apart {
            self.retag(&env.media, &mut entries, segment.depth)?;
            (window, right_bit) = (segment.depth, 1 << 63);
        }
        let (right, left): (Vec<_>, Vec<_>) = entries.into_iter().partition(|entry| entry & right_bit != 0);
        let image = |entries: &[u64]| {
            Image::of(entries, depth, window, least..=most).ok_or(Error::NoSpace { needed: most * PAGE })
        };
        Ok(vec![image(&left)?, image(&right)?])
    }

    /// Takes other bits of the hashes into the entries: those from `window` on.
    fn retag<M: Media>(&self, media: &M, entries: &mut [u64], window: u32) -> Result<()> {
        let mut key = Vec::new();
        for i in 0..entries.len() {
            if let Some(ahead) = entries.get(i + 8) {
                media.prefetch((ahead & SLOT) * 8);
            }
            let at = (entries[i] & SLOT) * 8;
            let head = Head::checked(media, at)?;
            key.clear();
            media.append_to(at + head.before_key(), head.key_len(), &mut key);
            let hash = record::hash(self.salt, head.tree(media, at), &key);
            entries[i] = tag_of(hash, window) << SLOT_BITS | entries[i] & SLOT;
        }
        Ok(())
    }

    /// Makes the directory twice as long.
    fn double<M: Media>(&self, env: &Env<M>) -> Result<()> {
        let (old, bits) = root_parts(self.root.load(Ordering::Acquire));
        let bytes = 16 << bits;
        let at = env.alloc_bytes(bytes, PageKind::Directory, ChunkKind::Directory)?;
        let mut words = Vec::with_capacity(bytes as usize);
        for index in 0..1_u64 << bits {
            let word = env.media.load(old + index * 8).to_le_bytes();
            words.extend_from_slice(&word);
            words.extend_from_slice(&word);
        }
        env.media.write_through(at, &words);
        env.media.fence()?;
        let root = at | u64::from(bits + 1);
        store(&env.media, DIRECTORY, seal(self.salt, DIRECTORY, root));
        env.media.fence()?;
        self.root.store(root, Ordering::Release);
        env.retire(old);
        Ok(())
    }

    /// Finishes a split that a crash interrupted.
    pub(super) fn finish_split<M: Media>(&self, env: &Env<M>) -> Result<()> {
        let Some(change) = Change::load(&env.media, self.salt) else { return Ok(()) };
        let (directory, bits) = root_parts(self.root.load(Ordering::Acquire));
        if change.count <= 1 << bits && change.first <= (1 << bits) - change.count {
            change.apply(&env.media, directory)?;
        }
        Change::forget(&env.media)?;
        env.retire(Segment::of(change.old).at);
        Ok(())
    }
}
