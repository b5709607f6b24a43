//! What does the kernel map where a devdax device is mapped at an offset that is not a multiple of its alignment?

use crate::Result;
use memmap2::MmapOptions;
use std::fs::File;
use std::path::Path;

const PAGE: usize = 4096;
const CHUNK: usize = 2 << 20;

/// Writes a number into each of the first two pages of the device through an aligned mapping, maps 2 MiB from the second
/// page on, and tells which of them the kernel put there.
pub fn misaligned(device: &Path) -> Result<()> {
    let device = File::options().read(true).write(true).open(device)?;
    let whole = MmapOptions::new().len(2 * CHUNK).map_raw(&device)?;
    for page in 0..2 {
        // SAFETY: the mapping is of 4 MiB, and the program has no reference into it.
        unsafe { whole.as_mut_ptr().add(page * PAGE).cast::<u64>().write_volatile(0xDA0 + page as u64) };
    }
    match MmapOptions::new().offset(PAGE as u64).len(CHUNK).map_raw(&device) {
        Err(error) => println!("note: mmap at offset 4096 is refused: {error}"),
        Ok(map) => {
            // SAFETY: the mapping is of 2 MiB, and the program has no reference into it.
            let found = unsafe { map.as_ptr().cast::<u64>().read_volatile() };
            let what = match found {
                0xDA0 => "page 0, not page 1: the kernel ignores the offset without an error",
                0xDA1 => "page 1, as asked",
                _ => "neither of both pages",
            };
            println!("note: mmap of 2 MiB at offset 4096 maps {what}");
        }
    }
    Ok(())
}
