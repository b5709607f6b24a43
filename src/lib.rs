//! daxstore: ordinary files, directories and memory mappings on persistent memory, with no kernel file system in
//! the path.
//!
//! `docs/architecture.md` tells how the modules stand on each other; a module names only modules above it in
//! the list below.

pub mod error;
pub mod sync;
pub mod units;

pub mod iomap;
pub mod pmem;

pub mod layout;

pub mod journal;
pub mod tree;
