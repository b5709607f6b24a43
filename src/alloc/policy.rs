//! Which free blocks does a want get?
//!
//! After WineFS (SOSP 2021): whole free chunks are a conserved resource. In this order:
//!
//! - (a) A want that covers whole 2 MiB slots of the file gets free chunks, as many in a row as the group has. Only
//!   these can be mapped by one PMD.
//! - (b) Any other goes on where the file's last extent ends, if that block is available in a broken chunk.
//! - (c) Else it goes to a congruent place (block and file block equal modulo 512) of a broken chunk.
//! - (d) A want of more than half a slot breaks a free chunk congruently: the slot is likely to be filled, and what
//!   is left is smaller than what is used.
//! - (e) A smaller one gets the tightest run it fits in, then a shorter run of at least 8 blocks (less would cost a
//!   record for almost nothing), and only then breaks a free chunk.
//! - (f) When no chunk is free, whoever it is gets a piece of the longest runs there are.
//!
//! Each thread has a broken chunk of its own, so that two threads do not wait for each other's commits. Searches look
//! at a bounded number of groups and chunks, but "no space" is said only after all were asked.

use super::bits::floor_log2;
use super::group::{GroupState, Piece};
use super::{Space, shortage};
use crate::error::{Error, Result};
use crate::layout::SlotClass;
use crate::sync::atomic::Ordering;
use crate::units::{Block, CHUNK_BLOCKS, Chunk, FileBlock, Group, Run};

/// A shorter run than this is not worth an extent while there is another way.
const WORTH_BLOCKS: u64 = 8;
/// Groups whose descriptors one search reads before it breaks a chunk.
const READ_GROUPS: u64 = 4;
const ALL_GROUPS: u64 = u64::MAX;
/// With fewer free blocks above the floor (16 MiB), the pool is looked at as a whole: once, for what was looked at
/// is known then.
pub(super) const NEARLY_FULL_BLOCKS: u64 = 8 * CHUNK_BLOCKS;
/// Loaded groups that one search asks.
const CANDIDATES: usize = 4;

/// What a file needs.
#[derive(Clone, Copy, Debug)]
pub struct Want {
    /// How many blocks, from `file_block` on; not 0.
    pub blocks: u64,
    /// Where in the file they go.
    pub file_block: FileBlock,
    /// The block after the file's previous extent, if it has one.
    pub goal: Option<Block>,
}

impl Want {
    /// Blocks of the want in the file slot it starts in.
    fn in_slot(&self) -> u64 {
        self.blocks.min(CHUNK_BLOCKS - self.congruent())
    }

    /// Where in a chunk the first block is congruent.
    fn congruent(&self) -> u64 {
        self.file_block.0 % CHUNK_BLOCKS
    }

    /// How many whole file slots the want covers from its start on.
    fn whole_slots(&self) -> u64 {
        if self.congruent() == 0 { self.blocks / CHUNK_BLOCKS } else { 0 }
    }

    /// Blocks to put into broken chunks at once: not past where whole slots could begin.
    fn piece(&self) -> u64 {
        let first = self.in_slot();
        if self.blocks - first >= CHUNK_BLOCKS { first } else { self.blocks.min(CHUNK_BLOCKS) }
    }
}

/// What a damaged group answers to a search: nothing.
pub(super) fn nothing_if_damaged<T>(result: Result<Option<T>>) -> Result<Option<T>> {
    match result {
        Err(Error::Corrupt(_)) => Ok(None),
        other => other,
    }
}

impl Space {
    /// A run of 1 to `want.blocks` blocks that nobody else has, counted as taken.
    ///
    /// # Errors
    /// [`Error::NoSpace`], errors of the host providing memory.
    pub(super) fn reserve(&self, want: &Want) -> Result<Run> {
        if shortage::strikes() {
            return Err(self.no_space(want.blocks));
        }
        self.look_around(want.blocks)?;
        let blocks = want.blocks.min(self.spare_blocks());
        if blocks == 0 {
            return Err(self.no_space(want.blocks));
        }
        let run = self.place(&Want { blocks, ..*want })?.ok_or_else(|| self.no_space(want.blocks))?;
        if let Some(run) = self.keep(run) {
            return Ok(run);
        }
        // What is left where nodes can be is set aside; there may be room where they can not.
        let beside = self.beside_inodes(blocks)?.ok_or_else(|| self.no_space(want.blocks))?;
        self.keep(beside).ok_or_else(|| self.no_space(want.blocks))
    }

    /// Where the pool would be nearly full with `blocks` more: gets to know all of it, and sets nothing aside.
    pub(super) fn look_around(&self, blocks: u64) -> Result<()> {
        if self.free_blocks() < self.floor().saturating_add(NEARLY_FULL_BLOCKS).saturating_add(blocks) {
            self.give_ahead_back();
            self.read_everything()?;
        }
        Ok(())
    }

    /// Counts as much of the placed `run` as taken as leaves the floor where nodes can be, and gives the rest back.
    pub(super) fn keep(&self, run: Run) -> Option<Run> {
        let chunk = run.start.chunk();
        // Counted first, and what is too much uncounted: two threads can not both see the same blocks spare.
        let mut kept = self.charge(run.len, 0);
        let deficit = self.floor().saturating_sub(self.node_blocks());
        let beside_inodes = || self.with_group(chunk.group(), |s, _| Ok(s.has_inodes(chunk.in_group())));
        if deficit > 0 && !matches!(beside_inodes(), Ok(true)) {
            let short = deficit.min(kept);
            self.taken.fetch_sub(short as i64, Ordering::AcqRel);
            kept -= short;
        }
        if kept < run.len {
            self.give_run(Run::new(Block(run.start.0 + kept), run.len - kept));
        }
        (kept > 0).then_some(Run::new(run.start, kept))
    }

    /// Reads every descriptor that was not read yet: where nodes can be must be known exactly.
    fn read_everything(&self) -> Result<()> {
        while let Some(group) = self.next_unread(ALL_GROUPS)? {
            self.ask(group, &|_| None)?;
        }
        Ok(())
    }

    /// Up to `len` blocks of a chunk with arenas of inodes.
    fn beside_inodes(&self, len: u64) -> Result<Option<Run>> {
        let groups = self.index.lock().with_runs(0, 0, usize::MAX);
        for group in groups {
            if let Some(run) = self.ask(group, &|state| state.take_beside_inodes(len))? {
                return Ok(Some(run));
            }
        }
        Ok(None)
    }

    /// Counts up to `blocks` as taken while `floor` are left; returns how many were.
    fn charge(&self, blocks: u64, floor: u64) -> u64 {
        let usable = self.geometry().usable_blocks().saturating_sub(floor) as i64;
        // Never more for a moment than is kept: somebody else would be told that the pool is full.
        let kept = |before: i64| (usable - before).clamp(0, blocks as i64);
        let mut before = self.taken.load(Ordering::Acquire);
        while let Err(now) = self.taken.compare_exchange_weak(
            before,
            before + kept(before),
            Ordering::AcqRel,
            Ordering::Acquire,
        ) {
            before = now;
        }
        kept(before) as u64
    }

    /// Makes a placed run that is not counted as taken available again.
    pub(super) fn give_run(&self, run: Run) {
        let mut back = super::Footprint::default();
        back.take(run);
        self.make_available(back.taken());
    }

    fn place(&self, want: &Want) -> Result<Option<Run>> {
        let found = if want.whole_slots() > 0 {
            self.whole_chunks(want.whole_slots(), want.goal)?
        } else {
            self.in_a_slot(want)?
        };
        match found {
            Some(run) => Ok(Some(run)),
            None => self.longest(want.blocks),
        }
    }

    fn in_a_slot(&self, want: &Want) -> Result<Option<Run>> {
        if let Some(run) = self.at_goal(want)? {
            return Ok(Some(run));
        }
        self.know_a_group()?;
        let (from, first, piece) = (want.congruent(), want.in_slot(), want.piece());
        if let Some(run) = self.congruent(from, first)? {
            return Ok(Some(run));
        }
        if first * 2 > CHUNK_BLOCKS
            && let Some(run) = self.break_chunk(from, first, want.goal)?
        {
            return Ok(Some(run));
        }
        if let Some(run) = self.tightest(piece)? {
            return Ok(Some(run));
        }
        if piece > WORTH_BLOCKS
            && piece < CHUNK_BLOCKS / 8
            && let Some(run) = self.shorter(piece)?
        {
            return Ok(Some(run));
        }
        let broken = self.break_chunk(from, first, want.goal)?;
        if let Some(run) = broken {
            self.prefer(run.start.chunk());
        }
        Ok(broken)
    }

    fn at_goal(&self, want: &Want) -> Result<Option<Run>> {
        let geometry = self.geometry();
        let Some(goal) = want.goal.filter(|goal| geometry.is_allocatable(*goal, 1)) else { return Ok(None) };
        nothing_if_damaged(self.with_group(goal.chunk().group(), |state, journal| {
            let i = goal.chunk().in_group();
            state.read_chunk(journal, i)?;
            Ok(state.take_at(i, goal.in_chunk(), want.piece()).map(|piece| state.run(piece)))
        }))
    }

    /// Asks this thread's own broken chunk.
    fn ask_own(&self, f: impl Fn(&mut GroupState, u64) -> Option<Piece>) -> Result<Option<Run>> {
        let Some(chunk) = self.shard().lock().current else { return Ok(None) };
        nothing_if_damaged(self.with_group(chunk.group(), |state, _| {
            Ok(f(state, chunk.in_group()).map(|piece| state.run(piece)))
        }))
    }

    /// Asks up to four groups that have broken chunks with runs of `bucket` or more.
    fn ask_groups(
        &self,
        bucket: usize,
        f: &impl Fn(&mut GroupState) -> Option<Piece>,
    ) -> Result<Option<Run>> {
        let near = self.near();
        let groups = self.index.lock().with_runs(bucket, near, CANDIDATES);
        for group in groups {
            if let Some(run) = self.ask(group, f)? {
                return Ok(Some(run));
            }
        }
        Ok(None)
    }

    fn ask(&self, group: Group, f: &impl Fn(&mut GroupState) -> Option<Piece>) -> Result<Option<Run>> {
        nothing_if_damaged(self.with_group(group, |state, journal| {
            state.read_all(journal)?;
            Ok(f(state).map(|piece| state.run(piece)))
        }))
    }

    /// The group where this thread looks first.
    fn near(&self) -> u64 {
        let shard = self.shard().lock();
        shard.current.map_or(shard.group, |chunk| chunk.group().0)
    }

    fn congruent(&self, from: u64, len: u64) -> Result<Option<Run>> {
        if let Some(run) = self.ask_own(|state, i| state.take_exactly(i, from, len))? {
            return Ok(Some(run));
        }
        self.ask_groups(floor_log2(len), &|state| state.take_congruent(from, len, Self::owner()))
    }

    fn tightest(&self, len: u64) -> Result<Option<Run>> {
        if let Some(run) = self.ask_own(|state, i| state.take_run_in(i, len))? {
            return Ok(Some(run));
        }
        let f = |state: &mut GroupState| state.take_run(len, Self::owner());
        if let Some(run) = self.ask_groups(floor_log2(len), &f)? {
            self.prefer(run.start.chunk());
            return Ok(Some(run));
        }
        for _ in 0..READ_GROUPS {
            let Some(group) = self.next_unread(READ_GROUPS)? else { break };
            if let Some(run) = self.ask(group, &f)? {
                self.prefer(run.start.chunk());
                return Ok(Some(run));
            }
        }
        Ok(None)
    }

    /// Reads the descriptors of one more group if none with room is known.
    fn know_a_group(&self) -> Result<()> {
        let known = self.index.lock().longest();
        if known.is_none()
            && let Some(group) = self.next_unread(READ_GROUPS)?
        {
            self.ask(group, &|_| None)?;
        }
        Ok(())
    }

    /// A group whose descriptors were not all read; up to `loads` groups are loaded until there is one.
    fn next_unread(&self, loads: u64) -> Result<Option<Group>> {
        let near = self.near();
        for _ in 0..loads {
            let unread = self.index.lock().unread(near);
            if unread.is_some() || !self.load_next()? {
                return Ok(unread);
            }
        }
        Ok(self.index.lock().unread(near))
    }

    /// A piece of at most `len` blocks of the longest runs known, if they are worth an extent.
    fn shorter(&self, len: u64) -> Result<Option<Run>> {
        let Some(group) = self.index.lock().longest() else { return Ok(None) };
        self.ask(group, &|state| state.take_longest(len, WORTH_BLOCKS))
    }

    /// A piece of at most `len` blocks of the longest runs known; where none are known, of those of the groups that
    /// were not asked yet.
    fn longest(&self, len: u64) -> Result<Option<Run>> {
        loop {
            let known = self.index.lock().longest();
            let Some(group) = (match known {
                Some(group) => Some(group),
                None => self.next_unread(ALL_GROUPS)?,
            }) else {
                return Ok(None);
            };
            if let Some(run) = self.ask(group, &|state| state.take_longest(len, 1))? {
                return Ok(Some(run));
            }
        }
    }

    /// Makes `chunk` the one that this thread's small wants are served from.
    fn prefer(&self, chunk: Chunk) {
        let old = {
            let mut shard = self.shard().lock();
            if shard.current == Some(chunk) {
                return;
            }
            shard.current.replace(chunk)
        };
        let own = Self::owner();
        let set = |chunk: Chunk, from, to| {
            // A damaged group needs no owners.
            let _damaged = self.with_group(chunk.group(), |state, _| {
                state.set_owner(chunk.in_group(), from, to);
                Ok(())
            });
        };
        set(chunk, Some(0), own);
        if let Some(old) = old {
            set(old, Some(own), 0);
        }
    }

    /// Up to `count` free chunks in a row.
    pub(super) fn whole_chunks(&self, count: u64, goal: Option<Block>) -> Result<Option<Run>> {
        let goal =
            goal.filter(|goal| goal.in_chunk() == 0 && goal.0 < self.geometry().blocks()).map(Block::chunk);
        if let Some(chunk) = goal {
            let at = Some(chunk.in_group());
            let group = chunk.group();
            let taken = self
                .with_group(group, |state, _| Ok(state.take_chunks(count, at).map(|piece| state.run(piece))));
            if let Some(run) = nothing_if_damaged(taken)? {
                return self.provisioned(run).map(Some);
            }
        }
        let near = self.shard().lock().group;
        loop {
            let group = self.index.lock().free(near);
            if let Some(group) = group {
                let taken = self.with_group(group, |state, _| {
                    Ok(state.take_chunks(count, None).map(|piece| state.run(piece)))
                });
                if let Some(run) = nothing_if_damaged(taken)? {
                    self.shard().lock().group = group.0;
                    return self.provisioned(run).map(Some);
                }
            } else if !self.load_next()? && !self.give_ahead_back() {
                return Ok(None);
            }
        }
    }

    /// The chunks of `run`, provided by the host; given back where it refuses. The host is asked once for each.
    pub(super) fn provisioned(&self, run: Run) -> Result<Run> {
        let group = run.start.chunk().group();
        let (first, count) = (run.start.chunk().in_group(), run.len / CHUNK_BLOCKS);
        let (done, fresh) =
            self.with_group(group, |state, _| Ok((state.is_provided(first, count), state.is_fresh())))?;
        if done && !fresh {
            return Ok(run);
        }
        let begun = if fresh { self.begin_group(group) } else { Ok(()) };
        let noted = begun.and_then(|()| self.provision(run)).and_then(|()| {
            self.with_group(group, |state, _| {
                state.set_provided(first, count);
                Ok(())
            })
        });
        if noted.is_err() {
            self.give_run(run);
        }
        noted.map(|()| run)
    }

    /// Takes a free chunk, keeps `len` blocks from block `from` of it, and makes the others available. Nobody can
    /// have them before the host has provided the chunk.
    fn break_chunk(&self, from: u64, len: u64, goal: Option<Block>) -> Result<Option<Run>> {
        let Some(whole) = self.whole_chunks(1, goal)? else { return Ok(None) };
        let start = whole.start.0;
        if from > 0 {
            self.give_run(Run::new(whole.start, from));
        }
        if from + len < CHUNK_BLOCKS {
            self.give_run(Run::new(Block(start + from + len), CHUNK_BLOCKS - from - len));
        }
        Ok(Some(Run::new(Block(start + from), len)))
    }

    /// Blocks for an arena of `class`, counted as taken; `floor` blocks are left. An aligned run of
    /// `arena_blocks`, or a single block where fragmentation left none.
    ///
    /// # Errors
    /// As [`Self::reserve`].
    pub(super) fn reserve_arena(&self, class: SlotClass, floor: u64) -> Result<Run> {
        let blocks = u64::from(self.geometry().arena_blocks);
        let single = (blocks > 1).then_some(1);
        for len in std::iter::once(blocks).chain(single) {
            let charged = self.charge(len, floor);
            let found = if charged == len { self.place_arena(class, len) } else { Ok(None) };
            if let Ok(Some(run)) = found {
                return Ok(run);
            }
            self.taken.fetch_sub(charged as i64, Ordering::AcqRel);
            found?;
        }
        Err(self.no_space(blocks))
    }

    fn place_arena(&self, class: SlotClass, len: u64) -> Result<Option<Run>> {
        // A chunk of inodes can hold no node: what is set aside must stay elsewhere.
        let most = match class {
            SlotClass::Inode => self.node_blocks().saturating_sub(self.floor()),
            SlotClass::Node => CHUNK_BLOCKS,
        };
        let f = |state: &mut GroupState| state.take_arena(class, len, most);
        let near = self.slots.group_of(class);
        let groups = self.index.lock().with_runs(floor_log2(len), near, CANDIDATES);
        for group in groups {
            if let Some(run) = self.ask(group, &f)? {
                return Ok(Some(run));
            }
        }
        for _ in 0..READ_GROUPS {
            let Some(group) = self.next_unread(READ_GROUPS)? else { break };
            if let Some(run) = self.ask(group, &f)? {
                return Ok(Some(run));
            }
        }
        let broken = if most < CHUNK_BLOCKS { None } else { self.break_chunk(0, len, None)? };
        match broken {
            Some(run) if self.claim(run, class)? => Ok(Some(run)),
            Some(run) => {
                self.give_run(run);
                self.arena_anywhere(len, &f)
            }
            None => self.arena_anywhere(len, &f),
        }
    }

    /// Makes the chunk of `run` one of `class`; `false` where it became another class's meanwhile.
    fn claim(&self, run: Run, class: SlotClass) -> Result<bool> {
        let chunk = run.start.chunk();
        self.with_group(chunk.group(), |state, _| Ok(state.claim(chunk.in_group(), class)))
    }

    /// Asks every group for an arena: the last resort of a full pool.
    fn arena_anywhere(&self, len: u64, f: &impl Fn(&mut GroupState) -> Option<Piece>) -> Result<Option<Run>> {
        self.read_everything()?;
        let groups = self.index.lock().with_runs(floor_log2(len), 0, usize::MAX);
        for group in groups {
            if let Some(run) = self.ask(group, f)? {
                return Ok(Some(run));
            }
        }
        Ok(None)
    }
}
