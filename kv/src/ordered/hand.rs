//! What does a cursor have in hand, and whose memory is it?
//!
//! A leaf with its bounds. The memory of cursors that are gone is kept for the next ones, so that a scan of few records allocates
//! nothing for its leaves.

use super::copies::{LeafCopy, Wanted};
use super::group::Group;
use super::view::View;
use crate::error::Error;
use daxstore::sync::{Arc, Mutex};
use std::ops::{Bound, Deref, DerefMut, Range};

/// How many cursors' memory is kept.
const KEPT: usize = 16;
/// Of how many bytes at most, of who reads with a cursor.
const KEPT_BYTES: usize = 256 << 10;

/// A bound, or that there is none, with memory that is used again.
#[derive(Debug, Default)]
pub(super) struct Edge {
    pub key: Vec<u8>,
    pub is: bool,
}

impl Edge {
    pub(super) fn set(&mut self, key: Option<&[u8]>) {
        self.is = key.is_some();
        self.key.clear();
        self.key.extend_from_slice(key.unwrap_or_default());
    }
}

/// A leaf in hand.
#[derive(Debug, Default)]
pub(super) struct Hand {
    /// The keys, unless there is a copy.
    pub view: View,
    /// The copy of the leaf's records; or that one is to be made: then the view has all keys of the leaf.
    pub copy: Option<Arc<LeafCopy>>,
    pub make: Option<Wanted>,
    /// Which of its keys are between the bounds of who reads.
    pub places: Range<usize>,
    /// Keys from `low` on and below `high` are in the view, as far as they can be read; without a bound there is nothing beyond.
    pub low: Edge,
    pub high: Edge,
    /// What is told before its keys.
    pub errors: Vec<Error>,
    /// Where it was found: the group, and its place there.
    pub spot: Option<(Arc<Group>, usize)>,
    /// Where the leaf above most likely lies, without what was asked for.
    pub above: Range<u64>,
}

impl Hand {
    pub(super) fn clear(&mut self) {
        self.view.clear();
        (self.copy, self.make, self.places) = (None, None, 0..0);
        self.low.set(None);
        self.high.set(None);
        self.errors.clear();
        (self.spot, self.above) = (None, 0..0);
    }

    /// How many keys are below `key`.
    pub(super) fn below(&self, key: &[u8]) -> usize {
        self.copy.as_ref().map_or_else(|| self.view.below(key), |copy| copy.below(key))
    }

    /// Whether the `n`-th key is `key`.
    pub(super) fn is(&self, n: usize, key: &[u8]) -> bool {
        match &self.copy {
            Some(copy) => n < copy.len() && copy.key(n) == key,
            None => self.view.is(n, key),
        }
    }

    /// Whether its keys are listed and its records lie where they lie.
    #[inline]
    pub(super) fn is_view(&self) -> bool {
        self.copy.is_none() && self.make.is_none()
    }

    /// Leaves the keys beyond `end` out, and whatever lies above.
    pub(super) fn end_at(&mut self, end: &Bound<Vec<u8>>) {
        let (key, included) = match end {
            Bound::Unbounded => return,
            Bound::Included(key) => (key, true),
            Bound::Excluded(key) => (key, false),
        };
        if self.high.is && (self.high.key < *key || (included && self.high.key == *key)) {
            return;
        }
        let below = self.below(key);
        let end = below + usize::from(included && self.is(below, key));
        self.places.end = end.clamp(self.places.start, self.places.end);
        (self.high.is, self.above) = (false, 0..0);
    }
}

/// Memory of a cursor.
#[derive(Debug, Default)]
pub(super) struct Parts {
    pub hand: Hand,
    pub ahead: Hand,
    /// The key that is looked for.
    pub wanted: Vec<u8>,
    /// A key that is lent.
    pub key: Vec<u8>,
    /// Of who reads with the cursor.
    pub bytes: Vec<u8>,
}

/// Memory that is kept.
pub(super) type Pool = Mutex<Vec<Box<Parts>>>;

/// Memory that goes back when it is not used any more.
#[derive(Debug)]
pub(super) struct Kept<'o> {
    pool: &'o Pool,
    /// There until it goes back.
    parts: Option<Box<Parts>>,
}

impl<'o> Kept<'o> {
    pub(super) fn take(pool: &'o Pool) -> Self {
        // A model need not look at who meets whom here.
        let kept = if cfg!(loom) { None } else { pool.lock().pop() };
        Self { pool, parts: Some(kept.unwrap_or_default()) }
    }
}

impl Drop for Kept<'_> {
    fn drop(&mut self) {
        let Some(mut parts) = self.parts.take() else { return };
        for hand in [&mut parts.hand, &mut parts.ahead] {
            (hand.spot, hand.copy, hand.make) = (None, None, None);
        }
        if cfg!(loom) || parts.bytes.capacity() > KEPT_BYTES {
            return;
        }
        let mut pool = self.pool.lock();
        if pool.len() < KEPT {
            pool.push(parts);
        }
    }
}

impl Deref for Kept<'_> {
    type Target = Parts;

    #[inline]
    fn deref(&self) -> &Parts {
        match &self.parts {
            Some(parts) => parts,
            None => unreachable!("only drop takes it"),
        }
    }
}

impl DerefMut for Kept<'_> {
    #[inline]
    fn deref_mut(&mut self) -> &mut Parts {
        match &mut self.parts {
            Some(parts) => parts,
            None => unreachable!("only drop takes it"),
        }
    }
}
