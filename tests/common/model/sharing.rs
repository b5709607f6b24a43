//! What should sharing blocks do? A page that two files hold is one in memory.

use super::{Answer, BLOCK, Cell, Id, Kind, Model, Node, On, Outcome};
use std::collections::BTreeMap;

impl Model {
    /// The files that two arguments name; `None` where a handle is not open.
    fn two_files(&mut self, from: On, to: On) -> Answer<Option<(Id, Id)>> {
        let mut find = |on| -> Answer<Option<Id>> {
            match on {
                On::Path(path) => {
                    let id = self.resolve(path)?;
                    self.node_mut(id).cells()?;
                    Ok(Some(id))
                }
                On::Open(handle) => Ok(self.handles.get(&handle).copied()),
            }
        };
        let from = find(from)?;
        Ok(from.zip(find(to)?))
    }

    pub(super) fn reflink(&mut self, from: On, to: On, at: u64, to_at: u64, len: u64, same: bool) -> Answer {
        let Some((src, dst)) = self.two_files(from, to)? else { return Ok(Outcome::Skipped) };
        if !same {
            self.node(dst).changeable()?;
        }
        let (size, old) = (self.node(src).size, self.node(dst).size);
        let ends = at + len == size && to_at + len >= old;
        let whole = at.is_multiple_of(BLOCK) && to_at.is_multiple_of(BLOCK);
        let is_sound = whole && at + len <= size && (len.is_multiple_of(BLOCK) || ends);
        let overlaps = src == dst && at.abs_diff(to_at) < len.next_multiple_of(BLOCK);
        if !is_sound || overlaps || same && to_at + len > old {
            return Err(libc::EINVAL);
        }
        if len == 0 {
            return Ok(Outcome::Done);
        }
        if same && self.bytes_of(src, at, len) != self.bytes_of(dst, to_at, len) {
            return Ok(Outcome::Skipped);
        }
        self.share(src, dst, at / BLOCK, to_at / BLOCK, len.div_ceil(BLOCK));
        let node = self.node_mut(dst);
        node.size = old.max(to_at + len);
        node.mtime = node.mtime.filter(|_| same);
        Ok(Outcome::Done)
    }

    fn bytes_of(&self, id: Id, at: u64, len: u64) -> Vec<u8> {
        let Kind::File(cells) = &self.node(id).kind else { return Vec::new() };
        let byte = |at: u64| match cells.get(&(at / BLOCK)) {
            Some(Cell::Mapped(page)) => page[(at % BLOCK) as usize],
            _ => 0,
        };
        (at..at + len).map(byte).collect()
    }

    /// Unwritten blocks are holes in the copy.
    fn share(&mut self, src: Id, dst: Id, from: u64, to: u64, blocks: u64) {
        for i in 0..blocks {
            let cell = match &self.node(src).kind {
                Kind::File(cells) => cells.get(&(from + i)).cloned(),
                _ => None,
            };
            if let Kind::File(cells) = &mut self.node_mut(dst).kind {
                match cell {
                    Some(Cell::Mapped(page)) => drop(cells.insert(to + i, Cell::Mapped(page))),
                    _ => drop(cells.remove(&(to + i))),
                }
            }
        }
    }

    pub(super) fn become_(&mut self, from: On, to: On) -> Answer {
        let Some((src, dst)) = self.two_files(from, to)? else { return Ok(Outcome::Skipped) };
        self.node(dst).changeable()?;
        let (size, old) = (self.node(src).size, self.node(dst).size);
        if src == dst && size > 0 {
            return Err(libc::EINVAL);
        }
        if size == 0 && old == 0 {
            return Ok(Outcome::Done);
        }
        self.share(src, dst, 0, 0, size.max(old).div_ceil(BLOCK));
        let node = self.node_mut(dst);
        (node.size, node.mtime) = (size, None);
        Ok(Outcome::Done)
    }

    pub(super) fn clone_file(&mut self, from: &'static str, to: &str) -> Answer<()> {
        let src = self.resolve(from)?;
        self.node_mut(src).cells()?;
        let mode = self.node(src).mode;
        let dst = self.add(to, Node::new(mode, Kind::File(BTreeMap::new())))?;
        self.share(src, dst, 0, 0, self.node(src).size.div_ceil(BLOCK));
        self.node_mut(dst).size = self.node(src).size;
        Ok(())
    }
}
