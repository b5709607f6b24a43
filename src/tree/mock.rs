//! Nodes in memory, for tests: every slot is accounted for, so that a lost, doubly freed or unreachable node
//! shows at once.

use super::{ReadNodes, WriteNodes, for_each_node};
use crate::error::{Damage, Error, Result, Structure};
use crate::layout::{Image, Kind, RootArea};
use crate::units::{Ino, PoolOff};
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

/// A store of nodes.
#[derive(Clone, Default)]
pub(crate) struct Mock {
    /// The nodes by offset; `None` for one that was given out and not written yet.
    pub nodes: BTreeMap<u64, Option<Image>>,
    next: u64,
    /// Reads so far.
    pub reads: Cell<u64>,
    /// Writes so far.
    pub writes: u64,
    /// Slots written or freed since the last clearing.
    pub touched: BTreeSet<u64>,
    /// How many more nodes there are to give out.
    pub left: Option<u64>,
}

impl Mock {
    /// Fails unless exactly the nodes of the trees are in use; returns how many that is.
    pub fn assert_exact(&self, trees: &[(&RootArea, Ino)]) -> usize {
        let mut seen = BTreeSet::new();
        for (root, owner) in trees {
            for_each_node(self, root, *owner, |at, image| {
                image?;
                assert!(seen.insert(at.0), "{at:?} has two parents");
                Ok(())
            })
            .unwrap();
        }
        let in_use: BTreeSet<u64> = self.nodes.keys().copied().collect();
        assert_eq!(seen, in_use, "nodes reachable and in use");
        seen.len()
    }
}

impl ReadNodes for Mock {
    fn read_node(&self, at: PoolOff) -> Result<Image> {
        self.reads.set(self.reads.get() + 1);
        match self.nodes.get(&at.0) {
            Some(Some(image)) => Ok(image.clone().untrusted()),
            _ => Err(Damage::new(Structure::Node, at, "kind", Kind::Node as u64, 0).into()),
        }
    }
}

impl WriteNodes for Mock {
    fn write_node(&mut self, at: PoolOff, node: Image) -> Result<()> {
        self.writes += 1;
        self.touched.insert(at.0);
        let slot = self.nodes.get_mut(&at.0).expect("a write goes to a node in use");
        *slot = Some(node);
        Ok(())
    }

    fn alloc_node(&mut self) -> Result<PoolOff> {
        if let Some(left) = &mut self.left {
            *left = left.checked_sub(1).ok_or(Error::NoSpace { needed: 1, free: 0 })?;
        }
        self.next += 512;
        self.nodes.insert(self.next, None);
        Ok(PoolOff(self.next))
    }

    fn free_node(&mut self, at: PoolOff) -> Result<()> {
        self.touched.insert(at.0);
        match self.nodes.remove(&at.0) {
            Some(_) => Ok(()),
            // Damage can make a tree name a node that is free; a sound tree never does.
            None => Err(Damage::new(Structure::Node, at, "kind", Kind::Node as u64, 0).into()),
        }
    }
}
