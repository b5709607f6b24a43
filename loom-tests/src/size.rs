//! Model 7: when a size is seen, the bytes below it are there (R13), and appends never lose each other.
//!
//! Mutation: `StaleEnd`.

use crate::{Pool, assert_settled, explore, part, together};
use daxstore::{File, OpenOptions, Store};

fn open(store: &Store) -> File {
    store.open("/f", &OpenOptions::new().read(true).write(true)).unwrap()
}

#[test]
fn a_reader_sees_no_byte_that_was_not_written() {
    let pool = Pool::store(2, |store| store.write("/f", &[b'f'; 100]).unwrap());
    explore("size: append against read", move || {
        let (sim, store) = pool.open();
        let (writer, reader) = (open(&store), open(&store));
        together(vec![
            part(move || {
                assert_eq!(writer.append(&[b'a'; 5000]).unwrap(), 100);
            }),
            part(move || {
                let mut before = 0;
                for _ in 0..2 {
                    let size = reader.len();
                    let mut content = vec![0; 6000];
                    let found = reader.read_at(&mut content, 0).unwrap() as u64;
                    assert!(before <= size && size <= found, "sizes only grow: {before} {size} {found}");
                    assert!([100, 5100].contains(&found), "old or new");
                    assert!(content[..found as usize].iter().all(|byte| *byte != 0), "zeros below the size");
                    before = found;
                }
            }),
        ]);
        assert_settled(&sim, store, &["/f"], 1);
    });
}

#[test]
fn appends_and_truncates_happen_one_after_the_other() {
    let pool = Pool::store(2, |store| store.write("/f", &[b'f'; 100]).unwrap());
    explore("size: append against truncate", move || {
        let (sim, store) = pool.open();
        let (writer, cutter) = (open(&store), open(&store));
        together(vec![
            part(move || _ = writer.append(&[b'a'; 5000]).unwrap()),
            part(move || cutter.set_len(10).unwrap()),
        ]);
        let content = store.read("/f").unwrap();
        assert!([10, 5010].contains(&content.len()), "{} bytes", content.len());
        assert!(content[..10].iter().all(|byte| *byte == b'f'));
        assert!(content[10..].iter().all(|byte| *byte == b'a'));
        assert_settled(&sim, store, &["/f"], 1);
    });
}

#[test]
fn two_appends_both_happen() {
    let pool = Pool::store(2, |store| store.write("/f", &[b'f'; 100]).unwrap());
    explore("size: two appends", move || {
        let (sim, store) = pool.open();
        let (one, two) = (open(&store), open(&store));
        together(vec![
            part(move || _ = one.append(&[b'a'; 5000]).unwrap()),
            part(move || _ = two.append(&[b'b'; 10]).unwrap()),
        ]);
        let content = store.read("/f").unwrap();
        let count = |byte: u8| content.iter().filter(|b| **b == byte).count();
        assert_eq!([count(b'f'), count(b'a'), count(b'b')], [100, 5000, 10]);
        assert_settled(&sim, store, &["/f"], 1);
    });
}

#[cfg(loom)]
#[test]
fn mutations_are_caught() {
    crate::assert_caught("size::two_appends_both_happen", daxstore::pmem::mutation::Mutation::StaleEnd);
}
