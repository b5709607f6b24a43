//! Do the tables and the service keep what they promise, in this process and on this kernel?
//!
//! A toy file of pages ([`toy`]) stands for the store; a test that ends a process does so in a process of its own
//! ([`child`]).

#[path = "../../../tests/common/child.rs"]
mod child;
mod faults;
mod process;
mod races;
mod touch;
mod toy;
