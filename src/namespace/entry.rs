//! How does a directory find a name?
//!
//! Entries are records of the directory's tree. The key is the 55-bit hash of the name and a sequence number, the
//! smallest free one when the name was made, so that names whose hashes agree lie side by side, and a key, once
//! given, stays: it is the cursor of `readdir`.
//!
//! | byte of the payload | field |
//! | ---: | --- |
//! | 0 | inode number |
//! | 8 | kind: 8 file, 4 directory, 10 symbolic link |
//! | 9 | name |

use crate::alloc::Op;
use crate::error::{Damage, Error, Result, Structure};
use crate::inode::Draft;
use crate::layout::{FileKind, RootArea, Seed, get64};
use crate::tree::{self, MAX_PAYLOAD, ReadNodes};
use crate::units::{Ino, MAX_NAME_BYTES};
use std::ops::ControlFlow;

/// Where a name leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The record's key.
    pub key: u64,
    /// The inode.
    pub ino: Ino,
    /// What the inode is.
    pub kind: FileKind,
}

const NAME_AT: usize = 9;

/// Whether `name` can be an entry's name.
///
/// # Errors
/// [`Error::InvalidName`], [`Error::NameTooLong`].
pub fn check_name(name: &[u8]) -> Result<()> {
    if name.len() > MAX_NAME_BYTES {
        return Err(Error::NameTooLong { len: name.len() });
    }
    let unusable =
        name.is_empty() || name == b"." || name == b".." || name.iter().any(|b| matches!(b, 0 | b'/'));
    if unusable { Err(Error::InvalidName) } else { Ok(()) }
}

/// The entry in a record of directory `owner`, and its name.
///
/// # Errors
/// Damage.
pub fn decode(owner: Ino, key: u64, payload: &[u8]) -> Result<(Entry, &[u8])> {
    let damage = |what, found| Error::Corrupt(Damage::new(Structure::Entry, owner.offset(), what, 0, found));
    let (fixed, name) =
        payload.split_at_checked(NAME_AT).ok_or_else(|| damage("length", payload.len() as u64))?;
    let kind = FileKind::of_entry_byte(fixed[8]).ok_or_else(|| damage("kind", u64::from(fixed[8])))?;
    check_name(name).map_err(|_| damage("name", name.len() as u64))?;
    Ok((Entry { key, ino: Ino(get64(fixed, 0)), kind }, name))
}

/// Makes `payload`, the record of an entry, say that the inode is of `kind`.
pub fn set_kind(payload: &mut [u8], kind: FileKind) {
    if let Some(byte) = payload.get_mut(8) {
        *byte = kind.entry_byte();
    }
}

/// What a directory has for a name.
#[derive(Clone, Copy, Debug)]
pub struct Probe {
    /// The entry, if there is one.
    pub found: Option<Entry>,
    /// A key for the name if there is none.
    pub free: u64,
}

/// Looks for `name` in the directory `owner` whose tree has `root`.
///
/// # Errors
/// Damage.
pub fn probe<N: ReadNodes + ?Sized>(
    nodes: &N,
    seed: Seed,
    owner: Ino,
    root: &RootArea,
    name: &[u8],
) -> Result<Probe> {
    let first = seed.name_key(name);
    let mut probe = Probe { found: None, free: first };
    tree::scan(nodes, root, owner, first, |key, payload| {
        if key >> 8 != first >> 8 {
            return Ok(ControlFlow::Break(()));
        }
        if key == probe.free {
            probe.free += 1;
        }
        if payload.get(NAME_AT..) == Some(name) {
            probe.found = Some(decode(owner, key, payload)?.0);
            return Ok(ControlFlow::Break(()));
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(probe)
}

/// Puts the record `key` for `name` into the directory, in place of one with that key.
///
/// # Errors
/// No space, damage, 256 names of one hash.
pub fn put(op: &mut Op<'_>, dir: &mut Draft<'_>, seed: Seed, name: &[u8], entry: Entry) -> Result<()> {
    if entry.key >> 8 != seed.name_key(name) >> 8 {
        return Err(Error::InvalidArgument("256 names of the directory share one hash"));
    }
    let mut payload = [0; MAX_PAYLOAD];
    payload[..8].copy_from_slice(&entry.ino.0.to_le_bytes());
    payload[8] = entry.kind.entry_byte();
    let len = NAME_AT + name.len();
    payload[NAME_AT..len].copy_from_slice(name);
    let owner = dir.ino();
    tree::insert(op, dir.root(), owner, entry.key, &payload[..len])
}

/// Takes the record `key` out of the directory.
///
/// # Errors
/// Damage.
pub fn take(op: &mut Op<'_>, dir: &mut Draft<'_>, key: u64) -> Result<()> {
    let owner = dir.ino();
    tree::remove(op, dir.root(), owner, key).map(|_| ())
}
