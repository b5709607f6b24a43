//! Whose address is this?
//!
//! The mappings that are served, by address. It is read by signal handlers and by the threads that answer faults, so
//! reading takes no lock and no memory; slots are claimed and given back by single atomic steps.
//!
//! Rules:
//! 1. A slot counts who uses its entry ([`Call`]). A reader counts itself first and looks at `start` after that; who
//!    removes clears `start` first and looks at the count after that. These four are in the one order of `SeqCst`, so the
//!    reader sees that the slot is cleared, or the remover sees the reader and waits.
//! 2. `entry` is freed only by who cleared `start`, after the count was 0: no call to a handler is under way
//!    once its registration is gone.
//! 3. A slot is free when `entry` is null, which is the last thing a removal stores and the first a registration claims.

use super::reserve::Area;
use crate::table::{Handler, Mode};
use daxstore::sync::Arc;
use daxstore::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use daxstore::sync::thread;
use daxstore::{Error, Result};
use std::time::Duration;

/// Mappings at once in a process.
const SLOTS: usize = 4096;

/// A mapping that is served.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) handler: Arc<dyn Handler>,
    pub(super) area: Arc<Area>,
    pub(super) mode: Mode,
}

struct Slot {
    start: AtomicUsize,
    end: AtomicUsize,
    entry: AtomicPtr<Entry>,
    calls: AtomicUsize,
}

static TABLE: [Slot; SLOTS] = [const { Slot::free() }; SLOTS];
/// No slot from here on was ever claimed.
static USED: AtomicUsize = AtomicUsize::new(0);

impl Slot {
    const fn free() -> Self {
        Self {
            start: AtomicUsize::new(0),
            end: AtomicUsize::new(0),
            entry: AtomicPtr::new(std::ptr::null_mut()),
            calls: AtomicUsize::new(0),
        }
    }

    /// The entry, if the slot is registered for an address that `wanted` takes by its bounds.
    fn call(&'static self, wanted: impl Fn(usize, usize) -> bool) -> Option<Call> {
        let bounds = || (self.start.load(Ordering::SeqCst), self.end.load(Ordering::Acquire));
        let takes = |(start, end)| start != 0 && wanted(start, end);
        if !takes(bounds()) {
            return None;
        }
        self.calls.fetch_add(1, Ordering::SeqCst);
        if !takes(bounds()) {
            self.calls.fetch_sub(1, Ordering::Release);
            return None;
        }
        // SAFETY: `start` is set after the count went up, so that by rule 1 a removal, now or later, waits for the
        // count; until then the entry is there and is not changed (rules 2 and 3).
        let entry = unsafe { &*self.entry.load(Ordering::Acquire) };
        Some(Call { slot: self, entry })
    }
}

/// The use of an entry; its registration waits for it.
#[derive(Debug)]
pub(super) struct Call {
    slot: &'static Slot,
    /// Lent to this value: gone when the slot's count goes down.
    entry: &'static Entry,
}

impl std::fmt::Debug for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Slot").field(&self.start).finish()
    }
}

impl Call {
    pub(super) fn entry(&self) -> &Entry {
        self.entry
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.slot.calls.fetch_sub(1, Ordering::Release);
    }
}

fn used() -> &'static [Slot] {
    TABLE.get(..USED.load(Ordering::Acquire)).unwrap_or(&TABLE)
}

/// The mapping that `address` belongs to.
pub(super) fn find(address: usize) -> Option<Call> {
    used().iter().find_map(|slot| slot.call(|start, end| (start..end).contains(&address)))
}

/// Every mapping, one after the other.
pub(super) fn each(mut body: impl FnMut(&Entry)) {
    used().iter().filter_map(|slot| slot.call(|_, _| true)).for_each(|call| body(call.entry()));
}

/// The addresses of every mapping: where, and how many bytes. For a forked child, in which nobody changes them.
pub(super) fn each_range(body: impl Fn(usize, usize)) {
    for slot in used() {
        let (start, end) = (slot.start.load(Ordering::Acquire), slot.end.load(Ordering::Acquire));
        if start != 0 {
            body(start, end.saturating_sub(start));
        }
    }
}

/// A place in the registry, given back by [`Self::remove`].
#[derive(Debug)]
pub(super) struct Place(&'static Slot);

/// Enters a mapping: from now on its handler is called.
///
/// # Errors
/// [`Error::InvalidArgument`] where there are too many.
pub(super) fn enter(entry: Entry) -> Result<Place> {
    let (start, end) = (entry.area.base(), entry.area.base() + entry.area.len() as usize);
    let entry = Box::into_raw(Box::new(entry));
    let none = std::ptr::null_mut();
    let claim =
        |slot: &&Slot| slot.entry.compare_exchange(none, entry, Ordering::AcqRel, Ordering::Relaxed).is_ok();
    let Some((i, slot)) = TABLE.iter().enumerate().find(|(_, slot)| claim(slot)) else {
        // SAFETY: it was made above and no slot took it.
        drop(unsafe { Box::from_raw(entry) });
        return Err(Error::InvalidArgument("a process has at most 4096 mappings at once"));
    };
    slot.end.store(end, Ordering::Release);
    slot.start.store(start, Ordering::SeqCst);
    USED.fetch_max(i + 1, Ordering::AcqRel);
    Ok(Place(slot))
}

impl Place {
    /// Takes the mapping out, and waits for the calls of its handler that are under way.
    pub(super) fn remove(&self) {
        let slot = self.0;
        if slot.start.swap(0, Ordering::SeqCst) == 0 {
            return;
        }
        let mut tries = 0;
        while slot.calls.load(Ordering::SeqCst) != 0 {
            tries += 1;
            match tries < 64 {
                true => thread::yield_now(),
                false => thread::sleep(Duration::from_micros(100)),
            }
        }
        let entry = slot.entry.load(Ordering::Acquire);
        // SAFETY: `enter` made it, this call alone cleared `start`, and nobody uses it by rule 1. It is freed before
        // the slot is, so that what it held is gone when this returns.
        drop(unsafe { Box::from_raw(entry) });
        slot.entry.store(std::ptr::null_mut(), Ordering::Release);
    }
}
