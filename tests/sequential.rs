//! Is a sequential file written in order, at its end, by whomever, and by nothing else?

#![cfg(feature = "sim")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use daxstore::pmem::sim::Sim;
use daxstore::{AllocateMode, Error, File, Follow, OpenOptions, Store, StoreOptions};
use std::sync::Arc;

const BLOCK: u64 = 4096;

fn store() -> Store {
    Store::create_sim(Arc::new(Sim::new(64 << 20).unwrap()), &StoreOptions::new()).unwrap()
}

fn options() -> OpenOptions {
    OpenOptions::new().read(true).write(true)
}

fn sequential(store: &Store, capacity: u64) -> File {
    store.open("s", &options().create_new(true).sequential(true).capacity(capacity)).unwrap()
}

fn content(file: &File) -> Vec<u8> {
    let mut bytes = vec![0; file.len() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

#[test]
fn writes_go_to_the_write_pointer_and_nowhere_else() {
    let store = store();
    let file = sequential(&store, 0);
    assert_eq!((file.write_pointer(), file.capacity()), (Some(0), Some(1 << 62)));
    assert_eq!(file.append(&[1; 5000]).unwrap(), 0);
    assert_eq!(file.write_at(&[2; 3000], 5000).unwrap(), 3000);
    assert_eq!(file.append(&[3; 10]).unwrap(), 8000);
    assert_eq!(file.write_pointer(), Some(8010));
    for offset in [0, 4096, 8009, 8011, 1 << 40] {
        let error = file.write_at(&[9; 10], offset).unwrap_err();
        assert!(matches!(error, Error::NotSequential { pointer: 8010, offset: o } if o == offset), "{error}");
        assert!(error.to_string().contains("byte 8010"), "{error}");
    }
    assert_eq!(file.write_at(&[], 3).unwrap(), 0, "nothing is written anywhere");
    assert_eq!(content(&file), [vec![1; 5000], vec![2; 3000], vec![3; 10]].concat());
    // A handle that appends goes to the end, whatever it is told.
    let appends = store.open("s", &OpenOptions::new().append(true)).unwrap();
    assert_eq!(appends.write_at(&[4; 6], 0).unwrap(), 6);
    assert_eq!(file.write_pointer(), Some(8016));
}

#[test]
fn everything_else_is_refused() {
    let store = store();
    let file = sequential(&store, 0);
    file.append(&[1; 5 * BLOCK as usize]).unwrap();
    let refused = |result: daxstore::Result<()>| {
        assert!(matches!(result, Err(Error::NotSequential { pointer: 20480, .. })), "{result:?}");
    };
    for size in [0, 1, 20480, 30000] {
        refused(file.set_len(size));
    }
    for mode in [
        AllocateMode::Allocate,
        AllocateMode::Punch,
        AllocateMode::Zero,
        AllocateMode::Collapse,
        AllocateMode::Insert,
    ] {
        refused(file.allocate(BLOCK, BLOCK, mode));
    }
    refused(store.create("s").map(drop));
    let truncates = options().truncate(true);
    refused(store.open("s", &truncates).map(drop));
    assert_eq!(content(&file), [1; 5 * BLOCK as usize]);
    // Space for what will be written can be asked for, and blocks may move.
    file.allocate(5 * BLOCK, 100 * BLOCK, AllocateMode::KeepSize).unwrap();
    file.append(&[2; 5000]).unwrap();
    file.defrag().unwrap();
    file.set_xattr("user.x", b"1", daxstore::XattrMode::Create).unwrap();
    store.rename("s", "t").unwrap();
    store.hard_link("t", "u").unwrap();
    store.remove_file("t").unwrap();
    assert_eq!(store.read("u").unwrap().len(), 25480);
    drop(file);
    assert!(store.check().unwrap().is_clean());
}

#[test]
fn a_capacity_is_kept() {
    let store = store();
    let file = sequential(&store, 10_000);
    file.append(&[1; 6000]).unwrap();
    let error = file.append(&[2; 4001]).unwrap_err();
    assert!(matches!(error, Error::SequentialFull { capacity: 10_000, pointer: 6000, len: 4001 }), "{error}");
    assert_eq!(error.errno(), libc::EFBIG);
    assert_eq!(file.len(), 6000, "nothing of it was written");
    assert_eq!(file.write_at(&[3; 4000], 6000).unwrap(), 4000);
    assert!(matches!(file.append(&[4]), Err(Error::SequentialFull { pointer: 10_000, len: 1, .. })));
    file.reset().unwrap();
    assert_eq!((file.write_pointer(), file.metadata().blocks), (Some(0), 0));
    assert_eq!(file.append(&[5; 10_000]).unwrap(), 0);
    assert_eq!(content(&file), [5; 10_000]);
}

#[test]
fn what_a_file_is_made_as_it_stays() {
    let sim = Arc::new(Sim::new(64 << 20).unwrap());
    let store = Store::create_sim(sim.clone(), &StoreOptions::new()).unwrap();
    sequential(&store, 12_345).append(&[1; 100]).unwrap();
    store.write("plain", b"x").unwrap();
    let plain = store.open("plain", &options()).unwrap();
    assert_eq!((plain.write_pointer(), plain.capacity()), (None, None));
    assert!(matches!(plain.reset(), Err(Error::InvalidArgument(_))));
    assert!(matches!(store.open("plain", &options().sequential(true)), Err(Error::InvalidArgument(_))));
    for bad in [options().create(true).capacity(5), options().create(true).sequential(true).capacity(1 << 63)]
    {
        assert!(matches!(store.open("new", &bad), Err(Error::InvalidArgument(_))));
    }
    assert!(!store.exists("new").unwrap());
    drop(plain);
    store.close().unwrap();
    let store = Store::open_sim(sim).unwrap();
    let file = store.open("s", &options().sequential(true)).unwrap();
    assert_eq!((file.write_pointer(), file.capacity()), (Some(100), Some(12_345)));
    let metadata = store.open_node("s", Follow::No).unwrap().metadata();
    assert_eq!(metadata.capacity, Some(12_345));
    let read_only = store.open("s", &OpenOptions::new().read(true)).unwrap();
    assert!(matches!(read_only.reset(), Err(Error::NotOpenedFor(_))));
    // A file without a name can be one too.
    let unnamed = store.open_unnamed(&options().sequential(true).capacity(5)).unwrap();
    assert_eq!(unnamed.capacity(), Some(5));
    assert!(store.check().unwrap().is_clean());
}

/// Each append is found whole, where its caller was told, and in the order in which each thread made them.
#[test]
fn appends_of_many_threads_are_whole_and_in_order() {
    const THREADS: u8 = 4;
    const APPENDS: u32 = 300;
    let store = store();
    let file = sequential(&store, 0);
    let len = |thread: u8, n: u32| 8 + (u32::from(thread) * 37 + n * 101) as usize % 3000;
    let told: Vec<Vec<u64>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let file = &file;
                scope.spawn(move || {
                    let append = |n: u32| {
                        let mut bytes = vec![thread; len(thread, n)];
                        bytes[..4].copy_from_slice(&n.to_le_bytes());
                        if !n.is_multiple_of(3) {
                            return file.append(&bytes).unwrap();
                        }
                        // Where the pointer was just now; another thread may have been there first.
                        loop {
                            let at = file.write_pointer().unwrap();
                            match file.write_at(&bytes, at) {
                                Ok(wrote) => {
                                    assert_eq!(wrote, bytes.len());
                                    return at;
                                }
                                Err(Error::NotSequential { pointer, offset }) => assert!(pointer > offset),
                                Err(error) => panic!("{error}"),
                            }
                        }
                    };
                    (0..APPENDS).map(append).collect()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let all = content(&file);
    let mut end = vec![];
    for (thread, told) in (0..THREADS).zip(&told) {
        assert!(told.windows(2).all(|pair| pair[0] < pair[1]), "a thread's appends are in its order");
        for (n, at) in (0..APPENDS).zip(told) {
            let found = &all[*at as usize..][..len(thread, n)];
            assert_eq!(found[..4], n.to_le_bytes());
            assert!(found[4..].iter().all(|byte| *byte == thread), "an append is torn");
            end.push((*at, found.len() as u64));
        }
    }
    end.sort_unstable();
    assert!(end.windows(2).all(|pair| pair[0].0 + pair[0].1 == pair[1].0), "nothing lies between appends");
    assert_eq!(end.last().map(|(at, len)| at + len), file.write_pointer());
}

/// Space ahead of a growing file ends where the capacity does, and none is kept when nobody has the file open.
#[test]
fn space_ahead_ends_at_the_capacity() {
    let store = store();
    let file = sequential(&store, 100 * BLOCK);
    (0..60).for_each(|_| _ = file.append(&[1; BLOCK as usize]).unwrap());
    assert!(file.metadata().blocks <= 100, "{} blocks", file.metadata().blocks);
    drop(file);
    let file = store.open("s", &options()).unwrap();
    assert_eq!(file.metadata().blocks, 60);
}
