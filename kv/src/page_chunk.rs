//! Which pages of a chunk are free?
//!
//! A bit for each page, in memory; `pages` keeps the medium's codes.

use crate::layout::PAGES;
use crate::pages::SLAB_PAGES;

const WORDS: usize = PAGES / 64;

/// A chunk of pages in memory.
#[derive(Debug)]
pub struct PageChunk {
    /// Where it begins, in bytes.
    pub at: u64,
    used: [u64; WORDS],
    /// How many pages are free.
    pub free: usize,
}

impl PageChunk {
    /// One of which the map is in use, and nothing else.
    pub fn new(at: u64) -> Self {
        let mut chunk = Self { at, used: [0; WORDS], free: PAGES };
        chunk.set(0, 1, true);
        chunk
    }

    /// Takes pages, or gives them back.
    pub fn set(&mut self, first: usize, count: usize, used: bool) {
        for page in first..first + count {
            let bit = 1 << (page % 64);
            if used {
                self.used[page / 64] |= bit;
            } else {
                self.used[page / 64] &= !bit;
            }
        }
        self.free = if used { self.free - count } else { self.free + count };
    }

    /// Whether a page is in use.
    pub fn is_used(&self, page: usize) -> bool {
        self.used[page / 64] >> (page % 64) & 1 == 1
    }

    /// How many slabs the free pages have room for.
    pub fn rooms(&self) -> u64 {
        let (mut rooms, mut free) = (0, 0);
        for page in 0..PAGES {
            free = if self.is_used(page) { 0 } else { free + 1 };
            if free == usize::from(SLAB_PAGES) {
                (rooms, free) = (rooms + 1, 0);
            }
        }
        rooms
    }

    /// The last run of `count` free pages.
    pub fn last(&self, count: usize) -> Option<usize> {
        let mut end = PAGES;
        for page in (0..PAGES).rev().take_while(|_| self.free >= count) {
            if self.is_used(page) {
                end = page;
            } else if end - page == count {
                return Some(page);
            }
        }
        None
    }

    /// A free page that no slab has room for.
    pub fn scrap(&self) -> Option<usize> {
        let mut at = 0;
        while at < PAGES && self.free > 0 {
            let first = self.skip(at, true);
            at = self.skip(first, false);
            if (1..usize::from(SLAB_PAGES)).contains(&(at - first)) {
                return Some(at - 1);
            }
        }
        None
    }

    /// The first page from `at` on that is not `used`, or not free.
    fn skip(&self, mut at: usize, used: bool) -> usize {
        while at < PAGES {
            let word = if used { !self.used[at / 64] } else { self.used[at / 64] } >> (at % 64);
            if word != 0 {
                return at + word.trailing_zeros() as usize;
            }
            at = (at / 64 + 1) * 64;
        }
        PAGES
    }

    /// The first run of `count` free pages.
    pub fn find(&self, count: usize) -> Option<usize> {
        if self.free < count {
            return None;
        }
        if count <= 64 {
            return (0..WORDS).find_map(|word| self.find_from(word, count));
        }
        let (mut first, mut at) = (0, 0);
        while at < PAGES {
            let rest = self.used[at / 64] >> (at % 64);
            if rest & 1 == 1 {
                at += (!rest).trailing_zeros() as usize;
                at = at.min(PAGES);
                first = at;
            } else {
                let free = (rest.trailing_zeros() as usize).min(64 - at % 64);
                at += free;
            }
            if at - first >= count {
                return Some(first);
            }
        }
        None
    }

    /// The first run of `count` free pages, at most 64, that begins in this word: all places of the word are looked at together.
    fn find_from(&self, word: usize, count: usize) -> Option<usize> {
        let next = self.used.get(word + 1).map_or(0, |next| !next);
        let mut begins = u128::from(next) << 64 | u128::from(!self.used[word]);
        let mut run = 1;
        while run < count {
            let more = run.min(count - run);
            begins &= begins >> more;
            run += more;
        }
        let begins = begins as u64;
        (begins != 0).then(|| word * 64 + begins.trailing_zeros() as usize)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_first_run_is_the_one_that_is_found() {
        let mut chunk = PageChunk::new(0);
        let mut at = 1;
        for length in (1..=8).chain([31, 63, 64, 65, 66, 130]) {
            at += length;
            chunk.set(at, 1 + at % 3, true);
            at += 1 + at % 3;
        }
        for length in 1..=PAGES {
            let is_free = |at: &usize| (*at..at + length).all(|page| !chunk.is_used(page));
            assert_eq!(chunk.find(length), (0..=PAGES - length).find(is_free), "{length}");
        }
    }

    #[test]
    fn scraps_are_what_slabs_leave() {
        let mut chunk = PageChunk::new(0);
        assert_eq!((chunk.scrap(), chunk.last(7)), (None, Some(PAGES - 7)));
        while let Some(slab) = chunk.find(SLAB_PAGES.into()) {
            chunk.set(slab, SLAB_PAGES.into(), true);
        }
        assert_eq!((chunk.free, chunk.scrap()), (15, Some(PAGES - 1)));
        chunk.set(PAGES - 1, 1, true);
        assert_eq!((chunk.scrap(), chunk.last(2), chunk.last(15)), (Some(PAGES - 2), Some(PAGES - 3), None));
        chunk.set(63, 3, false);
        assert_eq!((chunk.scrap(), chunk.rooms()), (Some(65), 0));
        chunk.set(66, 13, false);
        assert_eq!((chunk.scrap(), chunk.find(16), chunk.rooms()), (Some(PAGES - 2), Some(63), 1));
    }
}
