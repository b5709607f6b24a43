//! Which threads and locks does everything run on?
//!
//! The one std-or-loom shim, chosen by `cfg(loom)` alone. Every module takes its locks, atomics and threads
//! from here, so that a loom model runs the very code that ships. Locks do not carry std's poison: a store
//! that must not go on is poisoned as a whole, by `journal`, with the reason.

pub mod channel;
pub mod rank;

#[cfg(not(loom))]
mod imp {
    pub use std::sync::{Arc, MutexGuard, RwLockReadGuard, RwLockWriteGuard, Weak, atomic};
    pub(crate) use std::sync::{Condvar as RawCondvar, Mutex as RawMutex, RwLock as RawRwLock};
    pub use std::{thread, thread_local};
}

#[cfg(loom)]
mod imp {
    pub(crate) use loom::sync::{Condvar as RawCondvar, Mutex as RawMutex, RwLock as RawRwLock};
    pub use loom::sync::{MutexGuard, RwLockReadGuard, RwLockWriteGuard, atomic};
    pub use loom::{thread, thread_local};
    // loom's Arc has no Weak and no unsized coercion; reference counts themselves are std's to prove.
    pub use std::sync::{Arc, Weak};
}

pub use imp::*;
use std::sync::PoisonError;

/// Loom takes `SeqCst` accesses for acquire and release only; a fence tells it of their order.
#[inline(always)]
pub(crate) fn in_one_order() {
    #[cfg(loom)]
    atomic::fence(atomic::Ordering::SeqCst);
}

/// Looks up to `times` times, a short while apart, whether something that another thread does has happened. Loom's
/// threads never run at once: there, nothing is looked at.
#[inline]
pub(crate) fn spin(times: u32, happened: impl Fn() -> bool) {
    if cfg!(not(loom)) {
        (0..times).take_while(|_| !happened()).for_each(|_| std::hint::spin_loop());
    }
}

/// How many threads can run at once, as far as the system tells: as many as a model needs, under loom.
pub(crate) fn processors() -> usize {
    static PROCESSORS: std::sync::OnceLock<usize> = std::sync::OnceLock::new();
    if cfg!(loom) {
        return 2;
    }
    *PROCESSORS.get_or_init(|| std::thread::available_parallelism().map_or(1, usize::from))
}

/// A mutual exclusion lock without poison.
#[derive(Debug, Default)]
pub struct Mutex<T>(RawMutex<T>);

impl<T> Mutex<T> {
    /// A lock that holds `value`.
    pub fn new(value: T) -> Self {
        Self(RawMutex::new(value))
    }

    /// Waits for the lock.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lock if nobody holds it.
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        match self.0.try_lock() {
            Ok(guard) => Some(guard),
            Err(std::sync::TryLockError::Poisoned(e)) => Some(e.into_inner()),
            Err(std::sync::TryLockError::WouldBlock) => None,
        }
    }
}

/// A mutual exclusion lock without poison that loom does not see: for instruments that watch a protocol and are no
/// part of it. Nothing that loom sees may happen while it is held.
#[cfg(feature = "sim")]
#[derive(Debug, Default)]
pub(crate) struct Instrument<T>(std::sync::Mutex<T>);

#[cfg(feature = "sim")]
impl<T> Instrument<T> {
    /// Waits for the lock.
    pub(crate) fn lock(&self) -> std::sync::MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A lock for many readers or one writer, without poison.
#[derive(Debug, Default)]
pub struct RwLock<T>(RawRwLock<T>);

impl<T> RwLock<T> {
    /// A lock that holds `value`.
    pub fn new(value: T) -> Self {
        Self(RawRwLock::new(value))
    }

    /// Waits for a shared hold.
    pub fn read(&self) -> RwLockReadGuard<'_, T> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the exclusive hold.
    pub fn write(&self) -> RwLockWriteGuard<'_, T> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A condition variable without poison.
#[derive(Debug, Default)]
pub struct Condvar(RawCondvar);

impl Condvar {
    /// A condition variable.
    #[must_use]
    pub fn new() -> Self {
        Self(RawCondvar::new())
    }

    /// Gives the lock up, waits to be woken, and takes it again.
    pub fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        self.0.wait(guard).unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes one waiter.
    pub fn notify_one(&self) {
        self.0.notify_one();
    }

    /// Wakes every waiter.
    pub fn notify_all(&self) {
        self.0.notify_all();
    }
}
