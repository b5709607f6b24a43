//! How do space and metadata change as one?
//!
//! An [`Op`] is a journal transaction that also holds reserved blocks and slots. Its commit stages the descriptors
//! and group objects of every chunk it touched, under their stripes, with everything else in one record; what it
//! frees can be had by others only after that. Dropped, it gives everything back and the media are as before.

mod reservation;

pub use reservation::Reservation;

use super::footprint::{ChunkState, Footprint, pieces};
use super::gate::Pass;
use super::policy::Want;
use super::{Space, shortage};
use crate::error::{Damage, Error, Result, Structure};
use crate::journal::Tx;
use crate::layout::{ChunkObject, Counters, GroupObject, Image, Inode, Kind, SlotClass};
use crate::pmem::Durable;
use crate::pmem::mutation::{self, Mutation};
use crate::sync::MutexGuard;
use crate::sync::atomic::Ordering;
use crate::sync::rank::{Held as HeldRank, Rank};
use crate::tree::{ReadNodes, WriteNodes};
use crate::units::{CHUNK_BLOCKS, Chunk, FileBlock, Group, Ino, PoolOff, Run};

/// What goes back when an operation is not committed.
#[derive(Debug)]
struct Held<'s> {
    space: &'s Space,
    footprint: Footprint,
    slots: Vec<(SlotClass, PoolOff)>,
    /// Node slots that were taken ahead and are not used yet; they go back whatever becomes of the operation.
    spare: Vec<PoolOff>,
    /// What of the change to the unwritten blocks is counted already: an increase, so that the floor holds from
    /// the moment the blocks are given.
    unwritten: i64,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if !self.footprint.is_empty() && !mutation::is(Mutation::LeakReserved) {
            self.space.give_back(&self.footprint);
        }
        for (class, at) in &self.slots {
            self.space.offer_slot(*class, *at);
        }
        for at in &self.spare {
            self.space.offer_slot(SlotClass::Node, *at);
        }
        self.space.unwritten.fetch_sub(self.unwritten, Ordering::AcqRel);
    }
}

/// A change with space in the making.
#[derive(Debug)]
#[must_use = "an operation that is not committed changes nothing"]
pub struct Op<'s> {
    space: &'s Space,
    tx: Tx<'s>,
    held: Held<'s>,
    freed_slots: Vec<(SlotClass, PoolOff)>,
    change: Counters,
    may_dip: bool,
    /// Given back last. Who closed the gate needs none.
    _pass: Option<Pass<'s>>,
}

impl<'s> Op<'s> {
    pub(super) fn new(space: &'s Space, pass: Option<Pass<'s>>) -> Self {
        let footprint = Footprint::default();
        let held = Held { space, footprint, slots: Vec::new(), spare: Vec::new(), unwritten: 0 };
        let change = Counters::default();
        let tx = space.journal.begin();
        Self { space, tx, held, freed_slots: Vec::new(), change, may_dip: false, _pass: pass }
    }

    /// Marks an operation that frees more than it takes: its nodes may come from what is set aside.
    pub fn for_removal(mut self) -> Self {
        self.may_dip = true;
        self
    }

    /// Marks an operation that converts unwritten blocks: its nodes may come from what is set aside for that.
    pub fn for_conversion(mut self) -> Self {
        self.may_dip = true;
        self
    }

    /// One run of 1 to `want.blocks` blocks, for this operation alone; allocated by the commit. It lies in one
    /// group.
    ///
    /// # Errors
    /// [`Error::NoSpace`]; what the host says where it can not provide memory.
    pub fn reserve(&mut self, want: &Want) -> Result<Run> {
        let run = self.space.reserve(want)?;
        self.held.footprint.take(run);
        Ok(run)
    }

    /// One whole free chunk for this operation alone, congruent to `file_block`, the first of a 2 MiB slot of the file;
    /// allocated by the commit. Also whether it holds zeros already, durably: [`Space::zero_ahead`]. `None` where there
    /// is no such chunk, or `file_block` is in the middle of a slot.
    ///
    /// # Errors
    /// What the host says where it can not provide memory.
    pub fn reserve_whole(&mut self, file_block: FileBlock) -> Result<Option<(Run, bool)>> {
        if !file_block.0.is_multiple_of(CHUNK_BLOCKS) {
            return Ok(None);
        }
        let found = self.space.reserve_whole()?;
        if let Some((run, _)) = found {
            self.held.footprint.take(run);
        }
        Ok(found)
    }

    /// Whether `blocks` could be reserved now.
    ///
    /// # Errors
    /// [`Error::NoSpace`].
    pub fn ensure(&self, blocks: u64) -> Result<()> {
        if blocks > self.space.spare_blocks() || shortage::strikes() {
            return Err(Error::NoSpace { needed: blocks, free: self.space.spare_blocks() });
        }
        Ok(())
    }

    /// Gives blocks back that this operation reserved and does not need. Others in `run` stay as they are.
    pub fn give_back(&mut self, run: Run) {
        let back = self.held.footprint.untake(run);
        self.space.give_back(&back);
    }

    /// Frees `run`, which is in use, with the commit.
    ///
    /// # Errors
    /// Damage where the run is not one that can be in use, or a block was released by this operation before;
    /// whether the media have it in use is seen by the commit.
    pub fn release(&mut self, run: Run) -> Result<()> {
        let geometry = self.space.geometry();
        if !geometry.is_allocatable(run.start, run.len) {
            let at = run.start.offset();
            return Err(Damage::new(Structure::Extent, at, "blocks outside the pool", 0, run.len).into());
        }
        // Read now what the commit's publication will change: it must not meet a chunk it does not know.
        self.space.with_group(run.start.chunk().group(), |state, journal| {
            pieces(run).try_for_each(|(chunk, ..)| state.read_chunk(journal, chunk.in_group()))
        })?;
        self.held.footprint.free(run).map_err(|chunk| {
            let at = geometry.chunk_descriptor(chunk);
            Damage::new(Structure::Chunk, at, "a block released twice, of the run at", 0, run.start.0).into()
        })
    }

    /// Takes slots for `nodes` nodes, so that as many can not fail for want of space later.
    ///
    /// # Errors
    /// [`Error::NoSpace`], errors of opening an arena.
    pub fn prepare_nodes(&mut self, nodes: u64) -> Result<()> {
        for _ in 0..nodes {
            let at = self.space.take_slot(SlotClass::Node, self.may_dip)?;
            self.held.spare.push(at);
        }
        Ok(())
    }

    /// A free slot for an inode, counted.
    ///
    /// # Errors
    /// [`Error::NoSpace`], errors of opening an arena.
    pub fn alloc_inode(&mut self) -> Result<Ino> {
        let at = self.alloc_slot(SlotClass::Inode)?;
        self.change.inodes += 1;
        Ok(Ino::at(at))
    }

    /// Frees the slot of `ino` with the commit.
    ///
    /// # Errors
    /// Damage where it is not an inode in use; [`Error::TooBig`].
    pub fn free_inode(&mut self, ino: Ino) -> Result<()> {
        self.free_slot(SlotClass::Inode, ino.offset())?;
        self.change.inodes -= 1;
        Ok(())
    }

    /// The inode `ino` as changed here, else as on the media; `None` where the slot is free. The caller holds the
    /// inode's lock, and knows that `ino` is an inode slot ([`Space::contains_arena_slot`]).
    ///
    /// # Errors
    /// Damage.
    pub fn read_inode(&self, ino: Ino) -> Result<Option<Inode>> {
        let at = ino.offset();
        Ok(Inode::decode(at, &self.tx.read(at, Kind::Inode)?)?)
    }

    /// Changes the inode `ino` with the commit.
    ///
    /// # Errors
    /// [`Error::TooBig`].
    pub fn write_inode(&mut self, ino: Ino, inode: &Inode) -> Result<()> {
        self.tx.stage(ino.offset(), inode.encode())
    }

    /// Adds `blocks` to the pool's unwritten blocks with the commit.
    pub fn count_unwritten(&mut self, blocks: i64) {
        self.change.unwritten += blocks;
        let ahead = self.change.unwritten.max(0);
        self.space.unwritten.fetch_add(ahead - self.held.unwritten, Ordering::AcqRel);
        self.held.unwritten = ahead;
    }

    /// Bytes of record that are left when the commit has added what it has to.
    #[must_use]
    pub fn room(&self) -> u64 {
        self.tx.room().saturating_sub(self.held.footprint.record_bytes())
    }

    /// Whether the commit would change nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tx.is_empty() && self.change == Counters::default() && self.held.footprint.is_empty()
    }

    fn alloc_slot(&mut self, class: SlotClass) -> Result<PoolOff> {
        let at = self.space.take_slot(class, self.may_dip)?;
        self.held.slots.push((class, at));
        Ok(at)
    }

    fn free_slot(&mut self, class: SlotClass, at: PoolOff) -> Result<()> {
        // While the slot is still in use at home, so that publishing it after the commit lists it once.
        if !mutation::is(Mutation::FreeUnknownSlot) {
            self.space.know_slot(class, at)?;
        }
        let slot = (class, at);
        let is_free = self.tx.read(at, class.kind())?.kind() == Kind::Free;
        if self.freed_slots.contains(&slot) || is_free && !self.held.slots.contains(&slot) {
            let kind = class.kind();
            return Err(Damage::new(kind.structure(), at, "freed twice: kind", kind as u64, 0).into());
        }
        self.tx.stage(at, Image::new(Kind::Free, crate::layout::HEADER_BYTES))?;
        self.freed_slots.push(slot);
        Ok(())
    }

    /// Makes the whole operation durable and visible; `data` proves that what it makes reachable is durable.
    ///
    /// # Errors
    /// [`Error::TooBig`], damage (a block released that was not in use), and errors of the journal. Nothing is
    /// changed then.
    pub fn commit(self, data: Durable) -> Result<()> {
        self.commit_as(data, None)
    }

    /// Lets `other` have `run`, which this operation reserved: `other`'s commit allocates it.
    pub fn hand_over(&mut self, run: Run, other: &mut Self) {
        let _moved = self.held.footprint.untake(run);
        other.hold(run);
    }

    /// Takes `run`, which is reserved and counted ([`Space::keep_run`]), into the operation.
    pub fn hold(&mut self, run: Run) {
        self.held.footprint.take(run);
    }

    /// Commits; with a class the blocks taken and freed are arenas of that class.
    pub(super) fn commit_as(self, data: Durable, arena: Option<SlotClass>) -> Result<()> {
        let Op { space, mut tx, mut held, freed_slots, mut change, _pass, .. } = self;
        let _rank = HeldRank::new(Rank::Space);
        let chunks = space.lock_chunks(&held.footprint);
        let groups = space.stage_chunks(&mut tx, &held.footprint, arena)?;
        change.used += held.footprint.taken_blocks() as i64 - held.footprint.freed_blocks() as i64;
        tx.count(change);
        if mutation::is(Mutation::FreeEarly) {
            space.make_available(held.footprint.freed());
        }
        tx.commit(data)?;
        held.publish(&freed_slots, change.unwritten);
        drop((groups, chunks));
        Ok(())
    }
}

impl Held<'_> {
    /// After the commit: what was freed can be had, what was taken is not given back any more (J3).
    fn publish(&mut self, freed_slots: &[(SlotClass, PoolOff)], unwritten: i64) {
        let footprint = std::mem::take(&mut self.footprint);
        self.space.publish_freed(&footprint);
        self.space.unwritten.fetch_add(unwritten - self.unwritten, Ordering::AcqRel);
        self.unwritten = 0;
        self.slots.clear();
        if !freed_slots.is_empty() {
            self.space.slots.expect_free_arenas();
        }
        for (class, at) in freed_slots {
            self.space.offer_slot(*class, *at);
        }
    }
}

/// The bits of a group object that an operation changes.
#[derive(Debug)]
struct GroupChange {
    group: Group,
    chunks: Vec<(u64, ChunkState)>,
}

impl Space {
    /// What the media say of `chunk`; the caller holds its stripe, or nothing changes it.
    pub(super) fn media_state(&self, chunk: Chunk) -> Result<ChunkState> {
        let geometry = self.geometry();
        let (i, at) = (chunk.in_group(), geometry.group_object(chunk.group()));
        let bit = |words: u64| {
            Ok::<_, Error>(self.journal.region().load(at.plus(words + i / 64 * 8))? >> (i % 64) & 1 == 1)
        };
        // Word by word: other bits of the object may change meanwhile, under other stripes.
        let (used, broken) = (bit(GroupObject::USED_AT)?, bit(GroupObject::BROKEN_AT)?);
        if i > 0 && !used {
            return Ok(ChunkState::Free);
        }
        if i > 0 && !broken {
            return Ok(ChunkState::Whole);
        }
        let at = geometry.chunk_descriptor(chunk);
        Ok(ChunkState::Broken(ChunkObject::decode(at, &self.journal.read(at, Kind::Chunk)?)?))
    }

    /// Stages the descriptors and group objects that `footprint` changes. The caller holds the chunks' stripes and
    /// gets those of the groups.
    fn stage_chunks(
        &self,
        tx: &mut Tx<'_>,
        footprint: &Footprint,
        arena: Option<SlotClass>,
    ) -> Result<Vec<MutexGuard<'_, ()>>> {
        if footprint.is_empty() {
            return Ok(Vec::new());
        }
        let geometry = self.geometry();
        let mut groups: Vec<GroupChange> = Vec::new();
        for chunk in footprint.touched() {
            let before = self.media_state(chunk)?;
            let after = before.after(&geometry, chunk, &footprint.part(chunk), arena)?;
            if let ChunkState::Broken(object) = after
                && after != before
            {
                tx.stage(geometry.chunk_descriptor(chunk), object.encode())?;
            }
            if std::mem::discriminant(&before) != std::mem::discriminant(&after) {
                let (group, change) = (chunk.group(), (chunk.in_group(), after));
                match groups.last_mut() {
                    Some(last) if last.group == group => last.chunks.push(change),
                    _ => groups.push(GroupChange { group, chunks: vec![change] }),
                }
            }
        }
        let guards = self.lock_groups(groups.iter().map(|change| change.group));
        for change in &groups {
            self.stage_group(tx, change)?;
        }
        Ok(guards)
    }

    fn stage_group(&self, tx: &mut Tx<'_>, change: &GroupChange) -> Result<()> {
        let geometry = self.geometry();
        let at = geometry.group_object(change.group);
        let image = self.journal.read(at, Kind::Group)?;
        let mut object = GroupObject::decode(at, &image, geometry.group_chunks(change.group))?;
        object.used.set(0);
        object.broken.set(0);
        for (i, state) in &change.chunks {
            match state {
                ChunkState::Free => object.used.clear(*i),
                _ => object.used.set(*i),
            }
            match state {
                ChunkState::Broken(_) => object.broken.set(*i),
                _ => object.broken.clear(*i),
            }
        }
        tx.stage(at, object.encode())
    }
}

/// `image`, if the slot at `at` holds a node.
fn node(at: PoolOff, image: Image) -> Result<Image> {
    if image.kind() != Kind::Node {
        return Err(Damage::new(Structure::Node, at, "kind", Kind::Node as u64, 0).into());
    }
    Ok(image)
}

/// The nodes on the media; the caller holds the lock of the tree's owner.
impl ReadNodes for Space {
    fn read_node(&self, at: PoolOff) -> Result<Image> {
        node(at, self.journal.read(at, Kind::Node)?)
    }

    fn vouch(&self, at: PoolOff, node: &Image) {
        self.journal.vouch(at, node.version());
    }
}

impl ReadNodes for Op<'_> {
    fn read_node(&self, at: PoolOff) -> Result<Image> {
        node(at, self.tx.read(at, Kind::Node)?)
    }

    fn vouch(&self, at: PoolOff, node: &Image) {
        self.space.journal.vouch(at, node.version());
    }
}

impl WriteNodes for Op<'_> {
    fn write_node(&mut self, at: PoolOff, node: Image) -> Result<()> {
        self.tx.stage(at, node)
    }

    fn alloc_node(&mut self) -> Result<PoolOff> {
        let Some(at) = self.held.spare.pop() else { return self.alloc_slot(SlotClass::Node) };
        self.held.slots.push((SlotClass::Node, at));
        Ok(at)
    }

    fn free_node(&mut self, at: PoolOff) -> Result<()> {
        self.free_slot(SlotClass::Node, at)
    }
}
