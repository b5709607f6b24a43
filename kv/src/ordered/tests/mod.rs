//! Does the index say what a sorted map says, and still after crashes, full pools and damage?

#![allow(clippy::unwrap_used, reason = "a test has nobody to report to")]

mod crash;
mod damage;
mod memory;
mod model;
mod shrink;
mod threads;
