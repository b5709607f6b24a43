//! Who answers faults, and what runs for that in a process?
//!
//! One service for all mappings, begun with the first and never ended: two threads that read the kernel's messages
//! (mode U) and one that tends to mappings. Two, because one may be in an `mremap` that goes on only when the
//! other has read of it; more are slower.
//!
//! Rules:
//! 1. A thread that answers faults depends on nothing but the handlers it calls. If one panics, the process ends: those who
//!    touch mappings would wait for ever.
//! 2. A message is a hint. The address is looked up when it is read; who is not found was unmapped, or is being
//!    mapped, and is woken by who does that.
//! 3. Mappings are moved by nobody: an `mremap` by the user takes addresses out of the registry's sight, and ends the process
//!    before a store is lost there.

use super::registry::{self, Entry};
use super::sys::{Bell, empty_file, give_up, without_signals};
use super::table_u::{Staging, Tools, Zeros};
use super::userfault::{Event, Userfault};
use crate::table::{Answer, Mode};
use daxstore::sync::thread;
use daxstore::sync::{Arc, Mutex};
use daxstore::{Error, Result};
use std::cell::RefCell;
use std::fs::File;
use std::sync::OnceLock;

/// What every mode needs.
#[derive(Debug)]
struct House {
    empty: File,
    bell: Bell,
}

static HOUSE: OnceLock<&'static House> = OnceLock::new();
static TOOLS: OnceLock<&'static Tools> = OnceLock::new();

/// Runs `make` unless `cell` is filled, one thread at a time; what fails is tried again by the next.
fn once<T>(
    cell: &'static OnceLock<&'static T>,
    make: impl FnOnce() -> Result<&'static T>,
) -> Result<&'static T> {
    static STARTING: OnceLock<Mutex<()>> = OnceLock::new();
    if let Some(made) = cell.get() {
        return Ok(made);
    }
    let _starting = STARTING.get_or_init(|| Mutex::new(())).lock();
    match cell.get() {
        Some(made) => Ok(made),
        None => make().map(|made| *cell.get_or_init(|| made)),
    }
}

fn house() -> Result<&'static House> {
    once(&HOUSE, || {
        let house: &'static House = Box::leak(Box::new(House { empty: empty_file()?, bell: Bell::new()? }));
        start("daxstore-tend", move || tend(house))?;
        Ok(house)
    })
}

/// The file that is mapped beyond the end of others.
///
/// # Errors
/// The system's.
pub(super) fn empty() -> Result<&'static File> {
    house().map(|house| &house.empty)
}

/// The userfaultfd of the process, with threads that read it.
///
/// # Errors
/// The system's: it has none, or refuses it.
pub(super) fn userfault() -> Result<&'static Tools> {
    house()?;
    once(&TOOLS, || {
        let uffd = Userfault::open()?;
        let read_only = Staging::new(&uffd, libc::PROT_READ)?;
        let writable = Staging::new(&uffd, libc::PROT_READ | libc::PROT_WRITE)?;
        let tools: &'static Tools =
            Box::leak(Box::new(Tools { uffd, read_only, writable, zeros: Zeros::new()? }));
        ["daxstore-fault0", "daxstore-fault1"]
            .iter()
            .try_for_each(|name| start(name, move || serve(tools)))?;
        Ok(tools)
    })
}

/// Installs the handler of SIGSEGV.
///
/// # Errors
/// Those of [`super::signal::install`].
pub(super) fn signal() -> Result<()> {
    static DONE: OnceLock<Mutex<()>> = OnceLock::new();
    let _one = DONE.get_or_init(|| Mutex::new(())).lock();
    super::signal::install()
}

fn start(name: &str, body: impl FnOnce() + Send + 'static) -> Result<()> {
    let started = without_signals(|| {
        thread::Builder::new().name(name.to_owned()).spawn(move || {
            let _end = EndOnPanic;
            body();
        })
    });
    started.map(drop).map_err(|e| Error::io("starting a thread", e))
}

/// Ends the process when a thread of the service panics.
struct EndOnPanic;

impl Drop for EndOnPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            give_up("a thread that serves mappings has panicked");
        }
    }
}

daxstore::sync::thread_local! {
    /// What a thread that reads messages has read while it waited for something else; `None` in other threads.
    static LATER: RefCell<Option<Vec<Event>>> = const { RefCell::new(None) };
}

/// Reads messages for ever.
fn serve(tools: &Tools) {
    LATER.set(Some(Vec::new()));
    loop {
        if tools.uffd.read(|event| take(tools, event)).is_err() {
            closed();
        }
        while let Some(event) = LATER.with_borrow_mut(|later| later.as_mut().and_then(Vec::pop)) {
            take(tools, event);
        }
    }
}

fn take(tools: &Tools, event: Event) {
    match event {
        Event::Fault { address, write } => fault(tools, address, write),
        Event::Remap { from } => moved(from),
    }
}

fn closed() -> ! {
    give_up("the userfaultfd was closed, and stores to mapped files would be lost")
}

/// Lets others go on while this thread waits for what they have. One that reads messages goes on reading: who
/// has it may be waiting for that. The faults it reads are answered after the one it is at.
pub(super) fn pause(uffd: &Userfault) {
    let reads = LATER.with_borrow(Option::is_some);
    let later = |event| match event {
        Event::Remap { from } => moved(from),
        fault => LATER.with_borrow_mut(|later| later.get_or_insert_default().push(fault)),
    };
    if reads && uffd.read_now(later).is_err() {
        closed();
    }
    thread::yield_now();
}

fn fault(tools: &Tools, address: usize, write: bool) {
    let Some(call) = registry::find(address) else {
        let _ = tools.read_only.fill(&tools.uffd, address) || tools.writable.fill(&tools.uffd, address);
        return;
    };
    let entry = call.entry();
    let at = (address - entry.area.base()) as u64;
    let answer = match entry.handler.fault(at, write, false) {
        // What can be read is installed, and the touch raises SIGSEGV on that.
        Answer::Forbidden => entry.handler.fault(at, false, false),
        answer => answer,
    };
    if let Answer::Wake { at, len } = answer {
        tools.uffd.wake(entry.area.base() + at as usize, len);
    }
    look_after(entry);
}

fn moved(from: usize) {
    if registry::find(from).is_some() {
        give_up("the program has moved a mapping of a file by mremap, and stores to it would be lost");
    }
}

/// Has the mapping tended to, if it wants that. Takes no lock and no memory.
pub(super) fn look_after(entry: &Entry) {
    if entry.handler.wants_tending()
        && let Some(house) = HOUSE.get()
    {
        house.bell.ring();
    }
}

/// Tends to mappings for ever.
fn tend(house: &House) {
    while house.bell.hear() {
        registry::each(|entry| {
            if entry.handler.wants_tending() {
                entry.handler.tend();
            }
        });
    }
}

/// Lets all who wait for a fault of these addresses try again.
pub(super) fn wake_all(area: &Arc<super::reserve::Area>, mode: Mode) {
    if mode == Mode::Userfault
        && let Some(tools) = TOOLS.get()
    {
        tools.uffd.wake(area.base(), area.len());
    }
}
