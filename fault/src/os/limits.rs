//! How many mappings may the process have, and how are addresses filled before they are touched?

use crate::budget::Budget;
use daxstore::sync::Arc;
use daxstore::{Error, Result};
use std::io;
use std::sync::OnceLock;

/// The system's limit where it does not tell (the kernel's default).
const DEFAULT: usize = 65_530;

fn limit() -> usize {
    let told = std::fs::read_to_string("/proc/sys/vm/max_map_count").ok();
    let limit = told.and_then(|text| text.trim().parse().ok()).unwrap_or(DEFAULT);
    // The rest is for the process: threads, its allocator, its libraries.
    limit / 5 * 4
}

/// What the views of this process share.
pub(crate) fn budget() -> Arc<Budget> {
    static BUDGET: OnceLock<Arc<Budget>> = OnceLock::new();
    BUDGET.get_or_init(|| Budget::new(limit())).clone()
}

/// Has the system fill its tables for `len` bytes from the page at `start`, for loads or stores. Does nothing where the system can
/// not (before Linux 5.14): the touches do it then.
///
/// # Errors
/// The system's, such as `EFAULT` where a touch would raise SIGBUS.
pub(crate) fn populate(start: usize, len: u64, write: bool) -> Result<()> {
    let advice = if write { libc::MADV_POPULATE_WRITE } else { libc::MADV_POPULATE_READ };
    loop {
        // SAFETY: the addresses are of a mapping that the caller keeps; the advice changes no contents.
        let done =
            unsafe { libc::madvise(std::ptr::with_exposed_provenance_mut(start), len as usize, advice) };
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            _ if done == 0 => return Ok(()),
            Some(libc::EINVAL) => return Ok(()),
            Some(libc::EINTR | libc::EAGAIN) => {}
            _ => return Err(Error::io("filling the tables of a mapping", error)),
        }
    }
}
