//! Which types may a mapping lend references of?
//!
//! Only such as anybody may store to at any time without a data race: the atomics, at their alignment. All bit patterns
//! are values of them. Other processes, devices and system calls may store too; what they leave is some value.

use std::sync::atomic::{
    AtomicI8, AtomicI16, AtomicI32, AtomicI64, AtomicIsize, AtomicU8, AtomicU16, AtomicU32, AtomicU64,
    AtomicUsize,
};

mod sealed {
    pub trait Sealed {}
}

/// An atomic integer. One place is to be used through one of these types: two threads that use it by atomics of
/// different sizes at once get what the processor makes of it.
pub trait Atomic: sealed::Sealed + Sync {}

macro_rules! atomics {
    ($($name:ty)*) => {$(
        impl sealed::Sealed for $name {}
        impl Atomic for $name {}
    )*};
}

atomics!(AtomicI8 AtomicI16 AtomicI32 AtomicI64 AtomicIsize AtomicU8 AtomicU16 AtomicU32 AtomicU64 AtomicUsize);
