//! What does a file answer the handler of faults in its mappings?

use super::file::File;
use crate::error::Result;
use crate::io::fault;
use crate::iomap::{Access, AddressSpace, FaultOps, FileRange, Iomap, Memory, Placement};
use crate::mapper::FileMap;
use crate::pmem::{Region, Window};
use crate::sync::Arc;
use crate::units::PoolOff;

impl File {
    fn region(&self) -> &Region {
        self.node.handle.fs().region()
    }
}

impl FaultOps for File {
    fn memory(&self) -> Result<Memory> {
        fault::memory(self.region())
    }

    unsafe fn access_at(&self, base: *mut u8, len: u64) -> Result<Box<dyn Access>> {
        let region = self.node.handle.fs().journal().region().clone();
        // SAFETY: what the caller promises here is what `Window::new` asks for, word by word.
        Ok(Box::new(unsafe { Window::new(region, base, len) }))
    }

    fn access(&self) -> (bool, bool) {
        // What a mapping stores is in no order.
        (self.read, self.write && self.capacity().is_none())
    }

    fn ino(&self) -> u64 {
        self.node.handle.ino().0
    }

    fn size(&self) -> u64 {
        self.node.handle.core().size()
    }

    fn run_at(&self, offset: u64, within: FileRange) -> Result<Iomap> {
        let handle = &self.node.handle;
        FileMap::new(handle.fs(), handle.core()).around(offset, within)
    }

    fn look_at(&self, offset: u64, within: FileRange) -> Result<(Iomap, bool)> {
        let handle = &self.node.handle;
        FileMap::new(handle.fs(), handle.core()).look_around(offset, within)
    }

    fn populate(&self, range: FileRange, placement: Placement) -> Result<bool> {
        fault::populate(&self.node.handle, range, placement)
    }

    fn make_private(&self, range: FileRange) -> Result<()> {
        crate::io::make_private(&self.node.handle, range)
    }

    fn zero_ahead(&self, enough: usize) -> Result<bool> {
        self.node.handle.fs().space.zero_ahead(enough)
    }

    fn touch(&self) -> Result<()> {
        fault::touch(&self.node.handle)
    }

    fn prime(&self, at: PoolOff, len: u64) -> Result<()> {
        self.region().prime(at, len)
    }

    fn read(&self, at: PoolOff, buf: &mut [u8]) -> Result<()> {
        self.region().read(at, buf)
    }

    fn flush(&self, at: PoolOff, len: u64) -> Result<()> {
        self.region().flush(at, len)
    }

    fn fence(&self) -> Result<()> {
        self.region().fence()
    }

    fn bad(&self, at: PoolOff, len: u64) -> Option<(PoolOff, u64)> {
        self.region().bad(at, len)
    }

    fn pin(&self, runs: &[(PoolOff, u64)]) -> Result<()> {
        let runs = fault::runs(runs, self.region().len())?;
        self.node.handle.fs().space.pin(&runs)
    }

    fn unpin(&self, runs: &[(PoolOff, u64)]) {
        // What is not whole blocks was never pinned.
        if let Ok(runs) = fault::runs(runs, self.region().len()) {
            self.node.handle.fs().space.unpin(&runs);
        }
    }

    fn attach(&self, make: &mut dyn FnMut() -> Arc<dyn AddressSpace>) -> Result<Arc<dyn AddressSpace>> {
        fault::attach(&self.node.handle, make)
    }

    fn detach(&self) {
        self.node.handle.core().space.detach();
    }
}
