//! Does queued I/O do what it says: order, ends, space, errors, and what it costs?

#![cfg(feature = "sim")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use daxstore::pmem::mutation::{self, Mutation};
use daxstore::pmem::sim::Sim;
use daxstore::units::PoolOff;
use daxstore::{
    AllocateMode, Completed, Error, File, IoQueue, IoQueueOptions, IoRequest, OpenOptions, State, Store,
    StoreOptions,
};
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Wake, Waker};

const B: u64 = 4096;
const LEN: usize = B as usize;

fn store_of(size: u64) -> Store {
    Store::create_sim(Arc::new(Sim::new(size).unwrap()), &StoreOptions::new()).unwrap()
}

fn store() -> Store {
    store_of(64 << 20)
}

fn open(store: &Store, name: &str) -> File {
    store.open(name, &OpenOptions::new().read(true).write(true).create(true)).unwrap()
}

/// Done by the test, step by step.
fn driven() -> IoQueueOptions {
    IoQueueOptions::new().workers(0).part_bytes(4 * B)
}

fn write(offset: u64, fill: u8, len: usize) -> IoRequest {
    IoRequest::write(offset, vec![vec![fill; len]])
}

fn content(file: &File) -> Vec<u8> {
    let mut found = vec![0; file.len() as usize];
    file.read_exact_at(&mut found, 0).unwrap();
    found
}

fn assert_clean(store: &Store) {
    let report = store.check().unwrap();
    assert!(report.faults.is_empty(), "{}", report.faults[0]);
}

#[test]
fn buffers_come_back_with_the_count_and_the_offset() {
    let store = store();
    let file = open(&store, "/f");
    for options in [driven(), IoQueueOptions::new()] {
        file.set_len(0).unwrap();
        let queue = IoQueue::new(&store, options);
        let parts = vec![vec![1; 3], Vec::new(), vec![2; 5000]];
        let Completed { result, offset, buffers } =
            queue.submit(&file, IoRequest::write(10, parts.clone())).wait();
        assert_eq!((result.unwrap(), offset, buffers), (5003, 10, parts));
        let ended = queue.submit(&file, IoRequest::append(vec![vec![3; 7]])).wait();
        assert_eq!((ended.result.unwrap(), ended.offset), (7, 5013));
        let mut read = IoRequest::read(8, vec![vec![9; 4], vec![9; 6000]]);
        assert_eq!(queue.submit_and_wait(&file, &mut read).unwrap(), 5020 - 8);
        assert_eq!(read.buffers()[0], [0, 0, 1, 1]);
        let second = &read.buffers()[1];
        assert!(second[0] == 1 && second[1..5001].iter().all(|b| *b == 2), "the second buffer");
        assert!(second[5001..5008].iter().all(|b| *b == 3) && second[5008..].iter().all(|b| *b == 9));
        assert_eq!(queue.submit(&file, IoRequest::read(1 << 30, vec![vec![0; 9]])).wait().result.unwrap(), 0);
        assert_eq!(queue.submit(&file, IoRequest::write(5, Vec::new())).wait().result.unwrap(), 0);
        queue.drain();
        assert_eq!(queue.in_flight(), 0);
    }
    assert_clean(&store);
}

#[test]
fn refusals_are_said_to_the_ticket() {
    let (store, other) = (store(), store());
    let (file, strange) = (open(&store, "/f"), open(&other, "/f"));
    let queue = IoQueue::new(&store, driven());
    let reader = store.open("/f", &OpenOptions::new().read(true)).unwrap();
    let ended = queue.submit(&reader, write(0, 1, 9)).wait();
    assert!(matches!(ended.result, Err(Error::NotOpenedFor(_))) && ended.buffers == [vec![1; 9]]);
    assert!(matches!(queue.submit(&strange, write(0, 1, 9)).wait().result, Err(Error::InvalidArgument(_))));
    let far = queue.submit(&file, write(u64::MAX - 3, 1, 9)).wait();
    assert!(matches!(far.result, Err(Error::FileTooLarge { .. })), "{far:?}");
    assert_eq!(file.len(), 0);
}

#[test]
fn a_ticket_is_polled_awaited_or_called_back() {
    struct Count(AtomicUsize);
    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    let store = store();
    let file = open(&store, "/f");
    let queue = IoQueue::new(&store, driven().batch(1));
    let polled = queue.submit(&file, write(0, 1, 10));
    assert!(!polled.is_done());
    let polled = polled.try_wait().unwrap_err();
    assert!(queue.step() && !queue.step());
    assert!(polled.is_done() && polled.try_wait().unwrap().result.unwrap() == 10);

    let (told, heard) = mpsc::channel();
    queue.submit(&file, write(0, 2, 20)).on_complete(move |ended| told.send(ended).unwrap());
    assert!(heard.try_recv().is_err() && queue.step());
    assert_eq!(heard.try_recv().unwrap().result.unwrap(), 20);
    assert!(heard.try_recv().is_err(), "called once");

    // With threads: a future is woken once, and a callback may use the store and the queue.
    let queue = Arc::new(IoQueue::new(&store, IoQueueOptions::new().depth(1)));
    let wakes = Arc::new(Count(AtomicUsize::new(0)));
    let waker = Waker::from(wakes.clone());
    let mut future = pin!(queue.submit(&file, write(0, 3, 30)));
    let ended = loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(ended) => break ended,
            Poll::Pending => std::thread::yield_now(),
        }
    };
    assert_eq!(ended.result.unwrap(), 30);
    assert!(wakes.0.load(Ordering::SeqCst) <= 1);
    let (told, heard) = mpsc::channel();
    let (again, own) = (queue.clone(), file.clone());
    queue.submit(&file, write(0, 4, 40)).on_complete(move |_| {
        own.write_at(&[5; 50], 0).unwrap();
        told.send(again.submit(&own, write(50, 6, 60)).wait().result.unwrap()).unwrap();
    });
    assert_eq!(heard.recv().unwrap(), 60);
    assert_eq!(content(&file), [vec![5; 50], vec![6; 60]].concat());
}

#[test]
fn overlapping_requests_take_effect_in_order() {
    let store = store();
    let file = open(&store, "/f");
    file.set_len(64 * B).unwrap();
    let queue = IoQueue::new(&store, IoQueueOptions::new().workers(3).part_bytes(B));
    for round in 0..20_u8 {
        let fills = [round, round + 50, round + 100];
        let at = [0, 100, 2 * B + 7];
        let queued: Vec<_> = (0..3).map(|i| queue.submit(&file, write(at[i], fills[i], 3 * LEN))).collect();
        let seen = queue.submit(&file, IoRequest::read(0, vec![vec![0; 8 * LEN]])).wait();
        queued.into_iter().for_each(|one| assert_eq!(one.wait().result.unwrap(), 3 * LEN));
        let seen = &seen.buffers[0];
        assert!(seen[..100].iter().all(|b| *b == fills[0]));
        assert!(seen[100..2 * LEN + 7].iter().all(|b| *b == fills[1]));
        assert!(seen[2 * LEN + 7..5 * LEN + 7].iter().all(|b| *b == fills[2]));
        assert!(seen[5 * LEN + 7..].iter().all(|b| *b == 0));
    }
}

/// R23, R24: stamps of 512 bytes by many, into holes, in any order.
#[test]
fn pieces_of_one_block_do_not_zero_each_other() {
    let store = store();
    let file = open(&store, "/f");
    file.set_len(16 * B).unwrap();
    file.allocate(4 * B, 8 * B, AllocateMode::Allocate).unwrap();
    let queue = IoQueue::new(&store, IoQueueOptions::new().workers(2).batch(4));
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let (queue, file) = (&queue, &file);
            scope.spawn(move || {
                for i in 0..32 {
                    let stamp = (i * 5 % 32) * 4 + thread;
                    _ = queue.submit(file, write(stamp * 512, stamp as u8 + 1, 512));
                }
            });
        }
    });
    queue.drain();
    for (stamp, bytes) in content(&file).chunks(512).enumerate() {
        assert!(bytes.iter().all(|b| *b == stamp as u8 + 1), "stamp {stamp}");
    }
    assert_clean(&store);
}

/// R14: sizes only grow, whoever ends first; and R13: bytes below a size are there.
#[test]
fn sizes_only_grow_and_bytes_below_them_are_there() {
    let store = store();
    let file = open(&store, "/f");
    let queue = IoQueue::new(&store, IoQueueOptions::new().workers(2).part_bytes(B));
    let done = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut before = 0;
            while done.load(Ordering::SeqCst) == 0 {
                let size = file.len();
                assert!(size >= before, "{size} after {before}");
                before = size;
                assert!(content(&file).iter().all(|b| *b != 0), "a byte below the size that is not there");
            }
        });
        for i in 0..60 {
            _ = queue.submit(&file, IoRequest::append(vec![vec![7; 1000 + i * 100]]));
        }
        queue.drain_file(&file);
        done.store(1, Ordering::SeqCst);
    });
    assert_eq!(file.len(), (0..60).map(|i| 1000 + i * 100).sum::<u64>());
}

#[test]
fn truncate_punch_and_close_wait_for_what_is_in_flight() {
    let store = store();
    let file = open(&store, "/f");
    file.set_len(256 * B).unwrap();
    let queue = IoQueue::new(&store, IoQueueOptions::new().workers(1));
    for round in 0..30 {
        let queued: Vec<_> = (0..8).map(|i| queue.submit(&file, write(i * 16 * B, 9, 16 * LEN))).collect();
        match round % 3 {
            0 => file.set_len(100).unwrap(),
            1 => file.allocate(0, 256 * B, AllocateMode::Punch).unwrap(),
            _ => file.clone().close().unwrap(),
        }
        let before = store.counts().fences;
        queue.drain();
        assert_eq!(store.counts().fences, before, "round {round} did not wait");
        queued.into_iter().for_each(|one| _ = one.wait().result.unwrap());
        let found = content(&file);
        match round % 3 {
            0 => assert!(found == [9; 100]),
            1 => assert!(found.iter().all(|b| *b == 0)),
            _ => assert!(found[..128 * LEN].iter().all(|b| *b == 9)),
        }
        file.set_len(256 * B).unwrap();
    }
    assert_clean(&store);
}

/// R41: the file has no name and no handle but that of its I/O.
#[test]
fn a_file_lives_as_long_as_its_io() {
    let store = store();
    let free = store.statfs();
    for options in [driven(), IoQueueOptions::new()] {
        let queue = IoQueue::new(&store, options);
        let file = open(&store, "/f");
        let queued: Vec<_> = (0..8).map(|i| queue.submit(&file, write(i * 3 * B, 4, 2 * LEN))).collect();
        store.remove_file("/f").unwrap();
        drop(file);
        queued.into_iter().for_each(|one| assert_eq!(one.wait().result.unwrap(), 2 * LEN));
        drop(queue);
        assert_eq!(store.statfs().files, free.files, "the inode is gone");
        assert_clean(&store);
    }
}

#[test]
fn a_dropped_queue_has_done_everything() {
    let store = store();
    let file = open(&store, "/f");
    for options in [driven(), IoQueueOptions::new().depth(4)] {
        file.set_len(0).unwrap();
        let queue = IoQueue::new(&store, options);
        (0..40).for_each(|i| drop(queue.submit(&file, write(i * B, 5, LEN))));
        drop(queue);
        assert!(file.len() == 40 * B && content(&file).iter().all(|b| *b == 5));
    }
}

/// Many writes of many files: one fence for the data, one for the record.
#[test]
fn finished_writes_share_their_fences() {
    let store = store_of(256 << 20);
    let files: Vec<_> = (0..8).map(|i| open(&store, &format!("/{i}"))).collect();
    files.iter().for_each(|file| file.set_len(64 * B).unwrap());
    files[0].allocate(0, 32 * B, AllocateMode::Allocate).unwrap();
    let queue = IoQueue::new(&store, driven());
    let cost = |requests: &[(usize, u64)]| {
        store.grow(256 << 20).unwrap();
        let before = store.counts();
        let queued: Vec<_> =
            requests.iter().map(|(f, at)| queue.submit(&files[*f], write(*at, 8, LEN))).collect();
        assert!(queue.step(), "the batch");
        assert!(queued.iter().all(|one| one.is_done()), "all in one step");
        let cost = store.counts().since(before);
        (cost.fences, cost.nt_bytes - requests.len() as u64 * B)
    };
    let all: Vec<_> = (0..16).map(|i| (i % 8, (i as u64 / 8 + 1) * B)).collect();
    assert_eq!(cost(&all).0, 2, "16 writes into holes and unwritten space of 8 files");
    assert_eq!(cost(&all), (1, 0), "16 overwrites");
    assert_eq!(cost(&[(0, 20 * B)]).0, 2, "one");
    assert_eq!(cost(&[(0, B), (1, 40 * B), (2, B)]).0, 2, "two overwrites and a hole");
    // A large write: each part has the fence of whoever copied it.
    store.grow(256 << 20).unwrap();
    let before = store.counts();
    let large = queue.submit(&files[3], write(32 * B, 8, 12 * LEN));
    let fences: Vec<_> =
        std::iter::from_fn(|| queue.step().then(|| store.counts().since(before).fences)).collect();
    assert_eq!(large.wait().result.unwrap(), 12 * LEN);
    assert_eq!(fences, [2], "three parts of 16 KiB, copied in one batch, and the record");
    drop(queue);
    let queue = IoQueue::new(&store, driven().batch(1));
    let before = store.counts();
    let large = queue.submit(&files[4], write(32 * B, 8, 12 * LEN));
    let fences: Vec<_> =
        std::iter::from_fn(|| queue.step().then(|| store.counts().since(before).fences)).collect();
    assert_eq!((large.wait().result.unwrap(), fences), (12 * LEN, vec![1, 2, 4]));
}

/// A pool with no block left for files: `keep` blocks were given to `/f`, unwritten.
fn full(keep: u64) -> (Store, File, File) {
    let store = store_of(16 << 20);
    let (file, filler) = (open(&store, "/f"), open(&store, "/filler"));
    file.allocate(0, keep * B, AllocateMode::Allocate).unwrap();
    let (mut at, mut step) = (0, 1024);
    while step > 0 {
        match filler.allocate(at, step * B, AllocateMode::KeepSize) {
            Ok(()) => at += step * B,
            Err(error) => {
                assert!(matches!(error, Error::NoSpace { .. }), "{error}");
                step /= 2;
            }
        }
    }
    (store, file, filler)
}

/// R20: unwritten space was given; converting it, in pieces that split extents, never fails for want of space.
#[test]
fn conversions_do_not_fail_on_a_full_pool() {
    for options in [driven().batch(5), IoQueueOptions::new(), driven().depth(1000)] {
        let (store, file, _filler) = full(256);
        let queue = IoQueue::new(&store, options);
        let queued: Vec<_> =
            (0..128).map(|i| queue.submit(&file, write((i * 37 % 128) * 2 * B, 3, LEN))).collect();
        for one in queued {
            assert_eq!(one.wait().result.unwrap(), LEN);
        }
        let found = content(&file);
        assert!(
            found
                .chunks(LEN)
                .enumerate()
                .all(|(i, b)| b.iter().all(|b| *b == if i % 2 == 0 { 3 } else { 0 }))
        );
        assert_clean(&store);
    }
}

/// There is room for a number of writes into holes: so many end well, the others with "no space", and nothing else changes.
#[test]
fn no_space_is_said_by_the_write_that_finds_none() {
    let mut most = 0;
    for room in 1..40_u64 {
        let (store, file, filler) = full(4);
        file.set_len(100 * B).unwrap();
        filler.allocate(0, room * B, AllocateMode::Punch).unwrap();
        let queue = IoQueue::new(&store, driven());
        let before = store.statfs().free;
        let queued: Vec<_> =
            (0..30).map(|i| queue.submit(&file, write((10 + 3 * i) * B + 5, 6, LEN))).collect();
        let results: Vec<_> = queued.into_iter().map(|one| one.wait().result).collect();
        let good = results.iter().filter(|result| matches!(result, Ok(LEN))).count() as u64;
        assert!(
            results.iter().all(|result| matches!(result, Ok(LEN) | Err(Error::NoSpace { .. }))),
            "{results:?}"
        );
        // Two blocks each; what the tree and the floor need is theirs.
        most = most.max(good);
        assert!(good * 2 <= room, "{good} of {room} blocks");
        let used = before - store.statfs().free;
        assert!(used >= good * 2 && used <= good * 2 + 16, "{used} blocks for {good} writes");
        let found = content(&file);
        for (i, result) in results.iter().enumerate() {
            let at = (10 + 3 * i) * LEN + 5;
            let fill = if result.is_ok() { 6 } else { 0 };
            assert!(found[at..at + LEN].iter().all(|b| *b == fill) && found[at - 5] == 0, "write {i}");
        }
        assert_clean(&store);
    }
    assert!(most > 5, "at most {most} writes found space");
}

/// As above, for appends: what was appended is there as a whole, in order, and nothing of the others.
#[test]
fn no_space_is_said_by_the_append_that_finds_none() {
    let mut refused = 0;
    for room in 1..40_u64 {
        let (store, file, filler) = full(1);
        filler.allocate(0, room * B, AllocateMode::Punch).unwrap();
        let queue = IoQueue::new(&store, driven());
        let queued: Vec<_> =
            (0..16).map(|i| queue.submit(&file, IoRequest::append(vec![vec![i + 1; 5000]]))).collect();
        let results: Vec<_> = queued.into_iter().map(|one| one.wait().result).collect();
        assert!(
            results.iter().all(|result| matches!(result, Ok(5000) | Err(Error::NoSpace { .. }))),
            "{results:?}"
        );
        let good: Vec<_> = (0..16).filter(|i| results[*i as usize].is_ok()).collect();
        let expected: Vec<_> = good.iter().flat_map(|i| vec![*i as u8 + 1; 5000]).collect();
        assert!(content(&file)[LEN..] == expected, "{good:?} of 16, room for {room}");
        refused += 16 - good.len();
        assert_clean(&store);
    }
    assert!(refused > 0);
}

/// A store whose blocks held something for somebody else, which must not come to light.
fn used_store() -> Store {
    let store = store_of(16 << 20);
    store.write("/old", &vec![0xCC; 13 << 20]).unwrap();
    store.remove_file("/old").unwrap();
    store
}

fn place(file: &File, offset: u64) -> PoolOff {
    file.extents(offset, 1).unwrap()[0].state.address().unwrap()
}

/// R17, R21, R22: the medium loses a block while the write is in flight, whichever it is.
#[test]
fn a_write_that_fails_in_the_middle_keeps_what_came_before() {
    for lost in 0..12_u64 {
        for batch in [1, 16] {
            let store = used_store();
            let file = open(&store, "/f");
            file.allocate(0, 16 * B, AllocateMode::Allocate).unwrap();
            let at = place(&file, lost * B);
            let queue = IoQueue::new(&store, driven().batch(batch));
            let queued = queue.submit(&file, write(100, 7, 12 * LEN));
            store.mark_bad(at, 1).unwrap();
            let result = queued.wait().result;
            let end = lost * B;
            match result {
                Ok(count) => assert!(lost > 0 && count as u64 == end - 100, "{count} before block {lost}"),
                Err(error) => assert!(lost == 0 && error.errno() == libc::EIO, "{error} at block {lost}"),
            }
            for extent in file.extents(0, 16 * B).unwrap() {
                let is_written = matches!(extent.state, State::Mapped(_));
                assert_eq!(
                    is_written,
                    extent.range.offset < end,
                    "{extent:?} although {end} bytes were written"
                );
            }
            let found = content(&file);
            let expected = |i: usize| if i >= 100 && (i as u64) < end { 7 } else { 0 };
            assert!((0..found.len()).all(|i| found[i] == expected(i)), "block {lost}");
            assert_eq!(queue.in_flight(), 0);
        }
    }
}

/// The same into a hole at the end: the size is what was accepted, and the rest of the blocks has gone back.
#[test]
fn a_short_write_past_the_end_moves_the_size_as_far_as_it_came() {
    // A twin of the store tells where the sixth block will lie.
    let (mut sixth, mut free) = (PoolOff(0), 0);
    let stores = [(); 2].map(|()| store());
    for store in &stores {
        let file = open(store, "/f");
        // Queued, so that the nodes which writes keep at hand are there before.
        _ = IoQueue::new(store, driven()).submit(&file, write(0, 1, 100)).wait();
        free = store.statfs().free;
    }
    let (twin, store) = (&stores[0], &stores[1]);
    let file = open(twin, "/f");
    let queue = IoQueue::new(twin, driven().batch(1));
    assert_eq!(queue.submit(&file, write(B, 2, 12 * LEN)).wait().result.unwrap(), 12 * LEN);
    sixth.0 += place(&file, 6 * B).0;
    let file = open(store, "/f");
    let queue = IoQueue::new(store, driven().batch(1));
    let queued = queue.submit(&file, write(B, 2, 12 * LEN));
    assert!(queue.step(), "the first part");
    store.mark_bad(sixth, 1).unwrap();
    let result = queued.wait().result.unwrap() as u64;
    assert_eq!(result, 5 * B);
    assert_eq!(file.len(), B + result);
    assert!(content(&file)[LEN..].iter().all(|b| *b == 2));
    // One block is withheld for being lost.
    assert_eq!(free - store.statfs().free, 5 + 1);
    assert_clean(store);
}

#[test]
fn converting_what_was_not_written_would_be_seen() {
    let store = used_store();
    let file = open(&store, "/f");
    file.allocate(0, 16 * B, AllocateMode::Allocate).unwrap();
    let at = place(&file, 5 * B);
    let queue = IoQueue::new(&store, driven().batch(1));
    let queued = queue.submit(&file, write(0, 7, 16 * LEN));
    store.mark_bad(at, 1).unwrap();
    mutation::set(Some(Mutation::ConvertAll));
    let result = queued.wait().result.unwrap();
    mutation::set(None);
    assert_eq!(result, 16 * LEN, "the mutation claims what was not written");
    let mut shown = vec![0; LEN];
    let found = file.read_at(&mut shown, 6 * B).unwrap();
    assert!(found == LEN && shown.contains(&0xCC), "and shows what the block held before");
}

/// A hole at the end of a file is filled while the file grows behind it: both take effect.
fn end_and_beyond() -> Result<(), Error> {
    let store = store();
    let file = open(&store, "/f");
    file.set_len(20 * B).unwrap();
    let queue = IoQueue::new(&store, driven());
    let beyond = queue.submit(&file, write(25 * B, 2, 3 * LEN));
    let end = queue.submit(&file, write(18 * B, 1, 2 * LEN));
    queue.drain();
    end.wait().result?;
    beyond.wait().result?;
    let found = content(&file);
    let is = |blocks: std::ops::Range<usize>, fill: u8| {
        found[blocks.start * LEN..blocks.end * LEN].iter().all(|byte| *byte == fill)
    };
    assert!(is(0..18, 0) && is(18..20, 1) && is(20..25, 0) && is(25..28, 2) && found.len() == 28 * LEN);
    assert_clean(&store);
    Ok(())
}

/// Found by `mixed_paths`, seed 1251: the second write reserved blocks beyond the end, which it did not hold.
#[test]
fn who_ends_at_the_end_reserves_nothing_beyond_it() {
    end_and_beyond().unwrap();
    mutation::set(Some(Mutation::AheadUnheld));
    let broken = end_and_beyond();
    mutation::set(None);
    assert!(broken.is_err(), "AheadUnheld goes unnoticed");
}
