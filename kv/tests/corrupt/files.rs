//! Are a cut file, a part of another database, and a later format told?

use super::image::{Image, key, value};
use daxstore::{OpenOptions, Store, StoreOptions};
use daxstore_kv::{Db, Error, Options};

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let options = StoreOptions::new().assume_persistent(true);
    let store = Store::create(dir.path().join("pool"), 96 << 20, &options).unwrap();
    (dir, store)
}

/// A database of 60 keys at `path`, as long as its chunks take.
fn make(store: &Store, path: &str, seed: u64) {
    let db = Db::open(store, path, Options::new().create(true).seed(seed)).unwrap();
    for n in 0..60 {
        db.put(&key(n), &value(n, seed)).unwrap();
    }
    db.close().unwrap();
}

fn bytes_of(store: &Store, path: &str, at: u64, len: usize) -> Vec<u8> {
    let file = store.open(path, &OpenOptions::new().read(true)).unwrap();
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, at).unwrap();
    bytes
}

fn change(store: &Store, path: &str, at: u64, bytes: &[u8]) {
    let file = store.open(path, &OpenOptions::new().write(true)).unwrap();
    file.write_all_at(bytes, at).unwrap();
}

#[test]
fn a_file_that_was_cut() {
    for create in [false, true] {
        for len in [0, 1 << 20, 2 << 20, (2 << 20) + 4096, 4 << 20, 6 << 20, 8 << 20] {
            let (_dir, store) = store();
            make(&store, "/kv", 1);
            store.open("/kv", &OpenOptions::new().write(true)).unwrap().set_len(len).unwrap();
            let opened = Db::open(&store, "/kv", Options::new().create(create));
            if len == 0 {
                assert_eq!(opened.is_ok(), create, "an empty file is one where a database can be made");
                continue;
            }
            let error = opened.err().unwrap_or_else(|| panic!("{len} bytes, create {create}: it opened"));
            let is_told = matches!(error, Error::Damage(_) | Error::NotADatabase);
            assert!(is_told, "{len} bytes, create {create}: {error}");
            let first = bytes_of(&store, "/kv", 0, 8);
            assert_eq!(first, *b"daxkv\0\0\x01", "{len} bytes: what is left stays as it is");
        }
    }
}

#[test]
fn parts_of_another_database() {
    // The superblock, the words that change, the rings, the catalog, the table of chunks, and two chunks.
    let parts = [
        (0, 48),
        (256, 8),
        (320, 8),
        (65_536, 8192 * 64),
        (589_824, 256),
        (2 << 20, 2 << 20),
        (4 << 20, 2 << 20),
    ];
    for (at, len) in parts {
        let (_dir, store) = store();
        make(&store, "/kv", 1);
        make(&store, "/other", 2);
        change(&store, "/kv", at, &bytes_of(&store, "/other", at, len));
        let db = match Db::open(&store, "/kv", Options::new()) {
            Ok(db) => db,
            Err(error) => {
                assert!(matches!(error, Error::Damage(_)), "{at}: {error}");
                continue;
            }
        };
        let mut missing = 0;
        for n in 0..60 {
            match db.get(&key(n)) {
                Ok(Some(found)) => assert_eq!(found, value(n, 1), "{at}: the other's value"),
                Ok(None) | Err(_) => missing += 1,
            }
        }
        assert!(missing == 0 || !db.verify().unwrap().faults.is_empty(), "{at}: {missing} are missing");
    }
}

#[test]
fn a_file_of_something_else_and_a_later_format() {
    let (_dir, store) = store();
    make(&store, "/kv", 1);
    change(&store, "/kv", 8, &2_u64.to_le_bytes());
    let error = Db::open(&store, "/kv", Options::new()).unwrap_err();
    assert!(matches!(error, Error::FutureVersion { found: 2, known: 1 }), "{error}");
    store.write("/text", &[b'x'; 5 << 20]).unwrap();
    for create in [false, true] {
        let error = Db::open(&store, "/text", Options::new().create(create)).unwrap_err();
        assert!(matches!(error, Error::NotADatabase), "{error}");
    }
    store.write("/short", b"a few words").unwrap();
    let error = Db::open(&store, "/short", Options::new()).unwrap_err();
    assert!(matches!(error, Error::NotADatabase), "{error}");
    let error = Db::open(&store, "/short", Options::new().create(true)).unwrap_err();
    assert!(matches!(error, Error::NotADatabase), "{error}");
    assert_eq!(bytes_of(&store, "/short", 0, 11), b"a few words");
}

#[test]
fn the_image_is_whole_before_anything_is_changed() {
    for image in [Image::closed(), Image::crashed()] {
        let tried = image.trial(&[]);
        assert_eq!((tried.harmless, tried.named, tried.refused), (1, 0, 0));
    }
}
