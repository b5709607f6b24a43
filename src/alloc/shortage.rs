//! Does a reservation find no space on purpose, to see that whoever asked says so and left everything as it was?
//!
//! Blocks, whole chunks and slots of metadata are counted as they are asked for, by the calling thread alone. Only simulated
//! builds (feature `sim`) can have one fail; in every other build `strikes` is the constant `false` and costs nothing.

/// Which reservations fail, counted from 0 since [`set`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shortage {
    /// The one with this number.
    At(u64),
    /// That one and all that follow.
    From(u64),
}

#[cfg(feature = "sim")]
std::thread_local! {
    static ACTIVE: std::cell::Cell<Option<Shortage>> = const { std::cell::Cell::new(None) };
    static ASKED: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

/// Has `shortage` strike this thread from now on, or none, and starts to count anew.
#[cfg(feature = "sim")]
pub fn set(shortage: Option<Shortage>) {
    ACTIVE.set(shortage);
    ASKED.set(0);
}

/// How many reservations this thread has asked for since [`set`].
#[cfg(feature = "sim")]
#[must_use]
pub fn asked() -> u64 {
    ASKED.get()
}

/// Counts a reservation; whether it is to find no space.
#[cfg(feature = "sim")]
pub(super) fn strikes() -> bool {
    let number = ASKED.get();
    ASKED.set(number + 1);
    match ACTIVE.get() {
        None => false,
        Some(Shortage::At(at)) => number == at,
        Some(Shortage::From(from)) => number >= from,
    }
}

/// Whether a reservation is to find no space: never, in this build.
#[cfg(not(feature = "sim"))]
#[inline(always)]
pub(super) const fn strikes() -> bool {
    false
}
