//! How far is each operation from what the memory itself costs, and from the host's tmpfs?
//!
//! Each group measures the store and its yardstick in the same run on the same memory (`/dev/shm`), so that the ratio
//! can be quoted: a durable 4 KiB overwrite against one non-temporal copy and fence, a 4 KiB read against a copy,
//! names against the same system calls on tmpfs, which makes nothing durable. `mkfs` and opening after a crash are
//! measured over sizes and numbers of files that must not matter.

#![allow(missing_docs, reason = "criterion's macros make undocumented functions")]
#![allow(clippy::unwrap_used, reason = "a bench has nobody to report to")]

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use daxstore::pmem::{Region, RegionOptions};
use daxstore::units::PoolOff;
use daxstore::{Durability, IoQueue, IoQueueOptions, IoRequest, OpenOptions, Queued, Store, StoreOptions};
use std::collections::VecDeque;
use std::fs;
use std::hint::black_box;
use std::os::unix::fs::FileExt;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const SHM: &str = "/dev/shm";
const FILE: u64 = 256 << 20;
const BLOCK: usize = 4096;

fn dir() -> tempfile::TempDir {
    tempfile::tempdir_in(SHM).unwrap()
}

fn options() -> StoreOptions {
    StoreOptions::new().assume_persistent(true)
}

/// Block offsets of a file in an order that no prefetcher guesses.
fn random() -> impl FnMut() -> u64 {
    let mut state = 88_172_645_463_325_252_u64;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % (FILE / BLOCK as u64) * BLOCK as u64
    }
}

fn blocks(c: &mut Criterion) {
    let dir = dir();
    let raw_options = RegionOptions { assume_persistent: true, ..RegionOptions::default() };
    let raw = Region::create_file(dir.path().join("raw"), FILE + (8 << 20), &raw_options).unwrap();
    raw.zero_nt(PoolOff(0), FILE).unwrap();
    raw.fence().unwrap();
    let store = Store::create(dir.path().join("pool"), 2 * FILE, &options()).unwrap();
    let file = store.create("/file").unwrap();
    file.write_all_at(&vec![1; FILE as usize], 0).unwrap();
    let (source, mut sink) = (vec![7; BLOCK], vec![0; BLOCK]);

    let mut group = c.benchmark_group("overwrite 4 KiB, durable");
    let mut at = random();
    group.bench_function("raw copy+fence", |b| {
        b.iter(|| {
            raw.copy_nt(PoolOff(at()), black_box(&source)).unwrap();
            raw.fence().unwrap();
        });
    });
    // A loop of copies and fences lets the processor begin the next copy before the last one has arrived. Whoever
    // takes or releases a lock after the fence waits until it has: this is what one copy and fence take.
    let waited = AtomicU64::new(0);
    group.bench_function("raw copy+fence, waited for", |b| {
        b.iter(|| {
            raw.copy_nt(PoolOff(at()), black_box(&source)).unwrap();
            raw.fence().unwrap();
            waited.fetch_add(1, Ordering::SeqCst)
        });
    });
    group.bench_function("store", |b| b.iter(|| file.write_at(black_box(&source), at()).unwrap()));
    group.finish();

    let mut group = c.benchmark_group("read 4 KiB");
    group.bench_function("raw copy", |b| b.iter(|| raw.read(PoolOff(at()), black_box(&mut sink)).unwrap()));
    group.bench_function("store", |b| b.iter(|| file.read_at(black_box(&mut sink), at()).unwrap()));
    group.finish();
}

/// What is made durable at once, in order later, and as a whole.
fn levels(c: &mut Criterion) {
    let dir = dir();
    let store = Store::create(dir.path().join("pool"), 2 * FILE, &options()).unwrap();
    let (source, mut at) = (vec![7; BLOCK], random());

    let mut group = c.benchmark_group("append 4 KiB");
    let host = fs::File::create(dir.path().join("host")).unwrap();
    let mut end = 0;
    group.bench_function("tmpfs", |b| {
        b.iter(|| {
            if end > FILE {
                host.set_len(0).unwrap();
                end = 0;
            }
            host.write_all_at(&source, end).unwrap();
            end += BLOCK as u64;
        });
    });
    let log = store.create("/log").unwrap();
    group.bench_function("store", |b| {
        b.iter(|| {
            if log.append(&source).unwrap() > FILE / 2 {
                log.set_len(0).unwrap();
            }
        });
    });
    // Made durable after every 8 MiB, which is in the time.
    let log = store.create("/ordered").unwrap();
    log.set_durability(Some(Durability::Ordered)).unwrap();
    store.set_ordered_bounds(8 << 20, Duration::MAX).unwrap();
    group.bench_function("store, ordered", |b| {
        b.iter(|| {
            if log.append(&source).unwrap() > FILE / 2 {
                log.set_len(0).unwrap();
            }
        });
    });
    group.finish();

    let mut group = c.benchmark_group("overwrite 4 KiB, old or new as a whole");
    let file = store.create("/whole").unwrap();
    file.write_all_at(&vec![1; 1 << 20], 0).unwrap();
    group.bench_function("atomic-data", |b| {
        b.iter(|| file.write_atomic(black_box(&source), at() % (1 << 20)).unwrap());
    });
    file.set_durability(Some(Durability::Ordered)).unwrap();
    group.bench_function("ordered", |b| {
        b.iter(|| file.write_at(black_box(&source), at() % (1 << 20)).unwrap());
    });
    group.finish();
}

/// The time that each of `iters` calls takes if `threads` threads share them and run at the same time: `call` gets the
/// thread's number and the offset of a block in a part of the file that is the thread's.
fn at_once(threads: u64, iters: u64, call: impl Fn(usize, u64) + Sync) -> Duration {
    let (each, start) = (iters.div_ceil(threads), Barrier::new(threads as usize));
    let run = |thread: u64| {
        let mut at = random();
        let (part, block) = (FILE / threads, BLOCK as u64);
        (0..thread * 1000).for_each(|_| _ = at());
        start.wait();
        let begin = Instant::now();
        (0..each).for_each(|_| call(thread as usize, thread * part + at() / threads / block * block));
        begin.elapsed()
    };
    let took = std::thread::scope(|scope| {
        let all: Vec<_> = (0..threads).map(|thread| scope.spawn(move || run(thread))).collect();
        all.into_iter().map(|thread| thread.join().unwrap()).max().unwrap()
    });
    took.mul_f64(iters as f64 / (each * threads) as f64)
}

/// What two threads do in the time of one: of one file, of a file each, and of the memory itself. Times are of a call
/// of either thread: half of what one call takes, if nobody waits for anybody.
fn parallel(c: &mut Criterion) {
    let dir = dir();
    let raw_options = RegionOptions { assume_persistent: true, ..RegionOptions::default() };
    let raw = Region::create_file(dir.path().join("raw"), FILE + (8 << 20), &raw_options).unwrap();
    raw.zero_nt(PoolOff(0), FILE).unwrap();
    raw.fence().unwrap();
    let store = Store::create(dir.path().join("pool"), 3 * FILE, &options()).unwrap();
    let files = ["/a", "/b"].map(|name| {
        let file = store.create(name).unwrap();
        file.write_all_at(&vec![1; FILE as usize], 0).unwrap();
        file
    });
    let sources = [vec![7; BLOCK], vec![8; BLOCK]];

    let mut group = c.benchmark_group("parallel overwrite 4 KiB, durable");
    for threads in [1, 2] {
        group.bench_function(BenchmarkId::new("raw copy+fence", threads), |b| {
            b.iter_custom(|iters| {
                at_once(threads, iters, |thread, at| {
                    raw.copy_nt(PoolOff(at), black_box(&sources[thread])).unwrap();
                    raw.fence().unwrap();
                })
            });
        });
        group.bench_function(BenchmarkId::new("store, a file each", threads), |b| {
            b.iter_custom(|iters| {
                at_once(threads, iters, |thread, at| {
                    files[thread].write_at(black_box(&sources[thread]), at).unwrap();
                })
            });
        });
        group.bench_function(BenchmarkId::new("store, one file", threads), |b| {
            b.iter_custom(|iters| {
                at_once(threads, iters, |thread, at| {
                    files[0].write_at(black_box(&sources[thread]), at).unwrap();
                })
            });
        });
    }
    group.finish();
}

/// Large overwrites by a queue with two threads, against one thread that does them itself.
fn queued(c: &mut Criterion) {
    const LARGE: u64 = 1 << 20;
    const FLIGHT: usize = 4;
    let dir = dir();
    let store = Store::create(dir.path().join("pool"), 2 * FILE, &options()).unwrap();
    let file = store.create("/file").unwrap();
    file.write_all_at(&vec![1; FILE as usize], 0).unwrap();
    let mut at = random();
    let mut next = move || at() / LARGE * LARGE;
    let mut group = c.benchmark_group("overwrite 1 MiB, durable");
    // As many buffers as the queue has in flight: what is written has not been read a moment ago.
    let sources = vec![vec![7; LARGE as usize]; FLIGHT];
    let mut turn = (0..FLIGHT).cycle();
    group.bench_function("one thread", |b| {
        b.iter(|| file.write_at(black_box(&sources[turn.next().unwrap()]), next()).unwrap());
    });
    let queue = IoQueue::new(&store, IoQueueOptions::new().workers(2).depth(8));
    // Buffers go round: as many requests are in flight as the queue takes.
    let mut flying: VecDeque<Queued> = (0..FLIGHT)
        .map(|i| queue.submit(&file, IoRequest::write(next(), vec![sources[i].clone()])))
        .collect();
    group.bench_function("a queue of two", |b| {
        b.iter(|| {
            let ended = flying.pop_front().unwrap().wait();
            ended.result.unwrap();
            flying.push_back(queue.submit(&file, IoRequest::write(next(), ended.buffers)));
        });
    });
    flying.into_iter().for_each(|one| drop(one.wait()));
    let mut one = IoRequest::write(0, vec![sources[0].clone()]);
    group.bench_function("a queue of two, one at a time", |b| {
        b.iter(|| {
            let buffers = std::mem::replace(&mut one, IoRequest::write(0, Vec::new())).into_buffers();
            one = IoRequest::write(next(), buffers);
            queue.submit_and_wait(&file, &mut one).unwrap()
        });
    });
    group.finish();
}

fn names(c: &mut Criterion) {
    let dir = dir();
    let host = dir.path().join("host");
    fs::create_dir(&host).unwrap();
    let store = Store::create(dir.path().join("pool"), 1 << 30, &options()).unwrap();
    store.create_dir("/d", 0o755).unwrap();
    // A directory with as many names as a busy one has.
    for i in 0..1000 {
        drop(store.create(format!("/d/other-{i}")).unwrap());
        fs::File::create(host.join(format!("other-{i}"))).unwrap();
    }
    let there = store.open_dir("/d").unwrap();
    let (a, b) = (host.join("name-a"), host.join("name-b"));

    let mut group = c.benchmark_group("create and unlink");
    group.bench_function("tmpfs", |bench| {
        bench.iter(|| {
            drop(fs::File::create(&a).unwrap());
            fs::remove_file(&a).unwrap();
        });
    });
    group.bench_function("store", |bench| {
        bench.iter(|| {
            drop(there.create("name-a").unwrap());
            there.remove_file("name-a").unwrap();
        });
    });
    group.finish();

    let mut group = c.benchmark_group("rename there and back");
    drop((fs::File::create(&a).unwrap(), there.create("name-a").unwrap()));
    group.bench_function("tmpfs", |bench| {
        bench.iter(|| {
            fs::rename(&a, &b).unwrap();
            fs::rename(&b, &a).unwrap();
        });
    });
    group.bench_function("store", |bench| {
        bench.iter(|| {
            there.rename("name-a", "name-b").unwrap();
            there.rename("name-b", "name-a").unwrap();
        });
    });
    group.finish();

    let mut group = c.benchmark_group("mkdir and rmdir");
    group.bench_function("tmpfs", |bench| {
        bench.iter(|| {
            fs::create_dir(&b).unwrap();
            fs::remove_dir(&b).unwrap();
        });
    });
    group.bench_function("store", |bench| {
        bench.iter(|| {
            there.create_dir("name-b", 0o755).unwrap();
            there.remove_dir("name-b").unwrap();
        });
    });
    group.finish();

    let mut group = c.benchmark_group("open and stat");
    group.bench_function("tmpfs", |bench| bench.iter(|| fs::File::open(&a).unwrap().metadata().unwrap()));
    let read = OpenOptions::new().read(true);
    group.bench_function("store", |bench| {
        bench.iter(|| there.open("name-a", &read).unwrap().metadata());
    });
    group.finish();
}

/// Making pools, and opening them after a crash, over sizes that must not matter.
fn pools(c: &mut Criterion) {
    let dir = dir();
    let mut group = c.benchmark_group("mkfs");
    group.sample_size(20);
    for size in [64_u64 << 20, 1 << 40, 16 << 40] {
        let path = dir.path().join("mkfs");
        group.bench_function(BenchmarkId::from_parameter(format!("{} MiB", size >> 20)), |b| {
            b.iter(|| {
                drop(Store::create(&path, size, &options()).unwrap());
                fs::remove_file(&path).unwrap();
            });
        });
    }
    group.finish();

    let mut group = c.benchmark_group("open after a crash");
    group.sample_size(20);
    for (size, files) in [(1_u64 << 30, 1000_u32), (1 << 40, 1000), (1 << 40, 100_000)] {
        let path = dir.path().join("crashed");
        let store = Store::create(&path, size, &options()).unwrap();
        for i in 0..files {
            if i % 1000 == 0 {
                store.create_dir(format!("/{}", i / 1000), 0o755).unwrap();
            }
            store.write(format!("/{}/{i}", i / 1000), b"something").unwrap();
        }
        // A copy of the pool as it is now, with its lanes full of records, is what a crash leaves; sparse, and only
        // the headers and the first chunks hold anything.
        let crashed = dir.path().join("copy");
        let copied =
            std::process::Command::new("cp").arg("--sparse=always").arg(&path).arg(&crashed).status();
        assert!(copied.unwrap().success());
        drop(store);
        fs::remove_file(&path).unwrap();
        let name = format!("{} GiB, {files} files", size >> 30);
        // Recovery empties the lanes and moves the epoch on: what it changes is put back before each measurement.
        let pool = fs::File::options().read(true).write(true).open(&crashed).unwrap();
        let mut head = vec![0; 2 << 20];
        pool.read_exact_at(&mut head, 0).unwrap();
        group.bench_function(BenchmarkId::from_parameter(name), |b| {
            b.iter_batched(
                || pool.write_all_at(&head, 0).unwrap(),
                |()| Store::open(&crashed, &options()).unwrap(),
                criterion::BatchSize::PerIteration,
            );
        });
        fs::remove_file(&crashed).unwrap();
    }
    group.finish();
}

criterion_group!(benches, blocks, levels, parallel, queued, names, pools);
criterion_main!(benches);
