//! What could a power cut leave behind?
//!
//! Simulated memory that behaves like any other for its users, and can keep one of two logs: a trace of every
//! store, non-temporal store, flush and fence by thread, from which crash images are made; or an undo log, so
//! that one piece of memory serves image after image.

use super::counters::thread_number;
use super::memory::Memory;
use crate::sync::Mutex;
use crate::units::PoolOff;

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

#[derive(Debug, Default)]
enum Log {
    #[default]
    Off,
    Trace(Trace),
    /// (offset, length) of what was overwritten, and the old bytes in one buffer.
    Undo(Vec<(u64, u32)>, Vec<u8>),
}

/// Simulated memory.
#[derive(Debug)]
pub struct Sim {
    memory: Memory,
    _map: memmap2::MmapRaw,
    len: u64,
    log: Mutex<Log>,
}

impl Sim {
    /// `len` bytes of zeros. They cost no memory until touched.
    ///
    /// # Errors
    /// What the system says of an anonymous mapping of that size.
    pub fn new(len: u64) -> std::io::Result<Self> {
        let map: memmap2::MmapRaw = memmap2::MmapOptions::new().len(len as usize).map_anon()?.into();
        // SAFETY: the mapping is page aligned, `len` bytes long, readable and writable, and a field of the same
        // value keeps it mapped.
        let memory = unsafe { Memory::new(map.as_mut_ptr(), len) };
        Ok(Self { memory, _map: map, len, log: Mutex::default() })
    }

    /// Bytes.
    #[must_use]
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Keeps a trace from now on.
    pub fn start_trace(&self) {
        *self.log.lock() = Log::Trace(Trace::default());
    }

    /// Ends the trace and returns it; empty if none was kept.
    #[must_use]
    pub fn take_trace(&self) -> Trace {
        match std::mem::take(&mut *self.log.lock()) {
            Log::Trace(trace) => trace,
            _ => Trace::default(),
        }
    }

    /// Adds a mark to the trace.
    pub fn mark(&self, event: Event) {
        if let Log::Trace(trace) = &mut *self.log.lock() {
            trace.events.push(event);
        }
    }

    /// From now on, [`Self::roll_back`] returns to what the memory holds now.
    pub fn start_undo(&self) {
        *self.log.lock() = Log::Undo(Vec::new(), Vec::new());
    }

    /// Puts back what the memory held at [`Self::start_undo`], and goes on keeping the undo log.
    pub fn roll_back(&self) {
        if let Log::Undo(spans, old) = &mut *self.log.lock() {
            let mut end = old.len();
            for (at, len) in spans.drain(..).rev() {
                let start = end - len as usize;
                self.memory.write(PoolOff(at), &old[start..end]);
                end = start;
            }
            old.clear();
        }
    }

    /// Stores `bytes` as a crash image has them: recorded for roll-back, not in a trace.
    pub fn poke(&self, at: PoolOff, bytes: &[u8]) {
        let mut log = self.log.lock();
        self.keep_old(&mut log, at, bytes.len() as u64);
        self.memory.write(at, bytes);
    }

    /// Copies bytes out, as [`super::Region::read`] does.
    pub fn peek(&self, at: PoolOff, buf: &mut [u8]) {
        self.memory.read(at, buf);
    }

    fn keep_old(&self, log: &mut Log, at: PoolOff, len: u64) {
        if let Log::Undo(spans, old) = log {
            let start = old.len();
            old.resize(start + len as usize, 0);
            self.memory.read(at, &mut old[start..]);
            spans.push((at.0, len as u32));
        }
    }

    pub(super) fn store(&self, at: PoolOff, bytes: &[u8], nt: bool) {
        let mut log = self.log.lock();
        self.keep_old(&mut log, at, bytes.len() as u64);
        if let Log::Trace(trace) = &mut *log {
            let data = trace.data.len();
            trace.data.extend_from_slice(bytes);
            let (thread, len) = (thread_number(), bytes.len() as u64);
            trace.events.push(Event::Store { thread, at: at.0, len, data, nt });
        }
        self.memory.write(at, bytes);
    }

    pub(super) fn zero(&self, at: PoolOff, len: u64) {
        let mut log = self.log.lock();
        self.keep_old(&mut log, at, len);
        if let Log::Trace(trace) = &mut *log {
            let data = trace.data.len();
            trace.data.resize(data + len as usize, 0);
            trace.events.push(Event::Store { thread: thread_number(), at: at.0, len, data, nt: true });
        }
        self.memory.zero(at, len);
    }

    pub(super) fn flush(&self, at: PoolOff, len: u64) {
        self.mark(Event::Flush { thread: thread_number(), at: at.0, len });
    }

    pub(super) fn fence(&self) {
        self.mark(Event::Fence { thread: thread_number() });
    }
}
