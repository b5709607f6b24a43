//! How does a test touch memory that anybody may store to, change and take away, and how does it see a signal raised by that?
//!
//! Every address that comes here lies in a mapping that the test made and keeps, or the touch is meant to raise a signal. A
//! probe ([`load`], [`store`]) is one instruction that a handler of SIGBUS and SIGSEGV steps over; a signal raised by anything else ends
//! the process as ever.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::OnceLock;

/// In `r11` of a probe, so that the handler knows one.
const PROBE: i64 = 0x5eed_ab1e_0ddb_a115;

/// A signal that a touch raised.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Raised {
    pub signal: i32,
    pub address: usize,
}

/// Installs the handler that probes need. Before the first mapping in mode S, whose handler hands on to it.
pub fn install() {
    static ONCE: OnceLock<()> = OnceLock::new();
    ONCE.get_or_init(|| {
        for signal in [libc::SIGBUS, libc::SIGSEGV] {
            // SAFETY: all zeros is a valid value; the handler is a function of the type that the flags say.
            unsafe {
                let mut action: libc::sigaction = std::mem::zeroed();
                action.sa_sigaction = step_over as extern "C" fn(_, _, _) as usize;
                action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
                assert_eq!(libc::sigaction(signal, &raw const action, std::ptr::null_mut()), 0);
            }
        }
    });
}

extern "C" fn step_over(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel gives both to a handler with `SA_SIGINFO`, filled.
    let (registers, address) =
        unsafe { (&mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs, (*info).si_addr() as usize) };
    if registers[libc::REG_R11 as usize] != PROBE {
        // SAFETY: the default action needs no function; the instruction runs again and ends the process.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
        return;
    }
    registers[libc::REG_RIP as usize] = registers[libc::REG_R10 as usize];
    registers[libc::REG_R9 as usize] = i64::from(signal);
    registers[libc::REG_R8 as usize] = address as i64;
}

/// Loads the word at `address`.
pub fn load(address: usize) -> Result<u64, Raised> {
    install();
    let (value, signal, at): (u64, u64, usize);
    // SAFETY: one load; what it raises is stepped over by the handler, which changes only the registers named here.
    unsafe {
        std::arch::asm!(
            "lea r10, [rip + 3f]",
            "xor r9d, r9d",
            "mov rax, [{address}]",
            "3:",
            "xor r11d, r11d",
            address = in(reg) address,
            inout("r11") PROBE => _,
            out("r10") _,
            out("r9") signal,
            out("r8") at,
            out("rax") value,
            options(nostack),
        );
    }
    if signal == 0 { Ok(value) } else { Err(Raised { signal: signal as i32, address: at }) }
}

/// Stores to the word at `address`.
pub fn store(address: usize, value: u64) -> Result<(), Raised> {
    install();
    let (signal, at): (u64, usize);
    // SAFETY: one store, to memory that anybody may store to; as in `load`.
    unsafe {
        std::arch::asm!(
            "lea r10, [rip + 3f]",
            "xor r9d, r9d",
            "mov [{address}], {value}",
            "3:",
            "xor r11d, r11d",
            address = in(reg) address,
            value = in(reg) value,
            inout("r11") PROBE => _,
            out("r10") _,
            out("r9") signal,
            out("r8") at,
            options(nostack),
        );
    }
    if signal == 0 { Ok(()) } else { Err(Raised { signal: signal as i32, address: at }) }
}

fn told(result: i64) -> Result<i64, i32> {
    if result >= 0 { Ok(result) } else { Err(std::io::Error::last_os_error().raw_os_error().unwrap()) }
}

/// `pread(2)` into the memory at `address`; an errno where it fails.
pub fn pread(file: &File, address: usize, len: usize, offset: u64) -> Result<i64, i32> {
    // SAFETY: the kernel checks the addresses.
    told(unsafe { libc::pread(file.as_raw_fd(), address as *mut _, len, offset as i64) } as i64)
}

/// `pwrite(2)` from the memory at `address`; an errno where it fails.
pub fn pwrite(file: &File, address: usize, len: usize, offset: u64) -> Result<i64, i32> {
    // SAFETY: the kernel checks the addresses.
    told(unsafe { libc::pwrite(file.as_raw_fd(), address as *const _, len, offset as i64) } as i64)
}

/// `madvise(2)`; an errno where it fails.
pub fn madvise(address: usize, len: usize, advice: i32) -> Result<i64, i32> {
    // SAFETY: see the top.
    told(i64::from(unsafe { libc::madvise(address as *mut _, len, advice) }))
}

/// `mprotect(2)`.
pub fn mprotect(address: usize, len: usize, prot: i32) {
    // SAFETY: see the top.
    assert_eq!(unsafe { libc::mprotect(address as *mut _, len, prot) }, 0);
}

/// `munmap(2)`.
pub fn munmap(address: usize, len: usize) {
    // SAFETY: see the top.
    assert_eq!(unsafe { libc::munmap(address as *mut _, len) }, 0);
}

/// `mlock(2)`; an errno where it fails.
pub fn mlock(address: usize, len: usize) -> Result<i64, i32> {
    // SAFETY: the call changes no contents.
    told(i64::from(unsafe { libc::mlock(address as *const _, len) }))
}

/// `process_vm_readv(2)` of this process itself: the word at `address`, or an errno.
pub fn remote_load(address: usize) -> Result<u64, i32> {
    let mut word = 0_u64;
    let local = libc::iovec { iov_base: (&raw mut word).cast(), iov_len: 8 };
    let remote = libc::iovec { iov_base: address as *mut _, iov_len: 8 };
    // SAFETY: the local buffer is there; the kernel checks the other.
    told(unsafe {
        libc::process_vm_readv(libc::getpid(), &raw const local, 1, &raw const remote, 1, 0) as i64
    })?;
    Ok(word)
}

/// `futex(FUTEX_WAKE)` on the word at `address`: how many were woken, or an errno.
pub fn futex_wake(address: usize) -> Result<i64, i32> {
    // SAFETY: the kernel checks the address.
    told(unsafe { libc::syscall(libc::SYS_futex, address, libc::FUTEX_WAKE, 1) })
}

/// `futex(FUTEX_WAIT)` with a value that the word has not: `EAGAIN`, or what else happens.
pub fn futex_wait(address: usize, value: u32) -> Result<i64, i32> {
    let second = libc::timespec { tv_sec: 1, tv_nsec: 0 };
    // SAFETY: the kernel checks the address; the time is there.
    told(unsafe { libc::syscall(libc::SYS_futex, address, libc::FUTEX_WAIT, value, &raw const second) })
}

/// The `len` bytes at `address`, for a call that reads its buffer.
pub fn bytes<'a>(address: usize, len: usize) -> &'a [u8] {
    // SAFETY: see the top. Others store to the bytes only as the tests say, and no value of them is relied upon twice.
    unsafe { std::slice::from_raw_parts(address as *const u8, len) }
}

/// The `len` bytes at `address`, for a call that fills its buffer.
pub fn bytes_mut<'a>(address: usize, len: usize) -> &'a mut [u8] {
    // SAFETY: as in `bytes`.
    unsafe { std::slice::from_raw_parts_mut(address as *mut u8, len) }
}

/// Whether all of `len` bytes from `address` are mapped.
pub fn is_mapped(address: usize, len: usize) -> bool {
    // SAFETY: the call only looks.
    unsafe { libc::msync(address as *mut _, len, libc::MS_ASYNC) == 0 }
}

/// What `body` says in a forked child, which must not take locks of other threads.
pub fn forked(body: impl FnOnce() -> bool) -> bool {
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

/// Has SIGALRM interrupt this process 10000 times a second from now on.
#[must_use = "the storm lasts as long as this lives"]
pub fn storm_of_signals() -> Storm {
    extern "C" fn nothing(_: i32) {}
    // SAFETY: the handler is a function of the type that the call wants, and does nothing.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = nothing as extern "C" fn(i32) as usize;
        action.sa_flags = libc::SA_RESTART | libc::SA_ONSTACK;
        assert_eq!(libc::sigaction(libc::SIGALRM, &raw const action, std::ptr::null_mut()), 0);
    }
    every(100);
    Storm
}

/// Signals that come all the time, until it is dropped: at the end of a process the standard library unmaps the stack that
/// the first thread takes them on.
pub struct Storm;

impl Drop for Storm {
    fn drop(&mut self) {
        every(0);
        // One may be on its way.
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

/// Has SIGALRM sent every so many microseconds; 0 for never.
fn every(micros: i64) {
    let every = libc::timeval { tv_sec: 0, tv_usec: micros };
    let timer = libc::itimerval { it_interval: every, it_value: every };
    // SAFETY: the timer is there.
    assert_eq!(unsafe { libc::setitimer(libc::ITIMER_REAL, &raw const timer, std::ptr::null_mut()) }, 0);
}

/// Forbids this process what only root may, for good.
pub fn become_nobody() {
    const NOBODY: u32 = 65_534;
    // SAFETY: the calls take numbers only.
    unsafe {
        assert_eq!(libc::setgid(NOBODY), 0);
        assert_eq!(libc::setuid(NOBODY), 0);
    }
}
