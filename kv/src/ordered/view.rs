//! Which keys does a leaf hold, and where may their records lie, without taking the keys out?
//!
//! A [`View`] is a copy of a leaf's page and a list of its keys in order, each by its place in the copy. So a walk costs no copy of a key that
//! nobody asks for: records are asked for by the hints, and compared with the keys where these lie.
//!
//! Invariant: the list is of a leaf whose hash was compared, or empty. The hash is looked at last, while memory brings what the hints name: until
//! then the page is taken for bytes of which nothing is known.

use super::corrupt;
use super::group::Read;
use super::leaf::{ENTRY_HEAD, Header, Hint, Place, VARIES, entry_at, entry_bytes, u16_at};
use crate::error::Result;
use crate::media::Media;
use std::cmp::Ordering;
use std::ops::Range;

/// Bytes behind the page, so that a hint and the head of a key can be loaded together.
const PAD: usize = 16;

/// A key of a view, without what all of them start with, and where its record may lie.
#[derive(Clone, Copy, Debug)]
pub struct Slot {
    /// Where the record may lie.
    pub hint: Hint,
    at: u32,
    len: u16,
}

impl Slot {
    #[inline]
    fn suffix(self, page: &[u8]) -> &[u8] {
        page.get(self.at as usize..self.at as usize + usize::from(self.len)).unwrap_or_default()
    }

    /// The first eight bytes of the suffix, as [`super::keys::head`].
    #[inline]
    fn head(self, page: &[u8]) -> u64 {
        let word = page.get(self.at as usize..).and_then(|bytes| bytes.first_chunk());
        let word = word.map_or(0, |word| u64::from_be_bytes(*word));
        match self.len {
            8.. => word,
            0 => 0,
            len => word & (!0 << (64 - 8 * len)),
        }
    }
}

/// An appended key: its head, and its place among what was appended.
#[derive(Clone, Copy, Debug)]
struct Entry {
    head: u64,
    nth: u32,
}

/// Which keys of a leaf are listed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part<'k> {
    /// Those that are not below this one.
    pub from: &'k [u8],
    /// So many at most, from the lowest.
    pub most: usize,
}

/// A leaf's keys.
#[derive(Debug, Default)]
pub(super) struct View {
    /// The page, and [`PAD`] zeros.
    page: Vec<u8>,
    prefix: Range<usize>,
    slots: Vec<Slot>,
    /// Whether keys lie below those that are listed, and the first above them.
    is_below: bool,
    above: Option<Slot>,
    /// What was appended, in this order, and whether it says that a key is deleted.
    appended: Vec<(Slot, bool)>,
    /// The newest of each key, in the keys' order.
    entries: Vec<Entry>,
}

impl View {
    pub(super) fn clear(&mut self) {
        self.slots.clear();
        (self.prefix, self.is_below, self.above) = (0..0, false, None);
    }

    /// Whether keys lie below those that are listed.
    pub(super) fn is_below(&self) -> bool {
        self.is_below
    }

    /// Puts the first key above those that are listed into `key`, if they were enough: whether there is one.
    pub(super) fn above(&self, key: &mut Vec<u8>) -> bool {
        let Some(slot) = self.above else { return false };
        key.clear();
        key.extend_from_slice(self.prefix());
        key.extend_from_slice(slot.suffix(&self.page));
        true
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Where the record of the `n`-th key may lie.
    #[inline]
    pub(super) fn hint(&self, n: usize) -> Option<Hint> {
        self.slots.get(n).map(|slot| slot.hint)
    }

    #[inline]
    fn prefix(&self) -> &[u8] {
        self.page.get(self.prefix.clone()).unwrap_or_default()
    }

    /// Appends the `n`-th key to `out`.
    #[inline]
    pub(super) fn append_key(&self, n: usize, out: &mut Vec<u8>) {
        if let Some(slot) = self.slots.get(n) {
            out.extend_from_slice(self.prefix());
            out.extend_from_slice(slot.suffix(&self.page));
        }
    }

    /// Whether the `n`-th key is `key`.
    pub(super) fn is(&self, n: usize, key: &[u8]) -> bool {
        self.listed(n..n + 1).is(0, key)
    }

    /// The keys in these places.
    #[inline]
    pub(super) fn listed(&self, places: Range<usize>) -> Listed<'_> {
        let prefix = self.prefix();
        let start = self.page.get(self.prefix.start..).and_then(|bytes| bytes.first_chunk());
        let mask = if prefix.len() < 8 { !(!0 << (8 * prefix.len())) } else { !0 };
        let word = start.map_or(0, |word| u64::from_le_bytes(*word)) & mask;
        Listed { page: &self.page, prefix, word, mask, slots: self.slots.get(places).unwrap_or_default() }
    }

    /// Those in these places, without what they begin with.
    pub(super) fn slots(&self, places: Range<usize>) -> &[Slot] {
        self.slots.get(places).unwrap_or_default()
    }

    /// How many keys are below `key`.
    pub(super) fn below(&self, key: &[u8]) -> usize {
        let prefix = self.prefix();
        match key.get(..prefix.len()).unwrap_or(key).cmp(prefix) {
            Ordering::Less => 0,
            Ordering::Greater => self.slots.len(),
            Ordering::Equal => {
                let suffix = &key[prefix.len()..];
                self.slots.partition_point(|slot| slot.suffix(&self.page) < suffix)
            }
        }
    }

    /// Reads `part` of the leaf of `bytes` bytes at `place`. `meanwhile` is called when its keys are known and not yet checked.
    ///
    /// # Errors
    /// [`crate::error::Damage`] where header or sorted part do not match their hash: there are no keys then.
    pub(super) fn read<M: Media>(
        &mut self,
        media: &M,
        place: Place,
        bytes: u64,
        part: Part<'_>,
        meanwhile: impl FnOnce(&Self),
    ) -> Result<Read> {
        self.clear();
        self.page.clear();
        let len = bytes as usize;
        media.append_to(place.at, len, &mut self.page);
        self.page.extend_from_slice(&[0; PAD]);
        let read = self.list(place, len, part).and_then(|(header, read)| {
            meanwhile(self);
            header.check_all(&self.page[..len])?;
            Ok(read)
        });
        if read.is_err() {
            self.clear();
        }
        read
    }

    /// Lists `part` of what the page of `len` bytes holds if its header is right.
    fn list(&mut self, place: Place, len: usize, part: Part<'_>) -> Result<(Header, Read)> {
        let header = match Header::unchecked(place, &self.page[..len]) {
            Some(header) => header,
            None => Header::parse(place, &self.page[..len])?,
        };
        self.prefix = header.prefix_range();
        let end = self.take_appended(&header, len);
        self.sort_appended();
        let prefix = self.prefix();
        let from = match part.from.get(..prefix.len()).unwrap_or(part.from).cmp(prefix) {
            Ordering::Less => Some(&[][..]),
            Ordering::Equal => Some(&part.from[prefix.len()..]),
            Ordering::Greater => None,
        };
        match header.width {
            VARIES => self.list_uneven(&header, from, part.most)?,
            width => {
                let even = Even { start: self.prefix.end, each: Hint::BYTES + usize::from(width), width };
                let end = even.start + header.count * even.each;
                if end > header.sorted_end.min(self.page.len() - PAD) {
                    return Err(cut(&header, end));
                }
                self.merge(header.count, |page, n| even.slot(page, n), from, part.most);
            }
        }
        // All at once, not byte by byte until one is found: this is done for every leaf that is read.
        let rest = self.page.get(end..len).unwrap_or_default().as_chunks::<8>().0;
        let clean = rest.iter().fold(0, |seen, word| seen | u64::from_ne_bytes(*word)) == 0;
        Ok((header, Read { lost: header.lost, end, clean }))
    }

    fn list_uneven(&mut self, header: &Header, from: Option<&[u8]>, most: usize) -> Result<()> {
        let (mut at, end) = (self.prefix.end, header.sorted_end.min(self.page.len() - PAD));
        let mut sorted = Vec::with_capacity(header.count.min(self.page.len() / Hint::BYTES));
        for _ in 0..header.count {
            let (start, len) = (at + Hint::BYTES + 2, u16_at(&self.page, at + Hint::BYTES));
            if start + usize::from(len) > end {
                return Err(cut(header, start + usize::from(len)));
            }
            let slot = Slot { hint: Hint::read(&self.page[at..]), at: start as u32, len };
            sorted.push((slot, slot.head(&self.page)));
            at = start + usize::from(len);
        }
        self.merge(header.count, |_, n| sorted[n], from, most);
        Ok(())
    }

    /// Takes what was appended: where the next entry goes.
    fn take_appended(&mut self, header: &Header, len: usize) -> usize {
        let Self { page, appended, entries, .. } = self;
        appended.clear();
        entries.clear();
        let whole = &page[..len];
        let mut at = header.sorted_end;
        while let Some((suffix, deleted)) = entry_at(header.sum, whole, at) {
            let from = (at + ENTRY_HEAD) as u32;
            let slot = Slot { hint: Hint::read(&whole[at..]), at: from, len: suffix.len() as u16 };
            entries.push(Entry { head: slot.head(page), nth: appended.len() as u32 });
            appended.push((slot, deleted));
            at += entry_bytes(suffix.len());
        }
        at
    }

    /// Brings what was appended into order; the last entry of a key decides.
    fn sort_appended(&mut self) {
        let Self { page, appended, entries, .. } = self;
        entries.sort_unstable_by_key(|entry| (entry.head, !entry.nth));
        if entries.is_sorted_by(|a, b| a.head < b.head) {
            return;
        }
        let key = |entry: &Entry| appended.get(entry.nth as usize).map(|(slot, _)| slot.suffix(page));
        entries.sort_unstable_by(|a, b| {
            a.head.cmp(&b.head).then_with(|| key(a).cmp(&key(b))).then(b.nth.cmp(&a.nth))
        });
        entries.dedup_by(|older, newest| older.head == newest.head && key(older) == key(newest));
    }

    /// Lists up to `most` of the keys whose suffixes are not below `from`, if any are: of the sorted part, whose `count` keys `sorted` gives, and
    /// of what was appended.
    #[inline]
    fn merge(
        &mut self,
        count: usize,
        sorted: impl Fn(&[u8], usize) -> (Slot, u64),
        from: Option<&[u8]>,
        most: usize,
    ) {
        let Self { page, slots, appended, entries, .. } = self;
        let Some(from) = from else {
            self.is_below = count + entries.len() > 0;
            return;
        };
        let first = super::keys::head(from, 0);
        let is_below = |slot: Slot, head: u64| match head.cmp(&first) {
            Ordering::Equal => slot.suffix(page) < from,
            order => order.is_lt(),
        };
        let is_sorted_below = |n| {
            let (slot, head) = sorted(page, n);
            is_below(slot, head)
        };
        let mut at = if from.is_empty() { 0 } else { below(count, is_sorted_below) };
        let skipped = entries.partition_point(|entry| is_below(appended[entry.nth as usize].0, entry.head));
        self.is_below = at + skipped > 0;
        let most = most.saturating_add(1);
        slots.reserve((count + entries.len()).min(most));
        for entry in &entries[skipped..] {
            let (new, deleted) = appended[entry.nth as usize];
            while at < count && slots.len() < most {
                let (slot, head) = sorted(page, at);
                let order = match head == entry.head {
                    false => head.cmp(&entry.head),
                    true => slot.suffix(page).cmp(new.suffix(page)),
                };
                if order.is_gt() {
                    break;
                }
                at += 1;
                if order.is_eq() {
                    break;
                }
                slots.push(slot);
            }
            if slots.len() >= most {
                break;
            }
            if !deleted {
                slots.push(new);
            }
        }
        let more = (count - at).min(most - slots.len().min(most));
        slots.extend((at..at + more).map(|n| sorted(page, n).0));
        self.above = if slots.len() == most { slots.pop() } else { None };
    }
}

/// A sorted part of suffixes of the same length: most leaves have one.
#[derive(Clone, Copy)]
struct Even {
    start: usize,
    each: usize,
    width: u16,
}

impl Even {
    const HEADED: usize = Hint::BYTES + 8;

    /// The `n`-th key, and its head.
    #[inline]
    fn slot(self, page: &[u8], n: usize) -> (Slot, u64) {
        let at = self.start + n * self.each;
        // Each word from where it lies: a copy of both would be loaded again across two stores, which a processor waits for.
        let bytes: &[u8; Self::HEADED] =
            page.get(at..).and_then(|bytes| bytes.first_chunk()).unwrap_or(&[0; Self::HEADED]);
        let word = |n: usize| bytes[n..].first_chunk().map_or(0, |word| u64::from_le_bytes(*word));
        let slot = Slot { hint: Hint::of_word(word(0)), at: (at + Hint::BYTES) as u32, len: self.width };
        let head = word(Hint::BYTES).swap_bytes();
        (slot, if self.width >= 8 { head } else { slot.head(page) })
    }
}

/// How many of `count` things, which are in order, are below something.
#[inline]
fn below(count: usize, is_below: impl Fn(usize) -> bool) -> usize {
    let (mut low, mut len) = (0, count);
    while len > 0 {
        let half = len / 2;
        (low, len) = if is_below(low + half) { (low + half + 1, len - half - 1) } else { (low, half) };
    }
    low
}

/// Keys of a view, to be compared with others.
#[derive(Clone, Copy, Debug)]
pub struct Listed<'v> {
    page: &'v [u8],
    prefix: &'v [u8],
    /// The first bytes of the prefix, at most eight, and which bits these are.
    word: u64,
    mask: u64,
    /// The keys, in order.
    pub slots: &'v [Slot],
}

impl Listed<'_> {
    /// Appends the `n`-th key to `out`.
    #[inline]
    pub fn append_key(&self, n: usize, out: &mut Vec<u8>) {
        if let Some(slot) = self.slots.get(n) {
            out.extend_from_slice(self.prefix);
            out.extend_from_slice(slot.suffix(self.page));
        }
    }

    /// Whether the `n`-th key is `key`.
    #[inline]
    #[must_use]
    pub fn is(&self, n: usize, key: &[u8]) -> bool {
        let Some(slot) = self.slots.get(n) else { return false };
        let (len, suffix) = (self.prefix.len(), slot.suffix(self.page));
        if key.len() != len + suffix.len() {
            return false;
        }
        match key.first_chunk() {
            Some(start) if len <= 8 => {
                (u64::from_le_bytes(*start) & self.mask) == self.word && same(&key[len..], suffix)
            }
            _ => same(&key[..len], self.prefix) && same(&key[len..], suffix),
        }
    }
}

fn cut(header: &Header, end: usize) -> crate::error::Error {
    corrupt(header.place.at, "the end of a leaf's key", header.sorted_end, end)
}

/// Whether bytes of equal number are the same, without a call where they are few.
#[inline]
fn same(a: &[u8], b: &[u8]) -> bool {
    #[inline]
    fn ends<const N: usize>(a: &[u8], b: &[u8]) -> bool {
        a.first_chunk::<N>() == b.first_chunk::<N>() && a.last_chunk::<N>() == b.last_chunk::<N>()
    }
    match a.len() {
        0 => true,
        1..=3 => a.iter().zip(b).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0,
        4..=7 => ends::<4>(a, b),
        8..=16 => ends::<8>(a, b),
        17..=32 => ends::<16>(a, b),
        _ => a == b,
    }
}
