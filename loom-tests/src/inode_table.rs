//! Model 6: the table of inodes. A live inode has one core: two would each have their own idea of its size.
//!
//! Mutations: `IntroduceLate`, `ForgetLate`.

use crate::{Pool, assert_settled, explore, part, together};
use daxstore::{File, OpenOptions, Store};
use std::sync::{Arc, Mutex};

fn open(store: &Store, path: &str) -> daxstore::Result<File> {
    store.open(path, &OpenOptions::new().read(true).write(true))
}

#[test]
fn whoever_finds_a_new_name_gets_the_core_of_its_maker() {
    let pool = Pool::store(2, |_| ());
    explore("inode table: create against open", move || {
        let (sim, store) = pool.open();
        let (maker, finder) = (store.clone(), store.clone());
        let found = Arc::new(Mutex::new(false));
        let was_found = found.clone();
        together(vec![
            part(move || {
                let file = maker.create("/n").unwrap();
                file.append(b"1").unwrap();
            }),
            part(move || {
                if let Ok(file) = open(&finder, "/n") {
                    file.append(b"2").unwrap();
                    *found.lock().unwrap() = true;
                }
            }),
        ]);
        let expected = 1 + usize::from(*was_found.lock().unwrap());
        assert_eq!(store.read("/n").unwrap().len(), expected, "no append is lost");
        assert_settled(&sim, store, &["/n"], 1);
    });
}

#[test]
fn a_new_name_is_removed_while_its_maker_returns() {
    let pool = Pool::store(2, |_| ());
    explore("inode table: create against unlink", move || {
        let (sim, store) = pool.open();
        let (maker, remover) = (store.clone(), store.clone());
        together(vec![
            part(move || {
                let file = maker.create("/n").unwrap();
                file.append(b"1").unwrap();
                assert_eq!(file.len(), 1, "the maker's handle keeps it");
            }),
            part(move || {
                let _not_there_yet = remover.remove_file("/n");
            }),
        ]);
        let files: &[&str] = if store.exists("/n").unwrap() { &["/n"] } else { &[] };
        assert_settled(&sim, store, files, 1);
    });
}

#[test]
fn a_number_that_is_given_out_again_keeps_its_new_core() {
    let pool = Pool::store(2, |store| {
        // 13 files, two directories and the intents: the arena is full, and a freed slot is the next to be taken.
        store.create_dir("/d", 0o755).unwrap();
        (0..13).for_each(|i| store.write(format!("/{i}"), b"").unwrap());
    });
    explore("inode table: reuse", move || {
        let (sim, store) = pool.open();
        let (maker, remover) = (store.clone(), store.clone());
        let made = Arc::new(Mutex::new(None));
        let making = made.clone();
        together(vec![
            part(move || remover.remove_file("/0").unwrap()),
            part(move || {
                let file = maker.create("/d/n").unwrap();
                *making.lock().unwrap() = Some(file);
            }),
        ]);
        let first = made.lock().unwrap().take().unwrap();
        let second = open(&store, "/d/n").unwrap();
        first.append(b"1").unwrap();
        second.append(b"2").unwrap();
        first.append(b"3").unwrap();
        assert_eq!(second.len(), 3, "one core");
        drop((first, second));
        assert_eq!(store.read("/d/n").unwrap(), b"123");
        let names: Vec<_> = (1..13).map(|i| format!("/{i}")).chain(["/d/n".to_owned()]).collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        assert_settled(&sim, store, &names, 2);
    });
}

#[cfg(loom)]
#[test]
fn mutations_are_caught() {
    use daxstore::pmem::mutation::Mutation;
    let found = "inode_table::whoever_finds_a_new_name_gets_the_core_of_its_maker";
    crate::assert_caught(found, Mutation::IntroduceLate);
    crate::assert_caught(
        "inode_table::a_new_name_is_removed_while_its_maker_returns",
        Mutation::IntroduceLate,
    );
    crate::assert_caught(
        "inode_table::a_number_that_is_given_out_again_keeps_its_new_core",
        Mutation::ForgetLate,
    );
}
