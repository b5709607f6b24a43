//! How is space kept for a change that another thread will make?
//!
//! A [`Reservation`] holds what an operation reserved, without its transaction and without a borrow of the space. The
//! operation that commits the change takes it over; dropped, everything goes back.
//!
//! Invariants:
//! 1. It counts as an operation under way: space is not reclaimed under it.
//! 2. Nothing of it is staged or on the media.

use super::super::Space;
use super::super::footprint::Footprint;
use super::Op;
use crate::layout::SlotClass;
use crate::sync::Arc;
use crate::units::{PoolOff, Run};

/// Blocks and slots of nodes, reserved.
#[derive(Debug)]
#[must_use = "what is reserved goes back when this is dropped"]
pub struct Reservation {
    space: Arc<Space>,
    footprint: Footprint,
    nodes: Vec<PoolOff>,
    shard: usize,
}

impl Reservation {
    /// Gives blocks back. Others in `run` stay as they are.
    pub fn give_back(&mut self, run: Run) {
        let back = self.footprint.untake(run);
        self.space.give_back(&back);
    }

    /// Bytes of record that the descriptors of the blocks can take at most.
    #[must_use]
    pub fn record_bytes(&self) -> u64 {
        self.footprint.record_bytes()
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if !self.footprint.is_empty() {
            self.space.give_back(&self.footprint);
        }
        for at in &self.nodes {
            self.space.offer_slot(SlotClass::Node, *at);
        }
        self.space.gate.leave(self.shard);
    }
}

impl Op<'_> {
    /// What this operation, in which nothing is staged, reserved of `space`, which it is an operation of.
    pub fn reserved(mut self, space: &Arc<Space>) -> Reservation {
        debug_assert!(self.tx.is_empty() && self.held.slots.is_empty() && self.freed_slots.is_empty());
        let pass = self._pass.take().unwrap_or_else(|| space.gate.enter());
        let footprint = std::mem::take(&mut self.held.footprint);
        let nodes = std::mem::take(&mut self.held.spare);
        Reservation { space: space.clone(), footprint, nodes, shard: pass.detach() }
    }

    /// Makes what `reserved` holds this operation's own.
    pub fn take_over(&mut self, mut reserved: Reservation) {
        self.held.footprint.take_over(&std::mem::take(&mut reserved.footprint));
        self.held.spare.append(&mut reserved.nodes);
    }
}
