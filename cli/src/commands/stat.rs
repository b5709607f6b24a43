//! What is known of one file?

use crate::args::OneFile;
use crate::failure::{Context, Result};
use crate::names::{JsonName, hex, shown};
use crate::output::{Output, Verdict};
use crate::pool::Opener;
use crate::size::grouped;
use crate::time;
use daxstore::{Durability, FileKind, Follow, Metadata};
use serde::Serialize;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

/// A file's attributes in JSON. Sizes are bytes, blocks are of 4 KiB, times are nanoseconds since 1970.
#[derive(Serialize)]
pub struct Attributes {
    /// `file`, `directory` or `symlink`.
    pub kind: &'static str,
    ino: u64,
    generation: u32,
    mode: String,
    links: u32,
    uid: u32,
    gid: u32,
    size: u64,
    blocks: u64,
    atime: i64,
    mtime: i64,
    ctime: i64,
    btime: i64,
    /// The level of durability that it names.
    #[serde(skip_serializing_if = "Option::is_none")]
    level: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sequential_capacity: Option<u64>,
    extent_hint: u64,
}

impl Attributes {
    /// The JSON form of `metadata`.
    pub fn new(metadata: &Metadata) -> Self {
        Self {
            kind: kind_name(metadata.kind),
            ino: metadata.ino.0,
            generation: metadata.generation,
            mode: format!("{:04o}", metadata.mode),
            links: metadata.links,
            uid: metadata.uid,
            gid: metadata.gid,
            size: metadata.size,
            blocks: metadata.blocks,
            atime: metadata.atime,
            mtime: metadata.mtime,
            ctime: metadata.ctime,
            btime: metadata.btime,
            level: metadata.durability.map(Durability::name),
            sequential_capacity: metadata.capacity,
            extent_hint: metadata.extent_hint,
        }
    }
}

/// A kind's name in JSON.
pub fn kind_name(kind: FileKind) -> &'static str {
    match kind {
        FileKind::Regular => "file",
        FileKind::Directory => "directory",
        FileKind::Symlink => "symlink",
    }
}

/// Kind and permissions as `ls -l` shows them: `drwxr-xr-x`.
pub fn mode_text(kind: FileKind, mode: u32) -> String {
    let mut text = String::from(match kind {
        FileKind::Regular => "-",
        FileKind::Directory => "d",
        FileKind::Symlink => "l",
    });
    for (shift, special, set, alone) in [(6, 0o4000, 's', 'S'), (3, 0o2000, 's', 'S'), (0, 0o1000, 't', 'T')]
    {
        let bits = mode >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (mode & special != 0, bits & 1 != 0) {
            (true, true) => set,
            (true, false) => alone,
            (false, true) => 'x',
            (false, false) => '-',
        });
    }
    text
}

#[derive(Serialize)]
struct Stat {
    #[serde(flatten)]
    path: JsonName,
    #[serde(flatten)]
    attributes: Attributes,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<JsonName>,
    xattrs: Vec<Xattr>,
}

#[derive(Serialize)]
struct Xattr {
    #[serde(flatten)]
    name: JsonName,
    value_hex: String,
    bytes: usize,
}

/// `stat`.
pub fn stat(opener: Opener, args: &OneFile, output: &mut Output) -> Result<Verdict> {
    let store = opener.read(&args.pool)?;
    let what = || format!("stat {}", shown(&args.path));
    let metadata = store.symlink_metadata(&args.path).context(what)?;
    let target = match metadata.kind {
        FileKind::Symlink => Some(store.read_link(&args.path).context(what)?),
        _ => None,
    };
    let xattrs = xattrs(&store, &args.path).context(what)?;
    for (name, value) in rows(&args.path, &metadata, target.as_deref(), &xattrs) {
        output.line(format_args!("{name:<7} {value}"))?;
    }
    output.document(&Stat {
        path: JsonName::new(&args.path),
        attributes: Attributes::new(&metadata),
        target: target.as_ref().map(JsonName::new),
        xattrs,
    })?;
    Ok(Verdict::Good)
}

fn xattrs(store: &daxstore::Store, path: &Path) -> daxstore::Result<Vec<Xattr>> {
    let node = store.open_node(path, Follow::No)?;
    let mut xattrs = Vec::new();
    for name in node.list_xattrs()? {
        let name = OsString::from_vec(name);
        let value = node.get_xattr(&name)?;
        xattrs.push(Xattr { name: JsonName::new(&name), value_hex: hex(&value), bytes: value.len() });
    }
    Ok(xattrs)
}

fn rows(
    path: &Path,
    metadata: &Metadata,
    target: Option<&Path>,
    xattrs: &[Xattr],
) -> Vec<(&'static str, String)> {
    let mut rows = vec![
        ("path", shown(path)),
        ("kind", String::from(kind_name(metadata.kind))),
        ("size", format!("{} bytes, {} blocks of 4 KiB", grouped(metadata.size), grouped(metadata.blocks))),
        ("mode", format!("{:04o} {}", metadata.mode, mode_text(metadata.kind, metadata.mode))),
        ("owner", format!("{}:{}", metadata.uid, metadata.gid)),
        ("links", metadata.links.to_string()),
        ("inode", format!("{}, generation {}", metadata.ino, metadata.generation)),
        ("access", time::full(metadata.atime)),
        ("modify", time::full(metadata.mtime)),
        ("change", time::full(metadata.ctime)),
        ("birth", time::full(metadata.btime)),
    ];
    if let Some(level) = metadata.durability {
        rows.push(("level", level.to_string()));
    }
    if let Some(capacity) = metadata.capacity {
        let (pointer, capacity) = (grouped(metadata.size), grouped(capacity));
        rows.push(("written", format!("at its end alone, byte {pointer} of {capacity}")));
    }
    if metadata.extent_hint > 0 {
        rows.push(("hint", format!("space in pieces of {} bytes", grouped(metadata.extent_hint))));
    }
    if let Some(target) = target {
        rows.push(("target", shown(target)));
    }
    for xattr in xattrs {
        rows.push(("xattr", format!("{} ({} bytes)", shown(&xattr.name.name), xattr.bytes)));
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes() {
        assert_eq!(mode_text(FileKind::Directory, 0o1777), "drwxrwxrwt");
        assert_eq!(mode_text(FileKind::Regular, 0o6644), "-rwSr-Sr--");
        assert_eq!(mode_text(FileKind::Symlink, 0o777), "lrwxrwxrwx");
    }
}
