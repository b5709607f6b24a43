//! Into how many leaves do these keys go, and how large are they?
//!
//! A leaf is filled to seven eighths, so that it can be appended to; to 95 parts in a hundred where keys come in order and nothing
//! will. A leaf of long keys is larger, so that there are at least eight in it.

use super::MAX_PAGE;
use super::leaf::{Content, HEADER, Shape};
use std::ops::Range;

/// The items of one leaf and its length in bytes.
pub(super) type Piece = (Range<usize>, u64);

/// Bytes that the items of `content` in `range` take in a leaf, with the longest low bound they may have.
fn needed(content: &Content, range: &Range<usize>, low: usize) -> usize {
    let items = &content.items[range.clone()];
    let shape = Shape::of(content, items);
    let longest = items.iter().map(|item| content.key(item).len()).max().unwrap_or(0).max(low);
    HEADER + 8 + longest + shape.prefix_len + items.iter().map(|item| shape.item_bytes(item)).sum::<usize>()
}

/// Whether all of `content`, and `more` bytes, leave two fifths of a leaf of `leaf` bytes free.
pub(super) fn fits_well(content: &Content, leaf: u64, more: usize) -> bool {
    (needed(content, &(0..content.items.len()), 0) + more) as u64 <= leaf * 3 / 5
}

/// Bytes that all of `content` takes.
pub(super) fn bytes(content: &Content) -> usize {
    needed(content, &(0..content.items.len()), 0)
}

/// Whether so many bytes are too many for one leaf of `leaf`.
pub(super) fn overflows(bytes: usize, leaf: u64) -> bool {
    bytes as u64 > leaf * 7 / 8
}

/// Cuts all of `content` into leaves of `leaf` bytes or more. `low` is the length of the first one's low bound; `ascending`
/// says that keys come in order.
pub(super) fn pieces(content: &Content, leaf: u64, low: usize, ascending: bool) -> Vec<Piece> {
    let items = &content.items;
    let shape = Shape::of(content, items);
    let longest = items.iter().map(|item| content.key(item).len()).max().unwrap_or(0).max(low);
    let fixed = HEADER + 8 + longest + shape.prefix_len;
    let largest = items.iter().map(|item| shape.item_bytes(item)).max().unwrap_or(0);
    let mut page = leaf;
    while page < MAX_PAGE && (fixed + 8 * largest) as u64 > page * 7 / 8 {
        page *= 2;
    }
    let cap = (if ascending { page * 19 / 20 } else { page * 7 / 8 }) as usize - fixed;
    let total: usize = items.iter().map(|item| shape.item_bytes(item)).sum();
    let target = if ascending { cap - largest } else { total.div_ceil(total.div_ceil(cap).max(1)) };
    let (mut cut, mut from, mut size) = (Vec::new(), 0, 0);
    for (i, item) in items.iter().enumerate() {
        if total > cap && size >= target {
            settle(content, from..i, page, low, &mut cut);
            (from, size) = (i, 0);
        }
        size += shape.item_bytes(item);
    }
    settle(content, from..items.len(), page, low, &mut cut);
    cut
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
