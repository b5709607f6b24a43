//! How does an index of which keys were deleted become smaller, while it is used?
//!
//! A pass goes over the leaves in order, some neighbours at a time: where their keys need fewer pages they are written anew, and groups with few
//! leaves become one. Leaves and groups in pages that are to be left ([`Space::is_leaving`]) are written to others, whatever they need. The
//! root, its tables and the log stay where they are.
//!
//! Invariants:
//! 1. Each step is a change as any other (`split`): space is taken before anything changes, and its record is durable before the next step.
//!    Who reads or writes waits for one step at most.
//! 2. A page that is leaving is not taken, and one that nothing links any more is given back.
//! 3. O12: the lower one of two groups that become one keeps its place, and links its leaves in their order.

use super::group::State;
use super::mutation::{self, Mutation};
use super::plan::{self, Cap, Piece};
use super::split::Replacement;
use super::writer::{RUN_WORDS, Writer};
use super::{Ordered, Space};
use crate::error::{Error, Result};

/// How many neighbours are looked at together: of those, one in eight can be had where leaves are full but for what is left to be appended to.
const WINDOW: usize = 32;
// A step replaces each leaf of a window, and a group, at most.
const _: () = assert!(WINDOW + 4 <= RUN_WORDS);

impl<S: Space> Ordered<S> {
    /// Makes the index smaller where keys were deleted, and leaves the pages that are to be left.
    ///
    /// # Errors
    /// The medium's. Where there is no space, it ends early.
    pub fn shrink(&self) -> Result<()> {
        self.give_kept()?;
        let mut next = Some(Vec::new());
        while let Some(from) = next {
            next = match self.shrink_from(&from) {
                Err(Error::NoSpace { .. }) => break,
                next => next?,
            };
        }
        self.give_kept()
    }

    /// Makes one step, at the leaf that holds `from`: where the next one begins.
    fn shrink_from(&self, from: &[u8]) -> Result<Option<Vec<u8>>> {
        let mut writer = self.writer.lock();
        let writer = &mut *writer;
        let (index, group) = self.group_of(from);
        let mut state = group.state.write();
        if state.load(self.memory(), self.tree).is_err() {
            return Ok(self.top.read().keys.bound_of(index + 1).map(<[u8]>::to_vec));
        }
        let place = state.keys.find(from);
        let high = state.high.as_ref().map(|high| high.to_vec());
        let done = match self.pack(writer, index, &mut state, place) {
            Ok(next) if next < state.leaves.len() => Ok(Some(state.keys.get(next).to_vec())),
            Ok(_) => self.end_group(writer, index, &mut state).map(|()| high),
            Err(error) => Err(error),
        };
        drop(state);
        self.commit(writer)?;
        done
    }

    /// Writes leaves from `place` on to fewer pages, or to others: the place after them.
    fn pack(&self, writer: &mut Writer, index: usize, state: &mut State, place: usize) -> Result<usize> {
        let mut end = place;
        let (mut bytes, mut is_leaving) = (0, false);
        writer.content.clear();
        for leaf in state.leaves.iter().skip(place).take(WINDOW) {
            match leaf.read(self.memory(), self.tree, &mut writer.buf, &mut writer.other) {
                // What was lost is told of where it was.
                Ok(read) if !self.misses(&read) => {}
                _ => break,
            }
            writer.content.append(&writer.other);
            bytes += leaf.page.bytes;
            is_leaving |= self.space.is_leaving(leaf.page);
            end += 1;
        }
        if end == place {
            return Ok(place + 1);
        }
        let low = self.low_of(index, state, place);
        let pieces = match writer.content.items.is_empty() && place > 0 {
            true => Vec::new(),
            false => plan::pieces(&writer.content, writer.root.sizes.leaf, low.len(), Cap::Packed),
        };
        if pieces.iter().map(|(_, bytes)| bytes).sum::<u64>() < bytes {
            let count = pieces.len();
            self.replace_with(writer, index, state, place..end, pieces)?;
            // The last one has room for keys of those that follow.
            return Ok(place + if count > 1 && end - place == WINDOW { count - 1 } else { count });
        }
        for place in (place..end).filter(|_| is_leaving) {
            if self.space.is_leaving(state.leaves[place].page) {
                self.move_leaf(writer, index, state, place)?;
            }
        }
        Ok(end)
    }

    /// The low bound of the leaf at `place`, as the medium has it.
    fn low_of(&self, index: usize, state: &State, place: usize) -> Box<[u8]> {
        if index == 0 && place == 0 { Box::default() } else { state.keys.get(place).into() }
    }

    fn replace_with(
        &self,
        writer: &mut Writer,
        index: usize,
        state: &mut State,
        places: std::ops::Range<usize>,
        pieces: Vec<Piece>,
    ) -> Result<()> {
        let low = self.low_of(index, state, places.start);
        self.put(writer, index, state, Replacement { places, low, lost: false, pieces })
    }

    /// Writes the leaf at `place` to another page, however full it is.
    fn move_leaf(&self, writer: &mut Writer, index: usize, state: &mut State, place: usize) -> Result<()> {
        state.leaves[place].read(self.memory(), self.tree, &mut writer.buf, &mut writer.content)?;
        let low = self.low_of(index, state, place);
        let pieces = plan::whole(&writer.content, writer.root.sizes.leaf, low.len());
        // What needs two leaves now stays: there may be no link for another.
        if pieces.len() > 1 {
            return Ok(());
        }
        self.replace_with(writer, index, state, place..place + 1, pieces)
    }

    /// All leaves of the group were looked at: it is taken out if it is empty, takes the next one's leaves if these are few, or is moved.
    fn end_group(&self, writer: &mut Writer, index: usize, state: &mut State) -> Result<()> {
        if let [leaf] = &*state.leaves
            && state.damaged.is_empty()
            && let Ok(read) = leaf.read(self.memory(), self.tree, &mut writer.buf, &mut writer.content)
            && writer.content.items.is_empty()
            && !self.misses(&read)
            && self.retire(writer, index, state)
        {
            return Ok(());
        }
        if !self.merge_group(writer, index, state)? && self.space.is_leaving(state.page) {
            let pages = writer.take_pages(&*self.space, std::iter::empty(), 1)?;
            writer.give_up_group(std::mem::replace(&mut state.page, pages[0]));
            self.write_group(writer, state);
        }
        Ok(())
    }

    /// Takes the leaves of the next group into this one, if there is room for them and some more: whether it did.
    fn merge_group(&self, writer: &mut Writer, index: usize, state: &mut State) -> Result<bool> {
        let Some(group) = self.top.read().groups.get(index + 1).cloned() else { return Ok(false) };
        let mut upper = group.state.write();
        let is_whole = upper.load(self.memory(), self.tree).is_ok()
            && upper.damaged.is_empty()
            && state.damaged.is_empty();
        if !is_whole || (state.leaves.len() + upper.leaves.len()) * 4 > state.capacity() * 3 {
            return Ok(false);
        }
        let pages = writer.take_pages(&*self.space, std::iter::empty(), 1)?;
        writer.give_up_group(std::mem::replace(&mut state.page, pages[0]));
        state.leaves.append(&mut upper.leaves);
        state.keys.append(std::mem::take(&mut upper.keys));
        state.high = upper.high.take();
        upper.retired = true;
        self.write_group(writer, state);
        if !mutation::is(Mutation::KeepUpper) {
            writer.set_link(upper.link, None);
        }
        writer.free_links.push(upper.link);
        writer.give_up_group(upper.page);
        let mut top = self.top.write();
        top.keys.remove(index + 1);
        top.groups.remove(index + 1);
        Ok(true)
    }

    /// Gives the pages back that the writer keeps for its next leaves, and those that the last record made useless.
    fn give_kept(&self) -> Result<()> {
        let mut writer = self.writer.lock();
        self.commit(&mut writer)?;
        while writer.waits_for_record() {
            self.commit_with(&mut writer, true)?;
        }
        writer.give_spare(&*self.space, 0)
    }
}
