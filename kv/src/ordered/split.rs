//! How is a leaf, or a group, replaced by others?
//!
//! What replaces it is written to new pages. Memory has them at once, the medium by the words of the next record.
//!
//! Invariants:
//! 1. Space is taken before anything changes.
//! 2. The leaf with the lowest keys of a group is linked by the group's first word: the left one of a split or a merge keeps
//!    the place. The first leaf of the tree has no low bound: what comes below all keys belongs to it.

use super::group::{Damaged, Group, Leaf, State};
use super::keys::{Keys, separator};
use super::leaf::{Place, encode};
use super::open::write_leaf;
use super::pending::Batch;
use super::plan::{self, Cap, Fill, Piece};
use super::root::{LINKS_AT, Page, write_group};
use super::writer::Writer;
use super::{Ordered, Space, corrupt};
use crate::error::Result;
use crate::media::Media;
use daxstore::sync::Arc;
use std::ops::Range;

/// What replaces a run of leaves of a group.
pub(super) struct Replacement {
    pub places: Range<usize>,
    pub low: Box<[u8]>,
    pub lost: bool,
    pub pieces: Vec<Piece>,
}

/// Leaves with their low bounds.
type Leaves = Vec<(Box<[u8]>, Leaf)>;

impl<S: Space> Ordered<S> {
    /// Replaces the leaf at `place` of `state`, the group at `index`, by leaves with the changes of `run`.
    ///
    /// # Errors
    /// [`crate::Error::NoSpace`], before anything changed.
    pub(super) fn replace(
        &self,
        writer: &mut Writer,
        index: usize,
        state: &mut State,
        place: usize,
        batch: &Batch,
        run: Range<usize>,
    ) -> Result<()> {
        let media = self.memory();
        let read = state.leaves[place].read(media, self.tree, &mut writer.buf, &mut writer.content);
        let lost = read.map_or(true, |read| self.misses(&read));
        let first = batch.key(&batch.changes[run.start]);
        let ascending = writer.content.items.last().is_some_and(|last| writer.content.key(last) < first);
        writer.content.change(batch.changes[run].iter().map(|change| (batch.key(change), change.hint())));
        let places = self.with_neighbours(writer, state, place, lost || ascending);
        let is_empty = writer.content.items.is_empty() && !lost;
        if is_empty
            && state.leaves.len() == 1
            && state.damaged.is_empty()
            && self.retire(writer, index, state)
        {
            return Ok(());
        }
        let low: Box<[u8]> = match (index, places.start) {
            (0, 0) => Box::default(),
            (_, start) => state.keys.get(start).into(),
        };
        let leaf = writer.root.sizes.leaf;
        let cap = match (ascending, places.len()) {
            (true, _) => Cap::Ascending,
            (false, 1) => Cap::Alone,
            _ => Cap::Shared,
        };
        let pieces = match is_empty && places.start > 0 {
            true => Vec::new(),
            false => plan::pieces(&writer.content, leaf, low.len(), cap),
        };
        self.put(writer, index, state, Replacement { places, low, lost, pieces })
    }

    /// The places whose keys are in `writer.content`. Those of neighbours are added where few keys are left at `place`, so that one or two leaves
    /// take those of two or three; and where they are too many for one leaf, so that they go to three, or four instead of three, which are
    /// fuller than two of one.
    fn with_neighbours(&self, writer: &mut Writer, state: &State, place: usize, fixed: bool) -> Range<usize> {
        let leaf = writer.root.sizes.leaf;
        let own = writer.content.items.len();
        let mut bytes = plan::bytes(&writer.content);
        let fill = Fill::of(bytes, leaf);
        // What is empty is taken out; but the first leaf of a group has its keys' low bound, and takes its neighbour's.
        if fixed || fill == Fill::Right || (own == 0 && place > 0) {
            return place..place + 1;
        }
        let mut places = place..place + 1;
        let mut below = 0;
        for neighbour in [place + 1, place.wrapping_sub(1)] {
            let Some(other) = state.leaves.get(neighbour).filter(|other| other.page.bytes == leaf) else {
                continue;
            };
            let Ok(read) = other.read(self.memory(), self.tree, &mut writer.buf, &mut writer.other) else {
                continue;
            };
            if self.misses(&read) {
                continue;
            }
            bytes += plan::bytes(&writer.other);
            if neighbour < place {
                below = writer.other.items.len();
                std::mem::swap(&mut writer.content, &mut writer.other);
            }
            writer.content.append(&writer.other);
            places = places.start.min(neighbour)..places.end.max(neighbour + 1);
            if own == 0 || fill.is_good(bytes, places.len(), leaf) {
                return places;
            }
        }
        if fill == Fill::Few {
            // Together they need as many leaves as they are.
            writer.content.items.truncate(below + own);
            writer.content.items.drain(..below);
            return place..place + 1;
        }
        places
    }

    /// Writes what replaces leaves of a group, and puts it in their place.
    pub(super) fn put(
        &self,
        writer: &mut Writer,
        index: usize,
        state: &mut State,
        new: Replacement,
    ) -> Result<()> {
        let after = state.leaves.len() - new.places.len() + new.pieces.len() + state.damaged.len();
        let overflows = after > state.capacity();
        let groups = if overflows { 2 } else { 0 };
        let lengths = new.pieces.iter().map(|(_, bytes)| *bytes);
        let link = if overflows { writer.take_link(&*self.space, self.tree)? } else { 0 };
        let pages = match writer.take_pages(&*self.space, lengths, groups) {
            Ok(pages) => pages,
            Err(error) => {
                writer.free_links.extend((link > 0).then_some(link));
                return Err(error);
            }
        };
        let (leaves, groups) = pages.split_at(new.pieces.len());
        let written = self.write_leaves(writer, &new, leaves)?;
        let links: Vec<_> = state.leaves[new.places.clone()].iter().map(|leaf| leaf.link).collect();
        let count = written.len();
        let (bounds, leaves): (Vec<_>, Vec<_>) = written.into_iter().unzip();
        state.keys.replace(new.places.clone(), bounds);
        for leaf in state.leaves.splice(new.places.clone(), leaves) {
            writer.give_up(leaf.page);
        }
        if let [lower, upper] = *groups {
            self.split_group(writer, index, state, [lower, upper], link);
            return Ok(());
        }
        let mut others = Vec::new();
        if count > links.len() {
            let more = count - links.len();
            others.extend(state.free_links().filter(|at| !links.contains(at)).take(more));
        }
        let mut free = links.into_iter().chain(others);
        for leaf in &mut state.leaves[new.places.start..new.places.start + count] {
            leaf.link = free.next().unwrap_or_default();
            writer.set_link(leaf.link, Some(leaf.page));
        }
        free.take(new.places.len().saturating_sub(count)).for_each(|link| writer.set_link(link, None));
        Ok(())
    }

    fn write_leaves(&self, writer: &mut Writer, new: &Replacement, pages: &[Page]) -> Result<Leaves> {
        let media = self.memory();
        let content = &writer.content;
        let mut written = Vec::with_capacity(pages.len());
        for ((range, bytes), page) in new.pieces.iter().zip(pages) {
            let items = &content.items[range.clone()];
            let before = range.start.checked_sub(1).map(|last| content.key(&content.items[last]));
            let low: Box<[u8]> = match (before, items.first()) {
                (Some(before), Some(first)) => separator(before, content.key(first)).into(),
                _ => new.low.clone(),
            };
            let place = Place { tree: self.tree, at: page.at };
            let header = encode(&mut writer.buf, place, *bytes as usize, &low, new.lost, content, items)
                .ok_or_else(|| corrupt(page.at, "bytes of a new leaf", *bytes, *bytes + 1))?;
            media.write_through(page.at, &writer.buf);
            let tail = Some(header.sorted_end as u32);
            let leaf = Leaf::new(*page, 0, &header, &writer.buf);
            written.push((low, Leaf { tail, ..leaf }));
        }
        writer.unfenced = true;
        Ok(written)
    }

    /// Puts the upper half of `state`'s leaves into a new group, linked by `link`. Both are written anew.
    fn split_group(&self, writer: &mut Writer, index: usize, state: &mut State, pages: [Page; 2], link: u64) {
        let middle = state.leaves.len() / 2;
        let bounds = state.keys.split_off(middle);
        let low = bounds[0].clone();
        let high = state.high.replace(low.clone());
        let upper = Group::unloaded(pages[1], link, high);
        {
            let mut new = upper.state.write();
            (new.keys, new.leaves, new.loaded) = (Keys::new(bounds), state.leaves.split_off(middle), true);
            self.write_group(writer, &mut new);
        }
        writer.give_up_group(std::mem::replace(&mut state.page, pages[0]));
        self.write_group(writer, state);
        let mut top = self.top.write();
        top.keys.insert(index + 1, low);
        top.groups.insert(index + 1, Arc::new(upper));
    }

    /// Writes the group to its page, which is new, and links it.
    pub(super) fn write_group(&self, writer: &mut Writer, state: &mut State) {
        let pages: Vec<_> = state.leaves.iter().map(|leaf| Some(leaf.page)).collect();
        let damaged = state.damaged.iter().map(|damaged| damaged.page);
        let all = pages.into_iter().chain(damaged);
        let low = state.keys.get(0);
        write_group(self.memory(), self.tree, state.page, writer.root.sizes, low, all);
        writer.unfenced = true;
        let places = (state.page.at + LINKS_AT..).step_by(8);
        let links = state.leaves.iter_mut().map(|leaf| &mut leaf.link);
        let links = links.chain(state.damaged.iter_mut().map(|damaged: &mut Damaged| &mut damaged.link));
        links.zip(places).for_each(|(link, at)| *link = at);
        writer.set_link(state.link, Some(state.page));
    }

    /// Takes the group at `index`, which has one leaf without keys, out; not the only one.
    pub(super) fn retire(&self, writer: &mut Writer, index: usize, state: &mut State) -> bool {
        let mut top = self.top.write();
        if top.groups.len() == 1 {
            return false;
        }
        top.keys.remove(index);
        top.groups.remove(index);
        let left = index.checked_sub(1).map(|left| top.groups[left].clone());
        drop(top);
        writer.set_link(state.link, None);
        writer.free_links.push(state.link);
        state.leaves.iter().for_each(|leaf| writer.give_up(leaf.page));
        writer.give_up_group(state.page);
        state.retired = true;
        if let Some(left) = left {
            left.state.write().high = state.high.take();
        }
        true
    }

    /// Puts a group with one empty leaf in the place of the group at `index`, which can not be read. Its keys are lost until the
    /// index is built anew, and its leaf says so.
    pub(super) fn renew(&self, writer: &mut Writer, index: usize, state: &mut State) -> Result<()> {
        let sizes = writer.root.sizes;
        let pages = writer.take_pages(&*self.space, std::iter::once(sizes.leaf), 1)?;
        let low: Box<[u8]> = self.top.read().keys.get(index).into();
        let media = self.memory();
        write_leaf(media, self.tree, pages[0], &low, true);
        let mut bytes = Vec::new();
        let header = super::group::read_header(media, self.tree, pages[0], &mut bytes)?;
        let old = state.page;
        writer.words.retain(|at, _| !(old.at..old.at + old.bytes).contains(at));
        state.page = pages[1];
        state.leaves = vec![Leaf::new(pages[0], 0, &header, &bytes)];
        state.keys = Keys::new(vec![low]);
        state.damaged = Vec::new();
        state.loaded = true;
        self.write_group(writer, state);
        Ok(())
    }
}
