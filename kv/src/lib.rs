//! How does a program keep keys and values in persistent memory, in order, at the speed of memory?
//!
//! A database is one file of a [`daxstore::Store`], mapped into memory. What changes it is durable when it returns, by one
//! fence; `docs/kv.md` has the protocol and its invariants.

#![cfg_attr(loom, allow(unused_imports, dead_code, reason = "under loom there are no mappings"))]

pub mod error;
mod layout;
pub mod media;
pub mod mutation;

mod batch;
mod check;
mod chunks;
mod compact;
mod core;
mod count;
mod db;
mod env;
mod epoch;
mod hash;
mod heap;
mod held;
mod inherited;
mod iter;
mod lent;
mod order;
#[cfg(feature = "sim")]
pub mod ordered;
#[cfg(not(feature = "sim"))]
#[allow(dead_code, unused_imports, reason = "models and tests use more of it than the database does")]
mod ordered;
mod page_chunk;
mod pages;
mod prefetch;
mod reach;
mod reclaim;
mod record;
mod recover;
mod repair;
mod ring;
mod scan;
mod sealed;
mod session;
mod sizes;
mod snapshots;
mod stats;
mod stripes;
mod superblock;
mod sweep;
mod trees;
#[cfg(feature = "serde")]
pub mod typed;
mod upkeep;
mod vacate;
mod visible;

/// Parts that models look at alone.
#[cfg(feature = "sim")]
pub mod parts {
    pub use crate::epoch::Epochs;
    pub use crate::heap::{Heap, Kept};
    pub use crate::held::Held;
    pub use crate::session::Old;
}

pub use batch::Batch;
pub use check::Report;
pub use db::{Db, Key, Options, Tree, Value};
pub use error::{Error, Result};
pub use iter::{Range, Snapshot};
pub use lent::ValueRef;
pub use recover::Recovery;
pub use scan::Scan;
pub use stats::{Space, Stats};
