//! Do two ranges hold the same bytes?
//!
//! The caller holds both in `io`, and no mapping shows them: nobody stores to them meanwhile.

use crate::error::{Error, Result};
use crate::inode::{Fs, InodeCore};
use crate::iomap::{FileRange, Intent, Iomap, IomapOps, State};
use crate::mapper::FileMap;
use crate::units::FileBlock;

/// Bytes compared at a time.
const PIECE_BYTES: u64 = 64 << 10;

/// Whether the `len` bytes of both files from these blocks on are the same. What lies in the same blocks is not read.
///
/// # Errors
/// [`Error::BadMedium`] where the medium has lost some of them, damage.
pub(super) fn same(
    fs: &Fs,
    (one, from): (&InodeCore, FileBlock),
    (other, to): (&InodeCore, FileBlock),
    len: u64,
) -> Result<bool> {
    let (mut a, mut b) = (vec![0; PIECE_BYTES as usize], vec![0; PIECE_BYTES as usize]);
    let mut done = 0;
    while done < len {
        let run = |core, start: FileBlock| {
            let range = FileRange { offset: start.offset() + done, len: len - done };
            FileMap::new(fs, core).begin(range, Intent::Read)
        };
        let (mine, theirs) = (run(one, from)?, run(other, to)?);
        let both = mine.range.len.min(theirs.range.len);
        let has_data = |run: &Iomap| matches!(run.state, State::Mapped(_));
        if mine.state != theirs.state && (has_data(&mine) || has_data(&theirs)) {
            let part = both.min(PIECE_BYTES);
            let (a, b) = (&mut a[..part as usize], &mut b[..part as usize]);
            read(fs, one, &mine, a)?;
            read(fs, other, &theirs, b)?;
            if a != b {
                return Ok(false);
            }
            done += part;
        } else {
            done += both;
        }
    }
    Ok(true)
}

/// The first bytes of `run`.
fn read(fs: &Fs, core: &InodeCore, run: &Iomap, into: &mut [u8]) -> Result<()> {
    let State::Mapped(at) = run.state else {
        into.fill(0);
        return Ok(());
    };
    super::read::check_medium(fs, core.ino, FileRange { len: into.len() as u64, ..run.range }, at)?;
    fs.region().read(at, into).map_err(|error| match error {
        Error::Corrupt(_) => {
            Error::BadMedium { at, ino: core.ino.0, offset: run.range.offset, len: into.len() as u64 }
        }
        other => other,
    })
}
