//! Model 8: the locks of directories. No deadlock, no cycle, no directory out of reach.
//!
//! Mutation: `NoRenameLock`.

use crate::{Pool, assert_settled, explore, part, together};
use daxstore::{Error, FileKind, RenameMode, Store};

/// How many directories can be reached from the root, itself included; each names the one above it.
fn reachable(store: &Store) -> u64 {
    let mut found = 1;
    let mut left = vec![store.root().clone()];
    while let Some(dir) = left.pop() {
        let mut below = 0;
        for entry in dir.read_dir() {
            let entry = entry.unwrap();
            if entry.kind == FileKind::Directory {
                below += 1;
                let inner = dir.open_dir(&entry.name).unwrap();
                assert_eq!(inner.metadata("..").unwrap().ino, dir.metadata(".").unwrap().ino, "..");
                left.push(inner);
            }
        }
        assert_eq!(u64::from(dir.metadata(".").unwrap().links), 2 + below, "links");
        found += below;
        assert!(found < 100, "a cycle");
    }
    found
}

#[test]
fn two_directories_move_into_each_other() {
    let pool = Pool::store(2, |store| {
        ["/a", "/b", "/a/x", "/b/y"].iter().for_each(|path| store.create_dir(path, 0o755).unwrap());
    });
    explore("directories: into each other", move || {
        let (sim, store) = pool.open();
        let (one, two) = (store.clone(), store.clone());
        together(vec![
            part(move || match one.rename("/a/x", "/b/y/x") {
                Ok(()) | Err(Error::NotFound | Error::IntoItself) => {}
                Err(error) => panic!("{error}"),
            }),
            part(move || match two.rename("/b/y", "/a/x/y") {
                Ok(()) | Err(Error::NotFound | Error::IntoItself) => {}
                Err(error) => panic!("{error}"),
            }),
        ]);
        assert_eq!(reachable(&store), 5, "every directory is in the tree");
        assert_settled(&sim, store, &[], 5);
    });
}

#[test]
fn a_directory_moves_while_its_target_goes_and_its_parent_is_asked_for() {
    let pool = Pool::store(2, |store| {
        ["/a", "/c", "/a/x"].iter().for_each(|path| store.create_dir(path, 0o755).unwrap());
    });
    explore("directories: rename, rmdir, dotdot", move || {
        let (sim, store) = pool.open();
        let parents = ["/a", "/c"].map(|path| store.metadata(path).unwrap().ino);
        let x = store.open_dir("/a/x").unwrap();
        let (mover, remover) = (store.clone(), store.clone());
        together(vec![
            part(move || match mover.rename("/a/x", "/c/x") {
                Ok(()) | Err(Error::NotFound) => {}
                Err(error) => panic!("{error}"),
            }),
            part(move || match remover.remove_dir("/c") {
                Ok(()) | Err(Error::NotEmpty) => {}
                Err(error) => panic!("{error}"),
            }),
            part(move || {
                let up = x.metadata("..").unwrap().ino;
                assert!(parents.contains(&up), "the parent of now");
            }),
        ]);
        let left = reachable(&store);
        assert_eq!(left, 3 + u64::from(store.exists("/c").unwrap()));
        assert_settled(&sim, store, &[], left);
    });
}

/// The way up from a directory is looked at while the directories on it are removed.
#[test]
fn ancestors_go_while_a_rename_looks_at_them() {
    let pool = Pool::store(2, |store| {
        ["/a", "/a/b"].iter().for_each(|path| store.create_dir(path, 0o755).unwrap());
        store.write("/a/b/f", b"").unwrap();
    });
    explore("directories: ancestors", move || {
        let (sim, store) = pool.open();
        let from = store.open_dir("/a/b").unwrap();
        let (to, remover) = (store.clone(), store.clone());
        together(vec![
            part(move || match from.rename_to("f", &to, "g", RenameMode::Replace) {
                Ok(()) | Err(Error::NotFound) => {}
                Err(error) => panic!("{error}"),
            }),
            part(move || {
                let _moved_away = remover.remove_file("/a/b/f");
                remover.remove_dir("/a/b").unwrap();
                remover.remove_dir("/a").unwrap();
            }),
        ]);
        let files: &[&str] = if store.exists("/g").unwrap() { &["/g"] } else { &[] };
        assert_eq!(reachable(&store), 1);
        assert_settled(&sim, store, files, 1);
    });
}

#[test]
fn a_name_is_replaced_while_both_are_removed() {
    let pool = Pool::store(2, |store| {
        store.write("/f", b"f").unwrap();
        store.write("/g", b"g").unwrap();
    });
    explore("directories: rename against unlink", move || {
        let (sim, store) = pool.open();
        let (mover, remover) = (store.clone(), store.clone());
        together(vec![
            part(move || match mover.rename("/f", "/g") {
                Ok(()) | Err(Error::NotFound) => {}
                Err(error) => panic!("{error}"),
            }),
            part(move || {
                let _moved = remover.remove_file("/f");
                remover.remove_file("/g").unwrap();
            }),
        ]);
        let files: &[&str] = if store.exists("/g").unwrap() { &["/g"] } else { &[] };
        assert!(!store.exists("/f").unwrap());
        assert_settled(&sim, store, files, 1);
    });
}

#[cfg(loom)]
#[test]
fn mutations_are_caught() {
    use daxstore::pmem::mutation::Mutation;
    crate::assert_caught("directories::two_directories_move_into_each_other", Mutation::NoRenameLock);
}
