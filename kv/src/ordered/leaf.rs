//! What does a leaf of the ordered index look like on media?
//!
//! A leaf holds the keys of a range, whole, and for each a hint where its record lies. It is written once, and then only
//! appended to:
//!
//! | offset | size | field | meaning |
//! | --- | --- | --- | --- |
//! | 0 | 4 | `sum` | hash of bytes 4 to `sorted_end`, of the tree and of the page's offset; low half |
//! | 4 | 4 | `head_sum` | the same hash of bytes 8 to 32 and the low bound |
//! | 8 | 4 | `tree` | the tree it belongs to |
//! | 12 | 2 | `magic` | 0x4c6f |
//! | 14 | 2 | `flags` | 1: keys of the range were lost |
//! | 16 | 2 | `count` | keys of the sorted part |
//! | 18 | 2 | `width` | bytes of every suffix of the sorted part; 0xffff where they differ |
//! | 20 | 2 | `low_len` | bytes of the low bound |
//! | 22 | 2 | `prefix_len` | bytes that every key of the leaf starts with |
//! | 24 | 4 | `sorted_end` | where the sorted part ends, a multiple of 8 |
//! | 28 | 4 | `bytes` | of the page |
//! | 32 | | | low bound, prefix, sorted keys: hint (6), suffix's length (2, where `width` is 0xffff), suffix |
//! | `sorted_end` | | | appended entries, each a multiple of 8; zeros after the last |
//!
//! A hint: offset of the record in units of 8 bytes (35 bits), low bits of its sequence number (13).
//!
//! An appended entry: hint (6); length of the suffix, 0x4000, and 0x8000 for a deleted key (2); low 16 bits of the
//! hash of those and the suffix, salted with `sum` and the entry's place (2); suffix; zeros.
//!
//! Invariants:
//! 1. No byte before `sorted_end` changes while the leaf can be reached; no word of the appended part changes but from
//!    zero to its value.
//! 2. An entry counts if it and all before it are whole. What was torn by a crash is told from what was not by its hash.

use super::corrupt;
use super::keys::{common, head};
use super::mutation::{self, Mutation};
use crate::error::Result;
use std::cmp::Ordering;
use std::ops::Range;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Bytes of the header.
pub(super) const HEADER: usize = 32;
/// The longest key.
pub(super) const MAX_KEY: usize = 4096;

const MAGIC: u16 = 0x4c6f;
pub(super) const VARIES: u16 = u16::MAX;
const LOST: u16 = 1;
const PRESENT: u16 = 0x4000;
const DELETED: u16 = 0x8000;
const LENGTH: u16 = 0x3fff;
pub(super) const ENTRY_HEAD: usize = Hint::BYTES + 4;
/// The shortest and the longest of no keys.
const NO_LENGTHS: (u16, u16) = (u16::MAX, 0);
/// Keys of so many bytes are put together in one word.
const SHORT: usize = 16;
/// Below this many keys a leaf has no prefix: most keys that come would not share it.
const PREFIX_FROM: usize = 16;

pub(super) fn u16_at(page: &[u8], at: usize) -> u16 {
    page.get(at..).and_then(|b| b.first_chunk()).map_or(0, |b| u16::from_le_bytes(*b))
}

fn u32_at(page: &[u8], at: usize) -> u32 {
    page.get(at..).and_then(|b| b.first_chunk()).map_or(0, |b| u32::from_le_bytes(*b))
}

/// Where a record lay when the index was told of it, and the low bits of its sequence number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hint(u64);

impl Hint {
    pub(super) const BYTES: usize = 6;
    /// Bits of the offset, in units of 8 bytes; the rest is the sequence number's.
    const PLACE_BITS: u32 = 35;
    const SEQUENCE_MASK: u64 = (1 << (Self::BYTES as u32 * 8 - Self::PLACE_BITS)) - 1;

    /// Of the record at `at` with this sequence number; what does not fit is no hint.
    #[inline]
    pub(super) const fn new(at: u64, sequence: u64) -> Self {
        let place = at / 8;
        if !at.is_multiple_of(8) || place >= 1 << Self::PLACE_BITS {
            return Self(0);
        }
        Self(place | (sequence & Self::SEQUENCE_MASK) << Self::PLACE_BITS)
    }

    /// The record's offset in bytes, a multiple of 8; 0 where it is not known.
    #[inline]
    #[must_use]
    pub const fn at(self) -> u64 {
        (self.0 & ((1 << Self::PLACE_BITS) - 1)) * 8
    }

    /// Whether it may be that of a record with this sequence number.
    #[inline]
    #[must_use]
    pub const fn is_of(self, sequence: u64) -> bool {
        self.0 >> Self::PLACE_BITS == sequence & Self::SEQUENCE_MASK
    }

    /// That in the first bytes of `bytes`, which are enough.
    #[inline]
    pub(super) fn read(bytes: &[u8]) -> Self {
        let mut word = [0; 8];
        word[..Self::BYTES].copy_from_slice(&bytes[..Self::BYTES]);
        Self(u64::from_le_bytes(word))
    }

    /// That in the low bytes of `word`.
    #[inline]
    pub(super) const fn of_word(word: u64) -> Self {
        Self(word & ((1 << (Self::BYTES as u32 * 8)) - 1))
    }

    fn put(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0.to_le_bytes()[..Self::BYTES]);
    }
}

/// Where a page lies, and whose it is: part of every hash, so that a page out of place is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub tree: u32,
    pub at: u64,
}

impl Place {
    pub(super) fn seed(self) -> u64 {
        self.at ^ (u64::from(self.tree) << 40).rotate_left(7)
    }

    fn sum(self, bytes: &[u8]) -> u32 {
        xxh3_64_with_seed(bytes, self.seed()) as u32
    }
}

/// A checked header. Offsets and lengths in bytes, within the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub place: Place,
    pub sum: u32,
    pub lost: bool,
    pub count: usize,
    pub width: u16,
    low_len: usize,
    prefix_len: usize,
    pub sorted_end: usize,
    pub bytes: usize,
}

impl Header {
    /// How many bytes of a page are to be read for its header with the low bound, given its first [`HEADER`].
    pub(super) fn extent(start: &[u8]) -> usize {
        HEADER + usize::from(u16_at(start, 20)).min(MAX_KEY)
    }

    /// Checks the header in the start of a page, which reaches to the end of the low bound.
    pub(super) fn parse(place: Place, start: &[u8]) -> Result<Self> {
        let extent = Self::extent(start);
        let Some(checked) = start.get(8..extent) else {
            return Err(corrupt(place.at, "bytes of a leaf's header", extent, start.len()));
        };
        let (expected, found) = (place.sum(checked), u32_at(start, 4));
        if found != expected {
            return Err(corrupt(place.at, "hash of a leaf's header", expected, found));
        }
        Self::unchecked(place, start)
            .ok_or_else(|| corrupt(place.at, "a leaf's header", MAGIC, u16_at(start, 12)))
    }

    /// What the start of a page says, if a header can: [`Self::check_all`] is to follow.
    pub(super) fn unchecked(place: Place, start: &[u8]) -> Option<Self> {
        let header = Self {
            place,
            sum: u32_at(start, 0),
            lost: u16_at(start, 14) & LOST != 0,
            count: u16_at(start, 16).into(),
            width: u16_at(start, 18),
            low_len: u16_at(start, 20).into(),
            prefix_len: u16_at(start, 22).into(),
            sorted_end: u32_at(start, 24) as usize,
            bytes: u32_at(start, 28) as usize,
        };
        let fits =
            header.prefix_at() + header.prefix_len <= header.sorted_end && header.sorted_end <= header.bytes;
        let sound = u16_at(start, 12) == MAGIC && u32_at(start, 8) == place.tree && header.low_len <= MAX_KEY;
        (fits && sound).then_some(header)
    }

    fn prefix_at(&self) -> usize {
        HEADER + self.low_len
    }

    fn keys_at(&self) -> usize {
        self.prefix_at() + self.prefix_len
    }

    /// The low bound; `page` is what was parsed, or more.
    pub(super) fn low<'p>(&self, page: &'p [u8]) -> &'p [u8] {
        &page[HEADER..self.prefix_at()]
    }

    /// Bytes that every key starts with.
    pub(super) fn prefix_len(&self) -> usize {
        self.prefix_len
    }

    /// What every key starts with; `page` reaches to its end.
    pub(super) fn prefix<'p>(&self, page: &'p [u8]) -> &'p [u8] {
        &page[self.prefix_at()..self.keys_at()]
    }

    /// Where in a page that lies.
    pub(super) fn prefix_range(&self) -> Range<usize> {
        self.prefix_at()..self.keys_at()
    }

    /// Checks header and sorted part of the whole `page`, for who has this from [`Self::unchecked`].
    pub(super) fn check_all(&self, page: &[u8]) -> Result<()> {
        // The hash of the sorted part is one of the header, too.
        self.check(page).map_err(|error| Self::parse(self.place, page).err().unwrap_or(error))
    }

    /// Checks the sorted part of the whole `page`.
    pub(super) fn check(&self, page: &[u8]) -> Result<()> {
        let Some(part) = page.get(4..self.sorted_end).filter(|_| page.len() == self.bytes) else {
            return Err(corrupt(self.place.at, "bytes of a leaf", page.len(), self.bytes));
        };
        match self.place.sum(part) {
            sum if sum == self.sum => Ok(()),
            sum => Err(corrupt(self.place.at, "hash of a leaf's keys", sum, self.sum)),
        }
    }
}

/// A key and where its record may lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Item {
    /// The first eight bytes of the key after the prefix of the leaf it was in: most comparisons end there.
    head: u64,
    at: u32,
    len: u16,
    deleted: bool,
    pub hint: Hint,
}

/// The keys of a leaf in order, taken out of it.
#[derive(Debug)]
pub(super) struct Content {
    arena: Vec<u8>,
    /// Bytes of the shortest and of the longest key of the arena.
    lengths: (u16, u16),
    /// Bytes of the keys that the heads do not say.
    prefix_len: usize,
    pub items: Vec<Item>,
    appended: Vec<Item>,
    merged: Vec<Item>,
}

impl Default for Content {
    fn default() -> Self {
        let (arena, items, appended, merged) = Default::default();
        Self { arena, lengths: NO_LENGTHS, prefix_len: 0, items, appended, merged }
    }
}

/// What was found behind the sorted part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tail {
    /// Where the next entry goes.
    pub end: usize,
    /// Whether nothing but zeros follows.
    pub clean: bool,
}

impl Content {
    #[inline]
    pub(super) fn key(&self, item: &Item) -> &[u8] {
        &self.arena[item.at as usize..item.at as usize + usize::from(item.len)]
    }

    pub(super) fn clear(&mut self) {
        self.arena.clear();
        self.items.clear();
        self.appended.clear();
        (self.lengths, self.prefix_len) = (NO_LENGTHS, 0);
    }

    /// Adds the items of `other`, whose keys are all above.
    pub(super) fn append(&mut self, other: &Self) {
        self.head_from_start();
        let start = self.arena.len() as u32;
        self.arena.extend_from_slice(&other.arena);
        self.lengths = (self.lengths.0.min(other.lengths.0), self.lengths.1.max(other.lengths.1));
        self.items.extend(other.items.iter().map(|item| Item {
            head: head(other.key(item), 0),
            at: start + item.at,
            ..*item
        }));
    }

    /// Makes heads those of whole keys: they are comparable as long as they are of the same place in the key.
    fn head_from_start(&mut self) {
        if self.prefix_len > 0 {
            self.prefix_len = 0;
            let Self { items, arena, .. } = self;
            let key = |item: &Item| &arena[item.at as usize..][..item.len.into()];
            items.iter_mut().for_each(|item| item.head = head(key(item), 0));
        }
    }

    /// Takes changes over what is there: keys with their hints, or `None` where they are deleted, in order.
    pub(super) fn change<'k>(&mut self, changes: impl Iterator<Item = (&'k [u8], Option<Hint>)> + Clone) {
        let shared = self.items.first().map_or(&[][..], |item| &self.key(item)[..self.prefix_len]);
        if shared.is_empty() || !changes.clone().all(|(key, _)| key.starts_with(shared)) {
            self.head_from_start();
        }
        for (key, hint) in changes {
            let item = self.take(&[], key, hint.unwrap_or_default(), hint.is_none());
            self.appended.push(Item { head: head(key, self.prefix_len), ..item });
        }
        self.merge_appended();
    }

    fn take(&mut self, prefix: &[u8], suffix: &[u8], hint: Hint, deleted: bool) -> Item {
        let at = self.arena.len() as u32;
        self.arena.extend_from_slice(prefix);
        self.arena.extend_from_slice(suffix);
        let len = (prefix.len() + suffix.len()) as u16;
        self.lengths = (self.lengths.0.min(len), self.lengths.1.max(len));
        Item { head: head(suffix, 0), at, len, deleted, hint }
    }

    fn order(&self, a: &Item, b: &Item) -> Ordering {
        a.head.cmp(&b.head).then_with(|| self.key(a).cmp(self.key(b)))
    }

    /// Takes everything out of a whole page whose header was checked.
    ///
    /// # Errors
    /// [`crate::error::Damage`] where the sorted part does not match its hash; what is appended has been taken then.
    pub(super) fn read(&mut self, header: &Header, page: &[u8]) -> Result<Tail> {
        self.clear();
        self.prefix_len = header.prefix_len;
        let sorted = header.check(page).and_then(|()| self.read_sorted(header, page));
        if sorted.is_err() {
            self.items.clear();
        }
        let tail = self.read_appended(header, page);
        self.merge_appended();
        sorted.map(|()| tail)
    }

    fn read_sorted(&mut self, header: &Header, page: &[u8]) -> Result<()> {
        let prefix = header.prefix(page);
        let (mut at, end) = (header.keys_at(), header.sorted_end);
        // What was appended follows.
        let appended = (page.len() - header.sorted_end) / entry_bytes(1);
        self.arena.reserve(page.len() + (header.count + appended) * prefix.len());
        self.items.reserve(header.count + appended);
        let width = usize::from(header.width);
        if header.width != VARIES && prefix.len() + width > 0 {
            let whole = at + header.count * (Hint::BYTES + width);
            if whole > end {
                return Err(corrupt(header.place.at, "the end of a leaf's key", end, whole));
            }
            self.read_even(header, prefix, width, &page[at..]);
            return Ok(());
        }
        for _ in 0..header.count {
            let (from, len) = match header.width {
                VARIES => (at + Hint::BYTES + 2, usize::from(u16_at(page, at + Hint::BYTES))),
                width => (at + Hint::BYTES, usize::from(width)),
            };
            let Some(suffix) = page[..end].get(from..from + len) else {
                return Err(corrupt(header.place.at, "the end of a leaf's key", end, from + len));
            };
            let item = self.take(prefix, suffix, Hint::read(&page[at..]), false);
            self.items.push(item);
            at = from + len;
        }
        Ok(())
    }

    /// Takes the keys at the start of `page`, what follows the prefix, whose suffixes are all `width` bytes long: most leaves are so.
    fn read_even(&mut self, header: &Header, prefix: &[u8], width: usize, page: &[u8]) {
        let (each, len) = (Hint::BYTES + width, prefix.len() + width);
        self.lengths = (len as u16, len as u16);
        let Self { arena, items, .. } = self;
        let item = |i, head, hint| Item { head, at: (i * len) as u32, len: len as u16, deleted: false, hint };
        if (1..=SHORT).contains(&width) && len <= SHORT {
            // Words, not bytes: this is most of what is done for a leaf.
            let mask = !0 >> (8 * (SHORT - width));
            let mut start = [0; SHORT];
            start[..prefix.len()].copy_from_slice(prefix);
            let start = u128::from_le_bytes(start);
            arena.resize(header.count * len + SHORT, 0);
            for i in 0..header.count {
                let from = page.get(i * each..).unwrap_or_default();
                let suffix = from.get(Hint::BYTES..).and_then(|suffix| suffix.first_chunk());
                let Some(suffix) = suffix.map(|suffix| u128::from_le_bytes(*suffix) & mask) else { break };
                let key = suffix << (8 * prefix.len()) | start;
                arena[i * len..i * len + SHORT].copy_from_slice(&key.to_le_bytes());
                items.push(item(i, (suffix as u64).swap_bytes(), Hint::read(from)));
            }
        }
        arena.resize(header.count * len, 0);
        for i in items.len()..header.count {
            let (start, rest) = arena[i * len..(i + 1) * len].split_at_mut(prefix.len());
            let from = &page[i * each..(i + 1) * each];
            start.copy_from_slice(prefix);
            rest.copy_from_slice(&from[Hint::BYTES..]);
            items.push(item(i, head(rest, 0), Hint::read(from)));
        }
    }

    fn read_appended(&mut self, header: &Header, page: &[u8]) -> Tail {
        let prefix = if header.keys_at() <= page.len() { header.prefix(page) } else { &[] };
        let mut at = header.sorted_end;
        while let Some((suffix, deleted)) = entry_at(header.sum, page, at) {
            let item = self.take(prefix, suffix, Hint::read(&page[at..]), deleted);
            self.appended.push(item);
            at += entry_bytes(suffix.len());
        }
        // All at once, not byte by byte until one is found: this is done for every leaf that is read.
        let rest = page.get(at..).unwrap_or_default().as_chunks::<8>().0;
        let clean = rest.iter().fold(0, |seen, word| seen | u64::from_ne_bytes(*word)) == 0;
        Tail { end: at, clean }
    }

    /// Brings what was appended into order; the last entry of a key decides.
    fn sort_appended(&mut self) {
        let mut appended = std::mem::take(&mut self.appended);
        // Later entries lie further on in the arena.
        appended.sort_unstable_by(|a, b| self.order(a, b).then(b.at.cmp(&a.at)));
        appended.dedup_by(|older, newest| self.order(older, newest).is_eq());
        self.appended = appended;
    }

    /// Brings what was appended into the order of the rest.
    fn merge_appended(&mut self) {
        if self.appended.is_empty() {
            return;
        }
        self.sort_appended();
        let mut appended = std::mem::take(&mut self.appended);
        let mut merged = std::mem::take(&mut self.merged);
        merged.clear();
        let mut old = self.items.iter().peekable();
        for new in &appended {
            while let Some(item) = old.next_if(|item| self.order(item, new).is_lt()) {
                merged.push(*item);
            }
            let _replaced = old.next_if(|item| self.order(item, new).is_eq());
            if !new.deleted {
                merged.push(*new);
            }
        }
        merged.extend(old);
        self.merged = std::mem::replace(&mut self.items, merged);
        appended.clear();
        self.appended = appended;
    }
}

/// Bytes of an appended entry with a suffix of `len` bytes.
pub(super) fn entry_bytes(len: usize) -> usize {
    (ENTRY_HEAD + len).next_multiple_of(8)
}

fn entry_sum(sum: u32, at: usize, head: &[u8], suffix: &[u8]) -> u16 {
    let first = head.first_chunk().map_or(0, |head| u64::from_le_bytes(*head));
    let seed = (u64::from(sum) << 32 | at as u64) ^ first.rotate_left(11);
    xxh3_64_with_seed(suffix, seed) as u16
}

/// The suffix of the whole entry at `at`, and whether it says that its key is deleted.
#[inline]
pub(super) fn entry_at(sum: u32, page: &[u8], at: usize) -> Option<(&[u8], bool)> {
    let entry = page.get(at..)?;
    let length = u16_at(entry, Hint::BYTES);
    let suffix = entry.get(ENTRY_HEAD..ENTRY_HEAD + usize::from(length & LENGTH))?;
    let whole = u16_at(entry, Hint::BYTES + 2) == entry_sum(sum, at, &entry[..Hint::BYTES + 2], suffix)
        || mutation::is(Mutation::NoEntrySum);
    (length & PRESENT != 0 && whole).then_some((suffix, length & DELETED != 0))
}

/// Writes an entry for byte `at` of the leaf whose hash is `sum` into `out`, which it replaces.
pub(super) fn encode_entry(out: &mut Vec<u8>, sum: u32, at: usize, suffix: &[u8], hint: Option<Hint>) {
    out.clear();
    hint.unwrap_or_default().put(out);
    let length = suffix.len() as u16 | PRESENT | if hint.is_none() { DELETED } else { 0 };
    out.extend_from_slice(&length.to_le_bytes());
    let check = entry_sum(sum, at, &out[..Hint::BYTES + 2], suffix);
    out.extend_from_slice(&check.to_le_bytes());
    out.extend_from_slice(suffix);
    out.resize(entry_bytes(suffix.len()), 0);
}

/// What a run of items needs on media.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub prefix_len: usize,
    width: u16,
    /// Bytes of the longest key.
    pub longest: usize,
}

impl Shape {
    /// Of `items`, which are in order.
    pub(super) fn of(content: &Content, items: &[Item]) -> Self {
        let prefix_len = match (items.first(), items.last()) {
            (Some(a), Some(b)) if items.len() >= PREFIX_FROM => common(content.key(a), content.key(b)),
            _ => 0,
        };
        let lengths = match content.lengths {
            (least, most) if least == most && !items.is_empty() => (least, most),
            _ => {
                items.iter().fold(NO_LENGTHS, |(least, most), item| (item.len.min(least), item.len.max(most)))
            }
        };
        let width = match lengths {
            (least, most) if least >= most => most - prefix_len as u16,
            _ => VARIES,
        };
        Self { prefix_len, width, longest: lengths.1.into() }
    }

    /// Bytes of `item` in the sorted part.
    pub(super) fn item_bytes(&self, item: &Item) -> usize {
        self.key_bytes(item.len.into())
    }

    /// The most that an item takes there.
    pub(super) fn most_bytes(&self) -> usize {
        self.key_bytes(self.longest)
    }

    /// Bytes that `items` take there.
    pub(super) fn all_bytes(&self, items: &[Item]) -> usize {
        match self.width {
            VARIES => items.iter().map(|item| self.item_bytes(item)).sum(),
            _ => items.len() * self.most_bytes(),
        }
    }

    #[inline]
    fn key_bytes(&self, len: usize) -> usize {
        len - self.prefix_len + Hint::BYTES + if self.width == VARIES { 2 } else { 0 }
    }
}

/// Appends hints and suffixes of `items`, of keys of at most [`SHORT`] bytes, word by word as far as it goes: how many.
fn encode_short(out: &mut Vec<u8>, shape: Shape, content: &Content, items: &[Item]) -> usize {
    if shape.width == VARIES || shape.prefix_len == SHORT {
        return 0;
    }
    let (each, mut at, mut done) = (shape.most_bytes(), out.len(), 0);
    out.resize(at + items.len() * each + SHORT, 0);
    for item in items {
        let Some(key) = content.arena[item.at as usize..].first_chunk() else { break };
        let suffix = u128::from_le_bytes(*key) >> (8 * shape.prefix_len);
        out[at..at + 8].copy_from_slice(&item.hint.0.to_le_bytes());
        // What does not belong to the key is overwritten by what follows.
        out[at + Hint::BYTES..at + Hint::BYTES + SHORT].copy_from_slice(&suffix.to_le_bytes());
        (at, done) = (at + each, done + 1);
    }
    out.truncate(at);
    done
}

/// Writes a leaf of `bytes` bytes with `items` of `content` into `out`, which it replaces; `None` where they do not fit.
pub(super) fn encode(
    out: &mut Vec<u8>,
    place: Place,
    bytes: usize,
    low: &[u8],
    lost: bool,
    content: &Content,
    items: &[Item],
) -> Option<Header> {
    let shape = Shape::of(content, items);
    let prefix = items.first().map_or(&[][..], |item| &content.key(item)[..shape.prefix_len]);
    out.clear();
    out.resize(HEADER, 0);
    out.extend_from_slice(low);
    out.extend_from_slice(prefix);
    let from = if shape.longest <= SHORT { encode_short(out, shape, content, items) } else { 0 };
    for item in &items[from..] {
        item.hint.put(out);
        if shape.width == VARIES {
            out.extend_from_slice(&(item.len - shape.prefix_len as u16).to_le_bytes());
        }
        out.extend_from_slice(&content.key(item)[shape.prefix_len..]);
    }
    let sorted_end = out.len().next_multiple_of(8);
    if sorted_end > bytes {
        return None;
    }
    out.resize(bytes, 0);
    let mut put = |at: usize, field: &[u8]| out[at..at + field.len()].copy_from_slice(field);
    put(8, &place.tree.to_le_bytes());
    put(12, &MAGIC.to_le_bytes());
    put(14, &u16::from(lost).to_le_bytes());
    put(16, &(items.len() as u16).to_le_bytes());
    put(18, &shape.width.to_le_bytes());
    put(20, &(low.len() as u16).to_le_bytes());
    put(22, &(shape.prefix_len as u16).to_le_bytes());
    put(24, &(sorted_end as u32).to_le_bytes());
    put(28, &(bytes as u32).to_le_bytes());
    let head_sum = place.sum(&out[8..HEADER + low.len()]);
    out[4..8].copy_from_slice(&head_sum.to_le_bytes());
    let sum = place.sum(&out[4..sorted_end]);
    out[..4].copy_from_slice(&sum.to_le_bytes());
    Header::parse(place, out).ok()
}
