//! Which pages of 2 KiB are in use, and for what?
//!
//! The first page of a chunk of pages is its map: 1024 codes of 16 bits. The code of a run's first page says what the run is and how many
//! pages it has; the codes of its other pages are not looked at. A code of 0 is a free page. What is free is known in memory as
//! bits; after an open a chunk's map is read when pages are first wanted.
//!
//! Records have chunks of their own, so that where they were deleted, whole chunks become free. But slabs of sixteen pages leave at least fifteen of a
//! chunk: pages that no slab has room for are for single pages of the ordered indexes, which can be moved elsewhere. Where the chunks of the indexes have no room, such a
//! page, or a segment of the hash index, is also taken from the end of any chunk of records before a new one is begun.
//!
//! Invariants: as for chunks. K1: a chunk's map is durable before its word says that it has one, and a run's code before anything
//! durable points into the run. K2: the code becomes 0 only when nothing durable points into the run, and is durable before the pages
//! are given out again.

use crate::chunks::{ChunkKind, Chunks, Reserve, Run};
use crate::error::{Damage, Error, Result, Structure};
use crate::inherited::{Inherited, is_of_records};
use crate::layout::{CHUNK, PAGE, PAGES};
use crate::media::Media;
use crate::mutation::{self, Mutation};
use crate::page_chunk::PageChunk;
use daxstore::sync::atomic::{AtomicBool, Ordering};
use daxstore::sync::{Arc, Mutex, RwLock};
use std::collections::BTreeSet;

/// What a run of pages is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageKind {
    /// The map itself.
    Map,
    /// A segment of the hash index, of so many pages.
    Segment(u16),
    /// A directory of the hash index, of so many pages.
    Directory(u16),
    /// The list of a batch's records, of so many pages.
    List(u16),
    /// Of the ordered index, so many pages.
    Ordered(u16),
    /// The same, and read at every open: not where slabs leave pages, which is in every chunk of records.
    Group(u16),
    /// A slab of slots for records, of this class.
    Slab(u16),
    /// A run that holds one record, of so many pages.
    Record(u16),
}

/// Pages of a slab.
pub const SLAB_PAGES: u16 = 16;

impl PageKind {
    /// The code on the medium.
    #[must_use]
    pub const fn code(self) -> u16 {
        match self {
            Self::Map => 1,
            Self::Segment(n) => 0x1000 | n,
            Self::Directory(n) => 0x2000 | n,
            Self::List(n) => 0x3000 | n,
            Self::Ordered(n) | Self::Group(n) => 0x4000 | n,
            Self::Slab(class) => 0x5000 | class,
            Self::Record(n) => 0x8000 | n,
        }
    }

    /// What a code means.
    #[must_use]
    pub const fn of(code: u16) -> Option<Self> {
        let low = code & 0xfff;
        Some(match code >> 12 {
            0 if low == 1 => Self::Map,
            1 => Self::Segment(low),
            2 => Self::Directory(low),
            3 => Self::List(low),
            4 => Self::Ordered(low),
            5 if (low as usize) < crate::heap::CLASSES => Self::Slab(low),
            8 => Self::Record(low),
            _ => return None,
        })
    }

    /// Whether records lie in it.
    #[must_use]
    pub const fn is_of_record(self) -> bool {
        matches!(self, Self::Slab(_) | Self::Record(_))
    }

    /// How many pages.
    #[must_use]
    pub const fn pages(self) -> usize {
        match self {
            Self::Map => 1,
            Self::Slab(_) => SLAB_PAGES as usize,
            Self::Segment(n)
            | Self::Directory(n)
            | Self::List(n)
            | Self::Ordered(n)
            | Self::Group(n)
            | Self::Record(n) => n as usize,
        }
    }
}

/// A run of pages, as a map names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageRun {
    /// Where it begins, in bytes.
    pub at: u64,
    /// What it is.
    pub kind: PageKind,
}

/// How many maps one call reads after an open, before it takes a new chunk.
const READ_AHEAD: usize = 4;

#[derive(Debug)]
struct State {
    kind: ChunkKind,
    chunks: Vec<PageChunk>,
    /// For each length of run (the last: that or longer), the first of `chunks` that may have one.
    first: Vec<usize>,
    /// The first of `chunks` that may have a page for which no slab has room.
    scraps: usize,
    /// Runs of chunks that were not read, the first of them last.
    unread: Vec<Run>,
    /// Where what was read of chunks of records is told.
    inherited: Option<Arc<Inherited>>,
}

/// The pages of a database.
#[derive(Debug)]
pub struct Pages {
    records: Mutex<State>,
    others: Mutex<State>,
    /// Chunks that are being emptied.
    closed: RwLock<BTreeSet<u64>>,
    any_closed: AtomicBool,
    inherited: Arc<Inherited>,
}

const LENGTHS: usize = 65;

fn length(count: usize) -> usize {
    count.min(LENGTHS - 1)
}

impl Pages {
    /// Those of a database with these runs of chunks.
    #[must_use]
    pub fn new(runs: &[Run]) -> Self {
        let inherited = Arc::new(Inherited::of(runs));
        let state = |kind, is_there: fn(&Run) -> bool, inherited| {
            let unread = runs.iter().copied().filter(is_there).rev().collect();
            let (chunks, first) = (Vec::new(), vec![0; LENGTHS]);
            Mutex::new(State { kind, chunks, first, scraps: 0, unread, inherited })
        };
        Self {
            records: state(ChunkKind::Pages, is_of_records, Some(inherited.clone())),
            others: state(ChunkKind::Index, |run| run.kind == ChunkKind::Index, None),
            closed: RwLock::default(),
            any_closed: AtomicBool::new(false),
            inherited,
        }
    }

    /// What was there at open.
    #[must_use]
    pub const fn inherited(&self) -> &Arc<Inherited> {
        &self.inherited
    }

    /// Reads the next chunk of records that was there at open and was not read.
    ///
    /// # Errors
    /// [`Damage`] of its map.
    pub fn read_next<M: Media>(&self, media: &M) -> Result<()> {
        self.records.lock().read_next(media).map(drop)
    }

    /// Takes a run of pages: where it begins, in bytes. Its code is durable with this thread's next fence. What the pages
    /// hold is what they held before.
    ///
    /// # Errors
    /// [`crate::Error::NoSpace`], before anything changed; [`Damage`] of a map.
    pub fn take<M: Media>(
        &self,
        media: &M,
        chunks: &Chunks,
        kind: PageKind,
        reserve: Reserve,
    ) -> Result<u64> {
        let mut state = match kind {
            _ if kind.is_of_record() => self.records.lock(),
            PageKind::Ordered(1) => {
                if let Some(at) = self.records.lock().take_scrap(media, kind) {
                    return Ok(at);
                }
                self.others.lock()
            }
            _ => self.others.lock(),
        };
        let count = kind.pages();
        if let Some((chunk, page)) = state.find_read(media, count)? {
            return Ok(state.take(media, kind, chunk, page));
        }
        if matches!(kind, PageKind::Ordered(1) | PageKind::Group(1) | PageKind::Segment(_))
            && let Some(at) = self.records.lock().take_last(media, kind)
        {
            return Ok(at);
        }
        let (chunk, page) = state.find_new(media, chunks, count, reserve)?;
        Ok(state.take(media, kind, chunk, page))
    }

    /// Gives the run back that begins at `at`. Nothing durable points into it, and nobody reads it.
    ///
    /// # Errors
    /// Those of the fence; [`Damage`] of the map.
    pub fn give<M: Media>(&self, media: &M, at: u64) -> Result<()> {
        let kind = kind_at(media, at)?;
        // Until the bits agree with the map again nobody reads that: he would find the page free, and give it out, before it is free here. In this
        // order, as who has none among the others takes it of those for records.
        let mut others = self.others.lock();
        let mut records = self.records.lock();
        store_code(media, at, 0);
        media.fence()?;
        // A chunk that was not read finds the code of 0 when it is.
        if !others.give(at, kind.pages()) {
            records.give(at, kind.pages());
        }
        Ok(())
    }
}

impl Pages {
    /// Reads the maps that were not read.
    ///
    /// # Errors
    /// [`Damage`] of a map.
    pub fn read_all<M: Media>(&self, media: &M) -> Result<()> {
        for state in [&self.records, &self.others] {
            let mut state = state.lock();
            while state.read_next(media)? {}
        }
        Ok(())
    }

    /// Takes the chunk at `at` out: nobody is given pages of it until [`Self::open_chunk`].
    pub fn close_chunk(&self, at: u64) {
        self.closed.write().insert(at);
        self.any_closed.store(true, Ordering::Release);
        for state in [&self.records, &self.others] {
            let mut state = state.lock();
            state.chunks.retain(|chunk| chunk.at != at);
            state.look_everywhere();
        }
    }

    /// Puts a chunk, of records or not, back that was taken out.
    ///
    /// # Errors
    /// [`Damage`] of its map.
    pub fn open_chunk<M: Media>(&self, media: &M, at: u64, of_records: bool) -> Result<()> {
        let mut state = if of_records { self.records.lock() } else { self.others.lock() };
        let mut closed = self.closed.write();
        if closed.remove(&at) {
            self.any_closed.store(!closed.is_empty(), Ordering::Release);
            state.add(with_runs(at, &runs(media, at)?));
            state.look_everywhere();
        }
        Ok(())
    }

    /// Whether the page at `at` lies in a chunk that is being emptied.
    #[inline]
    pub fn is_closed(&self, at: u64) -> bool {
        self.any_closed.load(Ordering::Acquire) && self.closed.read().contains(&(at - at % CHUNK))
    }

    /// The chunks of everything but records. Those whose maps were not read are left out.
    pub fn of_indexes(&self) -> Vec<u64> {
        self.others.lock().chunks.iter().map(|chunk| chunk.at).collect()
    }

    /// The chunks of records, each with how many slabs its free pages have room for. Chunks whose maps were not read are left out.
    pub fn rooms(&self) -> Vec<(u64, u64)> {
        let state = self.records.lock();
        state.chunks.iter().map(|chunk| (chunk.at, chunk.rooms())).collect()
    }

    /// Takes out the chunks of which every page is free: where they begin. They are the caller's to give back.
    pub fn take_free_chunks(&self) -> Vec<u64> {
        let mut all = Vec::new();
        for state in [&self.records, &self.others] {
            let mut state = state.lock();
            let is_free = |chunk: &PageChunk| chunk.free == PAGES - 1;
            all.extend(state.chunks.iter().filter(|chunk| is_free(chunk)).map(|chunk| chunk.at));
            state.chunks.retain(|chunk| !is_free(chunk));
            state.look_everywhere();
        }
        all
    }
}

impl State {
    fn find(&mut self, count: usize) -> Option<(usize, usize)> {
        let first = self.first[length(count)];
        for (chunk, at) in self.chunks.iter().zip(0..).skip(first) {
            if let Some(page) = chunk.find(count) {
                self.first[length(count)] = if count < LENGTHS - 1 { at } else { first };
                return Some((at, page));
            }
        }
        if count < LENGTHS - 1 {
            self.first[length(count)] = self.chunks.len();
        }
        None
    }

    /// As [`Self::find`], also in some chunks that were not read.
    fn find_read<M: Media>(&mut self, media: &M, count: usize) -> Result<Option<(usize, usize)>> {
        let mut found = self.find(count);
        for _ in 0..READ_AHEAD {
            if found.is_some() {
                break;
            }
            if !self.read_next(media)? {
                break;
            }
            found = self.find(count);
        }
        Ok(found)
    }

    /// A run of `count` pages of a new chunk.
    fn find_new<M: Media>(
        &mut self,
        media: &M,
        chunks: &Chunks,
        count: usize,
        reserve: Reserve,
    ) -> Result<(usize, usize)> {
        let is_late = mutation::is(Mutation::MapLate);
        let prepare = |at| if is_late { Ok(()) } else { format_map(media, at) };
        let at = match chunks.take_prepared(media, self.kind, 1, reserve, prepare) {
            Ok(at) => at,
            Err(error @ Error::NoSpace { .. }) => return self.find_in_rest(media, count)?.ok_or(error),
            Err(error) => return Err(error),
        };
        if is_late {
            format_map(media, at)?;
        }
        self.add(PageChunk::new(at));
        Ok((self.chunks.len() - 1, 1))
    }

    /// When there is no other space: every chunk that was not looked at.
    fn find_in_rest<M: Media>(&mut self, media: &M, count: usize) -> Result<Option<(usize, usize)>> {
        while self.read_next(media)? {}
        self.first[length(count)] = 0;
        Ok(self.find(count))
    }

    /// Reads the first chunk that was not read: whether there was one. A map that can not be read stays unread, and nobody gets space behind it.
    fn read_next<M: Media>(&mut self, media: &M) -> Result<bool> {
        let Some(run) = self.unread.last().copied() else { return Ok(false) };
        let found = match run.kind {
            ChunkKind::Record => vec![PageRun { at: run.at(), kind: PageKind::Record(0) }],
            _ => runs(media, run.at())?,
        };
        self.unread.pop();
        if let Some(inherited) = &self.inherited {
            inherited.add(&found, self.unread.last().map_or(u64::MAX, Run::at));
        }
        if run.kind != ChunkKind::Record {
            self.add(with_runs(run.at(), &found));
        }
        Ok(true)
    }

    fn add(&mut self, chunk: PageChunk) {
        self.chunks.push(chunk);
    }

    fn look_everywhere(&mut self) {
        self.first.fill(0);
        self.scraps = 0;
    }

    /// Takes the run at `page` of a chunk: where it begins, in bytes.
    fn take<M: Media>(&mut self, media: &M, kind: PageKind, chunk: usize, page: usize) -> u64 {
        self.chunks[chunk].set(page, kind.pages(), true);
        self.scraps = self.scraps.min(chunk);
        let at = self.chunks[chunk].at + page as u64 * PAGE;
        store_code(media, at, kind.code());
        at
    }

    /// Takes a run, the last that is free in some chunk.
    fn take_last<M: Media>(&mut self, media: &M, kind: PageKind) -> Option<u64> {
        let last = |(n, chunk): (usize, &PageChunk)| Some((n, chunk.last(kind.pages())?));
        let (chunk, page) = self.chunks.iter().enumerate().find_map(last)?;
        Some(self.take(media, kind, chunk, page))
    }

    /// Takes a page that no slab has room for.
    fn take_scrap<M: Media>(&mut self, media: &M, kind: PageKind) -> Option<u64> {
        let scrap = |(n, chunk): (usize, &PageChunk)| Some((n, chunk.scrap()?));
        let found = self.chunks.iter().enumerate().skip(self.scraps).find_map(scrap);
        self.scraps = found.map_or(self.chunks.len(), |(chunk, _)| chunk);
        found.map(|(chunk, page)| self.take(media, kind, chunk, page))
    }

    /// Gives the run of `count` pages at `at` back: whether its chunk is here.
    fn give(&mut self, at: u64, count: usize) -> bool {
        let page = ((at % CHUNK) / PAGE) as usize;
        let Some(found) = self.chunks.iter().position(|chunk| chunk.at == at - at % CHUNK) else {
            return false;
        };
        if self.chunks[found].is_used(page) {
            self.chunks[found].set(page, count, false);
            self.first.iter_mut().for_each(|first| *first = (*first).min(found));
            self.scraps = self.scraps.min(found);
        }
        true
    }
}

/// Makes every page of a chunk free, durably, so that no code is left of what the chunk was.
fn format_map<M: Media>(media: &M, at: u64) -> Result<()> {
    let mut map = [0; PAGE as usize];
    map[..2].copy_from_slice(&PageKind::Map.code().to_le_bytes());
    media.write_through(at, &map);
    media.fence()
}

fn store_code<M: Media>(media: &M, at: u64, code: u16) {
    let (word, shift) = (code_word(at), (at % CHUNK) / PAGE % 4 * 16);
    let mut old = media.load(word);
    loop {
        let new = old & !(0xffff << shift) | u64::from(code) << shift;
        match media.compare_exchange(word, old, new) {
            Ok(_) => break,
            Err(found) => old = found,
        }
    }
    media.flush(word, 8);
}

/// Where the word lies that has the code of the page at byte `at`.
#[must_use]
pub const fn code_word(at: u64) -> u64 {
    at - at % CHUNK + (at % CHUNK) / PAGE / 4 * 8
}

/// The code of the page at byte `at`.
fn code_at<M: Media>(media: &M, at: u64) -> u16 {
    (media.load(code_word(at)) >> ((at % CHUNK) / PAGE % 4 * 16)) as u16
}

/// What the run is that begins at byte `at`.
///
/// # Errors
/// [`Damage`] where none does.
pub fn kind_at<M: Media>(media: &M, at: u64) -> Result<PageKind> {
    let code = code_at(media, at);
    PageKind::of(code)
        .ok_or_else(|| Damage::new(Structure::PageMap, at, "a kind of page", 1, u64::from(code)).into())
}

/// The runs of the chunk of pages at byte `at`, in order, its map left out.
///
/// # Errors
/// [`Damage`] where a code makes no sense, or a run leaves the chunk.
pub fn runs<M: Media>(media: &M, at: u64) -> Result<Vec<PageRun>> {
    let mut map = [0; PAGE as usize];
    media.read(at, &mut map);
    let codes = map.as_chunks::<2>().0;
    let damage = |page: usize, what, code: u16| {
        Damage::new(Structure::PageMap, at + page as u64 * 2, what, PAGES as u64, u64::from(code))
    };
    let mut found = Vec::new();
    let mut page = 0;
    while page < PAGES {
        let code = u16::from_le_bytes(codes[page]);
        if code == 0 && page > 0 {
            page += 1;
            continue;
        }
        let kind = PageKind::of(code).filter(|kind| (*kind == PageKind::Map) == (page == 0));
        let kind = kind.ok_or_else(|| damage(page, "a kind of page", code))?;
        let count = kind.pages();
        if count == 0 || count > PAGES - page {
            return Err(damage(page, "a run within its chunk", code).into());
        }
        if kind != PageKind::Map {
            found.push(PageRun { at: at + page as u64 * PAGE, kind });
        }
        page += count;
    }
    Ok(found)
}

/// The chunk at `at` with these runs.
fn with_runs(at: u64, runs: &[PageRun]) -> PageChunk {
    let mut chunk = PageChunk::new(at);
    runs.iter().for_each(|run| chunk.set(((run.at - at) / PAGE) as usize, run.kind.pages(), true));
    chunk
}
