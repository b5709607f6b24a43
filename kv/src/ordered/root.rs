//! Where do the groups of leaves lie?
//!
//! The root is the one page that never moves. It and the tables that continue it hold a link to each group; a group is a page of
//! links to leaves. Links are in no order: leaves say where they belong.
//!
//! Root, or table:
//!
//! | offset | size | field | meaning |
//! | --- | --- | --- | --- |
//! | 0 | 8 | `sum` | hash of bytes 8 to 40, salted with tree and offset |
//! | 8 | 4 | `magic` | 0x746f6f72, of a table 0x6c626174 |
//! | 12 | 4 | `tree` | the tree it belongs to |
//! | 16 | 8 | `bytes` | of the page |
//! | 24 | 8 | `log` | offset of the log's two areas; of a table 0 |
//! | 32 | 4 | `leaf` | bytes of a leaf of short keys |
//! | 36 | 4 | `group` | bytes of a group |
//! | 40 | 8 | `next` | link to the next table, or 0 |
//! | 48 | 16 | | zeros |
//! | 64 | 8 each | | link to a group, or 0 |
//!
//! Group:
//!
//! | offset | size | field | meaning |
//! | --- | --- | --- | --- |
//! | 0 | 8 | `sum` | hash of bytes 8 to 24, salted with tree and offset |
//! | 8 | 4 | `magic` | 0x70756f72 |
//! | 12 | 4 | `tree` | the tree it belongs to |
//! | 16 | 8 | `bytes` | of the page |
//! | 24 | 16 | | zeros, lengths as in the root |
//! | 40 | 1 | `low_len` | bytes of the low bound, and 1; 0 where it is not here: it is longer, or an older program wrote the group |
//! | 41 | 3 | `low_sum` | hash of the low bound, salted with tree and offset |
//! | 44 | 20 | `low` | the low bound of its first leaf, and zeros |
//! | 64 | 8 each | | link to a leaf, or 0; the first links the leaf with the lowest keys |
//!
//! A link: the page's offset, a multiple of 256; in its low 4 bits the logarithm of the page's 256ths; in its high 16 bits a
//! hash of the rest and of the link's own offset.
//!
//! Invariant: a link changes from one value to another in one store.

use super::leaf::Place;
use super::{MAX_PAGE, Sizes, corrupt};
use crate::error::Result;
use crate::media::Media;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Where links begin.
pub(super) const LINKS_AT: u64 = 64;
const NEXT_AT: u64 = 40;
/// Where a group has its low bound, and how long that is at most.
const LOW_AT: usize = 40;
const MAX_LOW: usize = LINKS_AT as usize - LOW_AT - 4;
const ROOT: u32 = 0x746f_6f72;
const TABLE: u32 = 0x6c62_6174;
const GROUP: u32 = 0x7075_6f72;
/// Pages are multiples of so many bytes, and a power of two of them long.
pub(super) const GRAIN: u64 = 256;

/// A page: offset and length in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Page {
    /// Where it begins.
    pub at: u64,
    /// How long it is.
    pub bytes: u64,
}

/// A word that is no link, in the place of one that was damaged.
const LOST: u64 = 1;

fn link_sum(word: u64, at: u64) -> u64 {
    xxh3_64_with_seed(&(word & ((1 << 48) - 1)).to_le_bytes(), at) << 48
}

/// The word at `at` that links `page`.
pub(super) fn link(page: Page, at: u64) -> u64 {
    let class = u64::from((page.bytes / GRAIN).trailing_zeros());
    (page.at | class) | link_sum(page.at | class, at)
}

/// What `word` at `at` links: `None` for none.
///
/// # Errors
/// [`crate::error::Damage`] for a word that is no link.
pub(super) fn linked(word: u64, at: u64) -> Result<Option<Page>> {
    if word == 0 {
        return Ok(None);
    }
    let page = Page { at: word & ((1 << 48) - 1) & !(GRAIN - 1), bytes: GRAIN << (word & 15) };
    let sound = word >> 48 == link_sum(word, at) >> 48 && page.bytes <= MAX_PAGE && page.at > 0;
    if sound { Ok(Some(page)) } else { Err(corrupt(at, "a link", link_sum(word, at), word)) }
}

fn header(magic: u32, place: Place, bytes: u64, log: u64, sizes: Sizes) -> [u8; 40] {
    let mut header = [0; 40];
    header[8..12].copy_from_slice(&magic.to_le_bytes());
    header[12..16].copy_from_slice(&place.tree.to_le_bytes());
    header[16..24].copy_from_slice(&bytes.to_le_bytes());
    header[24..32].copy_from_slice(&log.to_le_bytes());
    header[32..36].copy_from_slice(&(sizes.leaf as u32).to_le_bytes());
    header[36..40].copy_from_slice(&(sizes.group as u32).to_le_bytes());
    let sum = xxh3_64_with_seed(&header[8..], place.seed());
    header[..8].copy_from_slice(&sum.to_le_bytes());
    header
}

/// Writes an empty page with `header`, durable after this thread's fence.
fn write_empty<M: Media>(media: &M, page: Page, header: [u8; 40]) {
    let mut bytes = vec![0; page.bytes as usize];
    bytes[..40].copy_from_slice(&header);
    media.write_through(page.at, &bytes);
}

pub(super) fn write_root<M: Media>(media: &M, tree: u32, page: Page, log: u64, sizes: Sizes) {
    write_empty(media, page, header(ROOT, Place { tree, at: page.at }, page.bytes, log, sizes));
}

pub(super) fn write_table<M: Media>(media: &M, tree: u32, page: Page, sizes: Sizes) {
    write_empty(media, page, header(TABLE, Place { tree, at: page.at }, page.bytes, 0, sizes));
}

/// The first four bytes of a low bound on the medium.
fn low_word(place: Place, low: &[u8]) -> u32 {
    (low.len() as u32 + 1) | (xxh3_64_with_seed(low, place.seed()) as u32) << 8
}

/// The low bound of the group at `page`, if it has it: who opens an index needs no leaf then.
pub(super) fn low_of_group<M: Media>(media: &M, tree: u32, page: Page) -> Option<Box<[u8]>> {
    let mut bytes = [0; 4 + MAX_LOW];
    media.read(page.at + LOW_AT as u64, &mut bytes);
    let (word, low) = bytes.split_first_chunk()?;
    let word = u32::from_le_bytes(*word);
    let low = low.get(..(word as usize & 0xff).checked_sub(1)?)?;
    (word == low_word(Place { tree, at: page.at }, low)).then(|| low.into())
}

/// Writes a group with the low bound `low` and `leaves` in its first places, durable after this thread's fence; `None` is a leaf that can not be
/// found any more.
pub(super) fn write_group<M: Media>(
    media: &M,
    tree: u32,
    page: Page,
    sizes: Sizes,
    low: &[u8],
    leaves: impl Iterator<Item = Option<Page>>,
) {
    let mut bytes = vec![0; page.bytes as usize];
    let place = Place { tree, at: page.at };
    bytes[..40].copy_from_slice(&header(GROUP, place, page.bytes, 0, sizes));
    if low.len() <= MAX_LOW {
        bytes[LOW_AT..LOW_AT + 4].copy_from_slice(&low_word(place, low).to_le_bytes());
        bytes[LOW_AT + 4..LOW_AT + 4 + low.len()].copy_from_slice(low);
    }
    for (leaf, at) in leaves.zip((LINKS_AT..page.bytes).step_by(8)) {
        let word = leaf.map_or(LOST, |leaf| link(leaf, page.at + at));
        bytes[at as usize..][..8].copy_from_slice(&word.to_le_bytes());
    }
    media.write_through(page.at, &bytes);
}

/// What the root says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Root {
    pub page: Page,
    pub log: u64,
    pub sizes: Sizes,
}

fn field(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(|b| b.first_chunk()).map_or(0, |b| u64::from_le_bytes(*b))
}

fn checked<M: Media>(media: &M, magic: u32, place: Place, what: &'static str) -> Result<([u8; 40], u64)> {
    let mut header = [0; 40];
    if place.at.saturating_add(GRAIN) > media.len() {
        return Err(corrupt(place.at, what, media.len(), place.at));
    }
    media.read(place.at, &mut header);
    let words = u64::from(magic) | u64::from(place.tree) << 32;
    let bytes = field(&header, 16);
    let (sum, found) = (xxh3_64_with_seed(&header[8..], place.seed()), field(&header, 0));
    let whole = sum == found && field(&header, 8) == words;
    let fits =
        (GRAIN..=MAX_PAGE).contains(&bytes) && bytes.is_power_of_two() && place.at + bytes <= media.len();
    if whole && fits { Ok((header, bytes)) } else { Err(corrupt(place.at, what, sum, found)) }
}

pub(super) fn read_root<M: Media>(media: &M, tree: u32, at: u64) -> Result<Root> {
    let (header, bytes) = checked(media, ROOT, Place { tree, at }, "hash of a root's header")?;
    let word = field(&header, 32);
    let sizes = Sizes { leaf: word & 0xffff_ffff, group: word >> 32, root: bytes };
    Ok(Root { page: Page { at, bytes }, log: field(&header, 24), sizes })
}

/// The root and its tables, and the offsets of all words that link groups.
pub(super) fn tables<M: Media>(media: &M, tree: u32, root: Page) -> Result<Vec<Page>> {
    let mut pages = vec![root];
    let mut at = root.at + NEXT_AT;
    while let Some(page) = linked(media.load(at), at)? {
        let (_, bytes) = checked(media, TABLE, Place { tree, at: page.at }, "hash of a table's header")?;
        if pages.iter().any(|known| known.at == page.at) {
            return Err(corrupt(page.at, "a table that is linked once", 1, 2));
        }
        pages.push(Page { at: page.at, bytes });
        at = page.at + NEXT_AT;
    }
    Ok(pages)
}

/// The offset of the word that links the table after `page`.
pub(super) const fn next_of(page: Page) -> u64 {
    page.at + NEXT_AT
}

/// The offsets of the links in `page`.
pub(super) fn links(page: Page) -> impl Iterator<Item = u64> {
    (page.at + LINKS_AT..page.at + page.bytes).step_by(8)
}

/// Checks the header of a group.
pub(super) fn check_group<M: Media>(media: &M, tree: u32, page: Page) -> Result<()> {
    let (_, bytes) = checked(media, GROUP, Place { tree, at: page.at }, "hash of a group's header")?;
    if bytes == page.bytes { Ok(()) } else { Err(corrupt(page.at, "bytes of a group", page.bytes, bytes)) }
}
