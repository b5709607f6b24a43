//! Who may touch which bytes of a file?
//!
//! The `io_lock` of a file: a lock of byte ranges, shared or exclusive. Requests are granted in order of arrival
//! among those that conflict, so nobody starves.
//!
//! Two kinds of requests do without the queue, by locked instructions on a few words, mostly one each way. Blocks go to the
//! words by 32 in turn. Readers count themselves in each word that has blocks of theirs; writers of a few blocks set
//! the bits of their blocks. Both only while nothing stands against it; what does is gone soon as a rule, so they look
//! again for a while before they go to the queue. What has one word only, as most short requests, is tried first, in a
//! few instructions where the caller is; all else is called.
//!
//! Invariants:
//! 1. No two holders' ranges overlap unless both are shared.
//! 2. A request in the queue waits only for conflicting requests that came before it, for short writers of blocks with
//!    the same bits, and (a writer) for the readers that are counted in the words of its blocks, whatever their ranges.
//! 3. While a request is in the queue no writer goes past the queue, and while a writer is, no reader does.
//! 4. Who does without the queue changes its words, then looks whether requests are queued. Who is queued says so, then
//!    looks at the words, under the queue's lock. All four in the one order of `SeqCst`: either the queued request
//!    sees the change, or who made it sees the queue: to stay out of it on the way in, to wake it on the way out.
//! 5. A range may be let go by another thread than the one that got it, and through another guard: see
//!    [`RangeGuard::detach`].

use crate::pmem::mutation::{self, Mutation};
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::rank::{Held, Rank};
use crate::sync::{Condvar, Mutex, MutexGuard, in_one_order, spin};
use crate::units::BLOCK_BYTES;
use crossbeam::utils::CachePadded;

/// A word: one of the readers that hold, or try to, without the queue. Linux has at most 2^22 threads.
const READER: u64 = 1;
const ALL_READERS: u64 = (1 << 32) - 1;
/// From here on, a bit for each of the word's blocks, modulo 32: set while a writer that is not in the queue holds it.
const BLOCKS_AT: u32 = 32;
/// Words of a lock. Two writers of random blocks meet in one of them this rarely; a request with no end looks at all.
const WORDS: usize = 8;
/// Blocks in a row that have bits in the same word.
const ROW: u64 = 32;

/// Requests are in the queue; changes under its lock.
const QUEUED: u64 = 1;
/// Writers are in the queue; changes under its lock.
const QUEUED_WRITER: u64 = 2;

/// Blocks that a writer may hold without the queue. The queue costs some 50 ns, and as many blocks take 5 us: beyond,
/// there is little to win and more to wait for.
const SHORT: u64 = 16;
/// How often a request tries to do without the queue.
const TRIES: u32 = 2;
/// How often a request looks whether what stands against it is gone, each time: some 2 us in all, in which a write of
/// a few blocks ends.
const LOOKS: u32 = 32;

/// A word in a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Line(AtomicU64);

/// The bits that blocks `first` to `end` have, in each word that has any: the word and the bits.
#[derive(Clone, Copy, Debug)]
struct Blocks {
    first: u64,
    end: u64,
}

impl Blocks {
    /// The blocks that bytes `start` to `end` touch, at least one.
    #[inline]
    const fn of(start: u64, end: u64) -> Self {
        let end = if end > start { end } else { start + 1 };
        Self { first: start / BLOCK_BYTES, end: end.div_ceil(BLOCK_BYTES) }
    }

    /// How many words they have bits in.
    #[inline]
    const fn words(self) -> u64 {
        let rows = (self.end - 1) / ROW - self.first / ROW + 1;
        if rows < WORDS as u64 { rows } else { WORDS as u64 }
    }

    /// The number of the one word they have bits in, and the bits there; `None` where there are more.
    #[inline]
    const fn in_one_word(self) -> Option<(usize, u64)> {
        if self.first / ROW != (self.end - 1) / ROW {
            return None;
        }
        Some(self.bits(0))
    }

    /// The number of the `i`th of these words, and the bits there: all, where two rows could lie in it.
    #[inline]
    const fn bits(self, i: u64) -> (usize, u64) {
        let row = self.first / ROW + i;
        let rows = (self.end - 1) / ROW - self.first / ROW + 1;
        let from = if i == 0 { self.first % ROW } else { 0 };
        let to = if row == (self.end - 1) / ROW { (self.end - 1) % ROW + 1 } else { ROW };
        let bits = if rows > WORDS as u64 { u32::MAX as u64 } else { (1_u64 << to) - (1_u64 << from) };
        ((row % WORDS as u64) as usize, bits << BLOCKS_AT)
    }
}

#[derive(Clone, Copy, Debug)]
struct Request {
    id: u64,
    start: u64,
    end: u64,
    exclusive: bool,
}

impl Request {
    const fn conflicts(&self, other: &Self) -> bool {
        (self.exclusive || other.exclusive) && self.start < other.end && other.start < self.end
    }
}

#[derive(Debug, Default)]
struct Queue {
    next: u64,
    waiting: usize,
    /// Holders and waiters in order of arrival.
    requests: Vec<Request>,
}

/// A lock of byte ranges.
#[derive(Debug, Default)]
pub struct RangeLock {
    /// Each alone in its cache line: writers of different blocks change them all the time.
    words: [Line; WORDS],
    /// What is in the queue. Not in the line of anything that changes with each request: all look at it.
    queued: CachePadded<AtomicU64>,
    queue: Mutex<Queue>,
    released: Condvar,
}

/// How a range is held.
#[derive(Clone, Copy, Debug)]
enum Hold {
    /// By what was added to one word: a counted reader, or the bits of the blocks.
    Word(usize, u64),
    /// As a counted reader.
    Counted(Blocks),
    /// By the bits of the blocks.
    Bits(Blocks),
    /// By the request with this number.
    Queued(u64),
}

/// A held range; released when dropped.
#[derive(Debug)]
#[must_use = "a range is held as long as its guard lives"]
pub struct RangeGuard<'l> {
    lock: &'l RangeLock,
    hold: Hold,
    _rank: Option<Held>,
}

/// A held range without its lock, to be taken to another thread. It is given back to the lock with
/// [`RangeLock::attach`]; forgotten, it stays held for ever.
#[derive(Debug)]
#[must_use = "a range stays held until it is attached again and dropped"]
pub struct DetachedRange(Hold);

impl<'l> RangeGuard<'l> {
    /// The range, still held, as something that outlives this borrow of its lock.
    pub fn detach(self) -> DetachedRange {
        let detached = DetachedRange(self.hold);
        let mut guard = std::mem::ManuallyDrop::new(self);
        guard._rank = None;
        detached
    }
}

impl RangeLock {
    /// Holds bytes `start` to `end` (exclusive) shared with other readers.
    #[inline]
    pub fn shared(&self, start: u64, end: u64) -> RangeGuard<'_> {
        let (rank, blocks) = (Held::new(Rank::Io), Blocks::of(start, end));
        match blocks.in_one_word() {
            Some((word, bits)) if self.count_in(word, bits) => self.guard(Hold::Word(word, READER), rank),
            _ => self.share_several(start, end, rank),
        }
    }

    /// As [`Self::shared`], of blocks in several words, or where something stood against it.
    #[inline(never)]
    fn share_several(&self, start: u64, end: u64, rank: Held) -> RangeGuard<'_> {
        let blocks = Blocks::of(start, end);
        match self.count(blocks, TRIES) {
            true => self.guard(Hold::Counted(blocks), rank),
            false => self.acquire(start, end, false, rank),
        }
    }

    /// Holds bytes `start` to `end` (exclusive) alone.
    #[inline]
    pub fn exclusive(&self, start: u64, end: u64) -> RangeGuard<'_> {
        let (rank, blocks) = (Held::new(Rank::Io), Blocks::of(start, end));
        match blocks.in_one_word().filter(|_| Self::is_short(start, end)) {
            Some((word, bits)) if self.set_in(word, bits) => self.guard(Hold::Word(word, bits), rank),
            _ => self.exclude_several(start, end, rank),
        }
    }

    /// As [`Self::exclusive`], of blocks in several words, or where something stood against it.
    #[inline(never)]
    fn exclude_several(&self, start: u64, end: u64, rank: Held) -> RangeGuard<'_> {
        let blocks = Blocks::of(start, end);
        match Self::is_short(start, end) && self.set(blocks, TRIES) {
            true => self.guard(Hold::Bits(blocks), rank),
            false => self.acquire(start, end, true, rank),
        }
    }

    /// As [`Self::shared`] (or `exclusive`), if it needs no waiting.
    pub fn try_hold(&self, start: u64, end: u64, exclusive: bool) -> Option<RangeGuard<'_>> {
        let (rank, blocks) = (Held::new(Rank::Io), Blocks::of(start, end));
        if !exclusive && self.count(blocks, 1) {
            return Some(self.guard(Hold::Counted(blocks), rank));
        }
        if exclusive && Self::is_short(start, end) && self.set(blocks, 1) {
            return Some(self.guard(Hold::Bits(blocks), rank));
        }
        let (queue, request) = self.enqueue(start, end, exclusive);
        if self.is_free(&queue, &request) {
            return Some(self.guard(Hold::Queued(request.id), rank));
        }
        self.remove(queue, request.id);
        None
    }

    /// The guard of a range that was detached from this lock.
    pub fn attach(&self, range: DetachedRange) -> RangeGuard<'_> {
        RangeGuard { lock: self, hold: range.0, _rank: None }
    }

    #[inline]
    fn guard(&self, hold: Hold, rank: Held) -> RangeGuard<'_> {
        RangeGuard { lock: self, hold, _rank: Some(rank) }
    }

    #[inline]
    const fn is_short(start: u64, end: u64) -> bool {
        end.saturating_sub(start) <= SHORT * BLOCK_BYTES
    }

    /// Whether requests of these kinds are in the queue. Asked after a change of a word (invariant 4).
    #[inline]
    fn is_queued(&self, kinds: u64) -> bool {
        in_one_order();
        self.queued.load(Ordering::SeqCst) & kinds != 0
    }

    /// Counts a reader of blocks that have `bits` in `word` alone, if nothing stands against it now.
    #[inline]
    fn count_in(&self, word: usize, bits: u64) -> bool {
        let is_free = self.words[word].0.fetch_add(READER, Ordering::SeqCst) & against(bits, false) == 0;
        if is_free && !self.is_queued(QUEUED_WRITER) {
            return true;
        }
        self.take_out_of(word, READER);
        false
    }

    /// Sets the `bits` of a writer of blocks that have them in `word` alone, if nothing stands against it now.
    #[inline]
    fn set_in(&self, word: usize, bits: u64) -> bool {
        let queued = if mutation::is(Mutation::OvertakeQueue) { 0 } else { QUEUED };
        // Not looked at first: the line would have to come from another writer's cache twice.
        let before = self.words[word].0.fetch_or(bits, Ordering::SeqCst);
        if before & against(bits, true) == 0 && !self.is_queued(queued) {
            return true;
        }
        self.take_out_of(word, bits & !before);
        false
    }

    /// Takes `what` out of `word`, and wakes those that may wait for it.
    #[inline]
    fn take_out_of(&self, word: usize, what: u64) {
        self.words[word].0.fetch_sub(what, Ordering::SeqCst);
        if self.is_queued(QUEUED) && !mutation::is(Mutation::LeaveSilently) {
            self.wake_all();
        }
    }

    /// Counts a reader of `blocks`, if nothing stands against it now or soon.
    fn count(&self, blocks: Blocks, tries: u32) -> bool {
        for _ in 0..tries {
            let (mut done, mut is_free) = (0, true);
            while done < blocks.words() && is_free {
                let (word, bits) = blocks.bits(done);
                is_free = self.words[word].0.fetch_add(READER, Ordering::SeqCst) & bits == 0;
                done += 1;
            }
            if is_free && !self.is_queued(QUEUED_WRITER) {
                return true;
            }
            self.take_out(blocks, done, |_| READER);
            if !self.soon(blocks, false, QUEUED_WRITER) {
                break;
            }
        }
        false
    }

    /// Sets the bits of a writer of `blocks`, if nothing stands against it now or soon. Bits that were set in vain stand
    /// against others only until they are taken out again.
    fn set(&self, blocks: Blocks, tries: u32) -> bool {
        let queued = if mutation::is(Mutation::OvertakeQueue) { 0 } else { QUEUED };
        for _ in 0..tries {
            let (mut done, mut is_free) = (0, true);
            while done < blocks.words() && is_free {
                let (word, bits) = blocks.bits(done);
                // Not looked at first: the line would have to come from another writer's cache twice.
                let before = self.words[word].0.fetch_or(bits, Ordering::SeqCst);
                is_free = before & against(bits, true) == 0;
                if is_free {
                    done += 1;
                } else if bits & !before != 0 {
                    self.words[word].0.fetch_sub(bits & !before, Ordering::SeqCst);
                }
            }
            if is_free && !self.is_queued(queued) {
                return true;
            }
            self.take_out(blocks, done, |bits| bits);
            if !self.soon(blocks, true, queued) {
                break;
            }
        }
        false
    }

    /// Whether nothing of `against`, which is made of a word's bits, stands in the words of `blocks`.
    fn words_are_free(&self, blocks: Blocks, against: impl Fn(u64) -> u64) -> bool {
        in_one_order();
        (0..blocks.words()).all(|i| {
            let (word, bits) = blocks.bits(i);
            self.words[word].0.load(Ordering::SeqCst) & against(bits) == 0
        })
    }

    /// Whether a request for `blocks` comes to be free of what stands in the words and of `queued` within a short
    /// time, which is not waited for if that is in the queue.
    #[cold]
    fn soon(&self, blocks: Blocks, exclusive: bool, queued: u64) -> bool {
        let is_queued = || self.queued.load(Ordering::Relaxed) & queued != 0;
        let is_free = || self.words_are_free(blocks, |bits| against(bits, exclusive));
        spin(LOOKS, || is_queued() || is_free());
        !is_queued() && is_free()
    }

    /// Takes `what` (of a word's bits: a counted reader, or those bits) out of the first `words` words of `blocks`, and
    /// wakes those that may wait for it.
    fn take_out(&self, blocks: Blocks, words: u64, what: impl Fn(u64) -> u64) {
        for i in 0..words {
            let (word, bits) = blocks.bits(i);
            self.words[word].0.fetch_sub(what(bits), Ordering::SeqCst);
        }
        if self.is_queued(QUEUED) && !mutation::is(Mutation::LeaveSilently) {
            self.wake_all();
        }
    }

    /// As [`Self::wake`], by who does not hold the queue.
    #[cold]
    fn wake_all(&self) {
        self.wake(&self.queue.lock());
    }

    /// Wakes all that wait in the queue, since any of them may be free now.
    #[cold]
    fn wake(&self, queue: &Queue) {
        if queue.waiting == 0 {
            return;
        }
        if mutation::is(Mutation::WakeOne) {
            self.released.notify_one();
        } else {
            self.released.notify_all();
        }
    }

    /// How many requests wait now.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.queue.lock().waiting
    }

    /// Whether `request` may be held now: by what came before it, by the short writers' bits, and (a writer's) by the
    /// readers that are counted.
    fn is_free(&self, queue: &Queue, request: &Request) -> bool {
        if !request.exclusive && mutation::is(Mutation::ReadersDoNotWait) {
            return true;
        }
        let mut before = queue.requests.iter().take_while(|r| r.id < request.id);
        let short = if mutation::is(Mutation::IgnoreShort) { 0 } else { u64::MAX };
        let blocks = Blocks::of(request.start, request.end);
        self.words_are_free(blocks, |bits| against(bits & short, request.exclusive))
            && before.all(|r| !r.conflicts(request))
    }

    /// Puts a request into the queue, and says so.
    fn enqueue(&self, start: u64, end: u64, exclusive: bool) -> (MutexGuard<'_, Queue>, Request) {
        let mut queue = self.queue.lock();
        self.queued.fetch_or(if exclusive { QUEUED | QUEUED_WRITER } else { QUEUED }, Ordering::SeqCst);
        let request = Request { id: queue.next, start, end: end.max(start + 1), exclusive };
        queue.next += 1;
        queue.requests.push(request);
        (queue, request)
    }

    #[cold]
    fn acquire(&self, start: u64, end: u64, exclusive: bool, rank: Held) -> RangeGuard<'_> {
        let (mut queue, request) = self.enqueue(start, end, exclusive);
        if !self.is_free(&queue, &request) {
            queue.waiting += 1;
            while !self.is_free(&queue, &request) {
                queue = self.released.wait(queue);
            }
            queue.waiting -= 1;
        }
        self.guard(Hold::Queued(request.id), rank)
    }

    /// The queued request `id` leaves.
    fn remove(&self, mut queue: MutexGuard<'_, Queue>, id: u64) {
        queue.requests.retain(|r| r.id != id);
        let mut gone = 0;
        if queue.requests.is_empty() {
            gone |= QUEUED;
        }
        if !queue.requests.iter().any(|r| r.exclusive) {
            gone |= QUEUED_WRITER;
        }
        self.queued.fetch_and(!gone, Ordering::SeqCst);
        self.wake(&queue);
    }
}

/// What stands in a word against a request for the blocks of `bits`.
#[inline]
fn against(bits: u64, exclusive: bool) -> u64 {
    let readers = if exclusive && !mutation::is(Mutation::IgnoreCounted) { ALL_READERS } else { 0 };
    bits | readers
}

impl Drop for RangeGuard<'_> {
    #[inline]
    fn drop(&mut self) {
        match self.hold {
            Hold::Word(word, what) => self.lock.take_out_of(word, what),
            _ => self.leave(),
        }
    }
}

impl RangeGuard<'_> {
    /// Lets a range go that is held in several words or in the queue.
    #[inline(never)]
    fn leave(&self) {
        match self.hold {
            Hold::Word(word, what) => self.lock.take_out_of(word, what),
            Hold::Counted(blocks) => self.lock.take_out(blocks, blocks.words(), |_| READER),
            Hold::Bits(blocks) => self.lock.take_out(blocks, blocks.words(), |bits| bits),
            Hold::Queued(id) => self.lock.remove(self.lock.queue.lock(), id),
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicI64, Ordering};

    #[test]
    fn overlapping_writers_exclude_each_other_and_disjoint_ones_do_not() {
        let lock = RangeLock::default();
        let cells: Vec<AtomicI64> = (0..8).map(|_| AtomicI64::new(0)).collect();
        std::thread::scope(|scope| {
            for thread in 0..4_u64 {
                let (lock, cells) = (&lock, &cells);
                scope.spawn(move || {
                    for round in 0..2000_u64 {
                        let start = (round * 7 + thread) % 7;
                        let exclusive = !(round + thread).is_multiple_of(3);
                        let _guard = if exclusive {
                            lock.exclusive(start, start + 2)
                        } else {
                            lock.shared(start, start + 2)
                        };
                        for cell in &cells[start as usize..start as usize + 2] {
                            let before = cell.fetch_add(if exclusive { -1000 } else { 1 }, Ordering::SeqCst);
                            assert!(if exclusive { before == 0 } else { before >= 0 }, "{before}");
                        }
                        for cell in &cells[start as usize..start as usize + 2] {
                            cell.fetch_sub(if exclusive { -1000 } else { 1 }, Ordering::SeqCst);
                        }
                    }
                });
            }
        });
        assert!(lock.queue.lock().requests.is_empty());
        let words = lock.words.iter().map(|word| word.0.load(Ordering::SeqCst));
        assert_eq!(words.chain([lock.queued.load(Ordering::SeqCst)]).max(), Some(0));
    }

    #[test]
    fn disjoint_exclusive_ranges_are_held_at_once() {
        let lock = RangeLock::default();
        let _low = lock.exclusive(0, 17 * BLOCK_BYTES);
        let _high = lock.exclusive(17 * BLOCK_BYTES, u64::MAX);
        assert_eq!(lock.queue.lock().requests.len(), 2);
    }
}
