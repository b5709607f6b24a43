//! Which chunks of the file are in use, and how does the file grow?
//!
//! A word of the table says what a chunk is, or what the run of chunks is that begins there; a word of 0 is a free chunk. Which are free
//! is known in memory: the table is read once at open (8 bytes a chunk of 2 MiB).
//!
//! Invariants:
//! 1. K1: a chunk's word is durable before anything durable points into the chunk.
//! 2. K2: a chunk's word becomes 0 only when nothing durable points into the chunk, and is durable before the chunk is given out again.
//! 3. Space that goes back to the pool is given back before its chunk can be taken by another.
//! 4. A chunk that is taken with [`Reserve::Keep`] leaves a free one behind that has its space.

use crate::error::{Damage, Error, Result, Structure};
use crate::layout::{CHUNK, CHUNK_TABLE, MAX_CHUNKS};
use crate::media::Media;
use daxstore::sync::Mutex;
use std::collections::BTreeSet;

/// What a chunk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ChunkKind {
    /// The first chunk.
    Fixed = 1,
    /// Pages of 2 KiB for records, with their map in the first.
    Pages = 2,
    /// A run of chunks that holds one record.
    Record = 3,
    /// A run of chunks that holds a directory of the hash index.
    Directory = 4,
    /// A run of chunks of the ordered index.
    Ordered = 5,
    /// A run of chunks that holds the list of a batch.
    List = 6,
    /// Pages for everything but records, with their map in the first.
    Index = 7,
}

impl ChunkKind {
    fn of(code: u64) -> Option<Self> {
        Some(match code {
            1 => Self::Fixed,
            2 => Self::Pages,
            3 => Self::Record,
            4 => Self::Directory,
            5 => Self::Ordered,
            6 => Self::List,
            7 => Self::Index,
            _ => return None,
        })
    }
}

/// Whether the last free chunk may be taken. It is kept for overwrites and deletes, which are to be possible when no new key is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reserve {
    /// It stays.
    Keep,
    /// It may be taken.
    Use,
}

/// A run of chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The number of the first.
    pub first: u64,
    /// How many.
    pub count: u64,
    /// What they are.
    pub kind: ChunkKind,
}

impl Run {
    /// Where it begins, in bytes.
    #[must_use]
    pub const fn at(&self) -> u64 {
        self.first * CHUNK
    }
}

/// The chunks in use, as bits.
#[derive(Debug, Default)]
struct State {
    used: Vec<u64>,
    /// Chunks below are all in use.
    full_below: u64,
    count: u64,
    /// Free chunks of the file that have their space: what an open finds free may have none.
    ready: BTreeSet<u64>,
    /// Those that are known to have none.
    bare: BTreeSet<u64>,
}

impl State {
    fn is_used(&self, chunk: u64) -> bool {
        self.used.get((chunk / 64) as usize).is_some_and(|word| word >> (chunk % 64) & 1 == 1)
    }

    fn set(&mut self, chunk: u64, used: bool) {
        let word = (chunk / 64) as usize;
        if word >= self.used.len() {
            self.used.resize(word + 1, 0);
        }
        let bit = 1 << (chunk % 64);
        if used {
            self.used[word] |= bit;
            self.count += 1;
            self.ready.remove(&chunk);
            self.bare.remove(&chunk);
        } else {
            self.used[word] &= !bit;
            self.count -= 1;
            self.full_below = self.full_below.min(chunk);
        }
    }

    /// A free chunk besides `taken` that is to be left, where none of the free ones that have their space would be; `had`: chunks of the file.
    fn spare(&self, taken: std::ops::Range<u64>, had: u64) -> Option<u64> {
        if self.ready.iter().any(|chunk| !taken.contains(chunk)) {
            return None;
        }
        // Beyond the file's end there is room for one, if anywhere.
        (self.full_below..had.max(taken.end) + 1)
            .find(|chunk| !taken.contains(chunk) && !self.is_used(*chunk))
    }

    /// The first run of `count` free chunks; it may lie beyond the file's end.
    fn find(&mut self, count: u64) -> u64 {
        while self.is_used(self.full_below) {
            self.full_below += 1;
        }
        let (mut first, mut at) = (self.full_below, self.full_below);
        while at - first < count {
            if self.is_used(at) {
                first = at + 1;
            }
            at += 1;
        }
        first
    }
}

/// The chunks of a database.
#[derive(Debug)]
pub struct Chunks(Mutex<State>);

const fn word_at(chunk: u64) -> u64 {
    CHUNK_TABLE + chunk * 8
}

impl Chunks {
    /// Those of a new database: the first one.
    ///
    /// # Errors
    /// None but those of growth.
    pub fn create<M: Media>(media: &M) -> Result<Self> {
        media.grow(CHUNK)?;
        media.store(word_at(0), ChunkKind::Fixed as u64 | 1 << 8);
        media.flush(word_at(0), 8);
        let mut state = State::default();
        state.set(0, true);
        Ok(Self(Mutex::new(state)))
    }

    /// Those that the table of `media` names, and the runs in order.
    ///
    /// # Errors
    /// [`Damage`] where a word makes no sense.
    pub fn open<M: Media>(media: &M) -> Result<(Self, Vec<Run>)> {
        let runs = runs(media)?;
        let mut state = State::default();
        for run in &runs {
            (run.first..run.first + run.count).for_each(|chunk| state.set(chunk, true));
        }
        Ok((Self(Mutex::new(state)), runs))
    }

    /// Takes a run of `count` chunks: where it begins, in bytes. Its word is durable with this thread's next fence; what the
    /// chunks hold is what they held.
    ///
    /// # Errors
    /// [`Error::NoSpace`], before anything changed.
    pub fn take<M: Media>(&self, media: &M, kind: ChunkKind, count: u64, reserve: Reserve) -> Result<u64> {
        let mut state = self.0.lock();
        let first = state.find(count);
        let end = first + count;
        // The reserve may be a chunk anywhere.
        let had = media.len() / CHUNK;
        let spare = match reserve {
            Reserve::Keep => state.spare(first..end, had),
            Reserve::Use => None,
        };
        let wanted = spare.map_or(end, |spare| end.max(spare + 1));
        if wanted > MAX_CHUNKS || wanted * CHUNK > media.capacity() {
            return Err(Error::NoSpace { needed: count * CHUNK });
        }
        // A chunk that was in use before may have been given back to the pool.
        let bare = |chunk: &u64| *chunk < had && !state.ready.contains(chunk);
        for chunk in (first..end).chain(spare).filter(bare) {
            media.reserve(chunk * CHUNK, CHUNK)?;
        }
        media.grow(wanted * CHUNK)?;
        // What the file grew by has its space.
        state.ready.extend(had..media.len() / CHUNK);
        if let Some(chunk) = spare {
            state.ready.insert(chunk);
            state.bare.remove(&chunk);
        }
        (first..end).for_each(|chunk| state.set(chunk, true));
        media.store(word_at(first), kind as u64 | count << 8);
        media.flush(word_at(first), 8);
        Ok(first * CHUNK)
    }

    /// Gives the run back that begins at byte `at`. Nothing durable points into it.
    ///
    /// # Errors
    /// Those of the fence.
    pub fn give<M: Media>(&self, media: &M, at: u64) -> Result<()> {
        let first = at / CHUNK;
        let count = media.load(word_at(first)) >> 8;
        media.store(word_at(first), 0);
        media.flush(word_at(first), 8);
        media.fence()?;
        let mut state = self.0.lock();
        (first..first + count).for_each(|chunk| state.set(chunk, false));
        state.ready.extend(first..first + count);
        Ok(())
    }

    /// Gives the space of free chunks back to the pool, but for one: how many bytes.
    ///
    /// # Errors
    /// What the file store says.
    pub fn release<M: Media>(&self, media: &M) -> Result<u64> {
        // Nobody takes a chunk meanwhile: a taken one would lose what is written into it.
        let mut state = self.0.lock();
        let kept = state.ready.first().copied();
        let free =
            (0..media.len() / CHUNK).rev().filter(|chunk| !state.is_used(*chunk) && Some(*chunk) != kept);
        let mut bytes = 0;
        // What an open found free may have its space or not.
        for chunk in free.filter(|chunk| !state.bare.contains(chunk)).collect::<Vec<_>>() {
            let Some(had) = media.release(chunk * CHUNK, CHUNK)? else { break };
            state.ready.remove(&chunk);
            state.bare.insert(chunk);
            bytes += had;
        }
        Ok(bytes)
    }

    /// How many free ones have their space.
    pub fn ready(&self) -> u64 {
        self.0.lock().ready.len() as u64
    }

    /// How many are in use.
    pub fn used(&self) -> u64 {
        self.0.lock().count
    }
}

/// The runs that the table names, in order.
///
/// # Errors
/// [`Damage`] where a word makes no sense.
pub fn runs<M: Media>(media: &M) -> Result<Vec<Run>> {
    let chunks = (media.len() / CHUNK).min(MAX_CHUNKS);
    let mut runs = Vec::new();
    let mut first = 0;
    while first < chunks {
        let word = media.load(word_at(first));
        if word == 0 {
            first += 1;
            continue;
        }
        let count = word >> 8;
        let kind = ChunkKind::of(word & 0xff);
        // The file may have grown since.
        let chunks = chunks.max((media.len() / CHUNK).min(MAX_CHUNKS));
        let (Some(kind), true) = (kind, count > 0 && count <= chunks - first) else {
            let what = "a kind of chunk, and a count within the file";
            return Err(Damage::new(Structure::Chunk, word_at(first), what, chunks - first, word).into());
        };
        runs.push(Run { first, count, kind });
        first += count;
    }
    Ok(runs)
}
