//! Model: queued I/O. What ends together is there together, a drain waits for what is being done, a size is seen only with
//! the bytes below it, and every ticket is told once.
//!
//! The queue has no threads of its own: the parts of a model do its work, in [`daxstore::IoQueue::step`] and where they wait.
//! Mutations: `DrainWaiting`, `ReleaseEarly`.

use crate::{Pool, assert_settled, explore, part, together};
use daxstore::{AllocateMode, File, IoQueue, IoQueueOptions, IoRequest, OpenOptions, Store};
use std::sync::Arc;

fn open(store: &Store, name: &str) -> File {
    store.open(name, &OpenOptions::new().read(true).write(true)).unwrap()
}

fn queue(store: &Store, batch: usize) -> Arc<IoQueue> {
    Arc::new(IoQueue::new(store, IoQueueOptions::new().workers(0).depth(2).part_bytes(4096).batch(batch)))
}

fn append(byte: u8, len: usize) -> IoRequest {
    IoRequest::append(vec![vec![byte; len]])
}

/// R13, R14: as for appends that are not queued.
#[test]
fn a_reader_sees_no_byte_that_was_not_written() {
    let pool = Pool::store(2, |store| store.write("/f", &[b'f'; 100]).unwrap());
    explore("queue: append against read", move || {
        let (sim, store) = pool.open();
        let (writer, reader) = (open(&store, "/f"), open(&store, "/f"));
        let queue = queue(&store, 1);
        let own = queue.clone();
        together(vec![
            part(move || {
                let ended = queue.submit(&writer, append(b'a', 5000)).wait();
                assert_eq!((ended.result.unwrap(), ended.offset), (5000, 100));
            }),
            part(move || {
                let size = reader.len();
                let mut content = vec![0; 6000];
                let found = reader.read_at(&mut content, 0).unwrap() as u64;
                assert!(size <= found, "sizes only grow: {size} {found}");
                assert!([100, 5100].contains(&found), "old or new");
                assert!(content[..found as usize].iter().all(|byte| *byte != 0), "zeros below the size");
            }),
        ]);
        drop(own);
        assert_settled(&sim, store, &["/f"], 1);
    });
}

/// Two submitters, one queue with room for two, batches: each ticket is told, and everything is there.
#[test]
fn what_two_submit_ends_for_both() {
    let pool = Pool::store(2, |store| {
        store.write("/f", b"").unwrap();
        store.write("/g", b"").unwrap();
    });
    explore("queue: two submitters", move || {
        let (sim, store) = pool.open();
        let (one, two) = (open(&store, "/f"), open(&store, "/g"));
        let queue = queue(&store, 4);
        let (a, b) = (queue.clone(), queue.clone());
        together(vec![
            part(move || {
                let ended = a.submit(&one, append(1, 6000)).wait();
                assert_eq!(ended.result.unwrap(), 6000);
            }),
            part(move || {
                let ended = b.submit(&two, append(2, 10)).wait();
                assert_eq!(ended.result.unwrap(), 10);
            }),
        ]);
        assert_eq!(queue.in_flight(), 0);
        drop(queue);
        assert_eq!(store.read("/f").unwrap(), [1; 6000]);
        assert_eq!(store.read("/g").unwrap(), [2; 10]);
        assert_settled(&sim, store, &["/f", "/g"], 1);
    });
}

/// Who drains finds everything done, also what another thread is at.
#[test]
fn a_drain_waits_for_what_is_being_done() {
    let pool = Pool::store(2, |store| store.write("/f", &[b'f'; 100]).unwrap());
    explore("queue: drain", move || {
        let (sim, store) = pool.open();
        let file = open(&store, "/f");
        let queue = queue(&store, 1);
        let queued = queue.submit(&file, append(b'a', 5000));
        let (worker, drainer) = (queue.clone(), queue.clone());
        together(vec![
            part(move || _ = worker.step()),
            part(move || {
                drainer.drain_file(&file);
                assert!(queued.is_done(), "drained, and not done");
                assert_eq!(file.len(), 5100);
            }),
        ]);
        drop(queue);
        assert_settled(&sim, store, &["/f"], 1);
    });
}

/// A punch and a truncate wait until the write is the file's: what it was given never comes back after them.
#[test]
fn bytes_in_flight_are_held_until_they_are_the_files() {
    for truncate in [true, false] {
        let pool = Pool::store(2, |store| {
            let file = store.create("/f").unwrap();
            file.set_len(40960).unwrap();
        });
        explore("queue: write against punch and truncate", move || {
            let (sim, store) = pool.open();
            let (writer, cutter) = (open(&store, "/f"), open(&store, "/f"));
            let queue = queue(&store, 1);
            // In flight before the other begins, so that it comes first.
            let queued = queue.submit(&writer, IoRequest::write(4096, vec![vec![7; 8192]]));
            let worker = queue.clone();
            together(vec![
                part(move || {
                    worker.drain();
                    assert_eq!(queued.wait().result.unwrap(), 8192);
                }),
                part(move || {
                    if truncate {
                        cutter.set_len(100).unwrap();
                    } else {
                        cutter.allocate(0, 40960, AllocateMode::Punch).unwrap();
                    }
                }),
            ]);
            drop(queue);
            let content = store.read("/f").unwrap();
            assert_eq!(content.len(), if truncate { 100 } else { 40960 });
            assert!(content.iter().all(|byte| *byte == 0), "a write came after what waited for it");
            assert!(writer.extents(0, 1 << 20).unwrap().iter().all(|e| e.state == daxstore::State::Hole));
            writer.set_len(0).unwrap();
            drop(writer);
            assert_settled(&sim, store, &["/f"], 1);
        });
    }
}

#[cfg(loom)]
#[test]
fn mutations_are_caught() {
    use daxstore::pmem::mutation::Mutation;
    crate::assert_caught("io_queue::a_drain_waits_for_what_is_being_done", Mutation::DrainWaiting);
    crate::assert_caught(
        "io_queue::bytes_in_flight_are_held_until_they_are_the_files",
        Mutation::ReleaseEarly,
    );
}
