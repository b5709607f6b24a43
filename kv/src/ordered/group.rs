//! Which leaf of a group holds a key, and what is known of it?
//!
//! A group is read when it is first touched: one or two lines of each of its leaves. From then on memory is ahead of the
//! medium, and only the writer changes both.
//!
//! Invariants:
//! 1. A leaf's page is read and written only under its group's lock, and given up only by who holds it exclusively: what a
//!    reader copies is one state of one leaf.
//! 2. A group holds the keys from its low bound to `high`, the low bound of the next group. Who finds his key outside, or
//!    the group retired, asks the top again.

use super::copies::OfLeaf;
use super::corrupt;
use super::keys::Keys;
use super::leaf::{Content, HEADER, Header, Place};
use super::root::{LINKS_AT, Page, check_group, linked, links};
use super::view::{Part, View};
use crate::error::{Error, Result};
use crate::media::Media;
use daxstore::sync::RwLock;
use smallvec::SmallVec;

/// Bytes of a prefix that lie with what else is known of the leaf: there is no other miss for a key of the usual length.
const PREFIX: usize = 16;

/// What memory knows of a leaf.
#[derive(Debug)]
pub(super) struct Leaf {
    pub page: Page,
    /// The offset of the word that links it.
    pub link: u64,
    /// The hash that salts what is appended.
    pub sum: u32,
    /// Where the next entry goes; `None` until somebody writes to the leaf.
    pub tail: Option<u32>,
    /// About how many keys it holds: deletions of keys that are not there count too.
    pub live: i32,
    /// How many were deleted since it was written.
    pub deleted: i32,
    /// What every key of its sorted part starts with.
    pub prefix: SmallVec<[u8; PREFIX]>,
    /// Its records in memory, where it was scanned.
    pub copy: OfLeaf,
}

impl Leaf {
    pub(super) fn new(page: Page, link: u64, header: &Header, bytes: &[u8]) -> Self {
        let prefix = header.prefix(bytes).into();
        Self {
            page,
            link,
            sum: header.sum,
            tail: None,
            live: header.count as i32,
            deleted: 0,
            prefix,
            copy: OfLeaf::default(),
        }
    }

    /// Whether a leaf that holds so many keys, after so many deletions, is to be merged with a neighbour.
    pub(super) fn is_sparse(&self, live: i32, deleted: i32) -> bool {
        live <= 0 || (deleted >= 8 && i64::from(live) * 64 < self.page.bytes as i64)
    }

    /// Reads the whole leaf into `content`, through `buf`.
    ///
    /// # Errors
    /// [`crate::error::Damage`]; `content` holds what was appended and could be read.
    pub(super) fn read<M: Media>(
        &self,
        media: &M,
        tree: u32,
        buf: &mut Vec<u8>,
        content: &mut Content,
    ) -> Result<Read> {
        let header = self.copy(media, tree, buf, content)?;
        let tail = content.read(&header, buf)?;
        Ok(Read { lost: header.lost, end: tail.end, clean: tail.clean })
    }

    /// Reads `part` of the leaf into `view`; `meanwhile` is called before its hash is compared.
    ///
    /// # Errors
    /// As [`Self::read`]; `view` holds nothing then.
    pub(super) fn view<M: Media>(
        &self,
        media: &M,
        tree: u32,
        view: &mut View,
        part: Part<'_>,
        meanwhile: impl FnOnce(&View),
    ) -> Result<Read> {
        view.read(media, Place { tree, at: self.page.at }, self.page.bytes, part, meanwhile)
    }

    fn copy<M: Media>(
        &self,
        media: &M,
        tree: u32,
        buf: &mut Vec<u8>,
        content: &mut Content,
    ) -> Result<Header> {
        content.clear();
        buf.resize(self.page.bytes as usize, 0);
        media.read(self.page.at, buf);
        Header::parse(Place { tree, at: self.page.at }, buf)
    }
}

/// What else was found in a leaf.
#[derive(Clone, Copy, Debug)]
pub(super) struct Read {
    /// Whether keys of its range were lost.
    pub lost: bool,
    /// Where the next entry goes.
    pub end: usize,
    /// Whether nothing follows.
    pub clean: bool,
}

/// A leaf that could not be read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Damaged {
    /// The offset of the word that links it.
    pub link: u64,
    /// Its page, unless the link itself is damaged.
    pub page: Option<Page>,
}

impl Damaged {
    pub(super) fn error(&self) -> Error {
        match self.page {
            Some(page) => corrupt(page.at, "a leaf's header", 1, 0),
            None => corrupt(self.link, "a link", 1, 0),
        }
    }
}

/// What memory knows of a group.
#[derive(Debug)]
pub(super) struct State {
    pub page: Page,
    /// The offset of the word that links it.
    pub link: u64,
    pub loaded: bool,
    /// Whether it is no group any more.
    pub retired: bool,
    pub keys: Keys,
    pub leaves: Vec<Leaf>,
    /// The bound above its keys; `None` for the last group.
    pub high: Option<Box<[u8]>>,
    /// What could not be read: the keys it held are missing.
    pub damaged: Vec<Damaged>,
}

/// A group behind its lock.
#[derive(Debug)]
pub(super) struct Group {
    pub state: RwLock<State>,
}

impl Group {
    /// A group of which nothing is known yet.
    pub(super) fn unloaded(page: Page, link: u64, high: Option<Box<[u8]>>) -> Self {
        let (keys, leaves, damaged) = Default::default();
        let state = State { page, link, loaded: false, retired: false, keys, leaves, high, damaged };
        Self { state: RwLock::new(state) }
    }
}

/// Reads the header of the leaf at `page`, and into `start` all up to its keys.
pub(super) fn read_header<M: Media>(media: &M, tree: u32, page: Page, start: &mut Vec<u8>) -> Result<Header> {
    if page.at.saturating_add(page.bytes) > media.len() {
        return Err(corrupt(page.at, "a leaf's end", media.len(), page.at + page.bytes));
    }
    // A bound and a prefix are rarely longer than what lies with the header in its line.
    let mut len = 0;
    let mut read = |wanted: usize, start: &mut Vec<u8>| {
        if len < wanted {
            start.clear();
            media.append_to(page.at, wanted, start);
            len = wanted;
        }
    };
    read(64.min(page.bytes as usize), start);
    read(Header::extent(start).min(page.bytes as usize), start);
    let header = Header::parse(Place { tree, at: page.at }, start)?;
    if header.bytes as u64 != page.bytes {
        return Err(corrupt(page.at, "bytes of a leaf", page.bytes, header.bytes as u64));
    }
    read(header.low(start).len() + HEADER + header.prefix_len(), start);
    Ok(header)
}

impl State {
    /// Whether `key` is to be looked for here: the group is loaded, and the key within its bounds.
    pub(super) fn holds(&self, key: &[u8]) -> bool {
        self.loaded && !self.retired && self.high.as_ref().is_none_or(|high| *key < **high)
    }

    /// Whether the keys just below `key` are to be looked for here.
    pub(super) fn holds_below(&self, key: &[u8]) -> bool {
        self.loaded && !self.retired && self.high.as_ref().is_none_or(|high| *key <= **high)
    }

    /// Whether `key` lies below the leaf above that at `place`.
    #[inline]
    pub(super) fn is_below_next(&self, key: &[u8], place: usize) -> bool {
        let is_below = self.keys.is_below(key, place + 1);
        is_below.unwrap_or_else(|| self.high.as_ref().is_none_or(|high| *key < **high))
    }

    /// The bound above the leaf at `place`.
    pub(super) fn high_of(&self, place: usize) -> Option<&[u8]> {
        self.keys.bound_of(place + 1).or(self.high.as_deref())
    }

    /// Reads the links of the group and the start of each leaf, unless that was done.
    ///
    /// # Errors
    /// [`crate::error::Damage`] where the group has no leaf that can be read.
    pub(super) fn load<M: Media>(&mut self, media: &M, tree: u32) -> Result<()> {
        if self.loaded {
            return Ok(());
        }
        check_group(media, tree, self.page)?;
        let (mut found, mut damaged) = (Vec::new(), Vec::new());
        let mut pages = Vec::new();
        for at in links(self.page) {
            match linked(media.load(at), at) {
                Ok(Some(page)) => {
                    media.prefetch(page.at);
                    pages.push((page, at));
                }
                Ok(None) => {}
                Err(_) => damaged.push(Damaged { link: at, page: None }),
            }
        }
        let mut start = Vec::new();
        for (page, link) in pages {
            match read_header(media, tree, page, &mut start) {
                Ok(header) => found.push((header.low(&start).into(), Leaf::new(page, link, &header, &start))),
                Err(_) => damaged.push(Damaged { link, page: Some(page) }),
            }
        }
        found.sort_unstable_by(|(a, _): &(Box<[u8]>, Leaf), (b, _)| a.cmp(b));
        if found.is_empty() {
            return Err(corrupt(self.page.at, "leaves of a group", 1, 0));
        }
        let (bounds, leaves): (Vec<_>, Vec<_>) = found.into_iter().unzip();
        *self = Self { keys: Keys::new(bounds), leaves, damaged, loaded: true, ..self.take() };
        Ok(())
    }

    fn take(&mut self) -> Self {
        let empty = Self {
            page: self.page,
            link: self.link,
            loaded: false,
            retired: true,
            keys: Keys::default(),
            leaves: Vec::new(),
            high: None,
            damaged: Vec::new(),
        };
        std::mem::replace(self, empty)
    }

    /// The links of the page that are not used.
    pub(super) fn free_links(&self) -> impl Iterator<Item = u64> + use<> {
        let mut used = vec![false; self.capacity()];
        let first = self.page.at + LINKS_AT;
        let damaged = self.damaged.iter().map(|damaged| damaged.link);
        for link in self.leaves.iter().map(|leaf| leaf.link).chain(damaged) {
            if let Some(used) = used.get_mut((link.wrapping_sub(first) / 8) as usize) {
                *used = true;
            }
        }
        links(self.page).zip(used).filter_map(|(at, used)| (!used).then_some(at))
    }

    /// How many leaves the group can link.
    pub(super) fn capacity(&self) -> usize {
        ((self.page.bytes - LINKS_AT) / 8) as usize
    }

    /// How much of `key` the prefix of the leaf at `place` does not say; `None` where the key does not share it.
    pub(super) fn suffix<'k>(&self, place: usize, key: &'k [u8]) -> Option<&'k [u8]> {
        key.strip_prefix(&*self.leaves[place].prefix)
    }
}
