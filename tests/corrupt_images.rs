//! What does damage do?
//!
//! Every bit of the metadata is flipped, sectors are torn, files cut short, and sealed lies are told. Whatever is done:
//! no panic, no endless walk, typed errors, no wrong answer in silence; a repair leaves a pool without faults, in which
//! everything is as it was but what the repair named as lost.
#![cfg(feature = "sim")]
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

#[path = "corrupt_images/flips.rs"]
mod flips;
#[path = "corrupt_images/hostile.rs"]
mod hostile;
#[path = "corrupt_images/observe.rs"]
mod observe;
#[path = "corrupt_images/pool.rs"]
mod pool;
#[path = "corrupt_images/torn.rs"]
mod torn;
#[path = "corrupt_images/trial.rs"]
mod trial;
