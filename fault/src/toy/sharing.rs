//! What does the toy's file do when pages come to be another's too, and cease to be?
//!
//! As the store does it: both ranges out of every mapping, what was stored there durable, then the cells. What was shared
//! once stays so: the others never go.

use super::file::{Cell, ToyFile, bytes};
use daxstore::Result;
use daxstore::iomap::FaultOps;
use std::ops::Range;

impl ToyFile {
    /// Whether `page` has a page of the pool that another file, or another page, has too.
    #[must_use]
    pub fn is_shared(&self, page: u64) -> bool {
        self.inside.lock().is_shared(page)
    }

    /// Lets another file have the pages of the pool of `pages` too, as a reflink and a snapshot do.
    ///
    /// # Errors
    /// Those of the mappings.
    pub fn share(&self, pages: Range<u64>) -> Result<()> {
        let _io = self.io.lock();
        let transition = self.slot.invalidate(bytes(pages.clone()), false)?;
        self.assert_none_left(pages.clone());
        self.freeze(pages);
        drop(transition);
        Ok(())
    }

    /// Notes that what `pages` hold is another's too, and durable.
    fn freeze(&self, pages: Range<u64>) {
        let mut inside = self.inside.lock();
        for page in pages {
            if let Cell::Mapped(pool) = inside.cell(page) {
                let value = inside.content[pool as usize];
                inside.frozen[pool as usize] = Some(value);
                inside.durable[pool as usize] = value;
            }
        }
    }

    /// Makes the pages from `to` on what `from`, which does not overlap them, is, by sharing. With `same` only if they hold
    /// the same, as a dedupe does: whether they do.
    ///
    /// # Errors
    /// Those of the mappings.
    pub fn reflink(&self, from: Range<u64>, to: u64, same: bool) -> Result<bool> {
        let _io = self.io.lock();
        let target = to..to + (from.end - from.start);
        let both = from.start.min(to)..from.end.max(target.end);
        let transition = self.slot.invalidate(bytes(both.clone()), false)?;
        self.assert_none_left(both);
        let equal = from.clone().zip(target.clone()).all(|(a, b)| self.read_page(a) == self.read_page(b));
        if same && !equal {
            return Ok(false);
        }
        self.freeze(from.clone());
        let mut inside = self.inside.lock();
        let mut freed = Vec::new();
        for (from, to) in from.zip(target) {
            let cell = inside.cell(from);
            freed.extend(inside.free(to));
            if let Cell::Mapped(_) = cell {
                inside.cells[to as usize] = cell;
            }
        }
        drop(inside);
        self.released(&freed);
        drop(transition);
        Ok(true)
    }

    /// Gives the file pages of its own where those of `pages` are another's too.
    ///
    /// # Errors
    /// [`daxstore::Error::NoSpace`]; those of the mappings.
    pub fn unshare(&self, pages: Range<u64>) -> Result<()> {
        let _io = self.io.lock();
        let transition = self.slot.invalidate(bytes(pages.clone()), false)?;
        self.assert_none_left(pages.clone());
        self.make_private(bytes(pages))?;
        drop(transition);
        Ok(())
    }
}
