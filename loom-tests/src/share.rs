//! Model 17: who shares blocks, and who writes to them at the same time.
//!
//! A copy holds one moment of the source: what was written before, or what was written after, and nothing that is written
//! later. Mutation: `SourceUnheld`.

use crate::{Pool, assert_settled, explore, part, together};
use daxstore::{File, OpenOptions, Store};
use std::sync::{Arc, Mutex};

fn open(store: &Store, name: &str) -> File {
    store.open(name, &OpenOptions::new().read(true).write(true).create(true)).unwrap()
}

/// A file of two blocks; with `shared`, a copy of it, so that no tree or feature has to come about in the model.
fn pool() -> Arc<Pool> {
    Pool::store(2, |store| {
        store.write("/f", &[b'f'; 8192]).unwrap();
        store.write("/c", b"").unwrap();
        store.write("/other", &[b'o'; 4096]).unwrap();
        store.reflink("/other", "/shared").unwrap();
    })
}

fn content(store: &Store, name: &str) -> Vec<u8> {
    store.read(name).unwrap()
}

#[test]
fn a_copy_against_an_overwrite_in_place() {
    let pool = pool();
    explore("share: copy against overwrite", move || {
        let (sim, store) = pool.open();
        let (writer, source, copy) = (open(&store, "/f"), open(&store, "/f"), open(&store, "/c"));
        let found = Arc::new(Mutex::new(0));
        let seen = found.clone();
        together(vec![
            part(move || {
                writer.write_all_at(&[b'b'; 4096], 0).unwrap();
            }),
            part(move || {
                copy.reflink(&source).unwrap();
                let mut first = [0; 4096];
                copy.read_exact_at(&mut first, 0).unwrap();
                *seen.lock().unwrap() = first[0];
            }),
        ]);
        let (f, c) = (content(&store, "/f"), content(&store, "/c"));
        assert!(f[..4096].iter().all(|byte| *byte == b'b') && f[4096..].iter().all(|byte| *byte == b'f'));
        let seen = *found.lock().unwrap();
        assert!(c[..4096].iter().all(|byte| *byte == seen) && b"fb".contains(&seen), "one moment");
        store.open("/f", &OpenOptions::new().write(true)).unwrap().write_all_at(&[b'z'; 8192], 0).unwrap();
        assert_eq!(content(&store, "/c"), c, "what is written later is not in the copy");
        assert_settled(&sim, store, &["/f", "/c", "/other", "/shared"], 1);
    });
}

#[test]
fn two_copies_of_each_other() {
    let pool = pool();
    explore("share: two files, each from the other", move || {
        let (sim, store) = pool.open();
        let [f, o, f2, o2] = ["/f", "/other", "/f", "/other"].map(|name| open(&store, name));
        together(vec![part(move || f.reflink(&o).unwrap()), part(move || o2.reflink(&f2).unwrap())]);
        let (f, o) = (content(&store, "/f"), content(&store, "/other"));
        assert!(f == o && (f == [b'f'; 8192] || f == [b'o'; 4096]), "one after the other");
        assert_settled(&sim, store, &["/f", "/c", "/other", "/shared"], 1);
    });
}

#[test]
fn two_owners_give_up_one_block() {
    let pool = pool();
    explore("share: copy on write of both owners", move || {
        let (sim, store) = pool.open();
        let (one, two) = (open(&store, "/other"), open(&store, "/shared"));
        together(vec![
            part(move || one.write_all_at(&[b'1'; 100], 10).unwrap()),
            part(move || two.write_all_at(&[b'2'; 100], 10).unwrap()),
        ]);
        for (name, byte) in [("/other", b'1'), ("/shared", b'2')] {
            let found = content(&store, name);
            let expected = |i: usize| if (10..110).contains(&i) { byte } else { b'o' };
            assert!(found.iter().enumerate().all(|(i, byte)| *byte == expected(i)), "{name}");
        }
        assert_eq!(store.shared_blocks().unwrap(), (0, 0));
        assert_settled(&sim, store, &["/f", "/c", "/other", "/shared"], 1);
    });
}

#[cfg(loom)]
#[test]
fn mutations_are_caught() {
    use daxstore::pmem::mutation::Mutation;
    crate::assert_caught("share::a_copy_against_an_overwrite_in_place", Mutation::SourceUnheld);
}
