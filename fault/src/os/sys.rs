//! What do mappings need of the system besides addresses?
//!
//! An empty file to raise SIGBUS, a bell that a signal handler may ring, threads without signals, and a mark that tells a
//! process from its forked children, whom its mappings do not belong to.

use daxstore::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use daxstore::{Error, Result};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// The system's last answer to this thread, as an error.
pub(super) fn failed(what: &'static str) -> Error {
    Error::io(what, io::Error::last_os_error())
}

/// Takes a new descriptor that a call returned.
pub(super) fn owned(what: &'static str, fd: libc::c_int) -> Result<OwnedFd> {
    if fd < 0 {
        return Err(failed(what));
    }
    // SAFETY: the call that returned it made it a moment ago, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A file of no bytes that can not grow: a touch of a mapping of it raises SIGBUS, as beyond the end of any file.
///
/// # Errors
/// The system's.
pub(super) fn empty_file() -> Result<File> {
    const WHAT: &str = "making an empty file in memory";
    // SAFETY: the name is a C string; the call takes no other memory.
    let fd = unsafe {
        libc::memfd_create(c"beyond the end".as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING)
    };
    let file = File::from(owned(WHAT, fd)?);
    let seals = libc::F_SEAL_GROW | libc::F_SEAL_SHRINK | libc::F_SEAL_SEAL;
    // SAFETY: the call takes numbers only.
    match unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, seals) } {
        0 => Ok(file),
        _ => Err(failed(WHAT)),
    }
}

/// Somebody waits for it; whoever rings it needs no lock and no memory, so that a signal handler can.
#[derive(Debug)]
pub(super) struct Bell(File);

impl Bell {
    /// # Errors
    /// The system's.
    pub(super) fn new() -> Result<Self> {
        // SAFETY: the call takes numbers only.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
        Ok(Self(File::from(owned("making an eventfd", fd)?)))
    }

    /// Rings, which lasts until it was heard.
    pub(super) fn ring(&self) {
        // It fails only where it rings 2^64 - 2 times already.
        let _ = (&self.0).write(&1u64.to_ne_bytes());
    }

    /// Waits for a ring; `false` where there is no bell any more.
    pub(super) fn hear(&self) -> bool {
        let mut rings = [0; 8];
        loop {
            match (&self.0).read(&mut rings) {
                Ok(_) => return true,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
    }
}

/// The signals that a thread raises by what it does itself, which stay deliverable: the message of a stack overflow
/// comes by one.
const OWN_FAULTS: [libc::c_int; 5] = [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGTRAP];

/// Runs `body` with every signal from outside blocked; threads it starts inherit that.
pub(super) fn without_signals<T>(body: impl FnOnce() -> T) -> T {
    let mut blocked = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    let mut before = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `sigfillset` writes the whole set, which the calls after it read; `before` is written by the first
    // `pthread_sigmask`, which can not fail with these arguments.
    unsafe {
        libc::sigfillset(blocked.as_mut_ptr());
        OWN_FAULTS.iter().for_each(|signal| {
            libc::sigdelset(blocked.as_mut_ptr(), *signal);
        });
        libc::pthread_sigmask(libc::SIG_SETMASK, blocked.as_ptr(), before.as_mut_ptr());
    }
    let result = body();
    // SAFETY: as above.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), std::ptr::null_mut()) };
    result
}

/// The address of a word that holds 1 in the process that made it and 0 in its forked children; 0: none made yet.
static HOME: AtomicUsize = AtomicUsize::new(0);
const PAGE: usize = 4096;

/// Makes this process the one whose mappings are served, if no ancestor of it is that by the same memory.
///
/// # Errors
/// [`Error::Unsupported`] in a forked child of a process that mapped files, the system's.
pub(super) fn settle() -> Result<()> {
    if HOME.load(Ordering::Acquire) == 0 {
        make_home()?;
    }
    match at_home() {
        true => Ok(()),
        false => Err(Error::Unsupported {
            backend: "mappings",
            why: "the parent process has mappings, and its forked child can make none; exec a new program first",
        }),
    }
}

fn make_home() -> Result<()> {
    const WHAT: &str = "making a page that children do not inherit";
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new mapping wherever the system likes touches none that exists.
    let page =
        unsafe { libc::mmap(std::ptr::null_mut(), PAGE, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
    if page == libc::MAP_FAILED {
        return Err(failed(WHAT));
    }
    // SAFETY: the page was mapped above and is never unmapped once somebody can find it.
    let wiped = unsafe { libc::madvise(page, PAGE, libc::MADV_WIPEONFORK) } == 0;
    if !wiped {
        return Err(failed(WHAT));
    }
    // SAFETY: the page is writable, aligned, and stays mapped; only atomics touch it.
    unsafe { &*page.cast::<AtomicU32>() }.store(1, Ordering::Relaxed);
    // Of two threads that come at once one wins; the other's page is lost, which costs 4 KiB once.
    let _ = HOME.compare_exchange(0, page as usize, Ordering::Release, Ordering::Relaxed);
    Ok(())
}

/// Whether this is the process whose mappings are served, and not a forked child of it.
pub(super) fn at_home() -> bool {
    let page = HOME.load(Ordering::Acquire);
    // SAFETY: the address is that of a mapped page with a word in it that only atomics touch, and the page is never
    // unmapped.
    page != 0 && unsafe { &*(page as *const AtomicU32) }.load(Ordering::Relaxed) == 1
}

/// Has `leave` run in each child of `fork` before that returns there.
///
/// # Errors
/// The system's.
pub(super) fn in_children(leave: extern "C" fn()) -> Result<()> {
    // SAFETY: the handler takes no locks and no memory, as what runs in a child of a process with threads must.
    match unsafe { libc::pthread_atfork(None, None, Some(leave)) } {
        0 => Ok(()),
        errno => Err(Error::io("registering for forks", io::Error::from_raw_os_error(errno))),
    }
}

/// How many faults this thread has taken that needed no I/O.
///
/// # Errors
/// The system's.
pub(super) fn minor_faults() -> Result<u64> {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::uninit();
    // SAFETY: the buffer is writable and as large as the call wants.
    if unsafe { libc::getrusage(libc::RUSAGE_THREAD, usage.as_mut_ptr()) } != 0 {
        return Err(failed("counting faults"));
    }
    // SAFETY: the call succeeded, so it filled the buffer.
    Ok(unsafe { usage.assume_init() }.ru_minflt as u64)
}

/// Ends the process at once: the memory of the mappings can not be kept right any more.
pub(super) fn give_up(why: &str) -> ! {
    let _ = writeln!(io::stderr(), "daxstore: {why}");
    std::process::abort()
}
