//! Do many threads at once leave a store that is whole?
//!
//! Threads make, write, read, rename, link and remove the same few names in a few directories, on real memory. Calls may
//! fail as such calls do; none may find damage. Every read of a file sees the bytes of one write. At the end, and
//! after opening again, the check finds nothing, and what is removed gives all its space back.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use daxstore::error::Class;
use daxstore::{
    AllocateMode, Error, OpenOptions, RenameMode, Result, SetAttributes, Store, StoreOptions, XattrMode,
};
use std::path::Path;

const THREADS: u64 = 4;
const STEPS: u64 = 60_000;
const FILE_BYTES: usize = 20_000;

/// Random numbers that a seed determines.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }

    fn path(&mut self) -> String {
        let dir = ["", "/x", "/y", "/x/z"][self.below(4) as usize];
        format!("{dir}/{}", ["a", "b", "c", "d", "e", "z"][self.below(6) as usize])
    }
}

/// Writes a file whole, or reads one and looks that it is of one write.
fn data(store: &Store, random: &mut Random, stamp: u8) -> Result<()> {
    let path = random.path();
    if random.below(2) == 0 {
        let options = OpenOptions::new().read(true).write(true).create(true);
        return store.open(&path, &options)?.write_all_at(&[stamp; FILE_BYTES], 0);
    }
    let mut content = vec![0; FILE_BYTES];
    let found = store.open(&path, &OpenOptions::new().read(true))?.read_at(&mut content, 0)?;
    let first = content.first().copied().unwrap_or(0);
    assert!(content[..found].iter().all(|b| *b == first), "{path}: bytes of two writes");
    Ok(())
}

fn step(store: &Store, random: &mut Random, stamp: u8) -> Result<()> {
    let (path, other) = (random.path(), random.path());
    let mode = [RenameMode::Replace, RenameMode::NoReplace, RenameMode::Exchange][random.below(3) as usize];
    match random.below(12) {
        0..4 => data(store, random, stamp),
        4 => store.remove_file(&path),
        5 => store.remove_dir(&path),
        6 => store.create_dir(&path, 0o755),
        7 => store.rename_to(&path, store, &other, mode),
        8 => store.hard_link(&path, &other),
        9 => store.symlink(&other, &path),
        10 => {
            let file = store.open_unnamed(&OpenOptions::new().write(true))?;
            file.append(&[stamp; 9000])?;
            file.allocate(0, 4096, AllocateMode::KeepSize)?;
            if random.below(2) == 0 { store.link_file(&file, &path) } else { file.close() }
        }
        _ => {
            let node = store.open_node(&path, daxstore::Follow::No)?;
            node.set_attributes(&SetAttributes { mode: Some(0o640), ..SetAttributes::default() })?;
            node.set_xattr("user.stamp", &vec![stamp; random.below(5000) as usize], XattrMode::Either)
        }
    }
}

fn worker(store: &Store, thread: u64) {
    let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ (thread + 1) << 32);
    for number in 0..STEPS {
        match step(store, &mut random, (thread * 64 + number % 64) as u8) {
            Err(error) if error.class() != Class::Caller && !matches!(error, Error::NoSpace { .. }) => {
                panic!("thread {thread}, step {number}: {error}")
            }
            _ => {}
        }
    }
}

fn assert_sound(store: &Store) {
    let report = store.check().unwrap();
    let faults: Vec<_> = report.faults.iter().map(ToString::to_string).collect();
    assert!(report.is_clean(), "{}", faults.join("\n"));
}

fn remove_everything(store: &Store) {
    for entry in store.read_dir().collect::<Result<Vec<_>>>().unwrap() {
        let path = Path::new("/").join(&entry.name);
        store.remove_dir_all(&path).or_else(|_| store.remove_file(&path)).unwrap();
    }
    store.reclaim().unwrap();
}

#[test]
fn threads_on_the_same_names() {
    let shm = Path::new("/dev/shm");
    let dir = if shm.is_dir() { tempfile::tempdir_in(shm) } else { tempfile::tempdir() }.unwrap();
    let options = StoreOptions::new().assume_persistent(cfg!(target_arch = "x86_64"));
    let pool = dir.path().join("pool");
    let store = Store::create(&pool, 64 << 20, &options).unwrap();
    let empty = store.statfs();
    for path in ["/x", "/y", "/x/z"] {
        store.create_dir(path, 0o755).unwrap();
    }
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let store = &store;
            scope.spawn(move || worker(store, thread));
        }
    });
    assert_sound(&store);
    drop(store);
    let store = Store::open(&pool, &options).unwrap();
    assert_sound(&store);
    remove_everything(&store);
    assert_sound(&store);
    let left = store.statfs();
    assert_eq!(left.files, empty.files);
    // The arenas with the root directory and the intents stay.
    assert!(empty.free - left.free <= 16, "{} blocks are gone", empty.free - left.free);
}
