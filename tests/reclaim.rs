//! Does space that metadata no longer needs come back to files?

#![cfg(feature = "sim")]

use daxstore::pmem::sim::Sim;
use daxstore::{Error, Store, StoreOptions};
use std::sync::Arc;

fn store(size: u64) -> (Arc<Sim>, Store) {
    let sim = Arc::new(Sim::new(size).expect("memory"));
    let store = Store::create_sim(sim.clone(), &StoreOptions::new()).expect("a store");
    (sim, store)
}

/// As many empty files as the pool holds.
fn fill_with_empty_files(store: &Store) -> u64 {
    for i in 0.. {
        match store.write(format!("/{i}"), b"") {
            Ok(()) => {}
            Err(Error::NoSpace { .. }) => return i,
            Err(error) => panic!("{error}"),
        }
    }
    unreachable!("a pool is finite")
}

/// The length of the longest file that can be written in steps of a block.
fn longest_file(store: &Store) -> u64 {
    let file = store.create("/big").expect("a file");
    loop {
        match file.append(&[1; 4096]) {
            Ok(_) => {}
            Err(Error::NoSpace { .. }) => return file.len(),
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_file_gets_the_space_that_removed_files_took() {
    let (_sim, fresh) = store(8 << 20);
    let all = longest_file(&fresh);
    let (sim, used) = store(8 << 20);
    let count = fill_with_empty_files(&used);
    assert!(count > 10_000, "{count} files");
    (0..count).for_each(|i| used.remove_file(format!("/{i}")).expect("removed"));
    let found = longest_file(&used);
    assert!(found * 100 >= all * 98, "{found} of {all} bytes");
    let content = used.read("/big").expect("the file");
    assert!(content.len() as u64 == found && content.iter().all(|byte| *byte == 1));
    drop((used, content));
    let again = Store::open_sim(sim).expect("a store");
    assert_eq!(again.metadata("/big").expect("the file").size, found);
    assert!(again.info().expect("a sound pool").space.damage.is_empty());
}

#[test]
fn nothing_is_looked_at_again_where_nothing_was_freed() {
    let (_sim, store) = store(8 << 20);
    fill_with_empty_files(&store);
    assert_eq!(store.reclaim().expect("a look"), 0);
    let before = store.counts();
    for _ in 0..3 {
        assert!(matches!(store.write("/one more", b""), Err(Error::NoSpace { .. })));
    }
    assert_eq!(store.counts().since(before).fences, 0, "no epoch for nothing");
}

#[test]
fn a_full_pool_reclaims_while_others_use_it() {
    let (sim, store) = store(8 << 20);
    let count = fill_with_empty_files(&store);
    std::thread::scope(|scope| {
        for thread in 0..2 {
            let store = &store;
            scope.spawn(move || {
                for i in (thread..count).step_by(2) {
                    store.remove_file(format!("/{i}")).expect("removed");
                    if i % 64 == thread {
                        // Whether it has room depends on the other one: it is there as a whole or not at all.
                        match store.write(format!("/data{i}"), &[7; 9000]) {
                            Ok(()) | Err(Error::NoSpace { .. }) => {}
                            Err(error) => panic!("{error}"),
                        }
                    }
                }
            });
        }
    });
    drop(store);
    let store = Store::open_sim(sim).expect("a store");
    let mut blocks = 0;
    for entry in store.read_dir() {
        let name = entry.expect("an entry").name;
        let metadata = store.metadata(&name).expect("a file");
        assert!(metadata.size == 0 || store.read(&name).expect("its content") == [7; 9000]);
        blocks += metadata.blocks;
    }
    let space = store.info().expect("a sound pool").space;
    assert!(space.damage.is_empty());
    let used = space.usable_blocks - space.free_blocks;
    assert_eq!(used, blocks + space.inode_arena_blocks + space.node_arena_blocks);
}
