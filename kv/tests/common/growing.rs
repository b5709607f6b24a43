//! How does a file in simulated memory grow, so that a crash can come between?
//!
//! The file's length is the file store's: durable when `grow` returns, and in no crash shorter than a word that counts on it. A growth
//! stands in the trace as an operation that never returns, by whose number each point of the trace tells the length.

use daxstore::pmem::sim::crash::Stop;
use daxstore::pmem::sim::{Event, Sim};
use daxstore_kv::media::{Media, SimMedia};
use daxstore_kv::{Error, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Operations with this number or a greater one are growths, to what the number has more.
const GROWTH: u64 = 1 << 40;

/// Simulated memory whose length grows.
#[derive(Debug)]
pub struct Growing {
    memory: SimMedia,
    sim: Arc<Sim>,
    len: AtomicU64,
}

impl Growing {
    pub fn new(sim: Arc<Sim>, len: u64) -> Self {
        Self { memory: SimMedia::new(sim.clone()), sim, len: AtomicU64::new(len) }
    }

    /// The length that the table of chunks counts on: one more than the last chunk in use.
    pub fn reached(sim: &Sim) -> u64 {
        const CHUNK: u64 = 2 << 20;
        let mut end = 0;
        for chunk in 0..sim.len() / CHUNK {
            let mut word = [0; 8];
            sim.peek(daxstore::units::PoolOff((1 << 20) + chunk * 8), &mut word);
            match u64::from_le_bytes(word) {
                0 => {}
                word => end = chunk + (word >> 8),
            }
        }
        end * CHUNK
    }

    /// The length of the file at a point of the trace, which is taken out of the operations under way.
    pub fn take_length(stop: &mut Stop) -> u64 {
        let growths = stop.in_flight.extract_if(.., |op| *op >= GROWTH);
        growths.map(|op| op - GROWTH).max().unwrap_or(0)
    }
}

impl Media for Growing {
    fn len(&self) -> u64 {
        self.len.load(Ordering::Acquire)
    }

    fn capacity(&self) -> u64 {
        self.memory.len()
    }

    fn grow(&self, len: u64) -> Result<()> {
        if len > self.capacity() {
            return Err(Error::NoSpace { needed: len - self.len() });
        }
        if len > self.len() {
            self.sim.mark(Event::Begin(GROWTH + len));
            self.len.store(len, Ordering::Release);
        }
        Ok(())
    }

    fn load(&self, at: u64) -> u64 {
        assert!(at + 8 <= self.len(), "a load at {at:#x}, beyond the file's end");
        self.memory.load(at)
    }

    fn store(&self, at: u64, word: u64) {
        assert!(at + 8 <= self.len(), "a store at {at:#x}, beyond the file's end");
        self.memory.store(at, word);
    }

    fn compare_exchange(&self, at: u64, old: u64, new: u64) -> std::result::Result<u64, u64> {
        self.memory.compare_exchange(at, old, new)
    }

    fn read(&self, at: u64, buf: &mut [u8]) {
        assert!(at + buf.len() as u64 <= self.len(), "a read at {at:#x}, beyond the file's end");
        self.memory.read(at, buf);
    }

    fn equals(&self, at: u64, bytes: &[u8]) -> bool {
        self.memory.equals(at, bytes)
    }

    fn write(&self, at: u64, bytes: &[u8]) {
        self.memory.write(at, bytes);
    }

    fn write_through(&self, at: u64, bytes: &[u8]) {
        assert!(at + bytes.len() as u64 <= self.len(), "a write at {at:#x}, beyond the file's end");
        self.memory.write_through(at, bytes);
    }

    fn flush(&self, at: u64, len: u64) {
        self.memory.flush(at, len);
    }

    fn fence(&self) -> Result<()> {
        self.memory.fence()
    }

    fn prefetch(&self, _at: u64) {}
}
