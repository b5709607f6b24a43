//! How does a thread answer its own fault?
//!
//! A handler of SIGSEGV, for memory that has no rights: it looks the address up, and where it is that of a mapping in mode S, the
//! mapping's handler is called on a stack of ours (a thread's alternate stack is as small as 8 KiB, and foreign threads
//! have none). Everything else goes to the action that was there before, so that a stray pointer is still a
//! segmentation fault, and a stack overflow still says so.
//!
//! Rules:
//! 1. Until a mapping of ours is found, nothing is used but atomics. The lookup takes no lock and no memory.
//! 2. All signals are blocked in the handler: no other handler runs in the middle of it.
//! 3. A touch that faults again although nothing has changed since its answer is not answered for ever.
//! 4. A forked child answers nothing.

use super::registry;
use super::sys::{at_home, failed};
use crate::table::{Answer, Mode};
use daxstore::sync::atomic::{AtomicUsize, Ordering};
use daxstore::{Error, Result};
use std::cell::Cell;
use std::sync::OnceLock;

/// Bytes of a stack that handlers run on.
const STACK: usize = 256 << 10;
/// Bytes below it that can not be touched.
const GUARD: usize = 4096;
/// How often a thread is answered at one address without anything having changed.
const PATIENCE: u32 = 256;

/// The action that was there before.
static BEFORE: OnceLock<libc::sigaction> = OnceLock::new();
/// Stacks that nobody uses, by their lowest addresses; 0: none.
static STACKS: [AtomicUsize; 64] = [const { AtomicUsize::new(0) }; 64];

daxstore::sync::thread_local! {
    /// The last answer: the address and kind of touch, how many changes of the area there were, how often.
    static LAST: Cell<(usize, bool, u64, u32)> = const { Cell::new((0, false, 0, 0)) };
}

/// Installs the handler, if it is not. The caller sees to it that no two threads do.
///
/// # Errors
/// [`Error::Unsupported`] where somebody has replaced it, or this processor is not known; the system's.
pub(super) fn install() -> Result<()> {
    let unsupported = |why| Error::Unsupported { backend: "mappings by signal", why };
    if !cfg!(any(target_arch = "x86_64", target_arch = "aarch64")) {
        return Err(unsupported("not made for this processor"));
    }
    let current = exchange(None)?;
    if current.sa_sigaction == handler_address() {
        return Ok(());
    }
    if BEFORE.set(current).is_err() {
        return Err(unsupported(
            "another library has taken SIGSEGV over since; load it before the first mapping",
        ));
    }
    // SAFETY: all zeros is a valid value of this struct of numbers.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler_address();
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: the set is there to be written.
    unsafe { libc::sigfillset(&raw mut action.sa_mask) };
    exchange(Some(&action)).map(drop)
}

fn handler_address() -> usize {
    on_fault as extern "C" fn(_, _, _) as usize
}

/// The action for SIGSEGV, replaced by `new` if there is one.
fn exchange(new: Option<&libc::sigaction>) -> Result<libc::sigaction> {
    let mut old = std::mem::MaybeUninit::<libc::sigaction>::uninit();
    let new = new.map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: both pointers are null or lead to a struct as the call wants it; what is installed is a function of the
    // type that its flags say, which lives as long as the program.
    if unsafe { libc::sigaction(libc::SIGSEGV, new, old.as_mut_ptr()) } != 0 {
        return Err(failed("installing a handler of SIGSEGV"));
    }
    // SAFETY: the call succeeded, so it filled the struct.
    Ok(unsafe { old.assume_init() })
}

/// A touch to be answered, on the way to the other stack and back.
struct Touch {
    call: registry::Call,
    address: usize,
    write: bool,
    answered: bool,
}

extern "C" fn on_fault(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: errno is this thread's own.
    let errno = unsafe { *libc::__errno_location() };
    // SAFETY: the kernel gives a filled struct to a handler with `SA_SIGINFO`; for a code above 0 it has an address.
    let (code, address) = unsafe { ((*info).si_code, (*info).si_addr() as usize) };
    let ours = if code > 0 && at_home() { registry::find(address) } else { None };
    let answered = ours.is_some_and(|call| {
        // SAFETY: `context` is what the kernel gave this handler.
        let write = unsafe { is_store(context.cast()) };
        let mut touch = Touch { call, address, write, answered: false };
        with_stack(&mut touch);
        touch.answered
    });
    if !answered {
        // SAFETY: the arguments are those that the kernel gave this handler.
        unsafe { pass_on(signal, info, context) };
    }
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
}

/// Runs [`answer`] on a stack of its own, if there is memory for one.
fn with_stack(touch: &mut Touch) {
    let Some(stack) = take_stack() else { return };
    let top = (stack + GUARD + STACK) as *mut u8;
    // SAFETY: the stack is mapped, writable and large, used by nobody else until it is given back, and its top is
    // a multiple of 16. `work` gets the pointer it wants, and does not unwind.
    unsafe { call_on(top, work, std::ptr::from_mut(touch)) };
    give_stack(stack);
}

/// Called on the stack of ours.
extern "C" fn work(touch: *mut Touch) {
    // SAFETY: `with_stack` passes a reference that it does not use meanwhile.
    let touch = unsafe { &mut *touch };
    touch.answered = answer(&touch.call, touch.address, touch.write);
}

/// Has the mapping's handler answer; `false` where it is the toucher's fault.
fn answer(call: &registry::Call, address: usize, write: bool) -> bool {
    let entry = call.entry();
    let last = LAST.get();
    let again = (last.0, last.1, last.2) == (address, write, entry.area.changes());
    if entry.mode != Mode::Signal || (again && last.3 >= PATIENCE) {
        return false;
    }
    let at = (address - entry.area.base()) as u64;
    let answered = entry.handler.fault(at, write, true) != Answer::Forbidden;
    LAST.set((address, write, entry.area.changes(), if again { last.3 + 1 } else { 1 }));
    super::service::look_after(entry);
    answered
}

/// Hands a signal on to the action that was there before.
///
/// # Safety
/// The arguments are those of a handler with `SA_SIGINFO` that runs.
unsafe fn pass_on(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    type WithInfo = extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void);
    let Some(before) = BEFORE.get() else { return };
    if before.sa_sigaction == libc::SIG_DFL || before.sa_sigaction == libc::SIG_IGN {
        // The instruction runs again, and the signal with it. One that somebody sent comes once more.
        // SAFETY: the default action needs no function; `raise` sends a signal to this thread, blocked until the handler ends.
        unsafe {
            libc::signal(signal, libc::SIG_DFL);
            if (*info).si_code <= 0 {
                libc::raise(signal);
            }
        }
        return;
    }
    // SAFETY: `context` is what the kernel gave this handler.
    unsafe { block_as_asked(before, context.cast()) };
    if before.sa_flags & libc::SA_SIGINFO != 0 {
        // SAFETY: an action with this flag is a function of this type.
        let handler = unsafe { std::mem::transmute::<usize, WithInfo>(before.sa_sigaction) };
        handler(signal, info, context);
    } else {
        // SAFETY: an action without the flag, neither default nor ignored, is a function of this type.
        let handler = unsafe { std::mem::transmute::<usize, extern "C" fn(i32)>(before.sa_sigaction) };
        handler(signal);
    }
}

/// Blocks the signals that are blocked where the touch was, and those that the action before asks for: all are now.
///
/// # Safety
/// `context` is that of a signal handler which runs.
unsafe fn block_as_asked(before: &libc::sigaction, context: *const libc::ucontext_t) {
    const LAST_SIGNAL: i32 = 64;
    let mut mask = before.sa_mask;
    // SAFETY: the sets are there; of the context's, which the kernel made 64 bits long, only those are looked at.
    unsafe {
        let there = &raw const (*context).uc_sigmask;
        if before.sa_flags & libc::SA_NODEFER == 0 {
            libc::sigaddset(&raw mut mask, libc::SIGSEGV);
        }
        for signal in (1..=LAST_SIGNAL).filter(|signal| libc::sigismember(there, *signal) == 1) {
            libc::sigaddset(&raw mut mask, signal);
        }
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const mask, std::ptr::null_mut());
    }
}

fn take_stack() -> Option<usize> {
    let free =
        STACKS.iter().find_map(|slot| Some(slot.swap(0, Ordering::Acquire)).filter(|stack| *stack != 0));
    free.or_else(new_stack)
}

fn new_stack() -> Option<usize> {
    let prot = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a new mapping wherever the system likes touches none that exists.
    let stack = unsafe { libc::mmap(std::ptr::null_mut(), GUARD + STACK, prot, flags, -1, 0) };
    if stack == libc::MAP_FAILED {
        return None;
    }
    // SAFETY: the page is the first of the mapping above. Without the guard the stack works as well.
    unsafe { libc::mprotect(stack, GUARD, libc::PROT_NONE) };
    Some(stack as usize)
}

fn give_stack(stack: usize) {
    let kept =
        |slot: &AtomicUsize| slot.compare_exchange(0, stack, Ordering::Release, Ordering::Relaxed).is_ok();
    if !STACKS.iter().any(kept) {
        // SAFETY: `new_stack` mapped it, and nobody uses it.
        unsafe { libc::munmap(stack as *mut _, GUARD + STACK) };
    }
}

/// Calls `body` with `argument` on the stack that ends at `top`.
///
/// # Safety
/// The stack is writable, large enough for `body`, used by nobody else, and `top` a multiple of 16; `body` does not
/// unwind (`extern "C"` aborts) and takes `argument`.
#[cfg(target_arch = "x86_64")]
unsafe fn call_on(top: *mut u8, body: extern "C" fn(*mut Touch), argument: *mut Touch) {
    // SAFETY: r12 is kept by callees and named as clobbered, so the stack pointer comes back; `call` pushes 8
    // bytes below a multiple of 16, as the ABI wants.
    unsafe {
        std::arch::asm!(
            "mov r12, rsp",
            "mov rsp, {top}",
            "call {body}",
            "mov rsp, r12",
            top = in(reg) top,
            body = in(reg) body,
            in("rdi") argument,
            out("r12") _,
            clobber_abi("C"),
        );
    }
}

/// As on x86-64.
///
/// # Safety
/// As on x86-64.
#[cfg(target_arch = "aarch64")]
unsafe fn call_on(top: *mut u8, body: extern "C" fn(*mut Touch), argument: *mut Touch) {
    // SAFETY: x20 is kept by callees and named as clobbered, so the stack pointer comes back.
    unsafe {
        std::arch::asm!(
            "mov x20, sp",
            "mov sp, {top}",
            "blr {body}",
            "mov sp, x20",
            top = in(reg) top,
            body = in(reg) body,
            in("x0") argument,
            out("x20") _,
            clobber_abi("C"),
        );
    }
}

/// Not reached: [`install`] refuses.
///
/// # Safety
/// None is needed.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
unsafe fn call_on(_top: *mut u8, body: extern "C" fn(*mut Touch), argument: *mut Touch) {
    body(argument);
}

/// Whether the instruction that faulted stores.
///
/// # Safety
/// `context` is that of a signal handler for SIGSEGV which runs.
#[cfg(target_arch = "x86_64")]
unsafe fn is_store(context: *const libc::ucontext_t) -> bool {
    /// Of the page fault's error code.
    const WRITE: i64 = 1 << 1;
    // SAFETY: the kernel filled the context; the register's number is inside of the array.
    let error = unsafe { (*context).uc_mcontext.gregs[libc::REG_ERR as usize] };
    error & WRITE != 0
}

/// Whether the instruction that faulted stores: the syndrome register, which is one of the records after the registers.
///
/// # Safety
/// `context` is that of a signal handler for SIGSEGV which runs.
#[cfg(target_arch = "aarch64")]
unsafe fn is_store(context: *const libc::ucontext_t) -> bool {
    const RECORDS: usize = 4096;
    const SYNDROME: u32 = 0x4553_5201;
    const WRITE: u64 = 1 << 6;
    // SAFETY: the records are the last 4096 bytes of the struct.
    let records = unsafe {
        (&raw const (*context).uc_mcontext).cast::<u8>().add(size_of::<libc::mcontext_t>() - RECORDS)
    };
    let mut at = 0;
    while at + 16 <= RECORDS {
        // SAFETY: a record begins with its kind and its size, and lies inside of the records; the syndrome follows
        // after these.
        let (kind, size, word) = unsafe {
            let record = records.add(at);
            (
                record.cast::<u32>().read(),
                record.add(4).cast::<u32>().read(),
                record.add(8).cast::<u64>().read(),
            )
        };
        match (kind, size) {
            (SYNDROME, _) => return word & WRITE != 0,
            (0, _) | (_, 0) => break,
            _ => at += size as usize,
        }
    }
    false
}

/// Not reached: [`install`] refuses.
///
/// # Safety
/// None is needed.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
unsafe fn is_store(_context: *const libc::ucontext_t) -> bool {
    false
}
