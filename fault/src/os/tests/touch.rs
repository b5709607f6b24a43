//! How does a test touch memory that anybody may store to, change and take away?
//!
//! Every address that comes here is inside of a mapping that the test made and keeps, or is meant to kill the process of the test.

use std::fs::File;
use std::os::fd::AsRawFd;

/// Loads the word at `address`.
pub(super) fn load(address: usize) -> u64 {
    // SAFETY: see the top; volatile, so that it happens, and as a raw access it assumes nothing of others' stores.
    unsafe { (address as *const u64).read_volatile() }
}

/// Stores to the word at `address`.
pub(super) fn store(address: usize, value: u64) {
    // SAFETY: as in `load`.
    unsafe { (address as *mut u64).write_volatile(value) };
}

fn told(result: i64) -> Result<i64, i32> {
    if result >= 0 { Ok(result) } else { Err(std::io::Error::last_os_error().raw_os_error().unwrap()) }
}

/// `pread(2)` into the memory at `address`; an errno where it fails.
pub(super) fn pread(file: &File, address: usize, len: usize, offset: i64) -> Result<i64, i32> {
    // SAFETY: the kernel checks the addresses.
    told(unsafe { libc::pread(file.as_raw_fd(), address as *mut _, len, offset) } as i64)
}

/// `pwrite(2)` from the memory at `address`; an errno where it fails.
pub(super) fn pwrite(file: &File, address: usize, len: usize, offset: i64) -> Result<i64, i32> {
    // SAFETY: the kernel checks the addresses.
    told(unsafe { libc::pwrite(file.as_raw_fd(), address as *const _, len, offset) } as i64)
}

/// `madvise(2)`.
pub(super) fn madvise(address: usize, len: usize, advice: i32) {
    // SAFETY: see the top.
    assert_eq!(unsafe { libc::madvise(address as *mut _, len, advice) }, 0);
}

/// `munmap(2)`.
pub(super) fn munmap(address: usize, len: usize) {
    // SAFETY: see the top.
    assert_eq!(unsafe { libc::munmap(address as *mut _, len) }, 0);
}

/// `mremap(2)` to wherever the kernel likes.
pub(super) fn mremap(address: usize, len: usize) {
    let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_DONTUNMAP;
    // SAFETY: see the top; with a flag to keep the source, the kernel must move it.
    let to = unsafe { libc::mremap(address as *mut _, len, len, flags, std::ptr::null_mut::<u8>()) };
    assert_ne!(to, libc::MAP_FAILED);
}

/// Whether all of `len` bytes from `address` are mapped.
pub(super) fn is_mapped(address: usize, len: usize) -> bool {
    // SAFETY: the call only looks.
    unsafe { libc::msync(address as *mut _, len, libc::MS_ASYNC) == 0 }
}

/// What `body` says in a forked child, which must not take locks of other threads.
pub(super) fn forked(body: impl FnOnce() -> bool) -> bool {
    // SAFETY: the child calls `body` and ends without running anything of the parent's.
    unsafe {
        match libc::fork() {
            0 => libc::_exit(if body() { 7 } else { 8 }),
            child => {
                let mut status = 0;
                assert_eq!(libc::waitpid(child, &raw mut status, 0), child);
                libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 7
            }
        }
    }
}

/// Takes SIGSEGV over, as another runtime would.
pub(super) fn take_over_sigsegv() {
    // SAFETY: the default action needs no function.
    unsafe { libc::signal(libc::SIGSEGV, libc::SIG_DFL) };
}

/// Has SIGALRM interrupt this process 10000 times a second from now on.
pub(super) fn storm_of_signals() {
    extern "C" fn nothing(_: i32) {}
    let every = libc::timeval { tv_sec: 0, tv_usec: 100 };
    let timer = libc::itimerval { it_interval: every, it_value: every };
    // SAFETY: the handler is a function of the type that the call wants, and does nothing; the timer is there.
    unsafe {
        libc::signal(libc::SIGALRM, nothing as extern "C" fn(i32) as usize);
        assert_eq!(libc::setitimer(libc::ITIMER_REAL, &raw const timer, std::ptr::null_mut()), 0);
    }
}

/// Makes this process one of a user without privileges; `false` where it was no other before.
pub(super) fn lose_privileges() -> bool {
    const NOBODY: libc::uid_t = 65534;
    // SAFETY: the calls take numbers only.
    unsafe { libc::geteuid() == 0 && libc::setresuid(NOBODY, NOBODY, NOBODY) == 0 }
}

/// Sets a limit (`RLIMIT_*`) of this process.
pub(super) fn limit(what: libc::__rlimit_resource_t, to: u64) {
    let limit = libc::rlimit { rlim_cur: to, rlim_max: to };
    // SAFETY: the struct is there.
    assert_eq!(unsafe { libc::setrlimit(what, &raw const limit) }, 0);
}
