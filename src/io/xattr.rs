//! Where do extended attributes live?
//!
//! In a tree of their own beside the inode's, sorted by the hash of their names. A short value lies in its record, a
//! long one in blocks of its own, written before the record that names them: every set or removal is one step.
//!
//! | byte of the payload | field |
//! | ---: | --- |
//! | 0 | bytes of the name |
//! | 1 | 0: the value follows the name; 1: length and runs follow |
//! | 2 | name |
//! | | value; or its length in bytes (4) and runs (8 each: block in the low 36 bits, blocks above) |

use super::Handle;
use super::group;
use crate::alloc::{Op, Want};
use crate::error::{Damage, Error, Result, Structure};
use crate::inode::{Draft, now};
use crate::layout::{Inode, Seed, get32, get64};
use crate::pmem::Durable;
use crate::tree::{self, NodeRoot, ReadNodes};
use crate::units::{BLOCK_BYTES, Block, FileBlock, Ino, MAX_NAME_BYTES, MAX_XATTR_BYTES, Run};
use std::ops::ControlFlow;

/// The longest record with its value inside, in bytes.
const INLINE_BYTES: usize = 240;

/// What setting an attribute asks of the one that may be there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum XattrMode {
    /// Nothing.
    Either,
    /// That it is not there.
    Create,
    /// That it is there.
    Replace,
}

/// A value, or where it lies.
pub(crate) enum Value {
    Inline(Vec<u8>),
    Blocks { len: usize, runs: Vec<Run> },
}

/// One attribute, as its record tells it.
pub(crate) struct Attribute {
    key: u64,
    pub(crate) name: Vec<u8>,
    pub(crate) value: Value,
}

fn root(inode: &Inode) -> NodeRoot {
    NodeRoot { at: inode.xattrs, level: inode.xattr_level }
}

/// The attribute in a record of the attribute tree of `owner`.
///
/// # Errors
/// Damage.
pub(crate) fn decode(owner: Ino, key: u64, payload: &[u8]) -> Result<Attribute> {
    let damage =
        |what| Error::Corrupt(Damage::new(Structure::Xattr, owner.offset(), what, 0, payload.len() as u64));
    let [name_len, kind, rest @ ..] = payload else { return Err(damage("length")) };
    let (name, rest) = rest.split_at_checked(usize::from(*name_len)).ok_or_else(|| damage("name length"))?;
    let value = match kind {
        0 => Value::Inline(rest.to_vec()),
        1 => {
            let (len, runs) = rest.split_at_checked(4).ok_or_else(|| damage("value length"))?;
            let runs = runs.chunks(8).map(|word| {
                let word = get64(word, 0);
                Run::new(Block(word & ((1 << 36) - 1)), word >> 36)
            });
            Value::Blocks { len: get32(len, 0) as usize, runs: runs.collect() }
        }
        _ => return Err(damage("kind")),
    };
    if let Value::Blocks { len, runs } = &value {
        let room: u64 = runs.iter().map(|run| run.len).sum();
        if *len > MAX_XATTR_BYTES || room != (*len as u64).div_ceil(BLOCK_BYTES) {
            return Err(damage("blocks of the value"));
        }
    }
    Ok(Attribute { key, name: name.to_vec(), value })
}

/// Shows `f` every attribute of `inode`.
fn for_each<N: ReadNodes + ?Sized>(
    nodes: &N,
    ino: Ino,
    inode: &Inode,
    from: u64,
    mut f: impl FnMut(Attribute) -> ControlFlow<()>,
) -> Result<()> {
    tree::scan(nodes, &root(inode).area(), ino, from, |key, payload| Ok(f(decode(ino, key, payload)?)))
}

/// The attribute `name`, and the first free key for it.
fn probe<N: ReadNodes + ?Sized>(
    nodes: &N,
    seed: Seed,
    ino: Ino,
    inode: &Inode,
    name: &[u8],
) -> Result<(Option<Attribute>, u64)> {
    let key = seed.name_key(name);
    let (mut found, mut free) = (None, key);
    for_each(nodes, ino, inode, key, |attribute| {
        if attribute.key >> 8 != key >> 8 {
            return ControlFlow::Break(());
        }
        if attribute.key == free {
            free += 1;
        }
        if attribute.name == name {
            found = Some(attribute);
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    })?;
    Ok((found, free))
}

/// Whether `name` can be an attribute's name.
///
/// # Errors
/// [`Error::InvalidName`], [`Error::NameTooLong`].
pub(crate) fn check_name(name: &[u8]) -> Result<()> {
    if name.len() > MAX_NAME_BYTES {
        return Err(Error::NameTooLong { len: name.len() });
    }
    if name.is_empty() || name.contains(&0) { Err(Error::InvalidName) } else { Ok(()) }
}

/// The value of attribute `name`.
///
/// # Errors
/// [`Error::NoAttribute`], damage.
pub fn get(handle: &Handle, name: &[u8]) -> Result<Vec<u8>> {
    check_name(name)?;
    let fs = handle.fs();
    let inode = handle.core().state.read();
    let found = probe(&*fs.space, fs.journal().seed(), handle.ino(), &inode, name)?.0;
    match found.ok_or(Error::NoAttribute)?.value {
        Value::Inline(value) => Ok(value),
        Value::Blocks { len, runs } => {
            let mut value = vec![0; len];
            let mut rest = value.as_mut_slice();
            for run in runs {
                let part = rest.len().min((run.len * BLOCK_BYTES) as usize);
                let (now, later) = rest.split_at_mut(part);
                fs.region().read(run.start.offset(), now)?;
                rest = later;
            }
            Ok(value)
        }
    }
}

/// The names of all attributes.
///
/// # Errors
/// Damage.
pub fn list(handle: &Handle) -> Result<Vec<Vec<u8>>> {
    let inode = handle.core().state.read();
    let mut names = Vec::new();
    for_each(&*handle.fs().space, handle.ino(), &inode, 0, |attribute| {
        names.push(attribute.name);
        ControlFlow::Continue(())
    })?;
    names.sort();
    Ok(names)
}

/// Sets attribute `name` to `value`, durably and in one step.
///
/// # Errors
/// [`Error::Exists`] and [`Error::NoAttribute`] as `mode` asks, too long names and values, no space.
pub fn set(handle: &Handle, name: &[u8], value: &[u8], mode: XattrMode) -> Result<()> {
    check_name(name)?;
    if value.len() > MAX_XATTR_BYTES {
        return Err(Error::ValueTooLong { len: value.len() });
    }
    let fs = handle.fs();
    group::settle(fs)?;
    let mut op = fs.space.begin();
    // The value is the user's memory: it is copied before the inode is locked.
    let (payload, data) = place_value(handle, &mut op, name, value)?;
    let mut draft = Draft::lock(handle.core());
    let (old, free) = probe(&op, fs.journal().seed(), draft.ino(), &draft.inode, name)?;
    match (mode, &old) {
        (XattrMode::Create, Some(_)) => return Err(Error::Exists),
        (XattrMode::Replace, None) => return Err(Error::NoAttribute),
        _ => {}
    }
    let key = old.as_ref().map_or(free, |old| old.key);
    if key >> 8 != fs.journal().seed().name_key(name) >> 8 {
        return Err(Error::InvalidArgument("256 attribute names share one hash"));
    }
    if let Some(old) = old {
        release_value(&mut op, &mut draft, &old.value)?;
    }
    draft.inode.blocks += payload.blocks;
    let mut tree = root(&draft.inode);
    tree.insert(&mut op, draft.ino(), key, &payload.bytes)?;
    finish(handle, op, draft, tree, data)
}

/// A record in the making, and how many blocks its value has.
struct Payload {
    bytes: Vec<u8>,
    blocks: u64,
}

/// Makes the record of `name` and `value`; a long value is written to blocks of its own.
fn place_value(handle: &Handle, op: &mut Op<'_>, name: &[u8], value: &[u8]) -> Result<(Payload, Durable)> {
    let mut bytes = vec![name.len() as u8, 0];
    bytes.extend_from_slice(name);
    if bytes.len() + value.len() <= INLINE_BYTES {
        bytes.extend_from_slice(value);
        return Ok((Payload { bytes, blocks: 0 }, Durable::no_data()));
    }
    bytes[1] = 1;
    bytes.extend_from_slice(&(value.len() as u32).to_le_bytes());
    let mut writer = handle.fs().region().data_writer();
    let blocks = (value.len() as u64).div_ceil(BLOCK_BYTES);
    op.ensure(blocks)?;
    let (mut done, mut goal) = (0, None);
    while done < blocks {
        let run = op.reserve(&Want { blocks: blocks - done, file_block: FileBlock(done), goal })?;
        let from = (done * BLOCK_BYTES) as usize;
        let part = &value[from..value.len().min(from + (run.len * BLOCK_BYTES) as usize)];
        writer.copy(run.start.offset(), part)?;
        let tail = run.len * BLOCK_BYTES - part.len() as u64;
        writer.zero(run.start.offset().plus(part.len() as u64), tail)?;
        bytes.extend_from_slice(&(run.start.0 | (run.len << 36)).to_le_bytes());
        done += run.len;
        goal = Some(run.end());
    }
    Ok((Payload { bytes, blocks }, writer.fence()?))
}

fn release_value(op: &mut Op<'_>, draft: &mut Draft<'_>, value: &Value) -> Result<()> {
    if let Value::Blocks { runs, .. } = value {
        for run in runs {
            op.release(*run)?;
            draft.inode.blocks = draft.inode.blocks.saturating_sub(run.len);
        }
    }
    Ok(())
}

fn finish(
    handle: &Handle,
    mut op: Op<'_>,
    mut draft: Draft<'_>,
    tree: NodeRoot,
    data: Durable,
) -> Result<()> {
    (draft.inode.xattrs, draft.inode.xattr_level) = (tree.at, tree.level);
    draft.inode.ctime = now();
    draft.stage(&mut op)?;
    op.commit(data)?;
    draft.publish(handle.fs().region())
}

/// Removes attribute `name`, durably and in one step.
///
/// # Errors
/// [`Error::NoAttribute`], damage.
pub fn remove(handle: &Handle, name: &[u8]) -> Result<()> {
    check_name(name)?;
    let fs = handle.fs();
    group::settle(fs)?;
    let mut draft = Draft::lock(handle.core());
    let mut op = fs.space.begin().for_removal();
    let (old, _) = probe(&op, fs.journal().seed(), draft.ino(), &draft.inode, name)?;
    let old = old.ok_or(Error::NoAttribute)?;
    release_value(&mut op, &mut draft, &old.value)?;
    let mut tree = root(&draft.inode);
    tree.remove(&mut op, draft.ino(), old.key)?;
    finish(handle, op, draft, tree, Durable::no_data())
}

/// Removes attributes until none is left (`true`) or `op` has less than `room` bytes.
///
/// # Errors
/// Damage.
pub fn remove_all(op: &mut Op<'_>, draft: &mut Draft<'_>, room: u64) -> Result<bool> {
    let ino = draft.ino();
    loop {
        let mut tree = root(&draft.inode);
        let Some((key, payload)) = tree::last(op, &tree.area(), ino)? else { return Ok(true) };
        if op.room() < room {
            return Ok(false);
        }
        let attribute = decode(ino, key, &payload)?;
        release_value(op, draft, &attribute.value)?;
        tree.remove(op, ino, key)?;
        (draft.inode.xattrs, draft.inode.xattr_level) = (tree.at, tree.level);
    }
}
