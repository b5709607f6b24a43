//! A tree with everything that a transfer must keep, and the comparison of two.

use crate::Result;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;

/// Makes a tree at `root`, which does not exist: the same every time.
pub fn make(root: &Path) -> Result<()> {
    for dir in 0..6_usize {
        let dir_path = root.join(format!("d{dir}"));
        fs::create_dir_all(&dir_path)?;
        for file in 0..25_usize {
            let path = dir_path.join(format!("f{file}"));
            let byte = |i: usize| (i * 31 + file * 7 + dir) as u8;
            fs::write(&path, (0..file * file * 400).map(byte).collect::<Vec<_>>())?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o400 | ((file as u32 * 13) & 0o377)))?;
            std::os::unix::fs::chown(&path, Some(1000 + file as u32), Some(2000))?;
            let ticks = |nsec| Timespec { tv_sec: 1_000_000_000 + file as i64 * 86_400, tv_nsec: nsec };
            let times = Timestamps { last_access: ticks(1), last_modification: ticks(123_456_789) };
            rustix::fs::utimensat(CWD, &path, &times, AtFlags::empty())?;
        }
        fs::hard_link(dir_path.join("f1"), root.join(format!("hard{dir}")))?;
        symlink(format!("d{dir}/f2"), root.join(format!("soft{dir}")))?;
        xattr::set(dir_path.join("f3"), "user.comment", &vec![dir as u8; 100 * (dir + 1)])?;
        xattr::set(&dir_path, "user.of-a-directory", b"too")?;
    }
    // A name that is not UTF-8, and a file of holes that reaches over several chunks of 2 MiB.
    fs::write(root.join(std::ffi::OsStr::from_bytes(b"caf\xe9 \n")), b"latin")?;
    let sparse = File::create(root.join("sparse"))?;
    for at in [0, 3 << 20, (9 << 20) - 5] {
        sparse.write_all_at(b"data between holes", at)?;
    }
    fs::write(root.join("large"), (0..12 << 20).map(|i: u32| (i / 4096) as u8).collect::<Vec<_>>())?;
    fs::set_permissions(root.join("d5"), fs::Permissions::from_mode(0o2750))?;
    Ok(())
}

/// What is compared of one name.
#[derive(PartialEq, Eq, Debug)]
struct Entry {
    mode: u32,
    owner: (u32, u32),
    modified: Option<(i64, i64)>,
    content: Vec<u8>,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The first name of the same inode.
    same_as: Vec<u8>,
}

type Tree = BTreeMap<Vec<u8>, Entry>;

fn read(root: &Path) -> Result<Tree> {
    let (mut tree, mut inodes) = (Tree::new(), BTreeMap::new());
    walk(root, root, &mut tree, &mut inodes)?;
    Ok(tree)
}

fn walk(root: &Path, path: &Path, tree: &mut Tree, inodes: &mut BTreeMap<u64, Vec<u8>>) -> Result<()> {
    let metadata = fs::symlink_metadata(path)?;
    let name = path.strip_prefix(root)?.as_os_str().as_bytes().to_vec();
    let kind = metadata.file_type();
    let content = match () {
        () if kind.is_symlink() => fs::read_link(path)?.into_os_string().as_bytes().to_vec(),
        () if kind.is_dir() => Vec::new(),
        () => fs::read(path)?,
    };
    let mut xattrs = BTreeMap::new();
    for attribute in xattr::list(path)? {
        let value = xattr::get(path, &attribute)?.unwrap_or_default();
        xattrs.insert(attribute.as_bytes().to_vec(), value);
    }
    let entry = Entry {
        mode: metadata.mode(),
        owner: (metadata.uid(), metadata.gid()),
        modified: (!kind.is_symlink() && !kind.is_dir()).then(|| (metadata.mtime(), metadata.mtime_nsec())),
        content,
        xattrs,
        same_as: inodes.entry(metadata.ino()).or_insert_with(|| name.clone()).clone(),
    };
    tree.insert(name, entry);
    if kind.is_dir() {
        let mut below: Vec<_> = fs::read_dir(path)?.collect::<std::io::Result<Vec<_>>>()?;
        below.sort_by_key(fs::DirEntry::file_name);
        for entry in below {
            walk(root, &entry.path(), tree, inodes)?;
        }
    }
    Ok(())
}

/// Fails unless both trees are the same.
pub fn compare(one: &Path, other: &Path) -> Result<()> {
    let (one, other) = (read(one)?, read(other)?);
    for name in one.keys().chain(other.keys()) {
        let shown = String::from_utf8_lossy(name);
        match (one.get(name), other.get(name)) {
            (Some(a), Some(b)) if a == b => {}
            (Some(a), Some(b)) => return Err(difference(&shown, a, b).into()),
            _ => return Err(format!("{shown:?} is in one tree only").into()),
        }
    }
    println!("{} names are the same", one.len());
    Ok(())
}

fn difference(name: &str, a: &Entry, b: &Entry) -> String {
    let what = match () {
        () if a.content != b.content => {
            format!("content of {} and {} bytes", a.content.len(), b.content.len())
        }
        () if a.mode != b.mode => format!("modes {:o} and {:o}", a.mode, b.mode),
        () if a.owner != b.owner => format!("owners {:?} and {:?}", a.owner, b.owner),
        () if a.modified != b.modified => format!("times {:?} and {:?}", a.modified, b.modified),
        () if a.xattrs != b.xattrs => format!("{} and {} attributes", a.xattrs.len(), b.xattrs.len()),
        () => String::from("links"),
    };
    format!("{name:?} differs: {what}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_found() {
        let entry = |mode, content: &[u8]| Entry {
            mode,
            owner: (0, 0),
            modified: None,
            content: content.to_vec(),
            xattrs: BTreeMap::new(),
            same_as: Vec::new(),
        };
        assert!(difference("x", &entry(0o644, b"a"), &entry(0o644, b"b")).contains("content"));
        assert!(difference("x", &entry(0o644, b"a"), &entry(0o600, b"a")).contains("modes 644 and 600"));
    }
}
