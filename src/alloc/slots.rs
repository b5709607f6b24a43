//! Which slots of arenas are free?
//!
//! A slot's state is its object's kind at home. Which slots are free is known in DRAM for the arenas that were
//! scanned or opened in this session, as a mask a *window* (`arena_blocks` aligned blocks). Invariants:
//! 1. A free slot stands in exactly one place: the mask of its window in [`Central`], the mask one thread works on
//!    ([`Local`]), or an operation that took it.
//! 2. A window is scanned while nobody can take or free a slot of it: before it is known no slot of it is offered,
//!    and an operation that frees one makes it known first.
//! 3. A slot that was freed is offered after that commit was applied.
//!
//! An arena is opened by a transaction of its own, which is durable before its slots are offered. It is never given
//! back to files while anything runs (J7).

use super::bits::run;
use super::{Op, SHARDS, Space, shortage};
use crate::error::{Damage, Error, Result};
use crate::layout::{Bits, HEADER_BYTES, Kind, SlotClass};
use crate::pmem::mutation::{self, Mutation};
use crate::pmem::{Durable, thread_number};
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::{Mutex, MutexGuard};
use crate::units::{BLOCK_BYTES, Block, CHUNK_BLOCKS, Chunk, Group, PoolOff, Run};
use crossbeam::utils::CachePadded;
use std::collections::{BTreeMap, BTreeSet};

/// Windows that one call scans before it opens a new arena instead.
const SCAN_WINDOWS: usize = 64;
/// Groups that one call looks into for arenas to scan.
const SCAN_GROUPS: usize = 8;
/// Entries of the cache of blocks known to be arenas'.
const KNOWN: usize = if cfg!(loom) { 4 } else { 4096 };

/// Free slots of a window, one bit each: at most 16 blocks of 16.
type Mask = [u64; 4];

const NONE: Mask = [0; 4];

fn set(mask: &mut Mask, slot: u64) {
    mask[(slot / 64) as usize & 3] |= 1 << (slot % 64);
}

fn pop(mask: &mut Mask) -> Option<u64> {
    let (i, word) = mask.iter_mut().enumerate().find(|(_, word)| **word != 0)?;
    let bit = word.trailing_zeros();
    *word &= *word - 1;
    Some(i as u64 * 64 + u64::from(bit))
}

/// The window a thread takes slots of.
#[derive(Debug, Default)]
struct Local {
    window: u64,
    free: Mask,
}

/// What is known of a class's windows.
#[derive(Debug, Default)]
struct Central {
    /// Known windows, by first block, with the free slots that no thread works on.
    windows: BTreeMap<u64, Mask>,
    /// Those with such slots.
    open: BTreeSet<u64>,
    /// Arenas at blocks below were scanned, or were known before.
    cursor: u64,
}

impl Central {
    fn add(&mut self, window: u64, free: &Mask) {
        let mask = self.windows.entry(window).or_default();
        mask.iter_mut().zip(free).for_each(|(word, more)| *word |= more);
        if *mask != NONE {
            self.open.insert(window);
        }
    }
}

#[derive(Debug)]
struct ClassSlots {
    central: Mutex<Central>,
    locals: Box<[CachePadded<Mutex<Local>>]>,
    /// The group where the last arena was opened.
    group: AtomicU64,
}

impl ClassSlots {
    fn new() -> Self {
        let locals = std::iter::repeat_with(CachePadded::default).take(SHARDS).collect();
        Self { central: Mutex::default(), locals, group: AtomicU64::new(0) }
    }

    fn local(&self) -> MutexGuard<'_, Local> {
        self.locals[thread_number() % SHARDS].lock()
    }
}

/// The free slots of both classes.
#[derive(Debug)]
pub(super) struct Slots {
    window_blocks: u64,
    inodes: ClassSlots,
    nodes: ClassSlots,
    /// A slot was freed or an arena opened since arenas were reclaimed, or nobody has looked in this session.
    has_news: AtomicBool,
    /// Blocks known to be arenas', by block modulo the length: block * 2 + class + 1 each, 0 for none.
    known: Box<[AtomicU64]>,
}

impl Slots {
    pub fn new(arena_blocks: u32) -> Self {
        Self {
            window_blocks: u64::from(arena_blocks),
            inodes: ClassSlots::new(),
            nodes: ClassSlots::new(),
            has_news: AtomicBool::new(true),
            known: std::iter::repeat_with(AtomicU64::default).take(KNOWN).collect(),
        }
    }

    /// Whether an arena could be empty that was not when arenas were reclaimed last.
    pub fn may_have_free_arenas(&self) -> bool {
        self.has_news.load(Ordering::Acquire)
    }

    /// Notes that an arena could be empty now.
    pub fn expect_free_arenas(&self) {
        if !self.has_news.load(Ordering::Relaxed) {
            self.has_news.store(true, Ordering::Release);
        }
    }

    fn of(&self, class: SlotClass) -> &ClassSlots {
        match class {
            SlotClass::Inode => &self.inodes,
            SlotClass::Node => &self.nodes,
        }
    }

    /// The group where arenas of `class` are looked for first.
    pub fn group_of(&self, class: SlotClass) -> u64 {
        self.of(class).group.load(Ordering::Relaxed)
    }

    fn window(&self, block: Block) -> u64 {
        block.0 - block.0 % self.window_blocks
    }

    /// The window of the slot at `at` and the slot's number in it.
    fn place(&self, class: SlotClass, at: PoolOff) -> (u64, u64) {
        let window = self.window(at.block());
        (window, (at.0 - window * BLOCK_BYTES) / class.bytes())
    }

    fn known(&self, class: SlotClass, block: Block) -> (&AtomicU64, u64) {
        (&self.known[block.0 as usize % KNOWN], block.0 * 2 + u64::from(class == SlotClass::Node) + 1)
    }
}

/// What a step of scanning came to.
enum Next {
    Window(Block),
    /// Nothing up to here, and more to look at.
    NotBelow(Block),
    End,
}

impl Space {
    /// Whether a slot of an arena of `class` starts at `at`: to be asked before an inode number or a node's offset
    /// that comes from media or from a caller is believed. Costs one load where the block was asked for before,
    /// else a look at its group, and at most one descriptor.
    ///
    /// # Errors
    /// Damage of the group.
    pub fn contains_arena_slot(&self, at: PoolOff, class: SlotClass) -> Result<bool> {
        let block = at.block();
        if !at.0.is_multiple_of(class.bytes()) || !self.geometry().is_allocatable(block, 1) {
            return Ok(false);
        }
        let (entry, value) = self.slots.known(class, block);
        if entry.load(Ordering::Acquire) == value {
            return Ok(true);
        }
        let is_there = self.with_group(block.chunk().group(), |state, journal| {
            state.read_chunk(journal, block.chunk().in_group())?;
            let broken = state.broken(block.chunk().in_group());
            Ok(broken.is_some_and(|b| b.class == Some(class) && b.meta.get(block.in_chunk())))
        })?;
        if is_there {
            entry.store(value, Ordering::Release);
        }
        Ok(is_there)
    }

    /// A free slot of `class`, for the caller alone.
    ///
    /// # Errors
    /// [`Error::NoSpace`], errors of opening an arena.
    pub(super) fn take_slot(&self, class: SlotClass, may_dip: bool) -> Result<PoolOff> {
        if shortage::strikes() {
            return Err(self.no_space(1));
        }
        loop {
            if let Some(at) = self.pop_slot(class)? {
                if self.is_free_at_home(class, at) {
                    return Ok(at);
                }
                continue;
            }
            match self.open_arena(class, may_dip) {
                Ok(()) => {}
                // Before "no space" every arena is looked at.
                Err(error @ Error::NoSpace { .. }) => {
                    let mut central = self.slots.of(class).central.lock();
                    while central.open.is_empty() {
                        if !self.scan(class, &mut central)? {
                            return Err(error);
                        }
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// The last check before a slot is given away: a slot whose header is damaged is left alone.
    fn is_free_at_home(&self, class: SlotClass, at: PoolOff) -> bool {
        match self.journal.read(at, class.kind()) {
            Ok(image) => image.kind() == Kind::Free,
            // Not logged: the caller may be a fault handler. The check of the pool names it.
            Err(_) => false,
        }
    }

    fn pop_slot(&self, class: SlotClass) -> Result<Option<PoolOff>> {
        let slots = self.slots.of(class);
        let mut local = slots.local();
        if local.free == NONE {
            let mut central = slots.central.lock();
            if central.open.is_empty() {
                self.scan(class, &mut central)?;
            }
            let Some(window) = central.open.pop_first() else { return Ok(None) };
            let free = central.windows.insert(window, NONE).unwrap_or(NONE);
            *local = Local { window, free };
        }
        let slot = pop(&mut local.free);
        Ok(slot.map(|slot| PoolOff(local.window * BLOCK_BYTES + slot * class.bytes())))
    }

    /// Makes a free slot of a known window available.
    pub(super) fn offer_slot(&self, class: SlotClass, at: PoolOff) {
        let (window, slot) = self.slots.place(class, at);
        let slots = self.slots.of(class);
        let mut local = slots.local();
        if local.window == window {
            set(&mut local.free, slot);
            return;
        }
        drop(local);
        let mut free = NONE;
        set(&mut free, slot);
        slots.central.lock().add(window, &free);
    }

    /// Makes the window of the slot at `at`, which is in use, known.
    ///
    /// # Errors
    /// Damage where no slot of `class` is there.
    pub(super) fn know_slot(&self, class: SlotClass, at: PoolOff) -> Result<()> {
        if !self.contains_arena_slot(at, class)? {
            let kind = class.kind();
            return Err(Damage::new(kind.structure(), at, "not a slot of an arena", kind as u64, 0).into());
        }
        let window = self.slots.window(at.block());
        let mut central = self.slots.of(class).central.lock();
        if !central.windows.contains_key(&window) {
            let free = self.scan_window(class, Block(window))?;
            central.add(window, &free);
        }
        Ok(())
    }

    /// Scans arenas from the cursor on until there is a free slot, or enough was scanned for one call; `false`
    /// where there are no more arenas.
    fn scan(&self, class: SlotClass, central: &mut Central) -> Result<bool> {
        let (mut windows, mut groups) = (SCAN_WINDOWS, SCAN_GROUPS);
        while windows > 0 && groups > 0 && central.open.is_empty() {
            match self.next_window(class, Block(central.cursor))? {
                Next::Window(window) => {
                    if !central.windows.contains_key(&window.0) {
                        let free = self.scan_window(class, window)?;
                        central.add(window.0, &free);
                        windows -= 1;
                    }
                    central.cursor = window.0 + self.slots.window_blocks;
                }
                Next::NotBelow(block) => {
                    central.cursor = block.0;
                    groups -= 1;
                }
                Next::End => return Ok(false),
            }
        }
        Ok(true)
    }

    /// The first window at or after `from` in its group.
    fn next_window(&self, class: SlotClass, from: Block) -> Result<Next> {
        let group = from.chunk().group();
        if self.geometry().group_chunks(group) == 0 {
            return Ok(Next::End);
        }
        let next_group = Next::NotBelow(Group(group.0 + 1).first_chunk().first_block());
        if self.is_untouched(group)? {
            return Ok(next_group);
        }
        let found = self.with_group(group, |state, journal| {
            state.read_all(journal)?;
            Ok(state.arena_chunks(class, from.chunk().in_group()).find_map(|(i, broken)| {
                let chunk = Chunk(group.first_chunk().0 + i);
                let start = if chunk == from.chunk() { from.in_chunk() } else { 0 };
                let block = broken.meta.next_set(start);
                (block < CHUNK_BLOCKS).then(|| Block(chunk.first_block().0 + block))
            }))
        });
        match found {
            Ok(Some(block)) => Ok(Next::Window(Block(self.slots.window(block)))),
            Ok(None) | Err(Error::Corrupt(_)) => Ok(next_group),
            Err(error) => Err(error),
        }
    }

    /// Whether neither the group's object nor its first descriptor was ever written, so that it has no arena: to
    /// know that, it needs not be loaded.
    fn is_untouched(&self, group: Group) -> Result<bool> {
        let (geometry, region) = (self.geometry(), self.journal.region());
        Ok(region.load(geometry.group_object(group))? == 0
            && region.load(geometry.chunk_descriptor(group.first_chunk()))? == 0)
    }

    /// The arena blocks of `class` in `window`, as bits of its chunk.
    fn window_blocks(&self, class: SlotClass, window: Block) -> Result<Bits> {
        let chunk = window.chunk();
        self.with_group(chunk.group(), |state, journal| {
            state.read_chunk(journal, chunk.in_group())?;
            let Some(broken) = state.broken(chunk.in_group()).filter(|b| b.class == Some(class)) else {
                return Ok(Bits::default());
            };
            let mut blocks = run(window.in_chunk(), self.slots.window_blocks);
            blocks.0.iter_mut().zip(broken.meta.0).for_each(|(word, meta)| *word &= meta);
            Ok(blocks)
        })
    }

    /// The free slots of `window`, as their homes say.
    fn scan_window(&self, class: SlotClass, window: Block) -> Result<Mask> {
        let blocks = self.window_blocks(class, window)?;
        let per_block = BLOCK_BYTES / class.bytes();
        let mut free = NONE;
        for slot in 0..self.slots.window_blocks * per_block {
            let at = PoolOff(window.offset().0 + slot * class.bytes());
            if blocks.get(at.block().in_chunk()) && self.is_free_kind(at)? {
                set(&mut free, slot);
            }
        }
        Ok(free)
    }

    /// Whether the header at `at` says free. Its check is verified when the slot is taken. What the medium has lost is
    /// not free.
    fn is_free_kind(&self, at: PoolOff) -> Result<bool> {
        // The kind is byte 12: the word at 8 is check, kind, zero, length.
        match self.journal.region().load(at.plus(HEADER_BYTES as u64 / 2)) {
            Ok(word) => Ok((word >> 32) as u8 == Kind::Free as u8),
            Err(Error::Corrupt(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn open_arena(&self, class: SlotClass, may_dip: bool) -> Result<()> {
        self.journal.writable()?;
        let floor = match class {
            _ if may_dip => 0,
            SlotClass::Inode => self.floor(),
            // What is set aside is set aside where nodes can be.
            SlotClass::Node => self.floor() + self.free_blocks().saturating_sub(self.node_blocks()),
        };
        let arena = self.reserve_arena(class, floor)?;
        // Part of an operation that passed the gate already, or of no operation while it is closed.
        let mut op = Op::new(self, None);
        op.hold(arena);
        let mut data = self.journal.region().data_writer();
        data.zero(arena.start.offset(), arena.len * BLOCK_BYTES)?;
        let zeroed = if mutation::is(Mutation::NoArenaFence) { Durable::no_data() } else { data.fence()? };
        op.commit_as(zeroed, Some(class))?;
        self.offer_arena(class, arena)
    }

    /// Makes the slots of an arena that is open on the media available.
    fn offer_arena(&self, class: SlotClass, arena: Run) -> Result<()> {
        // If the operation it was opened for does not happen after all.
        self.slots.expect_free_arenas();
        let slots = self.slots.of(class);
        let (chunk, window) = (arena.start.chunk(), self.slots.window(arena.start));
        slots.group.store(chunk.group().0, Ordering::Relaxed);
        let mut central = slots.central.lock();
        self.with_group(chunk.group(), |state, _| {
            state.opened(chunk.in_group(), &run(arena.start.in_chunk(), arena.len));
            Ok(())
        })?;
        let mut free = NONE;
        if central.windows.contains_key(&window) {
            let per_block = BLOCK_BYTES / class.bytes();
            let first = (arena.start.0 - window) * per_block;
            (first..first + arena.len * per_block).for_each(|slot| set(&mut free, slot));
        } else {
            // A single block may join older ones of a window that was not scanned yet.
            free = self.scan_window(class, Block(window))?;
        }
        central.add(window, &free);
        Ok(())
    }

    /// Gives the blocks of arenas all of whose slots are free back to files; returns how many blocks, 0 also where
    /// there was no moment without an operation under way.
    ///
    /// The gate is closed, and [`crate::journal::Journal::quiesce`] was the last thing that happened to the journal:
    /// else a record of this epoch could name a slot of an arena, and recovery would write it into a file's block (J7).
    /// Nor would versions be safe, which start from 0 where the blocks become an arena again: an old record's would be
    /// above them.
    ///
    /// # Errors
    /// Damage, errors of the journal. What was given back before the error stays so.
    pub(super) fn reclaim_arenas(&self) -> Result<u64> {
        let mut blocks = 0;
        for class in SlotClass::ALL {
            blocks += self.reclaim_class(class)?;
        }
        self.slots.has_news.store(false, Ordering::Release);
        Ok(blocks)
    }

    fn reclaim_class(&self, class: SlotClass) -> Result<u64> {
        self.recall_slots(class);
        let (mut from, mut blocks) = (Block(0), 0);
        loop {
            from = match self.next_window(class, from)? {
                Next::End => return Ok(blocks),
                Next::NotBelow(next) => next,
                Next::Window(window) => {
                    blocks += self.reclaim_window(class, window)?;
                    Block(window.0 + self.slots.window_blocks)
                }
            };
        }
    }

    /// Takes the slots that threads work on back into the central masks.
    fn recall_slots(&self, class: SlotClass) {
        let slots = self.slots.of(class);
        for local in &slots.locals {
            let mut local = local.lock();
            let Local { window, free } = std::mem::take(&mut *local);
            if free != NONE {
                slots.central.lock().add(window, &free);
            }
        }
        self.slots.known.iter().for_each(|entry| entry.store(0, Ordering::Release));
    }

    fn reclaim_window(&self, class: SlotClass, window: Block) -> Result<u64> {
        let blocks = self.window_blocks(class, window)?;
        let free: u64 = self.scan_window(class, window)?.iter().map(|w| u64::from(w.count_ones())).sum();
        if free != blocks.count() * (BLOCK_BYTES / class.bytes()) {
            return Ok(0);
        }
        let mut op = Op::new(self, None);
        for block in (0..self.slots.window_blocks).map(|i| Block(window.0 + i)) {
            if blocks.get(block.in_chunk()) {
                op.release(Run::new(block, 1))?;
            }
        }
        op.commit_as(Durable::no_data(), Some(class))?;
        let mut central = self.slots.of(class).central.lock();
        central.windows.remove(&window.0);
        central.open.remove(&window.0);
        Ok(blocks.count())
    }
}
