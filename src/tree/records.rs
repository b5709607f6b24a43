//! How are records packed into an area?
//!
//! | offset | bytes | what |
//! | ---: | ---: | --- |
//! | 0 | 8 each | keys, strictly ascending |
//! | 8 x count | 2 each | ends of the payloads, counted from the start of the first payload |
//! | 10 x count | | payloads, without gaps, to the end of the area |
//!
//! Above level 0 a payload is the pool offset of a node, 8 bytes. A [`View`] of media bytes exists only after
//! [`View::open`] checked all of this, so that what walks records need not.

use crate::layout::{RootArea, get16, get64, put};
use crate::units::PoolOff;
use std::ops::Range;

/// Bytes a record takes besides its payload: key and end.
pub(super) const RECORD_BYTES: usize = 10;
/// Bytes of a record that names a child.
pub(super) const CHILD_BYTES: usize = RECORD_BYTES + 8;
const NODE_SLOT_BYTES: u64 = 512;

/// A broken rule: its name, the value it asks for, the value found.
pub(super) type Broken = (&'static str, u64, u64);

/// The records of one area.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    count: usize,
    area: &'a [u8],
}

impl<'a> View<'a> {
    /// The `count` records that fill `area` on `level`, once every rule of the packing was found to hold.
    pub fn open(area: &'a [u8], count: usize, level: u8) -> Result<Self, Broken> {
        let too_many = ("record count", (area.len() / RECORD_BYTES) as u64, count as u64);
        let (keys, rest) = area.split_at_checked(count * 8).ok_or(too_many)?;
        let (ends, payloads) = rest.split_at_checked(count * 2).ok_or(too_many)?;
        check_keys(keys)?;
        check_ends(ends, payloads.len())?;
        if level > 0 {
            check_children(ends, payloads)?;
        }
        Ok(Self { count, area })
    }

    /// The `count` records that fill `area`, which was opened before.
    pub const fn trusted(area: &'a [u8], count: usize) -> Self {
        Self { count, area }
    }

    pub fn count(&self) -> usize {
        self.count
    }

    /// Bytes the records take.
    pub fn used(&self) -> usize {
        self.area.len()
    }

    pub fn key(&self, i: usize) -> u64 {
        get64(self.area, i * 8)
    }

    fn end(&self, i: usize) -> usize {
        usize::from(get16(self.area, self.count * 8 + i * 2))
    }

    /// Where payload `i` starts, counted as the ends are; for `count`, where the last one ends.
    pub fn start(&self, i: usize) -> usize {
        if i == 0 { 0 } else { self.end(i - 1) }
    }

    pub fn payload(&self, i: usize) -> &'a [u8] {
        let payloads = self.area.get(self.count * RECORD_BYTES..).unwrap_or_default();
        payloads.get(self.start(i)..self.end(i)).unwrap_or_default()
    }

    /// The node that record `i` names.
    pub fn child(&self, i: usize) -> PoolOff {
        PoolOff(get64(self.payload(i), 0))
    }

    /// How many records have a key below `key`.
    pub fn below(&self, key: u64) -> usize {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = usize::midpoint(low, high);
            if self.key(middle) < key { low = middle + 1 } else { high = middle }
        }
        low
    }

    /// The record of `key`.
    pub fn find(&self, key: u64) -> Option<usize> {
        let i = self.below(key);
        (i < self.count && self.key(i) == key).then_some(i)
    }

    /// The last record at or below `key`.
    pub fn at_or_below(&self, key: u64) -> Option<usize> {
        let i = self.below(key);
        if i < self.count && self.key(i) == key { Some(i) } else { i.checked_sub(1) }
    }

    /// The child whose range holds `key`.
    pub fn child_of(&self, key: u64) -> usize {
        self.at_or_below(key).unwrap_or(0)
    }
}

/// The first of `items` that is bad. All are looked at before any is looked for: without an early way out
/// the compiler compares many at a time, and there is nothing to find.
fn first_bad<T>(items: impl Iterator<Item = T> + Clone, bad: impl Fn(&T) -> bool) -> Option<T> {
    let any = items.clone().fold(false, |any, item| any | bad(&item));
    if any { items.into_iter().find(bad) } else { None }
}

fn check_keys(keys: &[u8]) -> Result<(), Broken> {
    let keys = keys.as_chunks::<8>().0.iter().map(|key| u64::from_le_bytes(*key));
    match first_bad(keys.clone().zip(keys.skip(1)), |(before, key)| key <= before) {
        None => Ok(()),
        Some((before, key)) => Err(("key order", before.saturating_add(1), key)),
    }
}

fn check_ends(ends: &[u8], payload_bytes: usize) -> Result<(), Broken> {
    let mut ends = ends.as_chunks::<2>().0.iter().map(|end| u16::from_le_bytes(*end));
    if let Some((before, end)) = first_bad(ends.clone().zip(ends.clone().skip(1)), |(a, b)| b < a) {
        return Err(("payload order", u64::from(before), u64::from(end)));
    }
    let last = usize::from(ends.next_back().unwrap_or(0));
    if last == payload_bytes { Ok(()) } else { Err(("payload bytes", payload_bytes as u64, last as u64)) }
}

fn check_children(ends: &[u8], payloads: &[u8]) -> Result<(), Broken> {
    let ends = ends.as_chunks::<2>().0.iter().map(|end| u16::from_le_bytes(*end));
    if let Some((expected, found)) = first_bad((8..=u16::MAX).step_by(8).zip(ends), |(a, b)| a != b) {
        return Err(("child record end", u64::from(expected), u64::from(found)));
    }
    let children = payloads.as_chunks::<8>().0.iter().map(|at| u64::from_le_bytes(*at));
    match first_bad(children, |at| *at == 0 || at % NODE_SLOT_BYTES != 0) {
        None => Ok(()),
        Some(at) => Err(("child offset", NODE_SLOT_BYTES, at)),
    }
}

/// Whatever holds packed records and lets them change. Callers see to the room.
pub(super) trait Packed {
    fn count(&self) -> usize;

    /// The bytes in use.
    fn area(&self) -> &[u8];

    /// Makes the area `used` bytes for `count` records: bytes that stay are as they were, new ones zero.
    fn resize(&mut self, count: usize, used: usize) -> &mut [u8];

    fn view(&self) -> View<'_> {
        View { count: self.count(), area: self.area() }
    }

    /// Puts a record before record `i`.
    fn insert(&mut self, i: usize, key: u64, payload: &[u8]) {
        let (n, used, len) = (self.count(), self.area().len(), payload.len());
        let from = self.view().start(i);
        let area = self.resize(n + 1, used + RECORD_BYTES + len);
        let (old, new) = (n * RECORD_BYTES, (n + 1) * RECORD_BYTES);
        area.copy_within(old + from..used, new + from + len);
        area.copy_within(old..old + from, new);
        put(area, new + from, payload);
        let (old, new) = (n * 8, (n + 1) * 8);
        area.copy_within(old + i * 2..old + n * 2, new + (i + 1) * 2);
        area.copy_within(old..old + i * 2, new);
        put(area, new + i * 2, &((from + len) as u16).to_le_bytes());
        area.copy_within(i * 8..n * 8, (i + 1) * 8);
        put(area, i * 8, &key.to_le_bytes());
        move_ends(area, new + (i + 1) * 2..new + (n + 1) * 2, len as isize);
    }

    /// Takes record `i` away.
    fn remove(&mut self, i: usize) {
        let (n, used) = (self.count(), self.area().len());
        let (from, len) = (self.view().start(i), self.view().payload(i).len());
        let area = self.resize(n, used);
        area.copy_within((i + 1) * 8..n * 8, i * 8);
        let (old, new) = (n * 8, (n - 1) * 8);
        area.copy_within(old..old + i * 2, new);
        area.copy_within(old + (i + 1) * 2..old + n * 2, new + i * 2);
        move_ends(area, new + i * 2..new + (n - 1) * 2, -(len as isize));
        let (old, new) = (n * RECORD_BYTES, (n - 1) * RECORD_BYTES);
        area.copy_within(old..old + from, new);
        area.copy_within(old + from + len..used, new + from);
        self.resize(n - 1, used - RECORD_BYTES - len);
    }

    /// Puts the records `range` of `other`, whose keys are higher than all here, behind these.
    fn extend(&mut self, other: View<'_>, range: Range<usize>) {
        let (n, used, m) = (self.count(), self.area().len(), range.len());
        let (from, to) = (other.start(range.start), other.start(range.end));
        let shift = used - n * RECORD_BYTES;
        let area = self.resize(n + m, used + m * RECORD_BYTES + to - from);
        area.copy_within(n * RECORD_BYTES..used, (n + m) * RECORD_BYTES);
        area.copy_within(n * 8..n * RECORD_BYTES, (n + m) * 8);
        let theirs = other.area;
        put(area, n * 8, &theirs[range.start * 8..range.end * 8]);
        let ends = other.count * 8;
        put(area, (n + m) * 8 + n * 2, &theirs[ends + range.start * 2..ends + range.end * 2]);
        let mine = (n + m) * 8;
        move_ends(area, mine + n * 2..mine + (n + m) * 2, shift as isize - from as isize);
        let payloads = &theirs[other.count * RECORD_BYTES..];
        put(area, (n + m) * RECORD_BYTES + shift, &payloads[from..to]);
    }

    /// Gives record `i` another key between its neighbours'.
    fn set_key(&mut self, i: usize, key: u64) {
        let (n, used) = (self.count(), self.area().len());
        put(self.resize(n, used), i * 8, &key.to_le_bytes());
    }

    /// Gives record `i` another payload of the same length.
    fn overwrite(&mut self, i: usize, payload: &[u8]) {
        let (n, used) = (self.count(), self.area().len());
        let at = n * RECORD_BYTES + self.view().start(i);
        put(self.resize(n, used), at, payload);
    }
}

/// Adds `by` to each end in the byte range `at` of `area`.
fn move_ends(area: &mut [u8], at: Range<usize>, by: isize) {
    for end in area[at].chunks_exact_mut(2) {
        let moved = u16::from_le_bytes([end[0], end[1]]).wrapping_add_signed(by as i16);
        end.copy_from_slice(&moved.to_le_bytes());
    }
}

impl Packed for RootArea {
    fn count(&self) -> usize {
        usize::from(self.count)
    }

    fn area(&self) -> &[u8] {
        &self.area[..self.used]
    }

    fn resize(&mut self, count: usize, used: usize) -> &mut [u8] {
        self.area[used.min(self.used)..].fill(0);
        (self.count, self.used) = (count as u16, used);
        &mut self.area[..used]
    }
}

/// Room for what a node and a change to it hold together.
pub(super) struct Wide {
    count: usize,
    used: usize,
    bytes: [u8; 1024],
}

impl Wide {
    pub const fn new() -> Self {
        Self { count: 0, used: 0, bytes: [0; 1024] }
    }
}

impl Packed for Wide {
    fn count(&self) -> usize {
        self.count
    }

    fn area(&self) -> &[u8] {
        &self.bytes[..self.used]
    }

    fn resize(&mut self, count: usize, used: usize) -> &mut [u8] {
        (self.count, self.used) = (count, used);
        &mut self.bytes[..used]
    }
}
