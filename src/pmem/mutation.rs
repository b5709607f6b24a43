//! Is a rule of the crash protocol switched off, to see that the tests notice?
//!
//! Each variant breaks one rule on purpose. Only simulated builds (feature `sim`) can switch one on, for the
//! calling thread alone; in every other build [`is`] is the constant `false` and costs nothing.

/// A rule that can be broken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Mutation {
    /// J1: homes are stored before the commit fence.
    Steal,
    /// J2: the data fence is left out.
    NoDataFence,
    /// J4: versions do not grow.
    NoVersion,
    /// J5: a record carries only the first line of each image.
    PartialImage,
    /// J6: ring space is reused although home lines were not flushed.
    NoCover,
    /// J7: arenas become data without a new epoch.
    NoEpochForArenas,
    /// J8: the hash of a record is not looked at.
    NoHash,
    /// J5 and J9: the time of an overwrite in place is stored into the inode object itself.
    StoreInObject,
    /// J10: recovery starts the next epoch before the homes are durable.
    EpochFirst,
    /// J10: recovery leaves out the fence between the homes and the next epoch.
    NoRecoveryFence,
    /// The commit fence is left out.
    NoCommitFence,
    /// An arena is opened without waiting for its zeros.
    NoArenaFence,
    /// The making of a snapshot is not noted.
    SnapshotUnnoted,
    /// A snapshot that is complete is still to be removed.
    SnapshotStaysNoted,
    /// Snapshots in the making are removed before the files in them are done with.
    SnapshotsFirst,
    /// What older programs do not know is not named in the superblock.
    Unannounced,
    /// The two superblocks are written under one fence.
    OneSuperblockFence,
    /// A write into the tail of a file does not zero what lies between the old end and its start.
    NoTailZero,
    /// A file shrinks by freeing blocks in one record and setting the size in a later one.
    FreeBeforeSize,
    /// Extents that meet where blocks were taken out of a file stay two.
    ShiftWithoutJoin,
    /// The intent to move a file's blocks goes with the first record of several.
    ShiftIntentFirst,
    /// A file's blocks move while mappings have translations of them.
    ShiftMapped,
    /// What was stored through mappings to blocks that move is not flushed before.
    ShiftUnflushed,
    /// Queued writes become their files' before their data are there: the order that exposed stale blocks of ext3 and ext4
    /// in 2009.
    ConvertFirst,
    /// A write that ends at the end of the file reserves space beyond it, where somebody else may be writing.
    AheadUnheld,
    /// Queued writes of which a part failed become their files' as a whole.
    ConvertAll,
    /// A thread panics before it copies a part of a queued write.
    PanicInPart,
    /// As that, and the part counts as copied.
    ForgetPart,
    /// A drain waits for what nobody has begun only, not for what is being done.
    DrainWaiting,
    /// A queued write lets its bytes go before it became the file's.
    ReleaseEarly,
    /// A thread of a queue sleeps without looking at the jobs under the lock.
    SleepUnseen,
    /// The last thread of a queue that is awake sleeps where a caller takes work.
    LastSleeps,
    /// A released byte range wakes one waiter only.
    WakeOne,
    /// What a fault reserves around its blocks for the sake of a hint becomes data.
    HintedAsData,
    /// A fault's blocks become the file's without waiting for their zeros.
    NoZeroFence,
    /// Mapped blocks are overwritten while the fault that gave them to the file is still at telling other mappings.
    OverwriteUnsettled,
    /// A writer of a byte range does not wait for the readers that are only counted.
    IgnoreCounted,
    /// A short writer of a byte range goes past the queue although requests are in it.
    OvertakeQueue,
    /// Who leaves a byte range that it held without the queue wakes nobody.
    LeaveSilently,
    /// A queued request for a byte range does not wait for the short writers that are not in the queue.
    IgnoreShort,
    /// A shared byte range is granted whoever holds it.
    ReadersDoNotWait,
    /// Blocks that a change reserved stay reserved when it is given up.
    LeakReserved,
    /// J3: what a change frees can be had before its commit.
    FreeEarly,
    /// A slot is freed in a window that was not made known before.
    FreeUnknownSlot,
    /// J7: a new epoch starts without waiting for the changes under way.
    EpochWithoutLanes,
    /// A change goes on when a rule of recovery or of a last close says the inode is gone.
    NoGoneCheck,
    /// An inode is forgotten after its slot can be given out again.
    ForgetLate,
    /// A new inode is introduced after its name can be found.
    IntroduceLate,
    /// The pins of an inode are not looked at when its last name goes.
    NoPinCheck,
    /// An append goes where the end was before it held it.
    StaleEnd,
    /// Directories are moved without the rename lock.
    NoRenameLock,
    /// Space is reclaimed although changes are under way.
    NoGate,
    /// What is freed can be had although it is pinned.
    IgnorePins,
    /// A block gets another owner that is not counted.
    ShareUncounted,
    /// A block that others own is freed with the first of them.
    FreeShared,
    /// What is stored in place of shared blocks becomes the file's without a fence.
    NoCopyFence,
    /// Blocks are shared while mappings can store to them.
    ShareMapped,
    /// A change does not wait for the writes that came before it and are not durable yet.
    OvertakeGroup,
    /// An ordered overwrite of a part of a block is stored in place.
    OrderedInPlace,
    /// The files of a group become durable one after the other, the last first.
    GroupInTwo,
    /// Who commits a group does not see to what other threads stored.
    NotAdopted,
    /// Blocks that an ordered write takes from a file can be had before the commit.
    ReuseBeforeCommit,
    /// What waited in a file counts as settled before the tree shows it.
    ForgetFirst,
    /// A change of an inode shows the committed size although more waits.
    LosePending,
    /// Blocks are shared while they are overwritten in place.
    SourceUnheld,
    /// The last unpin takes what is withheld in one step and the pin off in a later one.
    UnpinInTwoSteps,
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
