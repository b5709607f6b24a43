//! Model 15: ordered writes join the group while others read, commit and change the file.
//!
//! What was written is seen at once and stays so: while it waits, while it becomes the file's, and after. Mutations:
//! `ForgetFirst` (what waits is taken for settled before the tree shows it), `LosePending` (another change of the inode
//! shows the committed size again).

use crate::{Pool, assert_settled, explore, part, together};
use daxstore::{Durability, File, Follow, OpenOptions, SetAttributes, Store};
use std::sync::Arc;

fn open(store: &Store, path: &str) -> File {
    store.open(path, &OpenOptions::new().read(true).write(true)).unwrap()
}

fn pool() -> Arc<Pool> {
    Pool::store(2, |store| {
        store.write("/f", &[b'f'; 4096]).unwrap();
        store.write("/g", &[b'g'; 100]).unwrap();
        store.set_durability(Durability::Ordered).unwrap();
    })
}

#[test]
fn what_waits_is_seen_until_the_tree_has_it() {
    let pool = pool();
    explore("levels: read against commit", move || {
        let (sim, store) = pool.open();
        let file = open(&store, "/f");
        let mut content = [0; 4096];
        // The run that is looked for last is kept, of the blocks that are about to be replaced.
        file.read_exact_at(&mut content, 0).unwrap();
        file.write_all_at(&[b'n'; 4096], 0).unwrap();
        let (reader, committer) = (file.clone(), store.clone());
        together(vec![
            part(move || {
                for _ in 0..2 {
                    reader.read_exact_at(&mut content, 0).unwrap();
                    assert!(
                        content.iter().all(|byte| *byte == b'n'),
                        "an overwrite is seen once it returned"
                    );
                }
            }),
            part(move || committer.sync().unwrap()),
        ]);
        drop(file);
        assert_settled(&sim, store, &["/f", "/g"], 1);
    });
}

#[test]
fn a_change_of_the_inode_keeps_what_waits() {
    let pool = pool();
    explore("levels: append against chmod", move || {
        let (sim, store) = pool.open();
        let (file, other) = (open(&store, "/g"), store.clone());
        let writer = file.clone();
        together(vec![
            part(move || assert_eq!(writer.append(&[b'a'; 5000]).unwrap(), 100)),
            part(move || {
                let mode = SetAttributes { mode: Some(0o600), ..SetAttributes::default() };
                other.set_attributes("/g", &mode, Follow::Yes).unwrap();
            }),
        ]);
        assert_eq!((file.len(), file.metadata().mode), (5100, 0o600));
        assert_eq!(file.read_at(&mut [0; 6000], 0).unwrap(), 5100, "the size that readers and writers go by");
        drop(file);
        assert_eq!(store.read("/g").unwrap()[100..], [b'a'; 5000]);
        assert_settled(&sim, store, &["/f", "/g"], 1);
    });
}

#[test]
fn writers_join_while_others_commit() {
    let pool = pool();
    explore("levels: two writers and a sync", move || {
        let (sim, store) = pool.open();
        let (f, g) = (open(&store, "/f"), open(&store, "/g"));
        let (one, two, both) = (f.clone(), g.clone(), store.clone());
        together(vec![
            part(move || {
                one.write_all_at(&[b'1'; 100], 4000).unwrap();
                one.sync_all().unwrap();
            }),
            part(move || _ = two.append(&[b'2'; 10]).unwrap()),
            part(move || both.sync().unwrap()),
        ]);
        drop((f, g));
        let content = store.read("/f").unwrap();
        assert!(content[..4000] == [b'f'; 4000] && content[4000..] == [b'1'; 100]);
        assert_eq!(store.read("/g").unwrap()[100..], [b'2'; 10]);
        assert_settled(&sim, store, &["/f", "/g"], 1);
    });
}

#[test]
fn a_reader_sees_no_byte_of_an_ordered_append_that_was_not_written() {
    let pool = pool();
    explore("levels: ordered append against read", move || {
        let (sim, store) = pool.open();
        let (writer, reader) = (open(&store, "/g"), open(&store, "/g"));
        together(vec![
            part(move || {
                assert_eq!(writer.append(&[b'a'; 5000]).unwrap(), 100);
                writer.sync_all().unwrap();
            }),
            part(move || {
                let mut content = vec![0; 6000];
                let found = reader.read_at(&mut content, 0).unwrap();
                assert!([100, 5100].contains(&found), "old or new");
                assert!(content[..found].iter().all(|byte| *byte != 0), "zeros below the size");
            }),
        ]);
        assert_settled(&sim, store, &["/f", "/g"], 1);
    });
}

#[cfg(loom)]
#[test]
fn mutations_are_caught() {
    use daxstore::pmem::mutation::Mutation;
    crate::assert_caught("levels::what_waits_is_seen_until_the_tree_has_it", Mutation::ForgetFirst);
    crate::assert_caught("levels::a_change_of_the_inode_keeps_what_waits", Mutation::LosePending);
}
