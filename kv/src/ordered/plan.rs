//! Into how many leaves do these keys go, and how large are they?
//!
//! A leaf is filled to seven eighths, so that it can be appended to; to 95 parts in a hundred where keys come in order and nothing
//! will. A leaf of long keys is larger, so that there are at least eight in it.

use super::MAX_PAGE;
use super::leaf::{Content, HEADER, Item, Shape};
use std::ops::Range;

/// In 32nds of their leaves, with how much neighbours are filled at most where one of them was too full.
const MANY: u64 = 29;

/// The items of one leaf and its length in bytes.
pub(super) type Piece = (Range<usize>, u64);

/// Bytes that the items of `content` in `range` take in a leaf, with the longest low bound they may have.
fn needed(content: &Content, range: &Range<usize>, low: usize) -> usize {
    let items = &content.items[range.clone()];
    let shape = Shape::of(content, items);
    HEADER + 8 + shape.longest.max(low) + shape.prefix_len + shape.all_bytes(items)
}

/// Bytes that all of `content` takes.
pub(super) fn bytes(content: &Content) -> usize {
    needed(content, &(0..content.items.len()), 0)
}

/// What is to become of a leaf with so many bytes of keys, and its neighbours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fill {
    /// It takes one leaf.
    Right,
    /// So few that two neighbours may take them too.
    Few,
    /// Too many for one leaf.
    Many,
}

impl Fill {
    /// That of so many bytes where a leaf has `leaf`.
    pub(super) fn of(bytes: usize, leaf: u64) -> Self {
        match bytes as u64 {
            few if few <= leaf / 2 => Self::Few,
            right if right <= leaf * 7 / 8 => Self::Right,
            _ => Self::Many,
        }
    }

    /// Whether so many bytes of so many leaves are to become leaves without asking another neighbour: one less where there were few, with a
    /// quarter of each free, and as many as they are where there were many, with an eighth free.
    pub(super) fn is_good(self, bytes: usize, leaves: usize, leaf: u64) -> bool {
        match self {
            Self::Few => bytes as u64 <= (leaves as u64 - 1) * leaf * 3 / 4,
            Self::Right => true,
            Self::Many => leaves > 1 && bytes as u64 <= leaves as u64 * leaf * MANY / 32,
        }
    }
}

/// How full leaves become at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cap {
    /// As full as one that is not cut: seven eighths.
    Alone,
    /// As full as neighbours that share what was too much for one of them.
    Shared,
    /// Keys come in order, and nothing will be appended to what is cut off.
    Ascending,
    /// As full as it is sensible where many keys were deleted, and few will come.
    Packed,
}

impl Cap {
    const fn of(self, page: u64) -> u64 {
        match self {
            Self::Alone => page * 7 / 8,
            Self::Shared => page * MANY / 32,
            Self::Ascending => page * 19 / 20,
            Self::Packed => page * 15 / 16,
        }
    }
}

/// Cuts all of `content` into leaves of `leaf` bytes or more. `low` is the length of the first one's low bound.
pub(super) fn pieces(content: &Content, leaf: u64, low: usize, cap: Cap) -> Vec<Piece> {
    let items = &content.items;
    let shape = Shape::of(content, items);
    let fixed = HEADER + 8 + shape.longest.max(low) + shape.prefix_len;
    let largest = shape.most_bytes();
    let mut page = leaf;
    while page < MAX_PAGE && (fixed + 8 * largest) as u64 > page * 7 / 8 {
        page *= 2;
    }
    let most = cap.of(page) as usize;
    let total = shape.all_bytes(items);
    let ranges = match cap {
        _ if total + fixed <= most => std::iter::once(0..items.len()).collect(),
        Cap::Ascending => cut(items, shape, most - fixed - largest),
        Cap::Packed => packed(content, low, most),
        Cap::Alone | Cap::Shared => {
            let count = total.div_ceil(most - fixed);
            // What the keys of one leaf start with is longer than what all do: they may need a leaf less.
            let fewer = cut(items, shape, total.div_ceil(count - 1));
            match fewer.iter().all(|range| needed(content, range, low) <= most) {
                true => fewer,
                false => cut(items, shape, total.div_ceil(count)),
            }
        }
    };
    let mut pieces = Vec::with_capacity(ranges.len());
    ranges.into_iter().for_each(|range| settle(content, range, page, low, &mut pieces));
    pieces
}

/// Ranges of `items` that take `target` bytes, or an item more, each.
fn cut(items: &[Item], shape: Shape, target: usize) -> Vec<Range<usize>> {
    let (mut ranges, mut from, mut size) = (Vec::new(), 0, 0);
    for (i, item) in items.iter().enumerate() {
        if size >= target && i > from {
            ranges.push(from..i);
            (from, size) = (i, 0);
        }
        size += shape.item_bytes(item);
    }
    ranges.push(from..items.len());
    ranges
}

/// Ranges of the items, each as long as `most` bytes allow: what the keys of one leaf start with is longer than what all do.
fn packed(content: &Content, low: usize, most: usize) -> Vec<Range<usize>> {
    let mut ranges = Vec::new();
    let mut from = 0;
    while from < content.items.len() {
        let mut end = from + 1;
        // By halves: a range that is longer needs more.
        let mut step = content.items.len() - from;
        while step > 0 {
            if end + step <= content.items.len() && needed(content, &(from..end + step), low) <= most {
                end += step;
            } else {
                step /= 2;
            }
        }
        ranges.push(from..end);
        from = end;
    }
    ranges
}

/// All of `content` as one leaf of `leaf` bytes or more, however full it is.
pub(super) fn whole(content: &Content, leaf: u64, low: usize) -> Vec<Piece> {
    let mut pieces = Vec::new();
    settle(content, 0..content.items.len(), leaf, low, &mut pieces);
    pieces
}

/// Adds `range` as a leaf of `page` bytes, or more where it needs more, or as two where no leaf is that large.
fn settle(content: &Content, range: Range<usize>, page: u64, low: usize, cut: &mut Vec<Piece>) {
    let needed = needed(content, &range, low) as u64;
    let fitting = std::iter::successors(Some(page), |page| Some(page * 2));
    match fitting.take_while(|page| *page <= MAX_PAGE).find(|page| needed <= *page) {
        Some(page) => cut.push((range, page)),
        None => {
            let middle = range.start + range.len() / 2;
            settle(content, range.start..middle, page, low, cut);
            settle(content, middle..range.end, page, low, cut);
        }
    }
}
