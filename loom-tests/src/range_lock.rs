//! Model 1: the lock of byte ranges.
//!
//! The blocks stand for themselves: a cell a block, entered and left by its holders, says at once when two hold it that
//! must not. A lost wakeup is a deadlock, which loom finds. Mutations: `WakeOne`, `ReadersDoNotWait`,
//! `IgnoreCounted`, `OvertakeQueue`, `LeaveSilently`, `IgnoreShort`.

use crate::{Event, explore, part, pick, together};
use daxstore::inode::RangeLock;
use daxstore::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use daxstore::sync::thread::yield_now;
use daxstore::units::BLOCK_BYTES;
use std::sync::Arc;

/// Bytes of a unit of which a few are a short range, which does not need the queue.
const SHORT: u64 = BLOCK_BYTES;
/// Bytes of a unit that is no short range.
const LONG: u64 = 17 * BLOCK_BYTES;

/// Blocks with a lock and with who is inside: readers count up, a writer counts down.
struct Blocks {
    lock: RangeLock,
    inside: Vec<AtomicI64>,
}

const WRITER: i64 = -1000;

impl Blocks {
    fn new(len: usize) -> Arc<Self> {
        let inside = (0..len).map(|_| AtomicI64::new(0)).collect();
        Arc::new(Self { lock: RangeLock::default(), inside })
    }

    fn write(&self, start: usize, end: usize) {
        self.write_to(start, end, end as u64 * BLOCK_BYTES);
    }

    /// As what changes the size of a file does.
    fn write_all_from(&self, start: usize) {
        self.write_to(start, self.inside.len(), u64::MAX);
    }

    fn write_to(&self, start: usize, end: usize, end_of_range: u64) {
        let _guard = self.lock.exclusive(start as u64 * BLOCK_BYTES, end_of_range);
        for block in &self.inside[start..end] {
            assert_eq!(block.fetch_add(WRITER, Ordering::Relaxed), 0, "a writer is alone");
        }
        self.inside[start..end].iter().for_each(|block| _ = block.fetch_sub(WRITER, Ordering::Relaxed));
    }

    fn read(&self, start: usize, end: usize) {
        let _guard = self.lock.shared(start as u64 * BLOCK_BYTES, end as u64 * BLOCK_BYTES);
        for block in &self.inside[start..end] {
            assert!(block.fetch_add(1, Ordering::Relaxed) >= 0, "no reader beside a writer");
        }
        self.inside[start..end].iter().for_each(|block| _ = block.fetch_sub(1, Ordering::Relaxed));
    }
}

#[test]
fn writers_exclude_each_other_and_readers() {
    explore("range lock: exclusion", || {
        let blocks = Blocks::new(3);
        let (a, b, c) = (blocks.clone(), blocks.clone(), blocks);
        together(vec![
            part(move || (0..pick(1, 200)).for_each(|_| a.write(0, 2))),
            part(move || (0..pick(1, 200)).for_each(|_| b.read(1, 3))),
            part(move || (0..pick(1, 200)).for_each(|_| c.write(1, 2))),
        ]);
    });
}

/// A writer that always uses the queue, beside one and a reader that use it only where they must.
#[test]
fn queued_writers_exclude_short_ones_and_readers() {
    explore("range lock: exclusion through the queue", || {
        let blocks = Blocks::new(3);
        let (a, b, c) = (blocks.clone(), blocks.clone(), blocks);
        together(vec![
            part(move || (0..pick(1, 200)).for_each(|_| a.write_all_from(1))),
            part(move || (0..pick(1, 200)).for_each(|_| b.read(1, 3))),
            part(move || (0..pick(1, 200)).for_each(|_| c.write(0, 2))),
        ]);
    });
}

/// Blocks 31 to 33 have bits in two words of the lock: who holds blocks of both meets those who hold blocks of either.
#[test]
fn holders_of_two_words_meet_those_of_either() {
    explore("range lock: two words", || {
        let blocks = Blocks::new(34);
        let (a, b, c) = (blocks.clone(), blocks.clone(), blocks);
        together(vec![
            part(move || (0..pick(1, 200)).for_each(|_| a.write(31, 33))),
            part(move || (0..pick(1, 200)).for_each(|_| b.read(31, 33))),
            part(move || (0..pick(1, 200)).for_each(|_| c.write_all_from(32))),
        ]);
    });
}

/// As above, where nobody has to queue but for another's word.
#[test]
fn short_holders_of_two_words_exclude_each_other() {
    explore("range lock: two words, short", || {
        let blocks = Blocks::new(34);
        let (a, b, c) = (blocks.clone(), blocks.clone(), blocks);
        together(vec![
            part(move || (0..pick(1, 200)).for_each(|_| a.write(31, 33))),
            part(move || (0..pick(1, 200)).for_each(|_| b.write(32, 33))),
            part(move || (0..pick(1, 200)).for_each(|_| c.read(31, 32))),
        ]);
    });
}

/// A release wakes whoever can go, not only whoever waits longest: the first in the queue waits for a second range
/// that is held until the other one has got what was released.
#[test]
fn every_waiter_is_woken() {
    explore("range lock: wakeups", || wake_every_waiter(SHORT));
}

/// As above, where who releases was in the queue too.
#[test]
fn every_waiter_is_woken_by_the_queue() {
    explore("range lock: wakeups by the queue", || wake_every_waiter(LONG));
}

fn wake_every_waiter(unit: u64) {
    let lock = Arc::new(RangeLock::default());
    let held = Arc::new(Event::default());
    let got = Arc::new(Event::default());
    let (holder, long, short) = (lock.clone(), lock.clone(), lock);
    let (held_long, held_short, got_short) = (held.clone(), held.clone(), got.clone());
    together(vec![
        part(move || {
            let low = holder.exclusive(0, 2 * unit);
            let high = holder.exclusive(5 * unit, 6 * unit);
            held.set();
            drop(low);
            got.wait();
            drop(high);
        }),
        part(move || {
            held_short.wait();
            drop(short.exclusive(0, unit));
            got_short.set();
        }),
        part(move || {
            held_long.wait();
            drop(long.exclusive(unit, 6 * unit));
        }),
    ]);
}

fn wait_until(what: impl Fn() -> bool) {
    while !what() {
        yield_now();
    }
}

/// Invariant 2: who comes later does not overtake. The reader of block 1 asks while the writer of both blocks waits
/// for block 0, and gets its block after the writer.
#[test]
fn requests_are_granted_in_order_of_arrival() {
    explore("range lock: order", || {
        let lock = Arc::new(RangeLock::default());
        let written = Arc::new(AtomicU64::new(0));
        let held = Arc::new(Event::default());
        let (first, writer, reader) = (lock.clone(), lock.clone(), lock);
        let (is_held, was_written) = (held.clone(), written.clone());
        together(vec![
            part(move || {
                let guard = first.shared(0, SHORT);
                held.set();
                wait_until(|| first.waiting() == 2);
                drop(guard);
            }),
            part(move || {
                is_held.wait();
                let _guard = writer.exclusive(0, 2 * SHORT);
                written.store(1, Ordering::Relaxed);
            }),
            part(move || {
                wait_until(|| reader.waiting() == 1);
                let _guard = reader.shared(SHORT, 2 * SHORT);
                assert_eq!(was_written.load(Ordering::Relaxed), 1, "the writer came first");
            }),
        ]);
    });
}

/// Invariant 2, the other way: nobody waits for a range that does not conflict. Each holds its range until the other
/// has its own, which would be a deadlock if one waited.
#[test]
fn disjoint_ranges_and_readers_are_held_at_once() {
    explore("range lock: parallel", || {
        for (unit, ranges) in [
            (SHORT, [(0, 4, false), (2, 6, false)]),
            (SHORT, [(0, 4, true), (4, 5, true)]),
            (LONG, [(0, 4, true), (4, 5, true)]),
        ] {
            let lock = Arc::new(RangeLock::default());
            let inside = [Arc::new(Event::default()), Arc::new(Event::default())];
            let parts = [0, 1].map(|i| {
                let (lock, own, other) = (lock.clone(), inside[i].clone(), inside[1 - i].clone());
                let (start, end, exclusive) = ranges[i];
                let (start, end) = (start * unit, end * unit);
                part(move || {
                    let _guard = if exclusive { lock.exclusive(start, end) } else { lock.shared(start, end) };
                    own.set();
                    other.wait();
                })
            });
            together(parts.into());
        }
    });
}

#[cfg(loom)]
#[test]
fn mutations_are_caught() {
    use daxstore::pmem::mutation::Mutation;
    let exclusion = "range_lock::writers_exclude_each_other_and_readers";
    let through_queue = "range_lock::queued_writers_exclude_short_ones_and_readers";
    crate::assert_caught("range_lock::every_waiter_is_woken", Mutation::WakeOne);
    crate::assert_caught("range_lock::every_waiter_is_woken_by_the_queue", Mutation::WakeOne);
    crate::assert_caught("range_lock::every_waiter_is_woken", Mutation::LeaveSilently);
    crate::assert_caught(exclusion, Mutation::LeaveSilently);
    crate::assert_caught(exclusion, Mutation::ReadersDoNotWait);
    crate::assert_caught(exclusion, Mutation::IgnoreCounted);
    crate::assert_caught(through_queue, Mutation::IgnoreCounted);
    crate::assert_caught(exclusion, Mutation::OvertakeQueue);
    crate::assert_caught(through_queue, Mutation::OvertakeQueue);
    crate::assert_caught(through_queue, Mutation::IgnoreShort);
    let words = "range_lock::holders_of_two_words_meet_those_of_either";
    crate::assert_caught(words, Mutation::IgnoreShort);
    crate::assert_caught(words, Mutation::LeaveSilently);
    crate::assert_caught("range_lock::requests_are_granted_in_order_of_arrival", Mutation::ReadersDoNotWait);
}
