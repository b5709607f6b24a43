//! What could a power cut leave behind?
//!
//! Simulated memory that behaves like any other for its users, and can keep two logs: a trace of every store,
//! non-temporal store, flush and fence by thread, from which [`crash`] makes images; and an undo log, so that
//! one piece of memory serves image after image. Both may be kept at once: recovery from an image is itself
//! traced and crashed.
//!
//! Invariants:
//! 1. The order of events in a trace is the order in which the memory changed.
//! 2. [`Sim::roll_back_to`] leaves the memory byte for byte as it was when the savepoint was taken.

pub mod crash;
mod images;

use super::counters::thread_number;
use super::memory::Memory;
use crate::sync::Instrument;
use crate::units::PoolOff;
use std::ops::Range;

/// One thing that was done to the memory. Bytes are in [`Trace::data`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// `len` bytes stored at `at`; `nt` by non-temporal stores. `data` is where the bytes start in the trace.
    Store {
        /// The thread's number.
        thread: usize,
        /// Pool offset in bytes.
        at: u64,
        /// Bytes.
        len: u64,
        /// Where the bytes start in [`Trace::data`].
        data: usize,
        /// Durable after the thread's next fence, without a flush.
        nt: bool,
    },
    /// The lines of `len` bytes at `at` flushed.
    Flush {
        /// The thread's number.
        thread: usize,
        /// Pool offset in bytes.
        at: u64,
        /// Bytes.
        len: u64,
    },
    /// A fence.
    Fence {
        /// The thread's number.
        thread: usize,
    },
    /// A mark of the test's: the operation with this number begins.
    Begin(u64),
    /// The operation with this number returned.
    Return(u64),
}

/// What was done, in order.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    /// The events.
    pub events: Vec<Event>,
    /// The bytes of the stores.
    pub data: Vec<u8>,
}

/// What was overwritten, so that it can be put back.
#[derive(Debug, Default)]
struct Undo {
    /// Offset and length of each store since the log was started.
    spans: Vec<(u64, u64)>,
    /// The bytes that those stores overwrote, one after the other.
    old: Vec<u8>,
    /// Sum over all words of [`mix`], less the same sum when the log was started.
    digest: u64,
}

/// A place in the undo log.
#[derive(Clone, Copy, Debug)]
pub struct Savepoint {
    spans: usize,
    digest: u64,
}

#[derive(Debug, Default)]
struct Log {
    trace: Option<Trace>,
    undo: Option<Undo>,
    /// Pool offsets that do not count in the digest.
    quiet: Vec<Range<u64>>,
    /// Bytes.
    len: u64,
}

/// Simulated memory.
#[derive(Debug)]
pub struct Sim {
    memory: Memory,
    _map: memmap2::MmapRaw,
    capacity: u64,
    log: Instrument<Log>,
}

/// What a word adds to the digest.
fn mix(at: u64, value: u64) -> u64 {
    let x = value.wrapping_add(at.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let x = (x ^ (x >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    let x = (x ^ (x >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x ^ (x >> 32)
}

impl Sim {
    /// `len` bytes of zeros, a multiple of 8. They cost no memory until touched.
    ///
    /// # Errors
    /// What the system says of an anonymous mapping of that size.
    pub fn new(len: u64) -> std::io::Result<Self> {
        Self::with_capacity(len, len)
    }

    /// As [`Self::new`], of `len` bytes that can grow to `capacity` bytes, both multiples of 8.
    ///
    /// # Errors
    /// As for [`Self::new`].
    pub fn with_capacity(len: u64, capacity: u64) -> std::io::Result<Self> {
        let capacity = capacity.max(len);
        let map: memmap2::MmapRaw =
            memmap2::MmapOptions::new().len(capacity as usize).no_reserve_swap().map_anon()?.into();
        // SAFETY: the mapping is page aligned, `capacity` bytes long, readable and writable, and a field of the same
        // value keeps it mapped.
        let memory = unsafe { Memory::new(map.as_mut_ptr(), capacity) };
        let sim = Self { memory, _map: map, capacity, log: Instrument::default() };
        sim.log.lock().len = len;
        Ok(sim)
    }

    /// Makes the memory `len` bytes long, if it was shorter, at most as long as its capacity: at once and durably, and
    /// not part of a trace, as the host makes a file longer.
    pub fn grow(&self, len: u64) {
        let mut log = self.log.lock();
        log.len = log.len.max(len.min(self.capacity));
    }

    /// Bytes that it can have.
    #[must_use]
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Another piece of memory with the same content, without logs. Pages of zeros are not copied.
    ///
    /// # Errors
    /// As for [`Self::new`].
    pub fn fork(&self) -> std::io::Result<Self> {
        let len = self.len();
        let copy = Self::with_capacity(len, self.capacity)?;
        let mut page = [0; 4096];
        for at in (0..len).step_by(page.len()) {
            let page = &mut page[..(len - at).min(4096) as usize];
            self.memory.read(PoolOff(at), page);
            if page.iter().any(|b| *b != 0) {
                copy.memory.write(PoolOff(at), page);
            }
        }
        Ok(copy)
    }

    /// Bytes.
    #[must_use]
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> u64 {
        self.log.lock().len
    }

    pub(super) fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Keeps a trace from now on; an earlier one is forgotten.
    pub fn start_trace(&self) {
        self.log.lock().trace = Some(Trace::default());
    }

    /// Ends the trace and returns it; empty if none was kept.
    #[must_use]
    pub fn take_trace(&self) -> Trace {
        self.log.lock().trace.take().unwrap_or_default()
    }

    /// Adds a mark to the trace.
    pub fn mark(&self, event: Event) {
        if let Some(trace) = &mut self.log.lock().trace {
            trace.events.push(event);
        }
    }

    /// From now on, [`Self::roll_back`] returns to what the memory holds now. An earlier undo log is forgotten.
    pub fn start_undo(&self) {
        let mut log = self.log.lock();
        match &mut log.undo {
            Some(undo) => {
                undo.spans.clear();
                undo.old.clear();
                undo.digest = 0;
            }
            None => log.undo = Some(Undo::default()),
        }
    }

    /// Stores to these pool offsets do not change [`Self::digest`]. They bound whole stores: one that leaves a
    /// range counts in full.
    pub fn set_quiet(&self, ranges: Vec<Range<u64>>) {
        self.log.lock().quiet = ranges;
    }

    /// A number that tells apart contents of the memory, relative to what it held at [`Self::start_undo`]: equal
    /// contents have equal digests, and different ones differ but for a chance of 2^-64. 0 without undo log.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.log.lock().undo.as_ref().map_or(0, |undo| undo.digest)
    }

    /// A place to roll back to; the start of the log if none is kept.
    #[must_use]
    pub fn savepoint(&self) -> Savepoint {
        match &self.log.lock().undo {
            Some(undo) => Savepoint { spans: undo.spans.len(), digest: undo.digest },
            None => Savepoint { spans: 0, digest: 0 },
        }
    }

    /// Puts back what the memory held at the savepoint, and goes on keeping the undo log. Savepoints that are
    /// younger are void.
    pub fn roll_back_to(&self, savepoint: Savepoint) {
        if let Some(undo) = &mut self.log.lock().undo {
            let mut end = undo.old.len();
            for (at, len) in undo.spans.drain(savepoint.spans..).rev() {
                let start = end - len as usize;
                self.memory.write(PoolOff(at), &undo.old[start..end]);
                end = start;
            }
            undo.old.truncate(end);
            undo.digest = savepoint.digest;
        }
    }

    /// Puts back what the memory held at [`Self::start_undo`], and goes on keeping the undo log.
    pub fn roll_back(&self) {
        self.roll_back_to(Savepoint { spans: 0, digest: 0 });
    }

    /// Stores `bytes` as a crash image has them: recorded for roll-back, not in a trace.
    pub fn poke(&self, at: PoolOff, bytes: &[u8]) {
        let mut log = self.log.lock();
        self.logged(&mut log, at, bytes.len() as u64, |memory| memory.write(at, bytes));
    }

    /// Stores aligned words as a crash image has them: recorded for roll-back, not in a trace.
    pub fn poke_words(&self, words: &[(u64, u64)]) {
        let Log { undo, quiet, .. } = &mut *self.log.lock();
        for (at, value) in words {
            if let Some(undo) = undo {
                let old = self.memory.load(PoolOff(*at));
                undo.spans.push((*at, 8));
                undo.old.extend_from_slice(&old.to_le_bytes());
                if !quiet.iter().any(|quiet| quiet.contains(at)) {
                    let change = mix(*at, *value).wrapping_sub(mix(*at, old));
                    undo.digest = undo.digest.wrapping_add(change);
                }
            }
            self.memory.write(PoolOff(*at), &value.to_le_bytes());
        }
    }

    /// Copies bytes out, as [`super::Region::read`] does.
    pub fn peek(&self, at: PoolOff, buf: &mut [u8]) {
        self.memory.read(at, buf);
    }

    /// Changes `len` bytes at `at` by `write`, keeping what the undo log needs.
    fn logged(&self, log: &mut Log, at: PoolOff, len: u64, write: impl FnOnce(&Memory)) {
        let Some(undo) = &mut log.undo else {
            return write(&self.memory);
        };
        let start = undo.old.len();
        undo.old.resize(start + len as usize, 0);
        self.memory.read(at, &mut undo.old[start..]);
        undo.spans.push((at.0, len));
        if log.quiet.iter().any(|quiet| quiet.start <= at.0 && at.0 + len <= quiet.end) {
            return write(&self.memory);
        }
        let before = self.sum(at, len);
        write(&self.memory);
        undo.digest = undo.digest.wrapping_add(self.sum(at, len)).wrapping_sub(before);
    }

    /// The sum of [`mix`] over the words that `len` bytes at `at` touch.
    fn sum(&self, at: PoolOff, len: u64) -> u64 {
        let words = at.0 / 8..(at.0 + len).div_ceil(8);
        words.fold(0, |sum, w| sum.wrapping_add(mix(w * 8, self.memory.load(PoolOff(w * 8)))))
    }

    pub(super) fn store(&self, at: PoolOff, bytes: &[u8], nt: bool) {
        let mut log = self.log.lock();
        if let Some(trace) = &mut log.trace {
            let data = trace.data.len();
            trace.data.extend_from_slice(bytes);
            let (thread, len) = (thread_number(), bytes.len() as u64);
            trace.events.push(Event::Store { thread, at: at.0, len, data, nt });
        }
        self.logged(&mut log, at, bytes.len() as u64, |memory| memory.write(at, bytes));
    }

    pub(super) fn zero(&self, at: PoolOff, len: u64) {
        let mut log = self.log.lock();
        if let Some(trace) = &mut log.trace {
            let data = trace.data.len();
            trace.data.resize(data + len as usize, 0);
            trace.events.push(Event::Store { thread: thread_number(), at: at.0, len, data, nt: true });
        }
        self.logged(&mut log, at, len, |memory| memory.zero(at, len));
    }

    pub(super) fn flush(&self, at: PoolOff, len: u64) {
        self.mark(Event::Flush { thread: thread_number(), at: at.0, len });
    }

    pub(super) fn fence(&self) {
        self.mark(Event::Fence { thread: thread_number() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(sim: &Sim) -> Vec<u8> {
        let mut all = vec![0; sim.len() as usize];
        sim.peek(PoolOff(0), &mut all);
        all
    }

    #[test]
    fn nested_savepoints_restore_content_and_digest() {
        let sim = Sim::new(8192).unwrap();
        sim.store(PoolOff(3), b"before the log", false);
        sim.start_undo();
        let base = content(&sim);
        sim.store(PoolOff(5), b"first", true);
        let (outer, first, digest) = (sim.savepoint(), content(&sim), sim.digest());
        sim.poke_words(&[(0, 7), (8, 9), (0, 8)]);
        let (inner, second) = (sim.savepoint(), content(&sim));
        sim.zero(PoolOff(0), 4096);
        sim.roll_back_to(inner);
        assert_eq!(content(&sim), second);
        sim.zero(PoolOff(1), 77);
        sim.roll_back_to(outer);
        assert_eq!((content(&sim), sim.digest()), (first, digest));
        sim.roll_back();
        assert_eq!((content(&sim), sim.digest()), (base, 0));
    }

    #[test]
    fn a_digest_tells_contents_apart_and_forgets_how_they_came() {
        let sim = Sim::new(4096).unwrap();
        sim.start_undo();
        sim.store(PoolOff(16), &[1; 16], false);
        let (once, digest) = (content(&sim), sim.digest());
        assert_ne!(digest, 0);
        sim.roll_back();
        sim.store(PoolOff(20), &[1; 12], false);
        assert_ne!(sim.digest(), digest);
        sim.poke(PoolOff(16), &[1; 4]);
        assert_eq!((content(&sim), sim.digest()), (once, digest));
        sim.set_quiet(vec![1024..2048, 3072..4096]);
        sim.store(PoolOff(1024), &[7; 1024], true);
        assert_eq!(sim.digest(), digest);
        sim.store(PoolOff(2040), &[7; 16], true);
        assert_ne!(sim.digest(), digest);
    }

    #[test]
    fn trace_and_undo_are_kept_at_once() {
        let sim = Sim::new(4096).unwrap();
        sim.start_undo();
        sim.start_trace();
        sim.store(PoolOff(8), &[1; 8], false);
        sim.fence();
        let trace = sim.take_trace();
        assert_eq!(trace.events.len(), 2);
        assert_eq!(trace.data, [1; 8]);
        sim.roll_back();
        assert!(content(&sim).iter().all(|b| *b == 0));
        assert_eq!(sim.take_trace().events, []);
    }

    #[test]
    fn a_fork_has_the_content_and_goes_its_own_way() {
        let sim = Sim::new(12288).unwrap();
        sim.store(PoolOff(5000), b"shared", false);
        let fork = sim.fork().unwrap();
        assert_eq!(content(&fork), content(&sim));
        fork.store(PoolOff(0), b"own", false);
        assert_eq!(content(&sim)[0], 0);
    }
}
