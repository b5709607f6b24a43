//! Model 5: what keeps an inode alive, and who deletes it.
//!
//! At the end every block and inode has one owner, in memory and on the media, and no intent is left. Mutations:
//! `NoGoneCheck` (a last close that trims an inode which the unlink beside it freed), `NoPinCheck`.

use crate::{Pool, assert_settled, explore, part, together};
use daxstore::{File, OpenOptions, Store};

fn open(store: &Store, path: &str) -> daxstore::Result<File> {
    store.open(path, &OpenOptions::new().read(true).write(true))
}

/// A file with one block beyond its end, so that its last close has something to trim.
fn open_grown(store: &Store, path: &str) -> File {
    let file = open(store, path).unwrap();
    file.append(&[b'a'; 4096]).unwrap();
    assert!(file.metadata().blocks > file.len().div_ceil(4096), "something to trim");
    file
}

fn pool() -> std::sync::Arc<Pool> {
    Pool::store(2, |store| {
        // Every slot of the first arena is used, so that a new file gets the slot that was freed.
        for i in 0..13 {
            store.write(format!("/{i}"), b"").unwrap();
        }
        store.write("/f", &[b'f'; 4096]).unwrap();
        (0..13).step_by(3).for_each(|i| store.remove_file(format!("/{i}")).unwrap());
        for i in (0..13).step_by(3) {
            store.write(format!("/{i}"), b"").unwrap();
        }
    })
}

const OTHERS: [&str; 13] = ["/0", "/1", "/2", "/3", "/4", "/5", "/6", "/7", "/8", "/9", "/10", "/11", "/12"];

#[test]
fn last_close_against_unlink_and_reuse_of_the_number() {
    let pool = pool();
    explore("handles: close against unlink", move || {
        let (sim, store) = pool.open();
        let file = open_grown(&store, "/f");
        let names = store.clone();
        together(vec![
            part(move || file.close().unwrap()),
            part(move || {
                names.remove_file("/f").unwrap();
                drop(names.create("/g").unwrap());
            }),
        ]);
        assert_eq!(store.read("/g").unwrap(), b"");
        let files: Vec<_> = OTHERS.into_iter().chain(["/g"]).collect();
        assert_settled(&sim, store, &files, 1);
    });
}

#[test]
fn unlink_against_open_by_another_name() {
    let pool = Pool::store(2, |store| {
        store.write("/a", &[b'x'; 5000]).unwrap();
        store.hard_link("/a", "/b").unwrap();
    });
    explore("handles: unlink against open", move || {
        let (sim, store) = pool.open();
        let (opener, a, b) = (store.clone(), store.clone(), store.clone());
        together(vec![
            part(move || a.remove_file("/a").unwrap()),
            part(move || b.remove_file("/b").unwrap()),
            part(move || match open(&opener, "/b") {
                Ok(file) => {
                    let mut content = vec![0; 5000];
                    assert_eq!(file.read_at(&mut content, 0).unwrap(), 5000);
                    assert!(content.iter().all(|byte| *byte == b'x'), "pinned content stays");
                    file.close().unwrap();
                }
                Err(error) => assert!(matches!(error, daxstore::Error::NotFound), "{error}"),
            }),
        ]);
        assert_settled(&sim, store, &[], 1);
    });
}

#[test]
fn an_unnamed_file_gets_a_name_while_another_handle_closes() {
    let pool = Pool::store(2, |_| ());
    explore("handles: link against close", move || {
        let (sim, store) = pool.open();
        let file = store.open_unnamed(&OpenOptions::new().read(true).write(true)).unwrap();
        file.write_at(b"content", 0).unwrap();
        let (other, names) = (file.clone(), store.clone());
        together(vec![
            part(move || {
                names.link_file(&file, "/t").unwrap();
                file.close().unwrap();
            }),
            part(move || other.close().unwrap()),
        ]);
        assert_eq!(store.read("/t").unwrap(), b"content");
        assert_settled(&sim, store, &["/t"], 1);
    });
}

#[test]
fn trim_at_last_close_against_open_and_append() {
    let pool = Pool::store(2, |store| store.write("/f", &[b'f'; 4096]).unwrap());
    explore("handles: trim against append", move || {
        let (sim, store) = pool.open();
        let file = open_grown(&store, "/f");
        let again = store.clone();
        together(vec![
            part(move || file.close().unwrap()),
            part(move || {
                let file = open(&again, "/f").unwrap();
                assert_eq!(file.append(&[b'b'; 4097]).unwrap(), 8192);
                file.close().unwrap();
            }),
        ]);
        let content = store.read("/f").unwrap();
        assert_eq!(content.len(), 8192 + 4097);
        assert!(content[8192..].iter().all(|byte| *byte == b'b'), "what was appended is there");
        assert_settled(&sim, store, &["/f"], 1);
    });
}

/// An unlinked file's intent to be deleted outlives the trim of its last close but one, and a truncate.
#[test]
fn an_orphan_that_was_truncated_is_deleted_by_recovery() {
    let pool = Pool::store(2, |store| store.write("/f", &[b'f'; 4096]).unwrap());
    explore("handles: orphan", move || {
        let (sim, store) = pool.open();
        let file = open_grown(&store, "/f");
        let (other, names) = (file.clone(), store.clone());
        together(vec![
            part(move || names.remove_file("/f").unwrap()),
            part(move || {
                file.set_len(0).unwrap();
                file.close().unwrap();
            }),
        ]);
        // What a power cut leaves now, the handle being open still.
        let crashed = std::sync::Arc::new(sim.fork().unwrap());
        drop(other);
        assert_settled(&sim, store, &[], 1);
        let store = Store::open_sim(crashed.clone()).unwrap();
        assert_settled(&crashed, store, &[], 1);
    });
}

#[cfg(loom)]
#[test]
fn mutations_are_caught() {
    use daxstore::pmem::mutation::Mutation;
    let close = "handles::last_close_against_unlink_and_reuse_of_the_number";
    crate::assert_caught(close, Mutation::NoGoneCheck);
    crate::assert_caught("handles::unlink_against_open_by_another_name", Mutation::NoPinCheck);
}
