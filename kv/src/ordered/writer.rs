//! How do changes get into the leaves, and become durable?
//!
//! One writer at a time takes what waits, in the order of the keys. A change is appended to its leaf where it fits, else the leaf
//! is replaced by new pages (`split`). What links those pages waits in `words` until [`Ordered::commit`].
//!
//! Invariants:
//! 1. Readers see a change when its leaf's group is unlocked; the medium has it at the next commit. Between the two the words on
//!    the medium link the old pages, which nobody changes.
//! 2. A page is used again when neither words on the medium nor a record of the log can lead to it or into it.

use super::group::{Group, Leaf, State};
use super::leaf::{Content, encode_entry, entry_bytes};
use super::log::Log;
use super::mutation::{self, Mutation};
use super::pending::Batch;
use super::root::{self, Page, Root, links};
use super::{LEAF_BYTES, Ordered, Space};
use crate::error::Result;
use crate::media::Media;
use daxstore::sync::Arc;
use std::collections::{BTreeMap, HashSet};
use std::ops::Range;

/// How many changes for each link of a group are taken into a leaf at once, at most. A leaf has at least eight keys: so what becomes of one
/// leaf and those changes has room in two groups.
const RUN: usize = 2;
/// How many words of a record one such run may need.
pub(super) const RUN_WORDS: usize = 96;
/// How many changes are taken before readers of their group are let in again, but for those of one leaf.
const TOGETHER: usize = 64;
/// Fewer changes than that are not looked ahead for.
const LOOK_AHEAD: usize = 4;
const LINE: u64 = 64;

/// What the writer has in hand.
#[derive(Debug)]
pub(super) struct Writer {
    pub root: Root,
    pub tables: Vec<Page>,
    /// Words of the tables that link nothing.
    pub free_links: Vec<u64>,
    pub log: Log,
    /// What is to be stored with the next record.
    pub words: BTreeMap<u64, u64>,
    /// Lines to be flushed with the next commit.
    lines: Vec<u64>,
    /// Lines of words that were stored after the last record.
    stored: Vec<u64>,
    /// Pages that were taken since the last record: nothing durable links them.
    fresh: HashSet<u64>,
    /// Pages that the next record makes useless, and those that the last one did.
    given_up: Vec<Page>,
    held: Vec<Page>,
    spare: Vec<Page>,
    /// Whether something was written through and not waited for.
    pub unfenced: bool,
    batch: Batch,
    pub content: Content,
    pub other: Content,
    pub buf: Vec<u8>,
    entry: Vec<u8>,
}

impl Writer {
    pub(super) fn new(root: Root, tables: Vec<Page>, free_links: Vec<u64>, log: Log) -> Self {
        Self {
            root,
            tables,
            free_links,
            log,
            words: BTreeMap::new(),
            lines: Vec::new(),
            stored: Vec::new(),
            fresh: HashSet::new(),
            given_up: Vec::new(),
            held: Vec::new(),
            spare: Vec::new(),
            unfenced: false,
            batch: Batch::default(),
            content: Content::default(),
            other: Content::default(),
            buf: Vec::new(),
            entry: Vec::new(),
        }
    }

    /// A page of `bytes` bytes.
    ///
    /// # Errors
    /// [`crate::Error::NoSpace`].
    pub(super) fn take_page<S: Space>(&mut self, space: &S, bytes: u64) -> Result<Page> {
        let fits = |page: &Page| page.bytes == bytes && !space.is_leaving(*page);
        let at = match self.spare.iter().rposition(fits) {
            Some(place) => self.spare.swap_remove(place).at,
            None => space.take(bytes)?,
        };
        self.fresh.insert(at);
        Ok(Page { at, bytes })
    }

    /// Pages of these lengths, then pages for so many groups, or none.
    ///
    /// # Errors
    /// As [`Self::take_page`].
    pub(super) fn take_pages<S: Space>(
        &mut self,
        space: &S,
        lengths: impl Iterator<Item = u64>,
        groups: usize,
    ) -> Result<Vec<Page>> {
        let mut taken = Vec::new();
        for bytes in lengths.map(Some).chain(std::iter::repeat_n(None, groups)) {
            let page = match bytes {
                Some(bytes) => self.take_page(space, bytes),
                None => self.take_group(space),
            };
            match page {
                Ok(page) => taken.push(page),
                Err(error) => {
                    taken.into_iter().for_each(|page| self.give_up(page));
                    return Err(error);
                }
            }
        }
        Ok(taken)
    }

    /// A page for a group: none that was a leaf's, which may lie anywhere.
    fn take_group<S: Space>(&mut self, space: &S) -> Result<Page> {
        let bytes = self.root.sizes.group;
        let at = space.take_group(bytes)?;
        self.fresh.insert(at);
        Ok(Page { at, bytes })
    }

    /// Pages that are linked by nothing and not given back.
    pub(super) fn kept(&self) -> impl Iterator<Item = Page> {
        self.spare.iter().chain(&self.held).copied()
    }

    /// `page` will be linked by nothing after the next record, and is looked at by nobody.
    pub(super) fn give_up(&mut self, page: Page) {
        match self.fresh.remove(&page.at) {
            true => self.spare.push(page),
            false => self.given_up.push(page),
        }
    }

    /// Gives the group's page up; what was to be stored into it is not.
    pub(super) fn give_up_group(&mut self, page: Page) {
        self.words.retain(|at, _| !(page.at..page.at + page.bytes).contains(at));
        self.give_up(page);
    }

    /// The word at `at` shall link `page`, or nothing.
    pub(super) fn set_link(&mut self, at: u64, page: Option<Page>) {
        self.words.insert(at, page.map_or(0, |page| root::link(page, at)));
    }

    /// A word that can link one more group.
    ///
    /// # Errors
    /// As [`Self::take_page`].
    pub(super) fn take_link<S: Space>(&mut self, space: &S, tree: u32) -> Result<u64> {
        if self.free_links.is_empty() {
            let sizes = self.root.sizes;
            let table = self.take_page(space, sizes.table())?;
            root::write_table(space.memory(), tree, table, sizes);
            self.unfenced = true;
            let last = self.tables.last().copied().unwrap_or(self.root.page);
            self.set_link(root::next_of(last), Some(table));
            self.tables.push(table);
            self.free_links.extend(links(table));
            self.free_links.reverse();
        }
        Ok(self.free_links.pop().unwrap_or_default())
    }

    /// The record is durable: what the one before it gave up is free.
    fn release<S: Space>(&mut self, space: &S) -> Result<()> {
        self.fresh.clear();
        self.spare.append(&mut self.held);
        self.held.append(&mut self.given_up);
        if mutation::is(Mutation::FreeEarly) {
            self.spare.append(&mut self.held);
        }
        self.give_spare(space, self.root.sizes.spare())
    }

    /// Gives the pages that nothing links back, but for `kept` of them.
    pub(super) fn give_spare<S: Space>(&mut self, space: &S, kept: usize) -> Result<()> {
        let (leaving, mut spare): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.spare).into_iter().partition(|page| space.is_leaving(*page));
        let rest = spare.split_off(kept.min(spare.len()));
        self.spare = spare;
        leaving.into_iter().chain(rest).try_for_each(|page| space.give(page))
    }

    /// Whether pages wait for another record to be free.
    pub(super) fn waits_for_record(&self) -> bool {
        !self.given_up.is_empty() || !self.held.is_empty()
    }
}

impl<S: Space> Ordered<S> {
    /// The group that `key` belongs to, and its place.
    pub(super) fn group_of(&self, key: &[u8]) -> (usize, Arc<Group>) {
        let top = self.top.read();
        let index = top.keys.find(key);
        (index, top.groups[index].clone())
    }

    /// Takes up to `most` of what waits into the leaves, where readers see it: less where leaves are replaced, if not all is asked for. A commit follows
    /// some time, by anybody.
    ///
    /// # Errors
    /// As [`Self::take_pending`].
    pub(super) fn take_readable(&self, writer: &mut Writer, most: usize) -> Result<()> {
        let taken = self.take_pending(writer, most);
        // What this thread wrote past the cache, and the codes of the pages that it took, are durable by a fence of its own only.
        if std::mem::take(&mut writer.unfenced)
            && !crate::mutation::is(crate::mutation::Mutation::NoTakerFence)
        {
            return taken.and(self.memory().fence());
        }
        taken
    }

    /// Takes up to `most` of what waits into the leaves, less as [`Self::take_readable`] says. [`Self::commit`] follows, by the same thread.
    ///
    /// # Errors
    /// [`crate::Error::NoSpace`]; the medium's. What was not taken waits again.
    pub(super) fn take_pending(&self, writer: &mut Writer, most: usize) -> Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let mut batch = std::mem::take(&mut writer.batch);
        let mut taken = self.pending.take(&mut batch, most);
        if mutation::is(Mutation::SettleEarly) {
            self.pending.settled(std::mem::take(&mut taken));
        }
        self.look_ahead(&batch);
        let (mut done, mut result) = (0, Ok(()));
        // Who takes some has a change of his own to make: he waits for the pages of one change at most.
        let is_enough = |writer: &Writer| most < usize::MAX && writer.unfenced;
        while done < batch.changes.len() && result.is_ok() && !is_enough(writer) {
            result = self.take_some(writer, &batch, &mut done);
        }
        match done == batch.changes.len() {
            true => self.pending.settled(taken),
            false => self.pending.put_back(&batch, done, taken),
        }
        writer.batch = batch;
        result
    }

    /// Asks for the lines that the changes of `batch` will touch.
    fn look_ahead(&self, batch: &Batch) {
        if batch.changes.len() < LOOK_AHEAD {
            return;
        }
        let top = self.top.read();
        let mut rest = &batch.changes[..];
        while let Some(first) = rest.first() {
            let index = top.keys.find(batch.key(first));
            let is_here = |change: &&_| top.keys.is_below(batch.key(change), index + 1) != Some(false);
            let (here, others) = rest.split_at(rest.iter().take_while(is_here).count().max(1));
            rest = others;
            let state = top.groups[index].state.read();
            if !state.loaded {
                continue;
            }
            let mut keys = here.iter().map(|change| batch.key(change)).peekable();
            while let Some(key) = keys.next() {
                let place = state.keys.find(key);
                let Leaf { page, tail, prefix, .. } = &state.leaves[place];
                let (tail, entry) =
                    (u64::from(tail.unwrap_or(0)), entry_bytes(key.len().saturating_sub(prefix.len())));
                let fits = tail + entry as u64 <= page.bytes;
                if fits {
                    self.memory().prefetch_bytes(page.at + tail, entry as u64);
                } else {
                    // A leaf without room is read as a whole, and its neighbours with it.
                    let first = place.saturating_sub(1);
                    state.leaves.iter().skip(first).take(place + 2 - first).for_each(|leaf| {
                        self.memory().prefetch_bytes(leaf.page.at, leaf.page.bytes.min(LEAF_BYTES));
                    });
                }
                while keys.next_if(|key| state.is_below_next(key, place)).is_some() {}
            }
        }
    }

    /// Takes changes from `done` on that belong to one group, which moves `done` behind them.
    fn take_some(&self, writer: &mut Writer, batch: &Batch, done: &mut usize) -> Result<()> {
        let from = *done;
        let (index, group) = self.group_of(batch.key(&batch.changes[from]));
        let mut state = group.state.write();
        if state.load(self.memory(), self.tree).is_err() {
            self.renew(writer, index, &mut state)?;
        }
        while let Some(change) = batch.changes.get(*done)
            && *done < from + TOGETHER
            && (*done == from || state.holds(batch.key(change)))
        {
            let key = batch.key(change);
            let place = state.keys.find(key);
            let rest = batch.changes[*done..].iter().take(RUN * state.capacity());
            let below = |change: &&_| state.is_below_next(batch.key(change), place);
            let run = *done..*done + rest.take_while(below).count();
            let fits = self.append(writer, &mut state, place, batch, run.clone());
            if !fits {
                self.replace(writer, index, &mut state, place, batch, run.clone())?;
            }
            *done = run.end;
            if !fits {
                // The group may be another one now.
                break;
            }
        }
        drop(state);
        if writer.words.len() > Log::CAPACITY - RUN_WORDS {
            self.commit(writer)?;
        }
        Ok(())
    }

    /// Appends changes to the leaf at `place`, where they fit and the leaf is not better replaced.
    fn append(
        &self,
        writer: &mut Writer,
        state: &mut State,
        place: usize,
        batch: &Batch,
        run: Range<usize>,
    ) -> bool {
        let Some(mut tail) = self.tail_of(writer, state, place) else { return false };
        let changes = &batch.changes[run];
        let mut end = tail as usize;
        for change in changes {
            match state.suffix(place, batch.key(change)) {
                Some(suffix) => end += entry_bytes(suffix.len()),
                None => return false,
            }
        }
        let deleted = changes.iter().filter(|change| change.hint().is_none()).count() as i32;
        let leaf = &state.leaves[place];
        let live = leaf.live + changes.len() as i32 - 2 * deleted;
        if end as u64 > leaf.page.bytes || (deleted > 0 && leaf.is_sparse(live, leaf.deleted + deleted)) {
            return false;
        }
        let media = self.memory();
        for change in changes {
            let suffix = &batch.key(change)[leaf.prefix.len()..];
            encode_entry(&mut writer.entry, leaf.sum, tail as usize, suffix, change.hint());
            let at = leaf.page.at + u64::from(tail);
            media.write(at, &writer.entry);
            let last = (at + writer.entry.len() as u64 - 1) / LINE;
            writer.lines.extend((at / LINE..=last).map(|line| line * LINE));
            tail += writer.entry.len() as u32;
        }
        let leaf = &mut state.leaves[place];
        (leaf.tail, leaf.live, leaf.deleted) = (Some(tail), live, leaf.deleted + deleted);
        leaf.copy.change();
        true
    }

    /// Where the next entry of the leaf at `place` goes; `None` where it must be replaced.
    fn tail_of(&self, writer: &mut Writer, state: &mut State, place: usize) -> Option<u32> {
        let leaf = &mut state.leaves[place];
        if leaf.tail.is_none() {
            let read = leaf.read(self.memory(), self.tree, &mut writer.buf, &mut writer.content).ok()?;
            if read.clean || mutation::is(Mutation::AppendToTorn) {
                leaf.tail = Some(read.end as u32);
                leaf.live = writer.content.items.len() as i32;
            }
        }
        leaf.tail
    }

    /// Makes durable what was taken.
    ///
    /// # Errors
    /// The medium's.
    pub(super) fn commit(&self, writer: &mut Writer) -> Result<()> {
        if writer.lines.is_empty() && writer.words.is_empty() && !writer.unfenced {
            return Ok(());
        }
        let any_words = !writer.words.is_empty();
        self.commit_with(writer, any_words)
    }

    /// As [`Self::commit`]; with `record` there is a record, though it may have no words: what the one before it gave up is free then.
    pub(super) fn commit_with(&self, writer: &mut Writer, record: bool) -> Result<()> {
        let media = self.memory();
        writer.unfenced = false;
        let mut lines = std::mem::take(&mut writer.lines);
        if mutation::is(Mutation::NoFlush) {
            lines.clear();
        }
        if !mutation::is(Mutation::NoWordFlush) {
            lines.append(&mut writer.stored);
        }
        lines.sort_unstable();
        lines.dedup();
        lines.iter().for_each(|line| media.flush(*line, LINE));
        if !mutation::is(Mutation::NoPageFence) {
            media.fence()?;
        }
        lines.clear();
        writer.lines = lines;
        if !record {
            return Ok(());
        }
        let words = std::mem::take(&mut writer.words);
        writer.log.write(media, words.iter().map(|(at, word)| (*at, *word)))?;
        writer.stored.clear();
        for (at, word) in words {
            media.store(at, word);
            writer.stored.push(at & !(LINE - 1));
        }
        writer.release(&*self.space)
    }
}
