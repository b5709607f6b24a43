//! Have shared blocks as many owners as the tree of shares says?
//!
//! Shared extents are collected while the inodes are read, then counted, and the records that there should be are compared
//! with those that are there. Memory is proportional to the shared extents.

use super::inodes::{Checker, Which};
use super::mend::Mender;
use super::remedy::Remedy;
use super::report::FaultKind;
use crate::error::Result;
use crate::inode::shares::Share;
use crate::tree::NodeRoot;
use crate::units::{Block, Run};
use std::collections::BTreeMap;

/// The blocks of shared extents, as far as they were read.
#[derive(Debug, Default)]
pub(super) struct Owners {
    /// One run for each extent.
    claims: Vec<Run>,
    /// What is covered by them: first block to the one after the last, apart from each other.
    covered: BTreeMap<u64, u64>,
}

impl Owners {
    /// Adds the blocks of a shared extent: those of them that one before had, ascending.
    pub fn claim(&mut self, run: Run) -> Vec<Run> {
        self.claims.push(run);
        let (mut start, mut end) = (run.start.0, run.end().0);
        let before = self.covered.range(..start).next_back().filter(|(_, to)| **to >= start);
        let first = before.map_or(start, |(from, _)| *from);
        let met: Vec<_> = self.covered.range(first..=end).map(|(from, to)| (*from, *to)).collect();
        let mut known = Vec::new();
        for (from, to) in met {
            let (low, high) = (from.max(run.start.0), to.min(run.end().0));
            if low < high {
                known.push(Run::new(Block(low), high - low));
            }
            self.covered.remove(&from);
            (start, end) = (start.min(from), end.max(to));
        }
        self.covered.insert(start, end);
        known
    }

    /// What of `run` is not in `known`.
    pub fn unknown(known: &[Run], run: Run) -> Vec<Run> {
        let (mut rest, mut at) = (Vec::new(), run.start.0);
        for part in known.iter().filter(|part| part.end() > run.start && part.start < run.end()) {
            if part.start.0 > at {
                rest.push(Run::new(Block(at), part.start.0 - at));
            }
            at = part.end().0;
        }
        if at < run.end().0 {
            rest.push(Run::new(Block(at), run.end().0 - at));
        }
        rest
    }

    /// The records that the tree should have: blocks in two shared extents or more.
    fn counted(&self) -> Vec<Share> {
        let mut changes: BTreeMap<u64, i64> = BTreeMap::new();
        for run in &self.claims {
            *changes.entry(run.start.0).or_default() += 1;
            *changes.entry(run.end().0).or_default() -= 1;
        }
        let (mut counted, mut owners, mut from) = (Vec::new(), 0, 0);
        for (at, change) in changes.into_iter().filter(|(_, change)| *change != 0) {
            if owners >= 2 {
                let run = Run::new(Block(from), at - from);
                counted.push(Share { run, owners: u32::try_from(owners).unwrap_or(u32::MAX) });
            }
            (owners, from) = (owners + change, at);
        }
        counted
    }
}

impl Checker<'_> {
    /// Compares the counted owners with the tree of shares.
    pub fn check_shares(&mut self) {
        let owner = self.media.intents;
        let Some(inode) = self.read_inode(owner) else { return };
        let (at, geometry) = (owner.offset(), self.media.geometry);
        let root = NodeRoot { at: inode.xattrs, level: inode.xattr_level }.area();
        let mut found = Vec::new();
        let (mut trees, ..) = self.trees();
        trees.walk(owner, Which::Attributes, &root, |key, payload, faults| {
            match Share::decode(owner, key, payload, &geometry) {
                Ok(share) => found.push(share),
                Err(error) => {
                    let remedy = Remedy::Unshare(Block(key));
                    faults.error(FaultKind::Share, at, None, &error).by(remedy);
                }
            }
        });
        let counted = self.owners.counted();
        for share in found.iter().filter(|share| !has(&counted, share)) {
            let expected = "as many extents with these blocks";
            let remedy = Remedy::Unshare(share.run.start);
            self.faults.number(FaultKind::Share, at, None, expected, shown(share)).by(remedy);
        }
        for share in counted.iter().filter(|share| !has(&found, share)) {
            let remedy = Remedy::Share { run: share.run, owners: share.owners };
            self.faults.number(FaultKind::Share, at, None, shown(share), "no such record").by(remedy);
        }
        self.report.blocks_shared = counted.iter().map(|share| share.run.len).sum();
    }
}

/// Whether `shares`, in order, have this very one.
fn has(shares: &[Share], share: &Share) -> bool {
    let found = shares.binary_search_by_key(&share.run.start, |other| other.run.start);
    found.ok().and_then(|i| shares.get(i)) == Some(share)
}

/// A share as text.
fn shown(share: &Share) -> String {
    format!("{} owners of {} blocks from {} on", share.owners, share.run.len, share.run.start)
}

impl Mender<'_> {
    /// Takes the record of shares at `start` out.
    pub fn unshare(&self, start: Block) -> Result<()> {
        let owner = self.checker.media.intents;
        self.change(owner, |op, inode| {
            let mut tree = NodeRoot { at: inode.xattrs, level: inode.xattr_level };
            tree.remove(op, owner, start.0)?;
            (inode.xattrs, inode.xattr_level) = (tree.at, tree.level);
            Ok(())
        })
    }

    /// Puts a record of shares in.
    pub fn share(&self, share: Share) -> Result<()> {
        let owner = self.checker.media.intents;
        self.change(owner, |op, inode| {
            let mut tree = NodeRoot { at: inode.xattrs, level: inode.xattr_level };
            tree.insert(op, owner, share.run.start.0, &share.encode())?;
            (inode.xattrs, inode.xattr_level) = (tree.at, tree.level);
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_are_counted_block_by_block() {
        let runs = [(10, 10), (12, 3), (14, 8), (30, 1), (40, 4), (44, 4), (40, 8)];
        let mut owners = Owners::default();
        let mut counts = [0; 64];
        for (start, len) in runs {
            let run = Run::new(Block(start), len);
            let known = owners.claim(run);
            for block in start..start + len {
                let is_known = known.iter().any(|k| (k.start.0..k.end().0).contains(&block));
                assert_eq!(is_known, counts[block as usize] > 0, "block {block} of {run:?}");
                counts[block as usize] += 1;
            }
            let unknown: u64 = Owners::unknown(&known, run).iter().map(|run| run.len).sum();
            assert_eq!(unknown + known.iter().map(|run| run.len).sum::<u64>(), len);
        }
        let mut found = [0; 64];
        for share in owners.counted() {
            assert!(share.owners >= 2);
            (share.run.start.0..share.run.end().0).for_each(|block| found[block as usize] = share.owners);
        }
        for (block, count) in counts.into_iter().enumerate() {
            assert_eq!(found[block], if count < 2 { 0 } else { count }, "block {block}");
        }
        let starts: Vec<_> = owners.counted().iter().map(|share| share.run.start.0).collect();
        assert_eq!(starts, [12, 14, 15, 40], "runs of one count are one record");
    }
}
