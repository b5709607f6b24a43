//! How is a window of the pool used as the memory of a mapping?

use crate::error::Result;
use crate::iomap::Access;
use crate::pmem::Window;
use std::sync::atomic::AtomicU64;

impl Access for Window {
    fn read(&self, at: u64, buf: &mut [u8]) -> Result<()> {
        Self::read(self, at, buf)
    }

    fn write(&self, at: u64, bytes: &[u8]) -> Result<()> {
        Self::write(self, at, bytes)
    }

    fn write_through(&self, at: u64, bytes: &[u8]) -> Result<()> {
        self.copy_nt(at, bytes)
    }

    fn word(&self, at: u64) -> Result<&AtomicU64> {
        Self::word(self, at)
    }

    fn flush(&self, at: u64, len: u64) -> Result<()> {
        Self::flush(self, at, len)
    }

    fn fence(&self) -> Result<()> {
        Self::fence(self)
    }
}
