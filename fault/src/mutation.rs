//! Is a rule of the fault handler switched off, to see that the tests notice?
//!
//! Each variant breaks one rule on purpose. Only builds with the feature `mutations` can switch one on, for the
//! calling thread alone; in every other build [`is`] is the constant `false` and costs nothing.

/// A rule that can be broken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Mutation {
    /// A fault that finds a conflict does not tell whoever has the turn.
    DropSilently,
    /// Those who were dropped are woken before the turn is over.
    WakeEarly,
    /// A turn that allocates becomes one that invalidates while loads are being answered in it.
    UpgradeAtOnce,
    /// The loads of whoever copies wait behind a turn that waits for the end of the copy.
    WaitersFirst,
    /// The turn of a fault is that of its page.
    TurnOfPage,
    /// A fault gives its turn back before it installs what it found.
    InstallLate,
    /// The zeros of other mappings stay where a store got a block.
    KeepZeros,
    /// The extent around a fault is mapped without the turn of what lies outside of its slot.
    MapBeyondTurn,
    /// What is installed is recorded after it can be stored to.
    RecordLate,
    /// A sync forgets that something is to be flushed before it is durable.
    ClearFirst,
    /// A sync flushes what can still be stored to.
    FlushFirst,
    /// What other files own too can be stored to.
    StoreShared,
    /// What an invalidation takes away is not flushed by the next sync.
    ForgetDirty,
    /// What was stored to blocks that move in the file is not flushed before.
    MoveUnflushed,
    /// A mapping's address is a page away from what is congruent to the file offset.
    Askew,
    /// A mapping is not registered with userfaultfd.
    Unregistered,
}

#[cfg(feature = "mutations")]
std::thread_local! {
    static ACTIVE: std::cell::Cell<Option<Mutation>> = const { std::cell::Cell::new(None) };
}

/// Switches `mutation` on for this thread, or all off.
#[cfg(feature = "mutations")]
pub fn set(mutation: Option<Mutation>) {
    ACTIVE.with(|active| active.set(mutation));
}

/// Whether `mutation` is on for this thread.
#[cfg(feature = "mutations")]
#[must_use]
pub fn is(mutation: Mutation) -> bool {
    ACTIVE.with(|active| active.get() == Some(mutation))
}

/// Whether `mutation` is on: never, in this build.
#[cfg(not(feature = "mutations"))]
#[must_use]
#[inline(always)]
pub const fn is(_: Mutation) -> bool {
    false
}
