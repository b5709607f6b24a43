//! What does the repository run beside cargo's own commands?
//!
//! [`vm`]: the store on the persistent memory of a real kernel, in a virtual machine.

pub mod vm;

/// What a step of a task gives: its errors go to a person, who reads them.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;
