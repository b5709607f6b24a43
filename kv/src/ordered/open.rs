//! How does an index come to be, and come back?
//!
//! Opening replays the log, then reads of each group its header, its first link and the start of the leaf there: its low bound.
//! The lines of all groups are asked for before the first is looked at.

use super::group::{Group, read_header};
use super::keys::Keys;
use super::leaf::{Content, Place, encode};
use super::log::{self, Log};
use super::root::{self, LINKS_AT, Page, check_group, linked, links, low_of_group};
use super::writer::Writer;
use super::{Sizes, Space, Top, corrupt};
use crate::error::Result;
use crate::media::Media;
use daxstore::sync::Arc;

/// Makes an empty index.
pub(super) fn create<S: Space>(space: &S, tree: u32, sizes: Sizes) -> Result<u64> {
    let mut taken: Vec<Page> = Vec::new();
    for bytes in [sizes.root, log::BYTES, sizes.group, sizes.leaf] {
        match space.take(bytes) {
            Ok(at) => taken.push(Page { at, bytes }),
            Err(error) => {
                taken.into_iter().try_for_each(|page| space.give(page))?;
                return Err(error);
            }
        }
    }
    let [root, log, group, leaf] = [taken[0], taken[1], taken[2], taken[3]];
    let media = space.memory();
    write_leaf(media, tree, leaf, &[], false);
    root::write_group(media, tree, group, sizes, &[], std::iter::once(Some(leaf)));
    media.write_through(log.at, &vec![0; log.bytes as usize]);
    root::write_root(media, tree, root, log.at, sizes);
    media.fence()?;
    let at = root.at + LINKS_AT;
    media.store(at, root::link(group, at));
    media.flush(at, 8);
    media.fence()?;
    Ok(root.at)
}

/// Writes an empty leaf, durable after this thread's fence.
pub(super) fn write_leaf<M: Media>(media: &M, tree: u32, page: Page, low: &[u8], lost: bool) {
    let mut bytes = Vec::new();
    let place = Place { tree, at: page.at };
    let _fits = encode(&mut bytes, place, page.bytes as usize, low, lost, &Content::default(), &[]);
    media.write_through(page.at, &bytes);
}

/// What memory knows of the index at `root`.
pub(super) fn open<M: Media>(media: &M, tree: u32, root: u64) -> Result<(Top, Writer)> {
    let root = root::read_root(media, tree, root)?;
    let mut log = Log::new(root.log);
    log.replay(media)?;
    let tables = root::tables(media, tree, root.page)?;
    let (mut groups, mut free, mut damaged) = (Vec::new(), Vec::new(), Vec::new());
    for at in tables.iter().flat_map(|table| links(*table)) {
        match linked(media.load(at), at) {
            Ok(Some(page)) => groups.push((page, at)),
            Ok(None) => free.push(at),
            Err(_) => damaged.push(at),
        }
    }
    groups.iter().for_each(|(page, _)| media.prefetch(page.at));
    let mut found = Vec::with_capacity(groups.len());
    for (page, link) in groups {
        match low_of(media, tree, page) {
            Ok(low) => found.push((low, page, link)),
            Err(_) => damaged.push(page.at),
        }
    }
    if found.is_empty() {
        return Err(corrupt(root.page.at, "groups of an index", 1, 0));
    }
    found.sort_unstable_by(|(a, ..), (b, ..)| a.cmp(b));
    let highs = found.iter().skip(1).map(|(low, ..)| Some(low.clone())).chain([None]);
    let groups = found.iter().zip(highs);
    let groups =
        groups.map(|((_, page, link), high)| Arc::new(Group::unloaded(*page, *link, high))).collect();
    let keys = Keys::new(found.into_iter().map(|(low, ..)| low).collect());
    free.reverse();
    Ok((Top { keys, groups, damaged }, Writer::new(root, tables, free, log)))
}

/// The low bound of a group; where that can not be read there, that of its first leaf, or the lowest of those that can.
fn low_of<M: Media>(media: &M, tree: u32, page: Page) -> Result<Box<[u8]>> {
    check_group(media, tree, page)?;
    if let Some(low) = low_of_group(media, tree, page) {
        return Ok(low);
    }
    let at = page.at + LINKS_AT;
    let mut bytes = Vec::new();
    if let Ok(Some(leaf)) = linked(media.load(at), at)
        && let Ok(header) = read_header(media, tree, leaf, &mut bytes)
    {
        return Ok(header.low(&bytes).into());
    }
    let group = Group::unloaded(page, 0, None);
    let mut state = group.state.write();
    state.load(media, tree)?;
    Ok(state.keys.get(0).into())
}
