//! Does a mapping behave as its page says, in every mode, over every medium?
//!
//! One test for each behaviour that a user can see: `docs/fault.md`, and what other mappings of files do.

#![cfg(target_arch = "x86_64")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../common/mod.rs"]
mod common;

mod arguments;
mod changes;
mod coherence;
mod ends;
mod kernel;
mod moves;
mod own;
mod process;
mod sharing;
mod space;
mod sync;
