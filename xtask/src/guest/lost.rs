//! What becomes of a file whose bytes the medium has lost, as the kernel's own list says?
//!
//! `vm-guest lost POOL UNIT MODE OFFSET`: a page at `OFFSET` of `/data`, which was lost while the pool was closed.

use crate::Result;
use crate::mapping::{PAGE, holds, load, stage, store};
use daxstore::{AllocateMode, Error, File, OpenOptions, Store};
use daxstore_fault::Mapping;
use std::path::Path;

/// Reads, maps and stores, then repairs.
pub fn run(pool: &Path, unit: &str, mode: &str, offset: &str) -> Result<()> {
    let (stage, at) = (stage(pool, unit, mode)?, offset.parse::<u64>()?);
    let store = stage.open()?;
    let file = store.open("/data", &OpenOptions::new().read(true).write(true))?;
    let map = stage.map(&file, file.len().next_multiple_of(stage.unit))?;
    refuses(&file, &map, at, stage.unit)?;
    repairs(&store, &file, at)?;
    map.close()?;
    let map = stage.map(&file, file.len().next_multiple_of(stage.unit))?;
    if stage.unit == PAGE {
        holds!(load(&map, at) == Ok(u64::from_ne_bytes([9; 8])), "repaired, and {:?}", load(&map, at));
        holds!(crate::mapping::store(&map, at, 5) == Ok(()), "repaired, and no store");
    }
    map.close()?;
    holds!(store.check()?.is_clean(), "repaired, and the check finds something");
    Ok(store.close()?)
}

/// Nothing that touches the lost page gets anything but an error or a signal; what is beside it is there.
fn refuses(file: &File, map: &Mapping, at: u64, unit: u64) -> Result<()> {
    let mut whole = vec![0; file.len() as usize];
    let read = file.read_at(&mut whole, 0)?;
    holds!(read as u64 == at, "a read from the start ends at {read}, the bytes at {at} are lost");
    match file.read_at(&mut whole, at) {
        Err(error @ Error::BadMedium { offset, len, .. }) => {
            holds!((offset, len) == (at, PAGE), "lost are {len} bytes at {offset}");
            holds!(error.errno() == libc::EIO, "errno {}", error.errno());
            println!("note: {error}");
        }
        other => return Err(format!("lost bytes read {other:?}").into()),
    }
    file.read_exact_at(&mut whole[..PAGE as usize], at + PAGE)?;
    holds!(load(map, at) == Err(libc::SIGBUS), "a load of lost bytes: {:?}", load(map, at));
    holds!(store(map, at + 8, 1) == Err(libc::SIGBUS), "a store to lost bytes raised no signal");
    let refused = map.prefault(at, PAGE, false);
    holds!(matches!(refused, Err(Error::BadMedium { .. })) || unit > PAGE, "prefault: {refused:?}");
    holds!(refused.is_err(), "lost bytes were mapped");
    if unit == PAGE {
        holds!(load(map, at + PAGE).is_ok(), "a load beside lost bytes: {:?}", load(map, at + PAGE));
    }
    let partial = file.write_at(&[1; 8], at + 8);
    holds!(matches!(partial, Err(Error::BadMedium { .. })), "a part of lost bytes was written: {partial:?}");
    Ok(())
}

/// An overwrite of the whole page gives it another block.
fn repairs(pool: &Store, file: &File, at: u64) -> Result<()> {
    let lost = |file: &File| -> Result<_> { Ok(file.extents(at, 1)?[0].state.address()) };
    let before = lost(file)?;
    file.write_all_at(&[9; PAGE as usize], at)?;
    holds!(lost(file)? != before, "an overwrite of lost bytes stayed where it was");
    let mut bytes = vec![0; PAGE as usize];
    file.read_exact_at(&mut bytes, at)?;
    holds!(bytes == [9; PAGE as usize], "an overwrite of lost bytes reads otherwise");
    // A second file must not be given the lost block.
    let other = pool.open("/other", &OpenOptions::new().read(true).write(true).create(true))?;
    other.allocate(0, 8 << 20, AllocateMode::Zero)?;
    let mut bytes = vec![1; 8 << 20];
    other.read_exact_at(&mut bytes, 0)?;
    holds!(bytes.iter().all(|byte| *byte == 0), "another file was given lost bytes");
    Ok(())
}
