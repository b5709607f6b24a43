//! How fast is the key-value store beside what its users would take instead?
//!
//! Every engine does the same operations on the same keys and values, drawn by the same generators from the same seed,
//! on the same file system, each in a process of its own.
//!
//! Invariants:
//! 1. Every write is durable when the engine's call returns, as far as its own configuration can promise; what was
//!    configured is part of the result (`Engine::configuration`).
//! 2. Every value read is compared with the key it belongs to: no engine is measured doing less.
//! 3. The clock is read around a random eighth of the operations, so that reading it is no part of most of them.

mod all;
mod args;
pub mod draw;
pub mod engine;
mod engines;
mod error;
pub mod histogram;
mod place;
mod plot;
mod reopen;
pub mod run;
mod table;
pub mod workload;

pub use all::main;
pub use args::Args;
pub use engines::daxstore::{DATABASE, POOL};
pub use error::{Context, Failure, Result};
pub use place::Place;
pub use table::{seconds, table};
