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

use super::{Full, Index, LINES, PAIR_BITS, SLOT, SLOT_BITS, Segment, root_parts, tag_of};
use crate::env::Env;
use crate::error::{Error, Result};
use crate::layout::PAGE;
use crate::layout::superblock::SPLIT;
use crate::media::Media;
use crate::mutation::{self, Mutation};
use crate::pages::PageKind;
use crate::record::{self, Head};
use crate::sizes::Sizes;
use crate::stripes::Stripes;
use crate::superblock::store;
use daxstore::sync::atomic::Ordering;
use std::ops::RangeInclusive;
use xxhash_rust::xxh3::xxh3_64_with_seed;

// The bits that choose a pair are among those that an entry keeps, however far depth and window are apart.
const _: () = assert!(PAIR_BITS + Sizes::DEFAULT.apart < 64 - SLOT_BITS);

/// Entries that a page has when there is room for some more: of 256.
pub(super) const ROOMY: u64 = 200;

/// Entries of a page when it is full of former ones rather than of entries: of 256.
const SPARSE: u64 = 128;

/// Entries of a page that is full: of 256. With fewer, keys come together in some lines only, and the segment is made anew with as many pages: else
/// segments would only grow while keys come and go.
const DENSE: u64 = 204;

/// Words of a page, of 256, that are left of keys that went, at least, where a segment is made anew with as many pages. One to which keys only came
/// has its entries where a new one would: measured, that never had more room.
const WORN: u64 = 8;

/// So deep no segment lies: keys with more bits of the hash in common are refused.
const DEEPEST: u32 = 36;

/// Pages in which so many entries have room for some more.
pub(super) const fn roomy(entries: usize) -> u64 {
    (entries as u64).div_ceil(ROOMY)
}

/// How much room is to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// For a key.
    Enough,
    /// For many: the segment grows, whatever it is full of.
    More,
}

/// A segment that is being made.
pub(super) struct Image {
    segment: Segment,
    /// Its lines of words, as they lie on the medium.
    lines: Vec<[[u8; 8]; 8]>,
    /// How many words of each line are entries: the first ones.
    filled: Vec<u8>,
}

impl Image {
    fn new(pages: u64, depth: u32, window: u32) -> Self {
        let segment = Segment { at: 0, pages, depth, window };
        let lines = (segment.bytes() / 64) as usize;
        Self { segment, lines: vec![[[0; 8]; 8]; lines], filled: vec![0; lines] }
    }

    /// The number of the `n`-th line where an entry with these bits may lie.
    fn line(&self, tag: u64, n: u64) -> usize {
        (self.segment.line(self.segment.pair_of(tag), tag, n) / 64) as usize
    }

    /// Enters an entry of the window in the first of its lines that has room; whether there was any.
    fn enter(&mut self, entry: u64) -> bool {
        let mut lines = (0..LINES).map(|n| self.line(entry >> SLOT_BITS, n));
        let Some(line) = lines.find(|line| self.filled[*line] < 8) else { return false };
        self.lines[line][usize::from(self.filled[line])] = entry.to_le_bytes();
        self.filled[line] += 1;
        true
    }

    /// The smallest segment for these entries, of so many pages. Whatever has room in its first line lies there: only the few that find none look
    /// further, when all others are in their places. So most of the work has no branch of which nobody knows where it goes.
    pub(super) fn of(
        entries: &[u64],
        depth: u32,
        window: u32,
        mut pages: RangeInclusive<u64>,
    ) -> Option<Self> {
        let mut late = Vec::with_capacity(entries.len() / 8);
        pages.find_map(|pages| {
            let mut image = Self::new(pages, depth, window);
            late.clear();
            image.enter_first(entries, &mut late);
            late.iter().all(|entry| image.enter(*entry)).then_some(image)
        })
    }

    /// Enters what has room in its first line; the others are added to `late`.
    fn enter_first(&mut self, entries: &[u64], late: &mut Vec<u64>) {
        let segment = self.segment;
        let filled = &mut self.filled[..self.lines.len()];
        let mut enter = |entry: u64| {
            let tag = entry >> SLOT_BITS;
            let line = (segment.line(segment.pair_of(tag), tag, 0) / 64) as usize;
            let count = filled[line];
            match self.lines[line].get_mut(usize::from(count)) {
                Some(word) => {
                    *word = entry.to_le_bytes();
                    filled[line] = count + 1;
                }
                None => late.push(entry),
            }
        };
        // Entries that were in one line go to the same few lines again, and each waits for what the one before it stored there: so those of four
        // parts of the segment are taken by turns.
        let (parts, rest) = entries.split_at(entries.len() / 4 * 4);
        let parts: [_; 4] = std::array::from_fn(|n| &parts[n * parts.len() / 4..(n + 1) * parts.len() / 4]);
        for n in 0..entries.len() / 4 {
            parts.iter().for_each(|part| enter(part[n]));
        }
        rest.iter().for_each(|entry| enter(*entry));
    }

    /// Whether one more entry with the bits of `tag` may be put somewhere.
    fn has_room(&self, tag: u64) -> bool {
        (0..LINES).any(|n| self.filled[self.line(tag, n)] < 8)
    }

    /// How many bits of the hash its keys have in common.
    pub(super) const fn depth(&self) -> u32 {
        self.segment.depth
    }

    /// How many pages it has.
    pub(super) const fn pages(&self) -> u64 {
        self.segment.pages
    }

    /// Writes it, durable with this thread's next fence: the word that names it.
    fn write<M: Media>(&mut self, env: &Env<M>) -> Result<u64> {
        self.segment.at = env.alloc_pages(PageKind::Segment(self.segment.pages as u16))?;
        env.media.write_through(self.segment.at, self.lines.as_flattened().as_flattened());
        Ok(self.segment.word())
    }

    /// Writes all of them, or takes no space: the words that name them.
    ///
    /// # Errors
    /// [`Error::NoSpace`].
    pub(super) fn write_all<M: Media>(env: &Env<M>, images: Vec<Self>) -> Result<Vec<u64>> {
        let mut words = Vec::with_capacity(images.len());
        for mut image in images {
            match image.write(env) {
                Ok(word) => words.push(word),
                Err(error) => {
                    words.iter().try_for_each(|word| env.free(Segment::of(*word).at))?;
                    return Err(error);
                }
            }
        }
        Ok(words)
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
        let images = self.images(env, segment, hash, room)?;
        self.install(env, hash, segment, images)
    }

    /// As [`Self::split`], with [`Room::More`], for who has `locks`, which ascend, that of `hash` among them: whether it was done. Entries that are
    /// held in the segment are not in what replaces it. Where somebody else has locks, or space has to be looked for, nothing is done.
    ///
    /// # Errors
    /// Damage.
    pub fn try_split<M: Media>(
        &self,
        env: &Env<M>,
        stripes: &Stripes,
        locks: &[usize],
        (hash, full): (u64, Full),
    ) -> Result<bool> {
        let Some(_one) = self.splitting.try_lock() else { return Ok(false) };
        let segment = self.segment(&env.media, hash)?;
        let Some(_rest) = stripes.try_lock_prefix(hash, segment.depth, locks) else { return Ok(false) };
        if segment.word() != full.word {
            return Ok(false);
        }
        let done = self.images(env, segment, hash, Room::More);
        match done.and_then(|images| self.install(env, hash, segment, images)) {
            Err(Error::NoSpace { .. }) => Ok(false),
            done => done.map(|()| true),
        }
    }

    /// Puts `images` in the place of `segment`, that of `hash`. The caller has the locks of all its hashes, and nobody else splits.
    ///
    /// # Errors
    /// [`Error::NoSpace`], before anything changed.
    pub(super) fn install<M: Media>(
        &self,
        env: &Env<M>,
        hash: u64,
        segment: Segment,
        images: Vec<Image>,
    ) -> Result<()> {
        if images.len() > 2 {
            return self.install_many(env, hash, segment, images);
        }
        while root_parts(self.root.load(Ordering::Acquire)).1 < images[0].depth() {
            let bits = root_parts(self.root.load(Ordering::Acquire)).1 + 1;
            self.rewrite(env, bits, |_| ())?;
        }
        let words = Image::write_all(env, images)?;
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

    /// What takes the place of `segment`, which has no room for `hash`: segments whose ranges together are its own, in order.
    fn images<M: Media>(&self, env: &Env<M>, segment: Segment, hash: u64, room: Room) -> Result<Vec<Image>> {
        let entries = segment.named(&env.media);
        let count = entries.len() as u64;
        let Segment { pages, depth, window, .. } = segment;
        let Sizes { least, most, .. } = env.sizes;
        // What was full of entries gets more room; what was full of former ones, or in some lines only, is put in order.
        let least = match room {
            Room::Enough if count <= pages * SPARSE => least.max(roomy(entries.len())),
            Room::Enough if count <= pages * DENSE && segment.former(&env.media) >= pages * WORN => pages,
            _ => pages + 1,
        };
        let tag = tag_of(hash, window);
        let mut sizes = least..=most;
        if let Some(image) = sizes.find_map(|pages| {
            Image::of(&entries, depth, window, pages..=pages).filter(|image| image.has_room(tag))
        }) {
            return Ok(vec![image]);
        }
        self.parts(env, entries, depth, window)
    }

    /// What takes the place of a segment with these entries that is full: two segments, or where the keys have more bits of their hashes in common
    /// than a segment can hold, as many as it takes, in order.
    fn parts<M: Media>(
        &self,
        env: &Env<M>,
        mut entries: Vec<u64>,
        depth: u32,
        mut window: u32,
    ) -> Result<Vec<Image>> {
        let Sizes { least, most, apart, .. } = env.sizes;
        if depth >= DEEPEST {
            return Err(Error::NoSpace { needed: most * PAGE });
        }
        if depth + 1 - window > apart {
            self.retag(&env.media, &mut entries, depth)?;
            window = depth;
        }
        let right_bit = 1 << (63 - (depth - window));
        let [mut left, mut right] = [0; 2].map(|_| Vec::with_capacity(entries.len()));
        for entry in entries {
            let half = if entry & right_bit == 0 { &mut left } else { &mut right };
            half.push(entry);
        }
        let mut images = Vec::new();
        for half in [left, right] {
            match Image::of(&half, depth + 1, window, least.max(roomy(half.len()))..=most) {
                Some(image) => images.push(image),
                None => images.extend(self.parts(env, half, depth + 1, window)?),
            }
        }
        Ok(images)
    }

    /// Takes other bits of the hashes into the entries: those from `window` on.
    pub(super) fn retag<M: Media>(&self, media: &M, entries: &mut [u64], window: u32) -> Result<()> {
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
