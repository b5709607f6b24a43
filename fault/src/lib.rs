//! How does a file of the store become memory?
//!
//! A [`Mapping`] is a range of addresses whose translations a fault handler installs: it asks the file
//! ([`daxstore::iomap::FaultOps`]) what lies at the touched byte, decides ([`choose`]) between a translation of 2 MiB (PMD), of 4 KiB
//! (PTE), of zeros, and SIGBUS, and maps the pool itself there. The store announces what it does to the file's blocks
//! through [`daxstore::iomap::AddressSpace`]. `docs/fault.md` has the rules.
//!
//! ```
//! use daxstore::{OpenOptions, Store, StoreOptions};
//! use daxstore_fault::MapOptions;
//! use std::sync::atomic::{AtomicU64, Ordering};
//!
//! # fn main() -> daxstore::Result<()> {
//! # let dir = tempfile::tempdir().expect("a directory");
//! # let pool = dir.path().join("pool");
//! let store = Store::create(pool, 64 << 20, &StoreOptions::new())?;
//! let file = store.open("/log", &OpenOptions::new().read(true).write(true).create(true))?;
//! file.set_len(1 << 30)?; // a hole: it takes no space
//! let map = MapOptions::new().write(true).map(&file, 0, 1 << 30)?;
//! map.write(4096, b"stored")?; // a fault gives the hole blocks of zeros
//! map.flush(4096, 6)?; // durable
//! map.atomic::<AtomicU64>(0)?.fetch_add(1, Ordering::Relaxed);
//! map.sync(0, map.len())?; // all that was stored, through any mapping
//! let mut found = [0; 6];
//! file.read_exact_at(&mut found, 4096)?;
//! assert_eq!(&found, b"stored");
//! map.close()?;
//! # Ok(())
//! # }
//! ```

mod atomic;
mod budget;
mod choose;
mod entries;
mod fetch;
#[cfg(not(loom))]
mod mapping;
pub mod mutation;
#[cfg(not(loom))]
mod os;
mod query;
mod serve;
mod space;
mod stats;
mod sync;
mod table;
#[cfg(all(test, not(loom)))]
mod tests;
#[cfg(any(test, feature = "mutations"))]
pub mod toy;
pub mod turns;
mod upkeep;
mod view;

pub use atomic::Atomic;
pub use budget::Budget;
pub use choose::{
    Bad, Cause, Content, Decision, Fault, Held, Media, Page, Query, Reason, Slot, SlotMap, Space, System,
    Vma, ZeroSize, choose,
};
pub use entries::{Entries, Entry, What};
pub use fetch::Pin;
#[cfg(not(loom))]
pub use mapping::{Advice, MapOptions, Mapping};
pub use space::{Attachment, FileSpace};
pub use stats::{Count, Counters, Fallback, Row, Stats};
pub use table::{Answer, Handler, Installed, Mode, Table};
pub use view::{View, ViewParams};
