//! How does the pool's own description change?
//!
//! Two copies are written one after the other, each waited for, so that at every moment one of them is whole; the
//! valid one with the higher sequence is believed.

use crate::error::{Error, Result};
use crate::layout::{SUPERBLOCK_A, SUPERBLOCK_B, SUPERBLOCK_BYTES, Superblock};
use crate::pmem::Region;
use crate::pmem::mutation::{self, Mutation};
use crate::units::{BLOCK_BYTES, PoolOff};

/// What the two copies hold.
#[derive(Debug)]
pub struct Copies {
    /// The copy at offset 0.
    pub a: Result<Superblock>,
    /// The copy in block 26.
    pub b: Result<Superblock>,
}

impl Copies {
    /// Reads both.
    ///
    /// # Errors
    /// [`Error::NotAPool`] where the file is too short to hold them.
    pub fn read(region: &Region) -> Result<Self> {
        let copy = |at| {
            let mut bytes = [0; SUPERBLOCK_BYTES];
            region.read(at, &mut bytes).map_err(|_| Error::NotAPool)?;
            Superblock::decode(at, &bytes)
        };
        Ok(Self { a: copy(SUPERBLOCK_A), b: copy(SUPERBLOCK_B) })
    }

    /// The newer valid copy.
    ///
    /// # Errors
    /// Where neither is valid: what is wrong with the first, unless the second tells more than "not a pool".
    pub fn newest(self) -> Result<Superblock> {
        match (self.a, self.b) {
            (Ok(a), Ok(b)) => Ok(if b.sequence > a.sequence { b } else { a }),
            (Err(e @ (Error::FutureVersion { .. } | Error::UnknownFeatures(_))), _) => Err(e),
            (_, Err(e @ (Error::FutureVersion { .. } | Error::UnknownFeatures(_)))) => Err(e),
            (Ok(one), Err(_)) | (Err(_), Ok(one)) => Ok(one),
            (Err(Error::NotAPool), Err(e)) | (Err(e), Err(_)) => Err(e),
        }
    }
}

/// The superblock of the next epoch.
pub(super) fn next_epoch(superblock: &Superblock) -> Superblock {
    let mut next = superblock.clone();
    // Only a forged superblock has the last numbers.
    next.epoch = next.epoch.wrapping_add(1);
    next.sequence = next.sequence.wrapping_add(1);
    next
}

/// Writes both copies. The one that is believed goes last: a crash between the two may have left it the only whole
/// one, and then it stays whole until the other is.
///
/// # Errors
/// Errors of the medium.
pub fn write(region: &Region, superblock: &Superblock) -> Result<()> {
    let bytes = superblock.encode();
    let [first, last] = match Copies::read(region)? {
        Copies { a: Ok(a), b: Ok(b) } if b.sequence >= a.sequence => [SUPERBLOCK_A, SUPERBLOCK_B],
        Copies { a: Ok(_), .. } => [SUPERBLOCK_B, SUPERBLOCK_A],
        _ => [SUPERBLOCK_A, SUPERBLOCK_B],
    };
    put(region, first, &bytes)?;
    if !mutation::is(Mutation::OneSuperblockFence) {
        region.fence()?;
    }
    put(region, last, &bytes)?;
    region.fence()
}

/// Stores a copy; its block holds nothing else, so that one that the medium has lost can be mended for it.
fn put(region: &Region, at: PoolOff, bytes: &[u8]) -> Result<()> {
    if region.bad(at, bytes.len() as u64).is_some() {
        region.mend(at.block().offset(), BLOCK_BYTES)?;
    }
    region.copy_nt(at, bytes)
}
