//! How is memory of the process asked for before it is read?
//!
//! Invariant: nothing that a program sees depends on it.

/// Asks for the line that `what` begins in.
#[inline]
pub fn line_of<T: ?Sized>(what: &T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch reads nothing that a program sees, and faults nowhere.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(what).cast::<i8>()) }
    }
}

/// Asks for the lines of `bytes`.
#[inline]
pub fn lines_of(bytes: &[u8]) {
    // Each line that they touch holds the first byte of one of these, or the last.
    bytes.iter().step_by(64).for_each(line_of);
    if let Some(last) = bytes.last() {
        line_of(last);
    }
}
