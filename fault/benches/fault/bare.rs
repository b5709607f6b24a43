//! Yardsticks: a handler in the shape of the prototype (two threads, one lock, an array of extents), and the barest that could
//! serve a fault, which knows beforehand what goes where.
//!
//! One file, no holes, nothing ever taken away.

use daxstore_fault::Mode;
use std::collections::HashMap;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

const SLOT: usize = 2 << 20;
const UFFDIO_API: libc::c_ulong = 0xc018_aa3f;
const UFFDIO_REGISTER: libc::c_ulong = 0xc020_aa00;
const UFFDIO_WAKE: libc::c_ulong = 0x8010_aa02;

/// Addresses, given back on drop.
pub struct Addresses {
    area: *mut libc::c_void,
    area_len: usize,
    base: usize,
}

impl Addresses {
    fn reserve(len: u64) -> Self {
        let area_len = len as usize + SLOT;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new mapping wherever the system likes touches none that exists.
        let area = unsafe { libc::mmap(std::ptr::null_mut(), area_len, libc::PROT_NONE, flags, -1, 0) };
        assert_ne!(area, libc::MAP_FAILED);
        Self { area, area_len, base: (area as usize).next_multiple_of(SLOT) }
    }

    pub fn base(&self) -> *mut u8 {
        self.base as *mut u8
    }
}

impl Drop for Addresses {
    fn drop(&mut self) {
        // SAFETY: the addresses were reserved by `reserve`, and the benchmark touches them no more.
        unsafe { libc::munmap(self.area, self.area_len) };
    }
}

fn map_at(base: usize, len: usize, fd: i32, offset: u64) {
    let flags = libc::MAP_SHARED | libc::MAP_FIXED;
    let prot = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: the range lies in addresses that the caller reserved.
    let at = unsafe { libc::mmap(base as *mut _, len, prot, flags, fd, offset as libc::off_t) };
    assert_ne!(at, libc::MAP_FAILED);
}

/// The kernel's own mapping of `file`, at a multiple of 2 MiB.
pub fn map_aligned(file: &std::fs::File, len: u64) -> Addresses {
    let addresses = Addresses::reserve(len);
    map_at(addresses.base, len as usize, file.as_raw_fd(), 0);
    addresses
}

/// How much a handler does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shape {
    /// Waits, maps, wakes.
    Barest,
    /// What the prototype does (`serve` of the recipe of the fault mechanism): two threads that are all woken, a lock around the
    /// lookup and the `mmap`, states of the pages.
    Prototype,
}

/// What a handler needs to know.
struct Plan {
    base: usize,
    len: usize,
    fd: i32,
    piece: usize,
    shape: Shape,
    places: HashMap<usize, u64>,
    /// The prototype's: by piece, where it lies, whether somebody changes it, and whether zeros are mapped there.
    states: Mutex<Vec<(Option<u64>, bool, bool)>>,
}

impl Plan {
    fn new(base: usize, len: u64, fd: i32, piece: u64, places: &[(u64, u64)], shape: Shape) -> Self {
        let mut states = vec![(None, false, false); (len / piece) as usize];
        for (offset, at) in places {
            states[(offset / piece) as usize].0 = Some(*at);
        }
        let places = places.iter().map(|(offset, at)| (*offset as usize, *at)).collect();
        let (len, piece) = (len as usize, piece as usize);
        Self { base, len, fd, piece, shape, places, states: Mutex::new(states) }
    }

    fn serve(&self, address: usize) -> usize {
        let start = address - (address - self.base) % self.piece;
        match self.shape {
            Shape::Barest => map_at(start, self.piece, self.fd, self.places[&(start - self.base)]),
            Shape::Prototype => self.serve_state(start),
        }
        start
    }

    fn serve_state(&self, start: usize) {
        let mut states = self.states.lock().expect("no handler has panicked");
        let Some((Some(at), false, zeros)) = states.get_mut((start - self.base) / self.piece) else {
            return;
        };
        map_at(start, self.piece, self.fd, *at);
        *zeros = false;
    }

    fn holds(&self, address: usize) -> bool {
        (self.base..self.base + self.len).contains(&address)
    }
}

/// A handler at work.
pub struct Bare {
    addresses: Addresses,
    uffd: Option<(i32, Vec<JoinHandle<()>>)>,
    before: Option<libc::sigaction>,
    stop: Arc<AtomicBool>,
}

static PLAN: AtomicPtr<Plan> = AtomicPtr::new(std::ptr::null_mut());

extern "C" fn on_fault(_signal: i32, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    // SAFETY: the kernel hands a valid record; the plan outlives the mapping, and nobody changes it.
    unsafe { (*PLAN.load(Ordering::Acquire)).serve((*info).si_addr() as usize) };
}

impl Bare {
    /// Serves `piece` bytes a fault of `len` bytes, from `places` (offset, offset in `pool`).
    pub fn new(
        pool: &std::fs::File,
        len: u64,
        piece: u64,
        places: &[(u64, u64)],
        (mode, shape): (Mode, Shape),
    ) -> Self {
        let addresses = Addresses::reserve(len);
        let plan = Plan::new(addresses.base, len, pool.as_raw_fd(), piece, places, shape);
        let stop = Arc::new(AtomicBool::new(false));
        let (mut uffd, mut before) = (None, None);
        match mode {
            Mode::Userfault => uffd = Some(Self::serve(plan, len, stop.clone())),
            _ => before = Some(Self::install(plan)),
        }
        Self { addresses, uffd, before, stop }
    }

    pub fn base(&self) -> *mut u8 {
        self.addresses.base()
    }

    /// Has the plan served by signals: returns what was there before.
    fn install(plan: Plan) -> libc::sigaction {
        PLAN.store(Box::into_raw(Box::new(plan)), Ordering::Release);
        // SAFETY: the record is zeros but for a handler of the right type and its flags.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = on_fault as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
            let mut before: libc::sigaction = std::mem::zeroed();
            assert_eq!(libc::sigaction(libc::SIGSEGV, &action, &mut before), 0);
            before
        }
    }

    fn serve(plan: Plan, len: u64, stop: Arc<AtomicBool>) -> (i32, Vec<JoinHandle<()>>) {
        // SAFETY: the calls take numbers and arrays of the size that the kernel's interface names.
        let fd = unsafe {
            let fd = libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC | libc::O_NONBLOCK) as i32;
            assert!(fd >= 0, "userfaultfd: {}", std::io::Error::last_os_error());
            let mut api = [0xAA_u64, 1, 0];
            assert_eq!(libc::ioctl(fd, UFFDIO_API, api.as_mut_ptr()), 0);
            let mut register = [plan.base as u64, len, 3, 0];
            assert_eq!(libc::ioctl(fd, UFFDIO_REGISTER, register.as_mut_ptr()), 0);
            let prot = libc::PROT_READ | libc::PROT_WRITE;
            assert_eq!(libc::mprotect(plan.base as *mut _, len as usize, prot), 0);
            fd
        };
        let threads = if plan.shape == Shape::Prototype { 2 } else { 1 };
        let plan = Arc::new(plan);
        let start = |_| {
            let (plan, stop) = (plan.clone(), stop.clone());
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    Self::answer(fd, &plan);
                }
            })
        };
        (fd, (0..threads).map(start).collect())
    }

    fn answer(fd: i32, plan: &Plan) {
        let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        let mut messages = [[0_u64; 4]; 16];
        // SAFETY: the calls are given arrays of the sizes that they are told.
        let read = unsafe {
            if libc::poll(&mut poll, 1, 20) <= 0 {
                return;
            }
            libc::read(fd, messages.as_mut_ptr().cast(), size_of_val(&messages))
        };
        for message in &messages[..read.max(0) as usize / 32] {
            if !plan.holds(message[2] as usize) {
                continue;
            }
            let start = plan.serve(message[2] as usize);
            let mut range = [start as u64, plan.piece as u64];
            // SAFETY: the array is what the kernel's interface names.
            unsafe { libc::ioctl(fd, UFFDIO_WAKE, range.as_mut_ptr()) };
        }
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            // SAFETY: the record is one that the system filled.
            unsafe { libc::sigaction(libc::SIGSEGV, before, std::ptr::null_mut()) };
        }
        self.stop.store(true, Ordering::Relaxed);
        if let Some((fd, threads)) = self.uffd.take() {
            threads.into_iter().for_each(|thread| thread.join().expect("the handler"));
            // SAFETY: the descriptor is this value's own, and its threads have ended.
            unsafe { libc::close(fd) };
        }
    }
}
