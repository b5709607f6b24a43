//! How does a file of the store become memory?
//!
//! A [`Mapping`] is a range of addresses whose translations a fault handler installs: it asks the file
//! ([`daxstore::iomap::FaultOps`]) what lies at the touched byte, decides ([`choose`]) between a translation of 2 MiB (PMD), of 4 KiB
//! (PTE), of zeros, and SIGBUS, and maps the pool itself there. The store announces what it does to the file's blocks
//! through [`daxstore::iomap::AddressSpace`]. `docs/fault.md` has the rules.

#[cfg(not(loom))]
#[allow(dead_code, reason = "used by the mappings of files")]
mod os;
mod table;

pub use table::Mode;
