//! How does a program keep keys and values in persistent memory, in order, at the speed of memory?
//!
//! A database is one file of a [`daxstore::Store`], mapped into memory. What changes it is durable when it returns, by one
//! fence; `docs/kv.md` has the protocol and its invariants.

pub mod error;
mod layout;
pub mod media;

mod chunks;
mod env;
mod epoch;
pub mod ordered;
mod pages;

pub use error::{Error, Result};
