//! Is a rule of the ordered index switched off, to see that the tests notice?
//!
//! As the root crate's `pmem::mutation`: only builds of tests and with `sim` can switch one on, for the calling thread.

/// A rule that can be broken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mutation {
    /// O1: the record is written without waiting for the pages it links.
    NoPageFence,
    /// O2: words are stored without waiting for their record.
    NoRecordFence,
    /// O3: pages are free with the record that gives them up.
    FreeEarly,
    /// O3: recovery leaves the records it has replayed.
    KeepRecords,
    /// O4: recovery replays the younger record first.
    YoungerFirst,
    /// O5: the hash of an appended entry is not looked at.
    NoEntrySum,
    /// O6: what was appended is not flushed.
    NoFlush,
    /// O7: the words of the record before are not made durable before its area is used again.
    NoWordFlush,
    /// O8: a torn tail is appended to.
    AppendToTorn,
    /// O9: who finds his key outside of the group that the top named does not ask again.
    NoRetry,
    /// O2: the group that was merged into its neighbour stays linked.
    KeepUpper,
    /// O10: changes do not count as waiting while they are taken into the leaves.
    SettleEarly,
}

#[cfg(any(test, feature = "sim"))]
std::thread_local! {
    static ACTIVE: std::cell::Cell<Option<Mutation>> = const { std::cell::Cell::new(None) };
}

/// Switches `mutation` on for this thread, or all off.
#[cfg(any(test, feature = "sim"))]
pub fn set(mutation: Option<Mutation>) {
    ACTIVE.with(|active| active.set(mutation));
}

/// Whether `mutation` is on for this thread.
#[cfg(any(test, feature = "sim"))]
pub(super) fn is(mutation: Mutation) -> bool {
    ACTIVE.with(|active| active.get() == Some(mutation))
}

/// Whether `mutation` is on: never, in this build.
#[cfg(not(any(test, feature = "sim")))]
#[inline(always)]
pub(super) const fn is(_: Mutation) -> bool {
    false
}
