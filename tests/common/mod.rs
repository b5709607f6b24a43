//! What crash and model tests share: the operations, the model, the real store as they see it, and the rig that
//! crashes it.
#![allow(dead_code)] // each test binary uses a part of this

pub mod crash;
pub mod model;
pub mod ops;
pub mod real;
pub mod state;
