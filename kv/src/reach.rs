//! Do the maps of pages say of what is reachable that it is in use?
//!
//! A page that is in use and said to be free would be given out again. What is looked at: the segments that the directory names, and the pages
//! that the roots of the ordered indexes lead to. Records are looked at with their entries (`check`).

use crate::chunks::{self, ChunkKind};
use crate::core::Core;
#[cfg(feature = "sim")]
use crate::db::Db;
use crate::error::{Damage, Error, Result, Structure};
use crate::layout::PAGE;
use crate::media::Media;
use crate::pages::{self, PageKind};

impl<M: Media> Core<M> {
    /// Adds what is wrong to `faults`.
    pub(crate) fn verify_maps(&self, faults: &mut Vec<Error>) {
        faults.extend(self.index.check_directory(&self.env).err());
        faults.extend(self.check_maps().err());
        // What is wrong with the directory was told.
        let _told_above = self.index.check_empty(self.media(), &self.stripes, faults);
        if self.read_only {
            return;
        }
        for tree in self.trees.each() {
            let done = tree.ordered.pages(|page| {
                let expected = PageKind::Ordered(page.bytes.div_ceil(PAGE) as u16);
                let found = pages::kind_at(self.media(), page.at);
                if found.as_ref().is_ok_and(|kind| *kind == expected) {
                    return;
                }
                let found = found.map_or(0, |kind| u64::from(kind.code()));
                let what = "the kind of a page of an ordered index";
                faults.push(
                    Damage::new(Structure::PageMap, page.at, what, u64::from(expected.code()), found).into(),
                );
            });
            faults.extend(done.err());
        }
    }

    /// Reads every map of pages for records: an open does not.
    fn check_maps(&self) -> Result<()> {
        let runs = chunks::runs(self.media())?.into_iter();
        let mut maps = runs.filter(|run| run.kind == ChunkKind::Pages);
        maps.try_for_each(|run| pages::runs(self.media(), run.at()).map(drop))
    }
}

#[cfg(feature = "sim")]
impl<M: Media> Db<M> {
    /// Whether every map of pages for records can be read, which an open does not look at.
    ///
    /// # Errors
    /// [`Damage`] of the first that can not.
    pub fn read_maps(&self) -> Result<()> {
        self.core().check_maps()
    }
}
