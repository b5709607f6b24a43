//! What stands for `lines` where cache lines can not be written back from user space with known instructions?
//!
//! A type without values, so that no code can reach it.

use super::memory::Memory;
use crate::error::{Error, Result};
use crate::units::PoolOff;

/// Never exists.
#[derive(Clone, Copy, Debug)]
pub(super) enum Lines {}

impl Lines {
    pub(super) fn new(_eadr: bool) -> Result<Self> {
        Err(Error::Unsupported {
            backend: "lines",
            why: "cache lines are flushed on x86-64 only; open the pool as a plain file, without assuming \
                  that its memory is persistent",
        })
    }

    pub(super) const fn name(&self) -> &'static str {
        match *self {}
    }

    pub(super) fn copy(&self, _memory: &Memory, _at: PoolOff, _bytes: &[u8]) {
        match *self {}
    }

    pub(super) fn zero(&self, _memory: &Memory, _at: PoolOff, _len: u64) {
        match *self {}
    }

    pub(super) fn flush(&self, _memory: &Memory, _at: PoolOff, _len: u64) {
        match *self {}
    }

    pub(super) fn fence(&self) {
        match *self {}
    }
}
