//! How do the pages of the indexes leave chunks that are nearly empty?
//!
//! Segments of the hash index, leaves and groups of the ordered ones are replaced by others whenever they are full: so they are moved by replacing
//! them, and nothing about crashes or readers is new. [`Db::compact`](crate::Db::compact) closes the chunks with the fewest pages in use (`pages`), has
//! everything in them replaced, and gives those back that are empty then. The lists of batches are given back; roots, tables and logs of ordered
//! indexes stay where they are, and so do their chunks.
//!
//! Invariants:
//! 1. A chunk is emptied only where its pages have room in chunks that stay.
//! 2. Nobody is given a page of a chunk that is being emptied, nor keeps one for later ([`crate::ordered::Space::is_leaving`]).
//! 3. The list of a batch is given back when no ring has a note of it.

use crate::core::Core;
use crate::error::Result;
use crate::media::Media;
use crate::pages;
use daxstore::sync::atomic::Ordering;
use std::collections::HashSet;

/// Pages of the largest run that is moved: those of a segment.
const LONGEST: usize = 7;
/// What is kept free of the room that there is, in 16ths, as pages that are free lie where runs do not fit.
const MARGIN: usize = 2;

/// What lies in a chunk of the indexes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Content {
    at: u64,
    /// Pages in use.
    used: usize,
    /// Runs in use that are longer than a page.
    runs: usize,
    /// Free pages.
    free: usize,
    /// How many of the longest runs its free pages have room for.
    rooms: usize,
    /// Something in it can not be moved.
    stays: bool,
}

impl Content {
    fn of<M: Media>(media: &M, at: u64, fixed: &HashSet<u64>) -> Result<Self> {
        let mut content = Self { at, ..Self::default() };
        let mut next = 1;
        let pass = |content: &mut Self, free: usize| {
            content.free += free;
            content.rooms += free / LONGEST;
        };
        for run in pages::runs(media, at)? {
            content.stays |= fixed.contains(&run.at) || run.kind.pages() > LONGEST;
            let page = ((run.at - at) / crate::layout::PAGE) as usize;
            pass(&mut content, page - next);
            next = page + run.kind.pages();
            content.used += run.kind.pages();
            content.runs += usize::from(run.kind.pages() > 1);
        }
        pass(&mut content, crate::layout::PAGES - next);
        Ok(content)
    }
}

/// The chunks that are to be emptied, those with the fewest pages in use first; `more` pages come from elsewhere.
fn plan(mut contents: Vec<Content>, more: usize) -> Vec<u64> {
    contents.sort_by_key(|content| (content.used, content.at));
    let mut free: usize = contents.iter().map(|content| content.free).sum();
    let mut rooms: usize = contents.iter().map(|content| content.rooms).sum();
    free = free.saturating_sub(more);
    let mut all = Vec::new();
    for content in contents.into_iter().filter(|content| !content.stays) {
        let has_room = |needed: usize, there: usize| needed * 16 <= there * (16 - MARGIN);
        let (elsewhere, rooms_elsewhere) =
            (free.saturating_sub(content.free), rooms.saturating_sub(content.rooms));
        if !has_room(content.used, elsewhere) || !has_room(content.runs, rooms_elsewhere) {
            continue;
        }
        (free, rooms) = (elsewhere - content.used, rooms_elsewhere - content.runs);
        all.push(content.at);
    }
    all
}

impl<M: Media> Core<M> {
    /// Makes the indexes as small as their keys need, and leaves the chunks that are closed.
    pub(crate) fn shrink_indexes(&self) -> Result<()> {
        self.index.shrink(&self.env, &self.stripes)?;
        self.index.merge(&self.env, &self.stripes)?;
        for tree in self.trees.each() {
            tree.ordered.shrink()?;
        }
        self.env.collect()
    }

    /// Gives the lists of batches back that no ring has a note of.
    pub(crate) fn free_lists(&self) -> Result<()> {
        for mut taken in self.sessions.each() {
            if !taken.session.is_clean() || taken.seen.oldest.load(Ordering::Acquire) != u64::MAX {
                continue;
            }
            for list in &mut taken.session.lists.all {
                let (at, room) = std::mem::take(list);
                if room > 0 {
                    self.env.free(at)?;
                }
            }
        }
        Ok(())
    }

    /// The chunks of the indexes that are to be emptied, where those of records in `records` are too.
    pub(crate) fn plan_vacating(&self, records: &[u64]) -> Result<Vec<u64>> {
        let mut fixed = HashSet::new();
        for tree in self.trees.reachable() {
            let each = |page: crate::ordered::Page| fixed.extend([page.at]);
            match self.trees.by_id(tree.id).is_some_and(|named| named.birth == tree.birth) {
                true => tree.ordered.fixed(each),
                // Of one that was dropped, and is still read, nothing is moved.
                false => tree.ordered.pages(each)?,
            }
        }
        let mut contents = Vec::new();
        for at in self.env.pages.of_indexes() {
            contents.push(Content::of(self.media(), at, &fixed)?);
        }
        let mut more = 0;
        for at in records {
            let runs = pages::runs(self.media(), *at)?;
            more +=
                runs.iter().filter(|run| !run.kind.is_of_record()).map(|run| run.kind.pages()).sum::<usize>();
        }
        Ok(plan(contents, more))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn content(at: u64, used: usize, runs: usize) -> Content {
        Content { at, used, runs, free: 1023 - used, rooms: (1023 - used) / LONGEST, stays: at == 9 }
    }

    #[test]
    fn what_fits_elsewhere_is_emptied_and_the_emptiest_first() {
        assert_eq!(plan(vec![content(1, 700, 0), content(2, 100, 9), content(3, 500, 0)], 0), [2]);
        assert_eq!(plan(vec![content(1, 400, 0), content(2, 100, 9), content(3, 200, 0)], 0), [2, 3]);
        assert_eq!(plan(vec![content(1, 700, 0), content(2, 300, 0)], 0), [0_u64; 0]);
        assert_eq!(plan(vec![content(1, 700, 0), content(2, 200, 0)], 0), [2]);
        // Others come too, and long runs need room of their own.
        assert_eq!(plan(vec![content(1, 700, 0), content(2, 200, 0)], 150), [0_u64; 0]);
        assert_eq!(plan(vec![content(1, 700, 0), content(2, 200, 50)], 0), [1]);
        assert_eq!(plan(vec![content(1, 0, 0)], 0), [1]);
        // What stays takes others in.
        assert_eq!(plan(vec![content(9, 100, 0), content(2, 700, 0)], 0), [2]);
    }
}
