//! Which contents may the memory have after a power cut at this point of the trace?
//!
//! [`Replay`] walks a trace over a scratch copy of the memory as it was when the trace began, and stops where a
//! crash is worth enumerating: before every fence, at every return of an operation, and at the end. (What may be
//! lost between two fences is largest just before the second.) The scratch copy holds what is certainly durable;
//! what else may have become durable is [`Replay::pending`], and `images` makes images of it.
//!
//! Invariants:
//! 1. The unit of tearing is the aligned 8-byte word: a shorter store changes a part of one, a longer one several.
//! 2. A word is durable up to the value it had when a thread flushed its line, or stored it non-temporally, once the
//!    same thread has fenced afterwards. A fence of another thread promises nothing.
//! 3. Any later value of a word may be durable too: a cache line may be evicted at any time.
//! 4. The work is proportional to the events and the pending words, never to the size of the memory.

pub use super::images::{Images, Mode, Pending, Plan};

use super::{Event, Sim, Trace};
use crate::units::{LINE_BYTES, PoolOff};
use std::collections::BTreeMap;

/// Words in a line.
pub(super) const LINE_WORDS: usize = (LINE_BYTES / 8) as usize;

/// One store to one word.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stored {
    sequence: u64,
    /// The word in its line.
    pub(super) word: u8,
    /// What it holds from then on.
    pub(super) value: u64,
}

/// A line with stores that are not certainly durable.
#[derive(Clone, Debug)]
pub(super) struct Line {
    /// What a load returns.
    visible: [u64; LINE_WORDS],
    /// In the order of the trace; never empty.
    pub(super) stores: Vec<Stored>,
}

/// A promise that a fence makes good: these words are durable up to this store.
#[derive(Clone, Copy, Debug)]
struct Flushed {
    thread: usize,
    line: u64,
    /// A bit per word.
    words: u8,
    sequence: u64,
}

/// Why a crash is enumerated here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// This thread is about to fence.
    Fence {
        /// The thread's number.
        thread: usize,
    },
    /// The operation with this number just returned.
    Return(u64),
    /// The trace is over.
    End,
}

/// A point at which a crash is enumerated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stop {
    /// How many events of the trace lie before it.
    pub event: usize,
    /// Why.
    pub cause: Cause,
    /// The operations that began and did not return.
    pub in_flight: Vec<u64>,
    /// The operation that returned last.
    pub returned: Option<u64>,
}

/// A walk along a trace.
#[derive(Debug)]
pub struct Replay<'a> {
    scratch: &'a Sim,
    trace: &'a Trace,
    next: usize,
    sequence: u64,
    lines: BTreeMap<u64, Line>,
    flushed: Vec<Flushed>,
    in_flight: Vec<u64>,
    returned: Option<u64>,
    fence_due: Option<usize>,
    over: bool,
}

impl<'a> Replay<'a> {
    /// A walk along `trace`. `scratch` holds what the traced memory held when the trace began, all of it durable.
    ///
    /// The walk stores to `scratch` what became durable. Whoever applies images to it rolls them back before the
    /// next step: `start_undo` (or a savepoint), apply, use, roll back.
    #[must_use]
    pub fn new(scratch: &'a Sim, trace: &'a Trace) -> Self {
        Self {
            scratch,
            trace,
            next: 0,
            sequence: 0,
            lines: BTreeMap::new(),
            flushed: Vec::new(),
            in_flight: Vec::new(),
            returned: None,
            fence_due: None,
            over: false,
        }
    }

    /// Goes to the next point; `None` after the end of the trace.
    pub fn advance(&mut self) -> Option<Stop> {
        if let Some(thread) = self.fence_due.take() {
            self.fence(thread);
        }
        while let Some(event) = self.trace.events.get(self.next).copied() {
            let stop = self.step(event);
            self.next += 1;
            if let Some(cause) = stop {
                return Some(self.stop(cause));
            }
        }
        let first = !std::mem::replace(&mut self.over, true);
        first.then(|| self.stop(Cause::End))
    }

    fn stop(&self, cause: Cause) -> Stop {
        let event = self.next - usize::from(self.fence_due.is_some());
        Stop { event, cause, in_flight: self.in_flight.clone(), returned: self.returned }
    }

    fn step(&mut self, event: Event) -> Option<Cause> {
        match event {
            Event::Store { thread, at, len, data, nt } => self.store(thread, at, len as usize, data, nt),
            Event::Flush { thread, at, len } => {
                for line in at / LINE_BYTES..(at + len).div_ceil(LINE_BYTES) {
                    self.promise(thread, line, u8::MAX);
                }
            }
            Event::Fence { thread } => {
                self.fence_due = Some(thread);
                return Some(Cause::Fence { thread });
            }
            Event::Begin(op) => self.in_flight.push(op),
            Event::Return(op) => {
                self.in_flight.retain(|other| *other != op);
                self.returned = Some(op);
                return Some(Cause::Return(op));
            }
        }
        None
    }

    fn promise(&mut self, thread: usize, line: u64, words: u8) {
        if self.lines.contains_key(&line) {
            self.flushed.push(Flushed { thread, line, words, sequence: self.sequence });
        }
    }

    fn store(&mut self, thread: usize, at: u64, len: usize, data: usize, nt: bool) {
        let bytes = self.trace.data.get(data..data + len).unwrap_or_default();
        let end = at + bytes.len() as u64;
        let mut from = at;
        while from < end {
            let line = from / LINE_BYTES;
            let to = end.min((line + 1) * LINE_BYTES);
            let part = &bytes[(from - at) as usize..(to - at) as usize];
            let words = self.store_in_line(line, (from % LINE_BYTES) as usize, part);
            if nt {
                self.promise(thread, line, words);
            }
            from = to;
        }
    }

    /// Stores `part` at byte `from` of a line; returns the bits of the words it touched.
    fn store_in_line(&mut self, number: u64, from: usize, part: &[u8]) -> u8 {
        let known = self.lines.get_mut(&number);
        let before = known.as_ref().map_or_else(|| durable(self.scratch, number), |line| line.visible);
        let mut bytes = to_bytes(&before);
        bytes[from..from + part.len()].copy_from_slice(part);
        let after = to_words(&bytes);
        let mut stores = Vec::new();
        let touched = from / 8..(from + part.len()).div_ceil(8);
        for word in touched.clone() {
            if before[word] != after[word] {
                self.sequence += 1;
                stores.push(Stored { sequence: self.sequence, word: word as u8, value: after[word] });
            }
        }
        match known {
            Some(line) => {
                line.visible = after;
                line.stores.append(&mut stores);
            }
            None if stores.is_empty() => {}
            None => {
                self.lines.insert(number, Line { visible: after, stores });
            }
        }
        touched.fold(0, |bits, word| bits | 1 << word)
    }

    /// Makes durable what the thread flushed or stored non-temporally before.
    fn fence(&mut self, thread: usize) {
        let mut kept = std::mem::take(&mut self.flushed);
        for promise in kept.extract_if(.., |promise| promise.thread == thread) {
            let Some(line) = self.lines.get_mut(&promise.line) else { continue };
            let mut words = durable(self.scratch, promise.line);
            line.stores.retain(|stored| {
                let holds = stored.sequence <= promise.sequence && promise.words >> stored.word & 1 != 0;
                if holds {
                    words[usize::from(stored.word)] = stored.value;
                }
                !holds
            });
            if line.stores.is_empty() {
                self.lines.remove(&promise.line);
            }
            self.scratch.poke(PoolOff(promise.line * LINE_BYTES), &to_bytes(&words));
        }
        self.flushed = kept;
    }

    /// What may be durable here beyond what is certain.
    #[must_use]
    pub fn pending(&self, mode: Mode) -> Pending {
        let mut pending = Pending::new(mode);
        for (number, line) in &self.lines {
            pending.add_line(*number, &durable(self.scratch, *number), &line.stores);
        }
        pending
    }
}

/// What a second crash, during the recovery of an image, was enumerated over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Nested {
    /// Points of the recovery.
    pub points: u64,
    /// Images.
    pub images: u64,
}

/// Crashes the recovery of the image that `scratch` holds, and recovers again.
///
/// `recover(None)` must recover the memory as it finds it; then `recover(Some((stop, image)))` is called for every
/// image that a crash within that recovery leaves. `scratch` must keep an undo log; on return it holds what it held.
///
/// # Errors
/// The first error of `recover`.
pub fn crash_recovery<E>(
    scratch: &Sim,
    plan: &Plan,
    mut recover: impl FnMut(Option<(&Stop, u64)>) -> Result<(), E>,
) -> Result<Nested, E> {
    let outer = scratch.savepoint();
    scratch.start_trace();
    let first = recover(None);
    let trace = scratch.take_trace();
    scratch.roll_back_to(outer);
    first?;
    let mut counts = Nested::default();
    let mut replay = Replay::new(scratch, &trace);
    while let Some(stop) = replay.advance() {
        counts.points += 1;
        let pending = replay.pending(plan.mode);
        let mut images = pending.images(plan, stop.event as u64);
        while let Some(words) = images.next_image() {
            let inner = scratch.savepoint();
            scratch.poke_words(words);
            let again = recover(Some((&stop, counts.images)));
            scratch.roll_back_to(inner);
            if again.is_err() {
                scratch.roll_back_to(outer);
            }
            again?;
            counts.images += 1;
        }
    }
    scratch.roll_back_to(outer);
    Ok(counts)
}

fn durable(scratch: &Sim, line: u64) -> [u64; LINE_WORDS] {
    let mut bytes = [0; LINE_BYTES as usize];
    scratch.peek(PoolOff(line * LINE_BYTES), &mut bytes);
    to_words(&bytes)
}

fn to_words(bytes: &[u8; LINE_BYTES as usize]) -> [u64; LINE_WORDS] {
    let (words, _) = bytes.as_chunks::<8>();
    std::array::from_fn(|i| u64::from_le_bytes(words[i]))
}

fn to_bytes(words: &[u64; LINE_WORDS]) -> [u8; LINE_BYTES as usize] {
    let mut bytes = [0; LINE_BYTES as usize];
    for (chunk, word) in bytes.chunks_exact_mut(8).zip(words) {
        chunk.copy_from_slice(&word.to_le_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    const ALL: Plan = Plan { mode: Mode::Words, exhaustive: u64::MAX, singles: 0, samples: 0, seed: 1 };
    const IN_ORDER: Plan = Plan { mode: Mode::InOrder, ..ALL };

    #[derive(Default)]
    struct Script(Trace);

    impl Script {
        fn put(mut self, thread: usize, at: u64, bytes: &[u8], nt: bool) -> Self {
            let (data, len) = (self.0.data.len(), bytes.len() as u64);
            self.0.data.extend_from_slice(bytes);
            self.0.events.push(Event::Store { thread, at, len, data, nt });
            self
        }
        fn store(self, at: u64, value: u64) -> Self {
            self.put(0, at, &value.to_le_bytes(), false)
        }
        fn nt(self, at: u64, value: u64) -> Self {
            self.put(0, at, &value.to_le_bytes(), true)
        }
        fn event(mut self, event: Event) -> Self {
            self.0.events.push(event);
            self
        }
        fn flush(self, at: u64) -> Self {
            self.event(Event::Flush { thread: 0, at, len: 8 })
        }
        fn fence(self) -> Self {
            self.event(Event::Fence { thread: 0 })
        }
    }

    type Contents = BTreeSet<Vec<u64>>;

    /// At every point, the contents that the words at `at` may have.
    fn contents(script: &Script, plan: &Plan, at: &[u64]) -> Vec<(Cause, Contents)> {
        let sim = Sim::new(4096).unwrap();
        sim.start_undo();
        let mut replay = Replay::new(&sim, &script.0);
        let mut points = Vec::new();
        while let Some(stop) = replay.advance() {
            let pending = replay.pending(plan.mode);
            let mut images = pending.images(plan, stop.event as u64);
            let mut found = Contents::new();
            while let Some(words) = images.next_image() {
                let savepoint = sim.savepoint();
                sim.poke_words(words);
                let word = |at: &u64| sim.memory().load(PoolOff(*at));
                assert!(found.insert(at.iter().map(word).collect()), "an image came twice");
                sim.roll_back_to(savepoint);
            }
            points.push((stop.cause, found));
        }
        points
    }

    fn set<const N: usize, const W: usize>(contents: [[u64; W]; N]) -> Contents {
        contents.map(Vec::from).into()
    }

    const FENCE: Cause = Cause::Fence { thread: 0 };

    #[test]
    fn words_are_durable_after_flush_and_fence_only() {
        let script = Script::default().store(0, 1).store(8, 2).fence().flush(0).store(0, 3).fence();
        let expected = [
            (FENCE, set([[0, 0], [1, 0], [0, 2], [1, 2]])),
            (FENCE, set([[0, 0], [1, 0], [3, 0], [0, 2], [1, 2], [3, 2]])),
            (Cause::End, set([[1, 2], [3, 2]])),
        ];
        assert_eq!(contents(&script, &ALL, &[0, 8]), expected);
    }

    #[test]
    fn a_flush_covers_the_line_and_a_non_temporal_store_its_words() {
        let script = Script::default().store(0, 1).nt(8, 2).store(64, 3).fence();
        let after = (Cause::End, set([[0, 2, 0], [1, 2, 0], [0, 2, 3], [1, 2, 3]]));
        assert_eq!(contents(&script, &ALL, &[0, 8, 64])[1], after);
        let script = Script::default().store(0, 1).nt(8, 2).store(64, 3).flush(56).fence();
        let after = (Cause::End, set([[1, 2, 0], [1, 2, 3]]));
        assert_eq!(contents(&script, &ALL, &[0, 8, 64])[1], after);
    }

    #[test]
    fn a_fence_promises_nothing_to_another_thread() {
        let script = Script::default().store(0, 1).flush(0).put(7, 64, &[2], true);
        let fence = Event::Fence { thread: 7 };
        let points = contents(&script.event(fence).fence(), &ALL, &[0, 64]);
        assert_eq!(points[0], (Cause::Fence { thread: 7 }, set([[0, 0], [1, 0], [0, 2], [1, 2]])));
        assert_eq!(points[1], (FENCE, set([[0, 2], [1, 2]])));
        assert_eq!(points[2], (Cause::End, set([[1, 2]])));
    }

    #[test]
    fn a_flush_covers_the_stores_of_other_threads_before_it_and_none_after() {
        let script = Script::default().put(3, 0, &[1], false).flush(0).put(3, 0, &[2], false).fence();
        assert_eq!(contents(&script, &ALL, &[0])[1], (Cause::End, set([[1], [2]])));
    }

    #[test]
    fn parts_of_words_are_never_torn_within_the_word() {
        let script = Script::default().store(0, 0x1111).nt(8, 0x2222).flush(0).fence();
        let script = script.put(0, 6, &[0xaa, 0xbb, 0xcc, 0xdd], false);
        let (low, high) = (0xbbaa_0000_0000_1111, 0xddcc);
        let at_end = set([[0x1111, 0x2222], [low, 0x2222], [0x1111, high], [low, high]]);
        assert_eq!(contents(&script, &ALL, &[0, 8])[1], (Cause::End, at_end));
    }

    #[test]
    fn in_order_takes_prefixes_of_each_line() {
        let script = Script::default().store(8, 1).store(64, 5).store(0, 2).store(8, 3);
        let prefixes = [[0, 0], [0, 1], [2, 1], [2, 3]];
        let both = prefixes.iter().flat_map(|[a, b]| [vec![*a, *b, 0], vec![*a, *b, 5]]).collect();
        assert_eq!(contents(&script, &IN_ORDER, &[0, 8, 64]), [(Cause::End, both)]);
    }

    #[test]
    fn values_that_come_back_count_once() {
        let script = Script::default().store(0, 1).store(0, 0).store(0, 1).store(0, 0).store(8, 0);
        assert_eq!(contents(&script, &ALL, &[0]), [(Cause::End, set([[0], [1]]))]);
        assert_eq!(contents(&script, &IN_ORDER, &[0]), [(Cause::End, set([[0], [1]]))]);
    }

    #[test]
    fn a_missing_fence_makes_more_images() {
        // Data, fence, flag, fence: the flag is never seen without the data; without the first fence it is.
        let good = Script::default().nt(0, 1).fence().nt(64, 1).fence();
        let bad = Script::default().nt(0, 1).nt(64, 1).fence();
        let seen = |script| -> Contents {
            contents(script, &ALL, &[0, 64]).into_iter().flat_map(|(_, contents)| contents).collect()
        };
        assert_eq!(seen(&good), set([[0, 0], [1, 0], [1, 1]]));
        assert_eq!(seen(&bad), set([[0, 0], [1, 0], [0, 1], [1, 1]]));
    }

    #[test]
    fn marks_tell_what_was_in_flight() {
        let script = Script::default().event(Event::Begin(4)).nt(0, 1).fence().event(Event::Return(4));
        let sim = Sim::new(4096).unwrap();
        let mut replay = Replay::new(&sim, &script.0);
        let stops: Vec<_> = std::iter::from_fn(|| replay.advance()).collect();
        assert_eq!(stops[0], Stop { event: 2, cause: FENCE, in_flight: vec![4], returned: None });
        let returned = Stop { event: 4, cause: Cause::Return(4), in_flight: vec![], returned: Some(4) };
        assert_eq!(stops[1], returned);
        assert_eq!(stops[2], Stop { cause: Cause::End, ..returned });
        assert_eq!(stops.len(), 3);
    }

    #[test]
    fn a_large_point_is_sampled_with_the_lone_words_and_the_lone_gaps() {
        let mut script = Script::default();
        let words: Vec<u64> = (0..40).map(|i| i * 24).collect();
        for at in &words {
            script = script.store(*at, at + 1);
        }
        let plan = Plan { exhaustive: 1000, singles: 100, samples: 50, ..ALL };
        let (_, found) = contents(&script, &plan, &words).remove(0);
        let all: Vec<u64> = words.iter().map(|at| at + 1).collect();
        for lone in 0..40 {
            let (mut only, mut but) = (vec![0; 40], all.clone());
            (only[lone], but[lone]) = (all[lone], 0);
            assert!(found.contains(&only) && found.contains(&but), "word {lone}");
        }
        assert!(found.contains(&vec![0; 40]) && found.contains(&all));
        let (lines_and_words, samples) = (2 + 80 + 2 * 15, 50);
        assert!((lines_and_words - 10..=lines_and_words + samples).contains(&found.len()), "{}", found.len());
        assert_eq!(contents(&script, &plan, &words)[0].1, found, "the same plan gives the same images");
        let other = contents(&script, &Plan { seed: 2, ..plan }, &words).remove(0).1;
        assert_ne!(other, found, "another seed gives other samples");
    }

    /// Recovery as a journal does it: the log word at 0 names a value for the homes at 64 and 128.
    fn recover(sim: &Sim, fence_before_clear: bool) -> (u64, u64) {
        let load = |at| sim.memory().load(PoolOff(at));
        let value = load(0);
        if value != 0 {
            sim.store(PoolOff(64), &value.to_le_bytes(), true);
            sim.store(PoolOff(128), &value.to_le_bytes(), true);
            if fence_before_clear {
                sim.fence();
            }
            sim.store(PoolOff(0), &[0; 8], true);
            sim.fence();
        }
        (load(64), load(128))
    }

    #[test]
    fn a_crash_in_recovery_finds_the_recovery_that_forgets_too_early() {
        let run = |good: bool| {
            let sim = Sim::new(4096).unwrap();
            sim.start_undo();
            sim.poke_words(&[(0, 9), (64, 9)]);
            let digest = sim.digest();
            let result = crash_recovery(&sim, &ALL, |_| match recover(&sim, good) {
                (9, 9) => Ok(()),
                other => Err(other),
            });
            assert_eq!(sim.digest(), digest, "the image is as it was");
            result
        };
        assert_eq!(run(true), Ok(Nested { points: 3, images: 5 }));
        assert_eq!(run(false), Err((9, 0)));
    }
}
