//! How is memory touched that may raise a signal?
//!
//! As in the tests of the crate for mappings, whose module this is.

#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "the module is of tests, which use all of it and fail by panicking"
)]

#[path = "../../../fault/tests/common/touch.rs"]
mod touch;

pub use touch::*;
