//! How does the kernel tell of faults, and how is it told what to put there?
//!
//! The few calls of userfaultfd(2) that a mapping needs. The crate `userfaultfd` 0.9 has no `UFFDIO_COPY` with
//! write protection, the one way to give zeros without losing a store, and needs libclang to build; so the structs are
//! here, with their sizes checked.
//!
//! Rule: the descriptor is never closed while something is registered. Pages not touched until then would silently
//! become private zeros.

use super::reserve::PAGE;
use super::sys::{failed, owned};
use crate::mutation::{self, Mutation};
use daxstore::{Error, Result};
use std::cell::OnceCell;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

#[repr(C)]
struct Api {
    api: u64,
    features: u64,
    ioctls: u64,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Range {
    start: u64,
    len: u64,
}

#[repr(C)]
struct Register {
    range: Range,
    mode: u64,
    ioctls: u64,
}

#[repr(C)]
struct Copy {
    dst: u64,
    src: u64,
    len: u64,
    mode: u64,
    copied: i64,
}

#[repr(C)]
struct WriteProtect {
    range: Range,
    mode: u64,
}

const _: () = assert!(size_of::<Api>() == 24 && size_of::<Range>() == 16 && size_of::<Register>() == 32);
const _: () = assert!(size_of::<Copy>() == 40 && size_of::<WriteProtect>() == 24);

/// The number of a request: direction, size of the argument, type 0xAA, number. The layout is that of x86-64 and aarch64.
const fn request<T>(direction: u64, number: u64) -> u64 {
    direction << 30 | (size_of::<T>() as u64) << 16 | 0xAA << 8 | number
}

const READ: u64 = 2;
const BOTH: u64 = 3;
const NEW: u64 = 0xAA << 8;
const API: u64 = request::<Api>(BOTH, 0x3F);
const REGISTER: u64 = request::<Register>(BOTH, 0);
const WAKE: u64 = request::<Range>(READ, 2);
const COPY: u64 = request::<Copy>(BOTH, 3);
const WRITE_PROTECT: u64 = request::<WriteProtect>(BOTH, 6);
const _: () = assert!(API == 0xC018_AA3F && REGISTER == 0xC020_AA00 && WAKE == 0x8010_AA02);
const _: () = assert!(COPY == 0xC028_AA03 && WRITE_PROTECT == 0xC018_AA06);

const VERSION: u64 = 0xAA;
const FEATURE_WP: u64 = 1 << 0;
const FEATURE_REMAP: u64 = 1 << 2;
const USER_MODE_ONLY: i32 = 1;
const MODE_MISSING: u64 = 1;
const MODE_WP: u64 = 2;
const COPY_WP: u64 = 2;

const EVENT_FAULT: u8 = 0x12;
const EVENT_REMAP: u8 = 0x14;
const FAULT_WRITE: u64 = 1;
const FAULT_WP: u64 = 2;

/// Bytes of a message.
const MESSAGE: usize = 32;
/// How many messages are read at once.
const MESSAGES: usize = 16;

/// Zeros to copy: 64 KiB at once.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// What the kernel tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Event {
    /// A thread touched this address, and waits.
    Fault {
        /// The address, of the page at least.
        address: usize,
        /// Whether it stores.
        write: bool,
    },
    /// Registered memory was moved by `mremap`.
    Remap {
        /// Where it was.
        from: usize,
    },
}

/// What became of a copy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Copied {
    /// It is there, or something else was.
    Done,
    /// The addresses are changing just now.
    Again,
}

/// What is registered.
#[derive(Clone, Copy, Debug)]
pub(super) enum Watch {
    /// Stores to write-protected pages.
    Stores,
    /// These, and touches of missing pages.
    All,
}

/// A userfaultfd.
#[derive(Debug)]
pub(super) struct Userfault {
    file: File,
    /// Whether faults that the kernel takes itself (`read(2)` into the memory) come too.
    complete: bool,
}

impl Userfault {
    /// Opens one: complete if the process may, else for faults of user code only.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn open() -> Result<Self> {
        let (fd, complete) = match by_device().or_else(|_| by_call(0)) {
            Ok(fd) => (fd, true),
            Err(_) => (by_call(USER_MODE_ONLY)?, false),
        };
        let opened = Self { file: File::from(high(fd)), complete };
        let mut api = Api { api: VERSION, features: FEATURE_WP | FEATURE_REMAP, ioctls: 0 };
        opened.call("asking userfaultfd for write protection and remap events", API, &mut api)?;
        Ok(opened)
    }

    /// Whether faults that the kernel takes itself come too.
    pub(super) fn is_complete(&self) -> bool {
        self.complete
    }

    fn call<T>(&self, what: &'static str, request: u64, argument: &mut T) -> Result<()> {
        // SAFETY: each request here is made by `request::<T>`, so the kernel reads and writes as many bytes as the
        // argument has. What is done to memory at the addresses in it is up to the callers, who pass areas of ours.
        match unsafe {
            libc::ioctl(self.file.as_raw_fd(), request as libc::Ioctl, std::ptr::from_mut(argument))
        } {
            0 => Ok(()),
            _ => Err(failed(what)),
        }
    }

    /// Has faults in `len` bytes from `start` told here.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn register(&self, start: usize, len: u64, watch: Watch) -> Result<()> {
        let mode = match watch {
            Watch::Stores => MODE_WP,
            Watch::All => MODE_MISSING | MODE_WP,
        };
        if mutation::is(Mutation::Unregistered) {
            return Ok(());
        }
        let range = Range { start: start as u64, len };
        self.call("registering with userfaultfd", REGISTER, &mut Register { range, mode, ioctls: 0 })
    }

    /// Write-protects what is present in `len` bytes from `start`.
    ///
    /// # Errors
    /// The system's; `EAGAIN` while addresses change.
    pub(super) fn write_protect(&self, start: usize, len: u64) -> Result<()> {
        let range = Range { start: start as u64, len };
        self.call("write-protecting", WRITE_PROTECT, &mut WriteProtect { range, mode: 1 })
    }

    /// Lets who waits for a fault in `len` bytes from `start` try again.
    pub(super) fn wake(&self, start: usize, len: u64) {
        // It fails for ranges that are no addresses, where nobody waits.
        let _ = self.call("waking", WAKE, &mut Range { start: start as u64, len });
    }

    /// Gives the missing pages of `len` bytes from `start` zeros, write-protected.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn zeros(&self, start: usize, len: u64) -> Result<Copied> {
        let end = start as u64 + len;
        let mut at = start as u64;
        while at < end {
            let piece = (end - at).min(ZEROS.len() as u64);
            at += match self.copy_once(at, &ZEROS, piece, COPY_WP)? {
                Progress::Bytes(bytes) => bytes,
                Progress::Again => return Ok(Copied::Again),
                Progress::Taken => PAGE,
                // Part of the piece belongs to something else: page by page.
                Progress::Foreign if piece > PAGE => match self.zero_pages(at, piece)? {
                    Copied::Done => piece,
                    Copied::Again => return Ok(Copied::Again),
                },
                Progress::Foreign => piece,
            };
        }
        Ok(Copied::Done)
    }

    /// As [`Self::zeros`], a page at a time: what is not registered stays as it is.
    fn zero_pages(&self, at: u64, len: u64) -> Result<Copied> {
        for page in (at..at + len).step_by(PAGE as usize) {
            if let Progress::Again = self.copy_once(page, &ZEROS, PAGE, COPY_WP)? {
                return Ok(Copied::Again);
            }
        }
        Ok(Copied::Done)
    }

    /// Gives the missing page at `start` these contents, write-protected if `guarded`.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn page(&self, start: usize, page: &[u8; 4096], guarded: bool) -> Result<Copied> {
        let mode = if guarded { COPY_WP } else { 0 };
        match self.copy_once(start as u64, page, page.len() as u64, mode)? {
            Progress::Again => Ok(Copied::Again),
            _ => Ok(Copied::Done),
        }
    }

    fn copy_once(&self, dst: u64, from: &[u8], len: u64, mode: u64) -> Result<Progress> {
        let len = len.min(from.len() as u64);
        let mut copy = Copy { dst, src: from.as_ptr() as u64, len, mode, copied: 0 };
        match self.call("giving a page to userfaultfd", COPY, &mut copy) {
            Ok(()) => Ok(Progress::Bytes(len)),
            Err(_) if copy.copied > 0 => Ok(Progress::Bytes(copy.copied as u64)),
            Err(error) => match error.errno() {
                libc::EAGAIN => Ok(Progress::Again),
                libc::EEXIST => Ok(Progress::Taken),
                libc::ENOENT => Ok(Progress::Foreign),
                _ => Err(error),
            },
        }
    }

    /// Waits for messages and hands each to `take`.
    ///
    /// # Errors
    /// The system's: nothing is told here any more.
    pub(super) fn read(&self, take: impl FnMut(Event)) -> io::Result<()> {
        self.wait()?;
        self.read_now(take)
    }

    /// Hands the messages that are there to `take`.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub(super) fn read_now(&self, take: impl FnMut(Event)) -> io::Result<()> {
        let mut messages = [0; MESSAGE * MESSAGES];
        let bytes = match (&self.file).read(&mut messages) {
            Ok(bytes) => bytes,
            // There is none, or another thread was faster.
            Err(e) if matches!(e.raw_os_error(), Some(libc::EAGAIN | libc::EINTR)) => return Ok(()),
            Err(e) => return Err(e),
        };
        messages.chunks_exact(MESSAGE).take(bytes / MESSAGE).filter_map(event).for_each(take);
        Ok(())
    }

    /// Waits until there is a message. Of several threads that wait, one is woken for each.
    fn wait(&self) -> io::Result<()> {
        thread_local! {
            static WAIT: OnceCell<OwnedFd> = const { OnceCell::new() };
        }
        WAIT.with(|wait| {
            let epoll = match wait.get() {
                Some(epoll) => epoll,
                None => {
                    let new = self.epoll()?;
                    wait.get_or_init(|| new)
                }
            };
            let mut event = libc::epoll_event { events: 0, u64: 0 };
            // SAFETY: the call writes one struct, which is there.
            let ready = unsafe { libc::epoll_wait(epoll.as_raw_fd(), &raw mut event, 1, -1) };
            match ready {
                1 if event.events & libc::EPOLLIN as u32 != 0 => Ok(()),
                1 => Err(io::Error::from_raw_os_error(libc::EBADF)),
                _ => match io::Error::last_os_error() {
                    e if e.kind() == io::ErrorKind::Interrupted => Ok(()),
                    e => Err(e),
                },
            }
        })
    }

    /// A descriptor to wait by, for one thread.
    fn epoll(&self) -> io::Result<OwnedFd> {
        // SAFETY: the call takes numbers only.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        let epoll = owned("making an epoll descriptor", fd).map_err(io::Error::from)?;
        let mut event = libc::epoll_event { events: (libc::EPOLLIN | libc::EPOLLEXCLUSIVE) as u32, u64: 0 };
        let own = self.file.as_raw_fd();
        // SAFETY: the call reads one struct, which is there.
        match unsafe { libc::epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, own, &raw mut event) } {
            0 => Ok(epoll),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// How far one copy got.
enum Progress {
    Bytes(u64),
    /// The addresses are changing.
    Again,
    /// There is a page already.
    Taken,
    /// The memory is not registered: something else is mapped there.
    Foreign,
}

fn by_device() -> Result<OwnedFd> {
    const PATH: &str = "/dev/userfaultfd";
    let device = OpenOptions::new().read(true).write(true).custom_flags(libc::O_CLOEXEC).open(PATH);
    let device = device.map_err(|e| Error::io("opening /dev/userfaultfd", e))?;
    // SAFETY: the request takes flags only.
    let fd =
        unsafe { libc::ioctl(device.as_raw_fd(), NEW as libc::Ioctl, libc::O_CLOEXEC | libc::O_NONBLOCK) };
    owned("making a userfaultfd", fd)
}

fn by_call(flags: i32) -> Result<OwnedFd> {
    let flags = flags | libc::O_CLOEXEC | libc::O_NONBLOCK;
    // SAFETY: the call takes flags only.
    let fd = unsafe { libc::syscall(libc::SYS_userfaultfd, flags) };
    owned("making a userfaultfd", fd as libc::c_int)
}

/// Moves the descriptor up, out of reach of code that closes the first few. Not beyond 63: where threads share the table of
/// descriptors, the kernel makes it longer only after a grace period, some 10 ms.
fn high(fd: OwnedFd) -> OwnedFd {
    // SAFETY: the call takes numbers only.
    let moved = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 48) };
    owned("moving a descriptor", moved).unwrap_or(fd)
}

/// What a message says, if it is one of those asked for.
fn event(message: &[u8]) -> Option<Event> {
    let word = |i: usize| {
        message.get(i * 8..i * 8 + 8).and_then(|bytes| bytes.try_into().ok()).map(u64::from_ne_bytes)
    };
    match *message.first()? {
        EVENT_FAULT => {
            let write = word(1)? & (FAULT_WRITE | FAULT_WP) != 0;
            Some(Event::Fault { address: word(2)? as usize, write })
        }
        EVENT_REMAP => Some(Event::Remap { from: word(1)? as usize }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u8, words: [u64; 3]) -> Vec<u8> {
        let mut bytes = vec![kind, 0, 0, 0, 0, 0, 0, 0];
        bytes.extend(words.iter().flat_map(|word| word.to_ne_bytes()));
        bytes
    }

    #[test]
    fn messages_are_understood() {
        let fault = |flags| event(&message(EVENT_FAULT, [flags, 0x1000, 7]));
        assert_eq!(fault(0), Some(Event::Fault { address: 0x1000, write: false }));
        assert_eq!(fault(FAULT_WRITE), Some(Event::Fault { address: 0x1000, write: true }));
        assert_eq!(fault(FAULT_WP), Some(Event::Fault { address: 0x1000, write: true }));
        assert_eq!(event(&message(EVENT_REMAP, [0x2000, 0x3000, 1])), Some(Event::Remap { from: 0x2000 }));
        assert_eq!(event(&message(0x16, [0; 3])), None);
        assert_eq!(event(&[EVENT_FAULT]), None);
    }
}
