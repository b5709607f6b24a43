//! What can be done to the addresses of a mapping, and who answers their faults?
//!
//! A [`Table`] is the translations of one mapping: each change is one atomic step, so that no store between two
//! of them is lost. A [`Handler`] decides which change a fault gets. Everything here is in bytes from the mapping's start.

use daxstore::Result;
use daxstore::units::PoolOff;
use std::fmt::Debug;

/// How a table's faults come to the handler.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// By userfaultfd, in threads of the handler (mode U).
    Userfault,
    /// By SIGSEGV, in the thread that touched the memory (mode S).
    Signal,
    /// Not at all: everything is mapped beforehand (mode E).
    Eager,
}

/// What became of zeros that were to be installed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Installed {
    /// They are there, or something else is already.
    Done,
    /// The addresses are changing just now: whoever faulted shall try again.
    Again,
}

/// The translations of a mapping. Each call that installs or removes is one atomic step for those who touch the
/// memory at the same time: they see what was there before or what is there after.
pub trait Table: Debug + Send + Sync {
    /// How faults come.
    fn mode(&self) -> Mode;

    /// Translates `len` bytes from `at` to the pool's from `pool`, whatever was there. Multiples of the medium's unit.
    ///
    /// # Errors
    /// The system's; `ENOMEM` where there are too many mappings. What was there before is there still.
    fn block(&self, at: u64, len: u64, pool: PoolOff) -> Result<()>;

    /// Lets the missing parts of `len` bytes from `at` (multiples of 4 KiB) read as zeros: a store faults.
    ///
    /// # Errors
    /// The system's.
    fn zero(&self, at: u64, len: u64) -> Result<Installed>;

    /// Lets the 2 MiB from `at` read as zeros by one translation: a store faults. `false` where the system has none
    /// to give; nothing changed then.
    ///
    /// # Errors
    /// The system's.
    fn zero_huge(&self, at: u64) -> Result<bool>;

    /// Gives the missing 4 KiB at `at` memory of their own with these contents: what stores to a private mapping change, or, if
    /// `guarded`, such that a store faults.
    ///
    /// # Errors
    /// The system's.
    fn copy(&self, at: u64, page: &[u8; 4096], guarded: bool) -> Result<Installed>;

    /// Takes every translation from `len` bytes at `at` away: the next touch faults. Not called by who answers a fault: it can
    /// wait for another fault to be taken up.
    ///
    /// # Errors
    /// The system's; [`daxstore::Error::Unsupported`] in [`Mode::Eager`].
    fn missing(&self, at: u64, len: u64) -> Result<()>;

    /// Lets every touch of `len` bytes from `at` raise SIGBUS.
    ///
    /// # Errors
    /// The system's.
    fn beyond(&self, at: u64, len: u64) -> Result<()>;

    /// Lets those who wait for a fault in `len` bytes from `at` try again.
    fn wake(&self, at: u64, len: u64);
}

/// What a fault is answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// `len` bytes from `at` are settled; whoever waits there tries again (and may get SIGBUS from what was installed).
    Wake {
        /// The first byte.
        at: u64,
        /// How many.
        len: u64,
    },
    /// Somebody has the turn of these bytes, and wakes those who wait when it is over.
    Wait,
    /// The mapping does not allow such a touch: it is the toucher's own fault (a store into read-only memory).
    Forbidden,
}

/// Who answers the faults of a mapping.
pub trait Handler: Debug + Send + Sync {
    /// Answers a touch of the byte `at`. Messages may be late or doubled: the answer goes by what is true now. With
    /// `may_wait` it waits for others' turns (the caller is the thread that touched the memory) and does not answer
    /// [`Answer::Wait`]; without, it never waits for one.
    fn fault(&self, at: u64, write: bool, may_wait: bool) -> Answer;

    /// Does what is due and may take long: zeroes chunks ahead, gives translations up where there are too many. Called by a
    /// thread of its own, some time after [`Self::wants_tending`] became true.
    fn tend(&self);

    /// Whether there is something to [`Self::tend`] to. Looked at after each fault.
    fn wants_tending(&self) -> bool;
}
