//! Is a copy the same as its original?
//!
//! Invariant: every difference is found by looking at both sides; nothing is taken from what the transfer said.

use super::FIRST;
use crate::failure::{Context, Failure, Result};
use crate::names::shown;
use crate::output::Output;
use crate::progress::Progress;
use crate::transfer::PIECE_BYTES;
use crate::transfer::host;
use crate::transfer::plan::{Entry, HostId, HostKind, Limits, Plan};
use crate::transfer::report::{Naming, Reporter};
use daxstore::{Error, FileKind, Follow, OpenOptions, Store};
use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

/// No more differences than this are told in full.
const MOST_TOLD: usize = 20;

/// What was compared, and what differs.
#[derive(Default)]
pub struct Differences {
    /// Comparisons of one file.
    pub compared: u64,
    /// What differs.
    pub found: Vec<String>,
    /// The host took not every extended attribute: they are compared in the pool only.
    pub xattrs_refused: bool,
}

impl Differences {
    /// Notes a comparison, and what it found where the two are not the `same`.
    pub fn expect(&mut self, same: bool, text: impl FnOnce() -> String) {
        self.compared += 1;
        if !same {
            self.add(text());
        }
    }

    fn add(&mut self, text: String) {
        if self.found.len() < MOST_TOLD {
            self.found.push(text);
        }
    }
}

/// Which files of a tree are the same file, on both sides.
#[derive(Default)]
pub struct Links {
    copies: HashMap<HostId, HostId>,
    originals: HashMap<HostId, HostId>,
}

impl Links {
    /// Do `original` and `copy` have the same partners as every pair before?
    fn agree(&mut self, original: HostId, copy: HostId) -> bool {
        *self.copies.entry(original).or_insert(copy) == copy
            && *self.originals.entry(copy).or_insert(original) == original
    }
}

/// Everything that can be said of a file but its content.
#[derive(PartialEq, Eq)]
struct Face {
    kind: FileKind,
    /// Permission bits; of a symbolic link nothing is compared.
    mode: u32,
    uid: u32,
    gid: u32,
    mtime: i64,
    /// Bytes; of directories nothing is compared.
    size: u64,
    target: Option<PathBuf>,
    xattrs: BTreeMap<OsString, Vec<u8>>,
}

impl Face {
    fn of_host(path: &Path) -> io::Result<Self> {
        let metadata = std::fs::symlink_metadata(path)?;
        let attributes = host::Attributes::of_host(&metadata);
        let kind = FileKind::of_mode(metadata.mode()).ok_or(io::ErrorKind::Unsupported)?;
        let target = if kind == FileKind::Symlink { Some(std::fs::read_link(path)?) } else { None };
        Ok(Self {
            kind,
            mode: if kind == FileKind::Symlink { 0 } else { attributes.mode },
            uid: attributes.uid,
            gid: attributes.gid,
            mtime: attributes.mtime,
            size: if kind == FileKind::Directory { 0 } else { metadata.len() },
            target,
            xattrs: host::xattrs_at(path)?.into_iter().collect(),
        })
    }

    fn of_pool(store: &Store, path: &Path) -> daxstore::Result<Self> {
        let node = store.open_node(path, Follow::No)?;
        let metadata = node.metadata();
        let (kind, mut xattrs) = (metadata.kind, BTreeMap::new());
        for name in node.list_xattrs()? {
            let name = OsString::from_vec(name);
            let value = node.get_xattr(&name)?;
            xattrs.insert(name, value);
        }
        Ok(Self {
            kind,
            mode: if kind == FileKind::Symlink { 0 } else { metadata.mode },
            uid: metadata.uid,
            gid: metadata.gid,
            mtime: metadata.mtime,
            size: if kind == FileKind::Directory { 0 } else { metadata.size },
            target: if kind == FileKind::Symlink { Some(store.read_link(path)?) } else { None },
            xattrs,
        })
    }

    /// The first thing in which `copy` is not like this.
    fn difference(&self, copy: &Self, owner: bool, xattrs: bool) -> Option<&'static str> {
        let parts = [
            (self.kind == copy.kind, "kind"),
            (self.mode == copy.mode, "mode"),
            (self.size == copy.size, "size"),
            (self.mtime == copy.mtime, "modification time"),
            (self.target == copy.target, "link target"),
            (!owner || (self.uid, self.gid) == (copy.uid, copy.gid), "owner"),
            (!xattrs || self.xattrs == copy.xattrs, "extended attributes"),
        ];
        parts.iter().find(|(same, _)| !same).map(|(_, what)| *what)
    }
}

/// Reads everything of `entry` once.
pub fn warm(entry: &Entry) -> Result<()> {
    let what = || format!("read {}", shown(&entry.host));
    if let HostKind::File { .. } = entry.kind {
        let mut file = host::open_source(&entry.host).context(what)?;
        io::copy(&mut file, &mut io::sink()).context(what)?;
    }
    Ok(())
}

/// Compares what a killed import left at `there` with its original; returns whether it is there. An unfinished
/// directory or link may still lack its own attributes, a file may not: it appears complete.
pub fn survivor(
    store: &Store,
    entry: &Entry,
    there: &Path,
    acknowledged: bool,
    differences: &mut Differences,
) -> Result<bool> {
    differences.compared += 1;
    let copy = match Face::of_pool(store, there) {
        Ok(copy) => copy,
        Err(Error::NotFound) if acknowledged => {
            differences.add(format!("{}: acknowledged, and not there", shown(there)));
            return Ok(false);
        }
        Err(Error::NotFound) => return Ok(false),
        Err(error) => return Err(Failure::store(format!("read {}", shown(there)), &error)),
    };
    if entry.kind == HostKind::Directory || (entry.kind == HostKind::Symlink && !acknowledged) {
        return Ok(true);
    }
    let original = Face::of_host(&entry.host).context(|| format!("read {}", shown(&entry.host)))?;
    if let Some(what) = original.difference(&copy, true, true) {
        differences.add(format!("{}: {what} differs after the kill", shown(there)));
    } else if copy.kind == FileKind::Regular && !same_in_pool(store, entry, there)? {
        differences.add(format!("{}: content differs after the kill", shown(there)));
    }
    Ok(true)
}

/// Compares an original, its import and its export.
pub fn exported(
    store: &Store,
    entry: &Entry,
    copy: &Path,
    links: &mut Links,
    differences: &mut Differences,
) -> Result<()> {
    differences.compared += 1;
    let read = || format!("read {}", shown(&entry.host));
    let original = Face::of_host(&entry.host).context(read)?;
    let imported = Face::of_pool(store, &entry.dest).context(|| format!("read {}", shown(&entry.dest)))?;
    if let Some(what) = original.difference(&imported, true, true) {
        differences.add(format!("{}: {what} differs in the pool", shown(&entry.dest)));
    }
    let exported = match Face::of_host(copy) {
        Ok(face) => face,
        Err(error) => {
            differences.add(format!("{}: not exported: {error}", shown(&entry.host)));
            return Ok(());
        }
    };
    if let Some(what) = original.difference(&exported, host::is_root(), !differences.xattrs_refused) {
        differences.add(format!("{}: {what} differs in the export", shown(&entry.host)));
    } else if let HostKind::File { link } = entry.kind {
        exported_file(entry, link, copy, links, differences).context(read)?;
    }
    Ok(())
}

fn exported_file(
    entry: &Entry,
    link: Option<HostId>,
    copy: &Path,
    links: &mut Links,
    differences: &mut Differences,
) -> io::Result<()> {
    let (original, exported) = (host::open_source(&entry.host)?, host::open_source(copy)?);
    let metadata = exported.metadata()?;
    if !same_content(&|b, at| original.read_at(b, at), &|b, at| exported.read_at(b, at))? {
        differences.add(format!("{}: content differs in the export", shown(&entry.host)));
    }
    if !holes_kept(&original, &exported)? {
        differences.add(format!("{}: a hole became data", shown(&entry.host)));
    }
    if let Some(link) = link
        && !links.agree(link, (metadata.dev(), metadata.ino()))
    {
        differences.add(format!("{}: hard links differ", shown(&entry.host)));
    }
    Ok(())
}

fn same_in_pool(store: &Store, entry: &Entry, there: &Path) -> Result<bool> {
    let read = || format!("read {}", shown(there));
    let original = host::open_source(&entry.host).context(|| format!("read {}", shown(&entry.host)))?;
    let copy = store.open(there, &OpenOptions::new().read(true)).context(read)?;
    let from_pool = |b: &mut [u8], at: u64| copy.read_at(b, at).map_err(io::Error::from);
    same_content(&|b, at| original.read_at(b, at), &from_pool).context(read)
}

/// Reads at an offset as far as it comes; 0 is the end.
type ReadAt<'r> = &'r dyn Fn(&mut [u8], u64) -> io::Result<usize>;

fn same_content(a: ReadAt<'_>, b: ReadAt<'_>) -> io::Result<bool> {
    let (mut left, mut right) = (vec![0; PIECE_BYTES], vec![0; PIECE_BYTES]);
    let mut at = 0;
    loop {
        let (got, other) = (fill(a, &mut left, at)?, fill(b, &mut right, at)?);
        if left.get(..got) != right.get(..other) {
            return Ok(false);
        }
        if got < PIECE_BYTES {
            return Ok(true);
        }
        at += got as u64;
    }
}

/// Reads until the buffer is full or the file ends.
fn fill(read: ReadAt<'_>, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    let mut done = 0;
    while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match read(rest, at + done as u64)? {
            0 => break,
            got => done += got,
        }
    }
    Ok(done)
}

/// Does the copy have data only where the original has, in whole blocks of 4 KiB?
fn holes_kept(original: &File, copy: &File) -> io::Result<bool> {
    let len = original.metadata()?.len();
    if !host::may_have_holes(&original.metadata()?) {
        return Ok(true);
    }
    let mut at = 0;
    while let Some((start, end)) = host::next_data(copy, at, len)? {
        let mut covered = start;
        while covered < end {
            match host::next_data(original, covered, len)? {
                Some((from, to)) if from / 4096 <= covered / 4096 => {
                    covered = to.next_multiple_of(4096).max(to)
                }
                _ => return Ok(false),
            }
        }
        at = end;
    }
    Ok(true)
}

/// The export must hold nothing that the original does not.
pub fn nothing_more(
    plan: &Plan,
    root: &Path,
    differences: &mut Differences,
    output: &mut Output,
) -> Result<()> {
    let mut reporter = Reporter::new(output, Naming::Silent, Progress::hidden());
    let mut export = Plan::new(Limits::NONE, None);
    export.add(root, Path::new(FIRST), &mut reporter)?;
    if export.entries.len() != plan.entries.len() {
        let (found, wanted) = (export.entries.len(), plan.entries.len());
        differences.add(format!("the export has {found} entries, the original {wanted}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_compared_to_the_end() {
        let read = |data: &'static [u8]| {
            move |b: &mut [u8], at: u64| {
                let rest = &data[usize::try_from(at).unwrap().min(data.len())..];
                let n = rest.len().min(b.len()).min(3);
                b[..n].copy_from_slice(&rest[..n]);
                Ok(n)
            }
        };
        assert!(same_content(&read(b"hello world"), &read(b"hello world")).unwrap());
        assert!(!same_content(&read(b"hello world"), &read(b"hello worle")).unwrap());
        assert!(!same_content(&read(b"hello"), &read(b"hello world")).unwrap());
    }

    #[test]
    fn faces_differ_in_each_part() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, b"x").unwrap();
        let face = || Face::of_host(&path).unwrap();
        assert_eq!(face().difference(&face(), true, true), None);
        let changed = |change: fn(&mut Face)| {
            let mut copy = face();
            change(&mut copy);
            face().difference(&copy, true, true)
        };
        assert_eq!(changed(|f| f.mode ^= 1), Some("mode"));
        assert_eq!(changed(|f| f.mtime += 1), Some("modification time"));
        assert_eq!(changed(|f| f.uid += 1), Some("owner"));
        assert_eq!(changed(|f| drop(f.xattrs.insert("user.x".into(), vec![]))), Some("extended attributes"));
    }

    #[test]
    fn a_filled_hole_is_noticed() {
        let (sparse, full) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        sparse.set_len(1 << 20).unwrap();
        full.write_all_at(&vec![0; 1 << 20], 0).unwrap();
        assert!(!holes_kept(&sparse, &full).unwrap());
        assert!(holes_kept(&sparse, &sparse).unwrap());
        assert!(holes_kept(&full, &sparse).unwrap());
    }

    #[test]
    fn links_pair_up() {
        let mut links = Links::default();
        assert!(links.agree((1, 1), (2, 10)));
        assert!(links.agree((1, 1), (2, 10)));
        assert!(!links.agree((1, 1), (2, 11)));
        assert!(!links.agree((1, 2), (2, 10)));
    }
}
