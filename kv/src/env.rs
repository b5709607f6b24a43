//! What do all parts of a database share?
//!
//! The memory, the space in it, and the epochs of readers. Invariant: space that is retired is given back when every reader that
//! was there has left, and not before.

use crate::chunks::{ChunkKind, Chunks, Reserve, Run};
use crate::epoch::{Epochs, Pin};
use crate::error::Result;
use crate::layout::{CHUNK, PAGE, PAGES};
use crate::media::Media;
use crate::mutation::{self, Mutation};
use crate::pages::{PageKind, Pages};
use crate::reclaim::Watch;
use crate::sizes::Sizes;
use daxstore::sync::Mutex;
use daxstore::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::collections::VecDeque;

/// What a chunk of pages has room for.
const MOST_OF_PAGES: u64 = (PAGES as u64 - 1) * PAGE;

/// The number of a tree. That of the tree without a name is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct TreeId(pub u32);

/// Space that readers may still look at.
#[derive(Debug)]
struct Retired {
    epoch: u64,
    at: u64,
}

/// What all parts of a database share.
#[derive(Debug)]
pub struct Env<M> {
    /// The memory.
    pub media: M,
    /// The chunks in use.
    pub chunks: Chunks,
    /// The pages in use.
    pub pages: Pages,
    /// Who reads.
    pub epochs: Epochs,
    /// Of the parts of the indexes.
    pub sizes: Sizes,
    /// Who looks for space that nobody names.
    pub watch: Watch,
    retired: Mutex<VecDeque<Retired>>,
    any_retired: AtomicBool,
    /// Runs of more bytes are whole chunks.
    large: AtomicU64,
}

impl<M: Media> Env<M> {
    /// That of a new database.
    ///
    /// # Errors
    /// Those of growth.
    pub fn create(media: M, sizes: Sizes) -> Result<Self> {
        let chunks = Chunks::create(&media)?;
        Ok(Self::with(media, chunks, &[], sizes))
    }

    /// That of a database found in `media`.
    ///
    /// # Errors
    /// [`crate::error::Damage`] of the table of chunks.
    pub fn open(media: M, sizes: Sizes) -> Result<Self> {
        let (chunks, runs) = Chunks::open(&media)?;
        Ok(Self::with(media, chunks, &runs, sizes))
    }

    fn with(media: M, chunks: Chunks, runs: &[Run], sizes: Sizes) -> Self {
        let pages = Pages::new(runs);
        let (epochs, retired) = (Epochs::default(), Mutex::default());
        let (watch, any_retired) = (Watch::default(), AtomicBool::new(false));
        let large = AtomicU64::new(MOST_OF_PAGES);
        Self { media, chunks, pages, epochs, sizes, watch, retired, any_retired, large }
    }

    /// Takes a run of pages: where it begins, in bytes. Durable with this thread's next fence. It holds what it held before.
    ///
    /// # Errors
    /// [`crate::Error::NoSpace`], before anything changed; damage.
    pub fn alloc_pages(&self, kind: PageKind) -> Result<u64> {
        self.alloc_pages_with(kind, Reserve::Keep)
    }

    /// As [`Self::alloc_pages`], also from the reserve if `reserve` says so.
    ///
    /// # Errors
    /// As [`Self::alloc_pages`].
    pub fn alloc_pages_with(&self, kind: PageKind, reserve: Reserve) -> Result<u64> {
        let at = self.pages.take(&self.media, &self.chunks, kind, reserve)?;
        self.watch.note(at);
        Ok(at)
    }

    /// Gives back what [`Self::alloc_pages`] or [`Self::alloc_bytes`] gave. Nothing durable points into it, and nobody reads it.
    ///
    /// # Errors
    /// Those of the fence; damage.
    pub fn free(&self, at: u64) -> Result<()> {
        let given = match at.is_multiple_of(CHUNK) {
            true => self.chunks.give(&self.media, at),
            false => self.pages.give(&self.media, at),
        };
        self.watch.note(at);
        given
    }

    /// Takes one run for `len` bytes: pages as `kind` makes of their number, or whole chunks as `chunk`, where they do not fit.
    ///
    /// # Errors
    /// As [`Self::alloc_pages`].
    pub fn alloc_bytes(&self, len: u64, kind: fn(u16) -> PageKind, chunk: ChunkKind) -> Result<u64> {
        let pages = len.div_ceil(PAGE);
        if pages < PAGES as u64 {
            return self.alloc_pages(kind(pages as u16));
        }
        let at = self.chunks.take(&self.media, chunk, len.div_ceil(CHUNK), Reserve::Keep)?;
        self.watch.note(at);
        Ok(at)
    }

    /// Records of more than `bytes` bytes get whole chunks from now on.
    pub fn set_large(&self, bytes: Option<u64>) {
        let bytes = bytes.unwrap_or(MOST_OF_PAGES).clamp(crate::heap::LARGEST, MOST_OF_PAGES);
        self.large.store(bytes, Ordering::Relaxed);
    }

    /// Takes one run for a record of `len` bytes that has no slot.
    ///
    /// # Errors
    /// As [`Self::alloc_pages`].
    pub fn alloc_record(&self, len: u64) -> Result<u64> {
        if len > self.large.load(Ordering::Relaxed) {
            return self.chunks.take(&self.media, ChunkKind::Record, len.div_ceil(CHUNK), Reserve::Keep);
        }
        self.alloc_pages(PageKind::Record(len.div_ceil(PAGE) as u16))
    }

    /// Gives space back, as [`Self::free`], when every reader that is there now has left. Nothing durable points into it.
    pub fn retire(&self, at: u64) {
        let epoch = self.epochs.advance();
        self.retired.lock().push_back(Retired { epoch, at });
        self.any_retired.store(true, Ordering::Release);
    }

    /// Gives back what was retired and is read by nobody any more.
    ///
    /// # Errors
    /// Those of [`Self::free`].
    pub fn collect(&self) -> Result<()> {
        if !self.any_retired.load(Ordering::Relaxed) {
            return Ok(());
        }
        let oldest = if mutation::is(Mutation::IgnorePins) { u64::MAX } else { self.epochs.oldest() };
        loop {
            let mut retired = self.retired.lock();
            let Some(at) = retired.front().filter(|first| first.epoch < oldest).map(|first| first.at) else {
                self.any_retired.store(!retired.is_empty(), Ordering::Release);
                return Ok(());
            };
            // Whoever looks for what is retired finds it here until it is free.
            self.free(at)?;
            retired.pop_front();
        }
    }

    /// Calls `each` with what is retired and was not given back.
    pub fn each_retired(&self, each: impl FnMut(u64)) {
        self.retired.lock().iter().map(|retired| retired.at).for_each(each);
    }

    /// While the answer lives, nothing that its holder can find is reused.
    #[inline]
    pub fn pin(&self) -> Pin<'_> {
        self.epochs.pin()
    }
}
