//! What does a store show?
use daxstore::{Dir, Error, FileKind, Follow, OpenOptions, Result, Store};
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// More than any walk here comes by.
const MAX_ENTRIES: usize = 5000;
const MAX_READ: u64 = 4 << 20;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    pub ino: u64,
    pub kind: FileKind,
    mode: u32,
    owner: (u32, u32),
    size: u64,
    content: Vec<u8>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Path to what is there, or why it can not be told.
#[derive(Default)]
pub struct Seen {
    pub items: BTreeMap<PathBuf, Result<Item>>,
    /// Directories whose names could not all be read.
    pub cut_short: BTreeSet<PathBuf>,
    visited: BTreeSet<u64>,
    entries: usize,
}

fn item(store: &Store, path: &Path) -> Result<Item> {
    let node = store.open_node(path, Follow::No)?;
    let about = node.metadata();
    let content = match about.kind {
        FileKind::Directory => Vec::new(),
        FileKind::Symlink => store.read_link(path)?.into_os_string().into_vec(),
        FileKind::Regular => {
            let file = store.open(path, &OpenOptions::new().read(true))?;
            let mut content = vec![0; about.size.min(MAX_READ) as usize];
            let found = file.read_at(&mut content, 0)?;
            content.truncate(found);
            content
        }
    };
    let mut xattrs = Vec::new();
    for name in node.list_xattrs()? {
        let value = node.get_xattr(std::ffi::OsStr::from_bytes(&name))?;
        xattrs.push((name, value));
    }
    let size = if about.kind == FileKind::Directory { 0 } else { about.size };
    Ok(Item {
        ino: about.ino.0,
        kind: about.kind,
        mode: about.mode,
        owner: (about.uid, about.gid),
        size,
        content,
        xattrs,
    })
}

impl Seen {
    fn directory(&mut self, store: &Store, dir: &Dir, at: &Path) {
        for entry in dir.read_dir() {
            self.entries += 1;
            assert!(self.entries < MAX_ENTRIES, "a walk without end");
            let Ok(entry) = entry else {
                self.cut_short.insert(at.into());
                break;
            };
            let path = at.join(&entry.name);
            let found = item(store, &path);
            let is_dir = matches!(&found, Ok(found) if found.kind == FileKind::Directory);
            let is_new = found.as_ref().is_ok_and(|found| self.visited.insert(found.ino));
            self.items.insert(path.clone(), found);
            if is_dir && is_new {
                match store.open_dir(&path) {
                    Ok(dir) => self.directory(store, &dir, &path),
                    Err(_) => {
                        self.cut_short.insert(path);
                    }
                }
            }
        }
    }

    pub fn all(store: &Store) -> Self {
        let mut seen = Self::default();
        seen.items.insert("/".into(), item(store, Path::new("/")));
        seen.visited.insert(store.metadata("/").map_or(0, |about| about.ino.0));
        seen.directory(store, store.root(), Path::new("/"));
        seen
    }

    fn is_hidden(&self, path: &Path) -> bool {
        path.ancestors()
            .skip(1)
            .any(|above| self.cut_short.contains(above) || matches!(self.items.get(above), Some(Err(_))))
    }

    /// Answers that are neither as in `original` nor errors.
    pub fn wrong<'a>(&'a self, original: &'a Seen) -> impl Iterator<Item = String> + 'a {
        let gone =
            original.items.keys().filter(|path| !self.items.contains_key(*path) && !self.is_hidden(path));
        let gone = gone.map(|path| format!("{} is not there any more", path.display()));
        let other = self.items.iter().filter_map(|(path, found)| {
            let found = found.as_ref().ok()?;
            match original.items.get(path) {
                Some(Ok(expected)) if expected == found => None,
                Some(Ok(_)) => Some(format!("{} is different", path.display())),
                _ => Some(format!("{} was not there before", path.display())),
            }
        });
        gone.chain(other)
    }

    /// What of `original` is not as it was.
    pub fn missing<'a>(&'a self, original: &'a Seen) -> impl Iterator<Item = (&'a Path, &'a Item)> + 'a {
        original.items.iter().filter_map(|(path, expected)| {
            let expected = expected.as_ref().ok()?;
            match self.items.get(path) {
                Some(Ok(found)) if found == expected => None,
                _ => Some((path.as_path(), expected)),
            }
        })
    }
}

/// Every error is one with a place or a cause a user can act on.
pub fn is_typed(error: &Error) -> bool {
    !matches!(error, Error::InvalidArgument("a hole moved under its lock" | "a repair without end"))
}
