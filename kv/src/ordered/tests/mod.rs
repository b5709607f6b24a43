//! Does the index say what a sorted map says, and still after crashes, full pools and damage?

mod crash;
mod damage;
mod memory;
mod model;
