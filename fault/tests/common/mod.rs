//! What do the tests of mappings share?
//!
//! Pools whose fences flush cache lines (over tmpfs, assumed to be persistent) and whose fences write pages (a plain file),
//! and mappings of files in them.

#![allow(dead_code, reason = "each test binary uses its own part of these")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

pub mod child;
pub mod touch;

use daxstore::{File, OpenOptions, Store, StoreOptions};
use daxstore_fault::{MapOptions, Mapping, Mode};

pub const PAGE: u64 = 4096;
pub const SLOT: u64 = 2 << 20;

/// The modes in which faults come.
pub const MODES: [Mode; 2] = [Mode::Userfault, Mode::Signal];

/// How stores become durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Medium {
    /// By flushing lines: tmpfs, assumed to be persistent.
    Lines,
    /// By writing pages: a plain file.
    Pages,
}

pub const MEDIA: [Medium; 2] = [Medium::Lines, Medium::Pages];

pub struct Pool {
    pub store: Store,
    pub medium: Medium,
    dir: tempfile::TempDir,
}

impl Pool {
    pub fn new(size: u64, medium: Medium) -> Self {
        let dir = match medium {
            Medium::Lines => tempfile::tempdir_in("/dev/shm"),
            Medium::Pages => tempfile::tempdir(),
        };
        let dir = dir.unwrap();
        let options = StoreOptions::new().assume_persistent(medium == Medium::Lines);
        let store = Store::create(dir.path().join("pool"), size, &options).unwrap();
        Self { store, medium, dir }
    }

    /// Closes the store and opens it again.
    #[must_use]
    pub fn reopened(self) -> Self {
        self.reopened_as(false)
    }

    /// As [`Self::reopened`], perhaps to be read only.
    #[must_use]
    pub fn reopened_as(self, read_only: bool) -> Self {
        let Self { store, medium, dir } = self;
        store.close().unwrap();
        let options = StoreOptions::new().assume_persistent(medium == Medium::Lines).read_only(read_only);
        let store = Store::open(dir.path().join("pool"), &options).unwrap();
        Self { store, medium, dir }
    }

    /// A file of this name, made if there is none.
    pub fn file(&self, name: &str) -> File {
        self.store.open(name, &OpenOptions::new().read(true).write(true).create(true)).unwrap()
    }

    /// A new file of `len` bytes, all `fill`.
    pub fn filled(&self, name: &str, len: u64, fill: u8) -> File {
        let file = self.file(name);
        file.write_all_at(&vec![fill; len as usize], 0).unwrap();
        file
    }

    /// A new file of `len` bytes that is one hole.
    pub fn sparse(&self, name: &str, len: u64) -> File {
        let file = self.file(name);
        file.set_len(len).unwrap();
        file
    }

    pub fn is_clean(&self) -> bool {
        self.store.check().unwrap().is_clean()
    }

    /// Fills blocks that others freed with `fill`, as far as the pool has any, and leaves them so.
    pub fn reuse(&self, fill: u8) -> File {
        let file = self.file("reuse");
        let mut at = 0;
        let data = vec![fill; 2 << 20];
        for piece in [2 << 20, 64 << 10, PAGE as usize] {
            while file.write_all_at(&data[..piece], at).is_ok() {
                at += piece as u64;
            }
        }
        file
    }
}

/// Runs `body` in both modes over both media, each with a new pool of `size` bytes.
pub fn everywhere(size: u64, body: impl Fn(&Pool, Mode)) {
    touch::install();
    for medium in MEDIA {
        for mode in MODES {
            println!("{medium:?} {mode:?}");
            body(&Pool::new(size, medium), mode);
        }
    }
}

/// A shared mapping of the first `len` bytes that may be stored to.
pub fn shared(file: &File, len: u64, mode: Mode) -> Mapping {
    MapOptions::new().write(true).mode(mode).map(file, 0, len).unwrap()
}

/// A shared mapping of the first `len` bytes that may be read.
pub fn read_only(file: &File, len: u64, mode: Mode) -> Mapping {
    MapOptions::new().mode(mode).map(file, 0, len).unwrap()
}

/// A private mapping of the first `len` bytes that may be stored to.
pub fn private(file: &File, len: u64, mode: Mode) -> Mapping {
    MapOptions::new().write(true).private(true).mode(mode).map(file, 0, len).unwrap()
}

/// The address of the byte `at`.
pub fn address(map: &Mapping, at: u64) -> usize {
    map.as_ptr().expose_provenance() + at as usize
}

/// The byte `at`, loaded.
pub fn byte(map: &Mapping, at: u64) -> u8 {
    let mut found = [0];
    map.read(at, &mut found).unwrap();
    found[0]
}

/// The byte `at` of the file, read.
pub fn read(file: &File, at: u64) -> u8 {
    let mut found = [0];
    file.read_exact_at(&mut found, at).unwrap();
    found[0]
}

/// The signal that a load of the page of byte `at` raises, if any.
pub fn raised(map: &Mapping, at: u64) -> Option<i32> {
    touch::load(address(map, at & !7)).err().map(|raised| raised.signal)
}

/// `mode` by the letter of a child's task.
pub fn mode_of(name: &str) -> Mode {
    match name {
        "U" => Mode::Userfault,
        "S" => Mode::Signal,
        _ => Mode::Eager,
    }
}
