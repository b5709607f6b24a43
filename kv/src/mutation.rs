//! Is a rule of the database's protocol switched off, to see that the tests notice?
//!
//! Each variant breaks one rule on purpose. Only builds with the feature `sim` can switch one on, for the calling thread
//! alone; in every other build [`is`] is the constant `false` and costs nothing.

/// A rule that can be broken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Mutation {
    /// K1: a chunk is said to be one of pages before its map is made.
    MapLate,
    /// K3: a change returns without its fence.
    NoFence,
    /// K4: the index names a record before the record is durable.
    IndexFirst,
    /// K5: the ring's tail passes changes whose index entries were not flushed.
    NoWriteBack,
    /// K6: a superseded slot is used again at once.
    ReuseAtOnce,
    /// K7: a tombstone is taken out of the index while rings hold older changes of its key.
    PurgeEarly,
    /// K8: replay takes a record for that of a ring's entry without comparing the sequence numbers.
    AnySequence,
    /// K9: replay lets the later entry win instead of the greater sequence number.
    LastWins,
    /// K10: the records of a batch are applied although some of them are not there.
    PartialBatch,
    /// K11: a split names new segments before they are durable.
    SplitFirst,
    /// K11: the superblock names a directory before it is durable.
    DirectoryFirst,
    /// K11: what a batch found in a segment counts although the batch has split that since.
    KeepSpots,
    /// K12: sequence numbers start again where the last record was found, not at the limit.
    NoLimit,
    /// K13: space is given back while readers look at it.
    IgnorePins,
    /// K16: a snapshot does not wait for the changes that have a number up to its own.
    NoSettle,
    /// K21: the full lines that an entry lies behind are not flushed with its change.
    NoPassedFlush,
    /// K20: a get without a pin does not look at the index again.
    NoSecondLook,
    /// K2: a slot that could not be read is given out although the index names it.
    FreeNamed,
    /// K2: pages are taken for lost although an ordered index links them.
    FreeOrdered,
    /// K2: a slab is given back although not every slot of it is free.
    FreeFull,
    /// K14: the ordered index is not told of new keys.
    NoOrder,
    /// O1, K1: who takes changes into leaves, and leaves it to others to make them durable, does not wait for the pages that he took and wrote.
    NoTakerFence,
    /// K15: a superseded record that the ordered index was told of is not marked.
    NoMark,
    /// K15: the mark is not flushed with its group.
    NoMarkFlush,
    /// K22: nobody counts what is superseded.
    NoCount,
    /// K22: it is counted before it can be seen.
    CountEarly,
    /// K22: a copy of what a leaf was is taken for one of what it is.
    StaleCopy,
    /// K22: a leaf that changes keeps its copy.
    KeepCopy,
    /// K14: notes that were replayed are gone from a ring although the ordered indexes do not have their keys durably.
    ForgetReplayed,
    /// K7: nobody knows of the notes that were replayed that they are in the rings.
    YoungReplayed,
    /// K15: replay does not tell the ordered index of tombstones, nor of the newest record of a key.
    NoRetelling,
    /// K8: replay does not look at the checksum of a record.
    NoRecordCheck,
    /// K2: a slot that was lost is freed although who superseded its record frees it.
    FreeLostTwice,
    /// K2: nobody notes what is taken and given back while lost pages are looked for.
    NoWatch,
    /// K13: a record that is looked at where it lies is held when its reader has left.
    HoldLate,
    /// K13: a record that is held is freed when it is superseded.
    FreeHeld,
    /// K19: a slot that becomes free in a chunk that is being emptied is given out again.
    NotApart,
    /// K19: free slots that were kept apart are not given back where the chunk stays.
    ForgetApart,
    /// K18: a tree that was dropped takes the records of its number for its own.
    NoEnd,
    /// K18: a snapshot shows what a tree's number had before the tree was made.
    NoBegin,
}

#[cfg(feature = "sim")]
std::thread_local! {
    static ACTIVE: std::cell::Cell<Option<Mutation>> = const { std::cell::Cell::new(None) };
}

/// Switches `mutation` on for this thread, or all off.
#[cfg(feature = "sim")]
pub fn set(mutation: Option<Mutation>) {
    ACTIVE.with(|active| active.set(mutation));
}

/// Whether `mutation` is on for this thread.
#[cfg(feature = "sim")]
#[must_use]
pub fn is(mutation: Mutation) -> bool {
    ACTIVE.with(|active| active.get() == Some(mutation))
}

/// Whether `mutation` is on: never, in this build.
#[cfg(not(feature = "sim"))]
#[must_use]
#[inline(always)]
pub const fn is(_: Mutation) -> bool {
    false
}
