//! How does a mapping get addresses, and how do its faults find their handler?
//!
//! The only place of the crate that talks to the system, in three modes ([`Mode`]): [`map`] reserves addresses and gives a
//! [`Table`] to change what is there; [`register`] has their faults answered. Which mode it is, is found by trying.
//!
//! Order: nobody is told the addresses before they are registered; a fault before that waits and is woken by it. A
//! [`Registration`] that goes takes the mapping out of the registry and waits for the calls of its handler, then gives the
//! addresses back, then wakes who waited for a fault there (they get SIGSEGV). In a forked child it does nothing: none of that is
//! the child's.

pub(crate) mod confirm;
mod ground;
mod limits;
mod registry;
mod reserve;
mod service;
mod signal;
mod sys;
mod table_s;
mod table_u;
mod userfault;

#[cfg(test)]
mod tests;

use crate::table::{Handler, Mode, Table};
use daxstore::Result;
use daxstore::iomap::Memory;
use daxstore::sync::Arc;
use ground::Ground;
pub(crate) use limits::{budget, populate};
use reserve::Area;
use std::sync::OnceLock;

/// What user code may do to a mapping.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Protection {
    /// Load.
    ReadOnly,
    /// Load and store.
    Writable,
}

/// The mapping that is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wish {
    /// Bytes, not 0; rounded up to whole units of the medium.
    pub(crate) len: u64,
    /// The file offset of the first byte, a multiple of 4 KiB: the address is congruent to it, modulo 2 MiB (or the medium's
    /// unit, where that is larger).
    pub(crate) congruent_to: u64,
    /// What user code may do.
    pub(crate) protection: Protection,
    /// Whether stores go to copies of the mapping's own. A block in such a mapping is copied by the kernel when it is
    /// stored to (`MAP_PRIVATE`).
    pub(crate) private: bool,
    /// The mode, where it is not to be found by trying.
    pub(crate) mode: Option<Mode>,
}

/// Addresses of a mapping. Given back when neither this nor its [`Registration`] nor its table is left, or at once when the
/// registration goes.
#[derive(Debug)]
pub(crate) struct OsMap {
    /// The address of the first byte.
    pub(crate) base: usize,
    /// Bytes.
    pub(crate) len: u64,
    /// How faults come.
    pub(crate) mode: Mode,
    /// Whether faults come that the kernel takes itself, in `read(2)` into the mapping and the like; else such calls fail with
    /// `EFAULT` where something is missing.
    pub(crate) kernel_faults: bool,
    area: Arc<Area>,
}

/// Reserves addresses, in which nothing is mapped yet, for `memory`.
///
/// # Errors
/// [`daxstore::Error::Unsupported`] in a forked child of a process with mappings; the system's answer to the
/// mode asked for; without one, its answer to mode E, which needs no more than `mmap`.
pub(crate) fn map(memory: &Memory, wish: &Wish) -> Result<(OsMap, Box<dyn Table>)> {
    sys::settle()?;
    match wish.mode {
        Some(mode) => in_mode(memory, wish, mode),
        None => in_mode(memory, wish, Mode::Userfault)
            .or_else(|_| in_mode(memory, wish, Mode::Signal))
            .or_else(|_| in_mode(memory, wish, Mode::Eager)),
    }
}

fn in_mode(memory: &Memory, wish: &Wish, mode: Mode) -> Result<(OsMap, Box<dyn Table>)> {
    let ground = || Ground::new(memory, wish, service::empty()?);
    let (area, kernel_faults, table): (_, _, Box<dyn Table>) = match mode {
        Mode::Userfault => {
            let tools = service::userfault()?;
            let ground = ground()?;
            let area = Arc::clone(&ground.area);
            (area, tools.uffd.is_complete(), Box::new(table_u::TableU::new(ground, tools)?))
        }
        Mode::Signal | Mode::Eager => {
            if mode == Mode::Signal {
                service::signal()?;
            }
            let ground = ground()?;
            (Arc::clone(&ground.area), false, Box::new(table_s::TableS::new(ground, mode)))
        }
    };
    Ok((OsMap { base: area.base(), len: area.len(), mode, kernel_faults, area }, table))
}

/// A mapping whose faults are answered. When it is dropped, no call of the handler is under way any more (do not drop it in one,
/// nor with a lock or a turn that one may wait for), the addresses are gone, and who waited for a fault there goes on.
#[derive(Debug)]
pub(crate) struct Registration {
    place: registry::Place,
    area: Arc<Area>,
    mode: Mode,
}

/// Whether forked children take away what they inherit of registered mappings.
fn children_leave() -> bool {
    static DONE: OnceLock<bool> = OnceLock::new();
    extern "C" fn leave() {
        registry::each_range(reserve::leave_in_child);
    }
    *DONE.get_or_init(|| sys::in_children(leave).is_ok())
}

/// Has the faults of `map` answered by `handler`, from now on.
///
/// # Errors
/// [`daxstore::Error::InvalidArgument`] where the process has too many mappings.
pub(crate) fn register(map: &OsMap, handler: Arc<dyn Handler>) -> Result<Registration> {
    let (area, mode) = (Arc::clone(&map.area), map.mode);
    let place = registry::enter(registry::Entry { handler, area: Arc::clone(&area), mode })?;
    if children_leave() {
        area.is_left_by_children();
    }
    // A stray touch since `map` waits for this.
    service::wake_all(&area, mode);
    Ok(Registration { place, area, mode })
}

impl Registration {
    /// Gives the addresses back now. Waits for no handler, so that it may be called in a turn that one waits for.
    pub(crate) fn unmap(&self) {
        self.area.unmap();
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        if !sys::at_home() {
            return;
        }
        self.place.remove();
        self.area.unmap();
        service::wake_all(&self.area, self.mode);
    }
}
