//! Which slots of arenas are in use, and which of them were found in a tree?

use super::media::{Media, kind_byte};
use super::remedy::Remedy;
use super::report::{FaultKind, Faults};
use super::space::{BrokenChunk, Chunks};
use crate::error::{Damage, Result, Structure};
use crate::layout::{Image, Kind, SlotClass};
use crate::tree::ReadNodes;
use crate::units::{BLOCK_BYTES, Block, PoolOff};
use std::cell::Cell;

/// A block of node slots, one bit each.
#[derive(Debug)]
struct NodeBlock {
    block: Block,
    used: u8,
    seen: Cell<u8>,
}

/// The node slots of the pool.
#[derive(Debug, Default)]
pub(super) struct NodeSlots {
    /// In order.
    blocks: Vec<NodeBlock>,
}

/// The blocks of a chunk's arenas.
pub(super) fn arena_blocks(broken: &BrokenChunk, class: SlotClass) -> impl Iterator<Item = Block> {
    let (first, meta) = (broken.chunk.first_block().0, broken.object.meta);
    let mut at = if broken.object.class == Some(class) { meta.next_set(0) } else { 512 };
    std::iter::from_fn(move || {
        let block = (at < 512).then_some(Block(first + at))?;
        at = meta.next_set(at + 1);
        Some(block)
    })
}

/// What the header of a slot says.
pub(super) enum Slot {
    Free,
    InUse,
}

/// Looks at the slot of `class` at `at`; a free one is checked.
pub(super) fn look(media: &Media<'_>, at: PoolOff, class: SlotClass, faults: &mut Faults) -> Slot {
    match media.header(at) {
        Ok([0, 0]) => Slot::Free,
        Ok([_, word]) if kind_byte(word) == Kind::Free as u8 => {
            if let Err(damage) = media.read(at, class.kind()) {
                faults.damage(FaultKind::Slot, &damage, None).by(Remedy::FreeSlot(at));
            }
            Slot::Free
        }
        Ok(_) => Slot::InUse,
        Err(error) => {
            faults.error(FaultKind::Slot, at, None, &error);
            Slot::Free
        }
    }
}

impl NodeSlots {
    /// Reads the headers of all node slots.
    pub fn load(media: &Media<'_>, chunks: &Chunks, faults: &mut Faults) -> Self {
        let mut blocks = Vec::new();
        for block in chunks.broken.iter().flat_map(|broken| arena_blocks(broken, SlotClass::Node)) {
            let mut used = 0;
            for slot in 0..BLOCK_BYTES / SlotClass::Node.bytes() {
                let at = slot_at(block, slot);
                if let Slot::InUse = look(media, at, SlotClass::Node, faults) {
                    used |= 1 << slot;
                }
            }
            blocks.push(NodeBlock { block, used, seen: Cell::new(0) });
        }
        Self { blocks }
    }

    fn find(&self, at: PoolOff) -> Option<(&NodeBlock, u8)> {
        let i = self.blocks.binary_search_by_key(&at.block(), |b| b.block).ok()?;
        let in_block = at.0 % BLOCK_BYTES;
        let slot = in_block / SlotClass::Node.bytes();
        in_block.is_multiple_of(SlotClass::Node.bytes()).then(|| (&self.blocks[i], 1 << slot))
    }

    /// Notes that the node at `at` was found in a tree.
    ///
    /// # Errors
    /// Where that was so before.
    pub fn claim(&self, at: PoolOff) -> Result<(), Damage> {
        let Some((block, bit)) = self.find(at) else { return Ok(()) };
        if block.seen.get() & bit != 0 {
            return Err(Damage::new(Structure::Node, at, SHARED, 1, 2));
        }
        block.seen.set(block.seen.get() | bit);
        Ok(())
    }

    /// Slots in use that were found in no tree.
    pub fn unseen(&self) -> impl Iterator<Item = PoolOff> {
        self.blocks.iter().filter(|b| b.used & !b.seen.get() != 0).flat_map(|b| {
            let left = b.used & !b.seen.get();
            (0..8).filter(move |slot| left >> slot & 1 == 1).map(|slot| slot_at(b.block, slot))
        })
    }

    /// Blocks of node slots.
    pub fn blocks(&self) -> u64 {
        self.blocks.len() as u64
    }
}

/// The rule that a node belongs to one tree.
pub(super) const SHARED: &str = "trees it belongs to";

fn slot_at(block: Block, slot: u64) -> PoolOff {
    block.offset().plus(slot * SlotClass::Node.bytes())
}

/// Reads nodes from the homes, if they lie in arenas of nodes.
#[derive(Clone, Copy)]
pub(super) struct NodeReader<'c> {
    pub media: &'c Media<'c>,
    pub slots: &'c NodeSlots,
}

impl ReadNodes for NodeReader<'_> {
    fn read_node(&self, at: PoolOff) -> Result<Image> {
        let damage = |what, found| Damage::new(Structure::Node, at, what, Kind::Node as u64, found);
        if self.slots.find(at).is_none() {
            return Err(damage("not a slot of an arena", 0).into());
        }
        let image = self.media.read(at, Kind::Node)?;
        if image.kind() != Kind::Node {
            return Err(damage("kind", image.kind() as u64).into());
        }
        Ok(image)
    }
}
