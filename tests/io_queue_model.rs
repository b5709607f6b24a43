//! Do queued and plain calls, mixed at random, act as if each happened at once when it was made?
//!
//! That is what the order of submission promises: requests hold their bytes from then on, so a model that applies everything
//! at once must agree with what is read, counted and found at the end, whoever does the work and when.

#![cfg(feature = "sim")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use daxstore::pmem::sim::Sim;
use daxstore::{
    AllocateMode, File, IoQueue, IoQueueOptions, IoRequest, OpenOptions, Queued, Store, StoreOptions,
};
use proptest::prelude::*;
use std::sync::Arc;

const MAX: u64 = 40_000;

#[derive(Clone, Debug)]
enum Op {
    Write {
        file: usize,
        at: u64,
        len: usize,
        queued: bool,
    },
    Append {
        file: usize,
        len: usize,
        queued: bool,
    },
    Read {
        file: usize,
        at: u64,
        len: usize,
        queued: bool,
    },
    Truncate {
        file: usize,
        size: u64,
    },
    Space {
        file: usize,
        at: u64,
        len: u64,
        mode: u8,
    },
    /// Closes and opens again; with a new queue.
    Close {
        file: usize,
        queue: bool,
    },
    Drain {
        file: Option<usize>,
    },
    Step,
}

fn op() -> impl Strategy<Value = Op> {
    let file = 0..2_usize;
    let (at, len) = (0..MAX, prop_oneof![1..600_usize, 3000..20_000_usize]);
    prop_oneof![
        8 => (file.clone(), at.clone(), len.clone(), prop::bool::weighted(0.8))
            .prop_map(|(file, at, len, queued)| Op::Write { file, at, len, queued }),
        3 => (file.clone(), len.clone(), any::<bool>())
            .prop_map(|(file, len, queued)| Op::Append { file, len, queued }),
        4 => (file.clone(), at.clone(), len, any::<bool>())
            .prop_map(|(file, at, len, queued)| Op::Read { file, at, len, queued }),
        2 => (file.clone(), 0..MAX).prop_map(|(file, size)| Op::Truncate { file, size }),
        3 => (file.clone(), at, 1..MAX, 0..3_u8)
            .prop_map(|(file, at, len, mode)| Op::Space { file, at, len, mode }),
        1 => (file.clone(), any::<bool>()).prop_map(|(file, queue)| Op::Close { file, queue }),
        1 => prop::option::of(file).prop_map(|file| Op::Drain { file }),
        4 => Just(Op::Step),
    ]
}

/// What a request must tell.
enum Told {
    Count(usize, u64),
    Bytes(Vec<u8>),
}

struct World {
    store: Store,
    options: IoQueueOptions,
    /// The queue has threads, so that other calls may meet what is in flight.
    threads: bool,
    queue: Option<IoQueue>,
    files: Vec<File>,
    model: [Vec<u8>; 2],
    flying: Vec<(Queued, Told)>,
    fill: u8,
}

const NAMES: [&str; 2] = ["/a", "/b"];

fn open(store: &Store, name: &str) -> File {
    store.open(name, &OpenOptions::new().read(true).write(true).create(true)).unwrap()
}

impl World {
    fn new(threads: bool) -> Self {
        let store = Store::create_sim(Arc::new(Sim::new(16 << 20).unwrap()), &StoreOptions::new()).unwrap();
        let options =
            IoQueueOptions::new().workers(if threads { 2 } else { 0 }).part_bytes(4096).batch(4).depth(6);
        let queue = Some(IoQueue::new(&store, options));
        let files = NAMES.map(|name| open(&store, name)).into();
        Self { store, options, threads, queue, files, model: Default::default(), flying: Vec::new(), fill: 0 }
    }

    /// Before a call that may wait for what nobody else would do.
    fn plain(&self) {
        if !self.threads {
            self.queue().drain();
        }
    }

    fn queue(&self) -> &IoQueue {
        self.queue.as_ref().unwrap()
    }

    fn source(&mut self, len: usize) -> Vec<u8> {
        self.fill = self.fill.wrapping_add(1).max(1);
        vec![self.fill; len]
    }

    fn model_write(&mut self, file: usize, at: u64, data: &[u8]) {
        let (content, at) = (&mut self.model[file], at as usize);
        content.resize(content.len().max(at + data.len()), 0);
        content[at..at + data.len()].copy_from_slice(data);
    }

    fn submit(&mut self, file: usize, request: IoRequest, told: Told) {
        let queued = self.queue().submit(&self.files[file], request);
        self.flying.push((queued, told));
    }

    fn data(&mut self, op: &Op) {
        match *op {
            Op::Write { file, at, len, queued } => {
                let data = self.source(len);
                self.model_write(file, at, &data);
                if queued {
                    let cut = len / 3;
                    let buffers = vec![data[..cut].to_vec(), data[cut..].to_vec()];
                    self.submit(file, IoRequest::write(at, buffers), Told::Count(len, at));
                } else {
                    self.plain();
                    assert_eq!(self.files[file].write_at(&data, at).unwrap(), len);
                }
            }
            Op::Append { file, len, queued } => {
                let (data, at) = (self.source(len), self.model[file].len() as u64);
                self.model_write(file, at, &data);
                if queued {
                    self.submit(file, IoRequest::append(vec![data]), Told::Count(len, at));
                } else {
                    self.plain();
                    assert_eq!(self.files[file].append(&data).unwrap(), at);
                }
            }
            Op::Read { file, at, len, queued } => {
                let content = &self.model[file];
                let from = content.len().min(at as usize);
                let expected = content[from..content.len().min(from + len)].to_vec();
                if queued {
                    self.submit(file, IoRequest::read(at, vec![vec![0; len]]), Told::Bytes(expected));
                } else {
                    self.plain();
                    let mut found = vec![0; len];
                    let count = self.files[file].read_at(&mut found, at).unwrap();
                    assert!(found[..count] == expected, "read of {len} at {at}");
                }
            }
            _ => {}
        }
    }

    fn run(&mut self, op: &Op) {
        match *op {
            Op::Truncate { file, size } => {
                self.plain();
                self.files[file].set_len(size).unwrap();
                self.model[file].resize(size as usize, 0);
            }
            Op::Space { file, at, len, mode } => {
                self.plain();
                let mode =
                    [AllocateMode::Punch, AllocateMode::KeepSize, AllocateMode::Allocate][mode as usize];
                self.files[file].allocate(at, len, mode).unwrap();
                let content = &mut self.model[file];
                let end = content.len().min((at + len) as usize);
                match mode {
                    AllocateMode::Punch if (at as usize) < end => content[at as usize..end].fill(0),
                    AllocateMode::Allocate => content.resize(content.len().max((at + len) as usize), 0),
                    _ => {}
                }
            }
            Op::Close { file, queue } => {
                self.plain();
                let again = open(&self.store, NAMES[file]);
                std::mem::replace(&mut self.files[file], again).close().unwrap();
                if queue {
                    drop(self.queue.take());
                    assert!(
                        self.flying.iter().all(|(queued, _)| queued.is_done()),
                        "a dropped queue is drained"
                    );
                    self.queue = Some(IoQueue::new(&self.store, self.options));
                }
            }
            Op::Drain { file } => match file {
                Some(file) => self.queue().drain_file(&self.files[file]),
                None => self.queue().drain(),
            },
            Op::Step => _ = self.queue().step(),
            _ => self.data(op),
        }
    }

    /// Everything that was told, and what there is at the end.
    fn finish(mut self) {
        for (queued, told) in std::mem::take(&mut self.flying) {
            let ended = queued.wait();
            match told {
                Told::Count(count, at) => assert_eq!((ended.result.unwrap(), ended.offset), (count, at)),
                Told::Bytes(bytes) => {
                    let count = ended.result.unwrap();
                    assert!(ended.buffers[0][..count] == bytes, "a queued read of {} bytes", bytes.len());
                }
            }
        }
        for (name, content) in NAMES.iter().zip(&self.model) {
            let found = self.store.read(name).unwrap();
            assert_eq!(found.len(), content.len(), "{name}");
            let differ = (0..found.len()).find(|i| found[*i] != content[*i]);
            assert!(differ.is_none(), "{name} differs at {differ:?}");
        }
        drop(self.queue.take());
        self.files.clear();
        let report = self.store.check().unwrap();
        assert!(report.faults.is_empty(), "{}", report.faults[0]);
    }
}

fn mix(threads: bool, ops: &[Op]) {
    let mut world = World::new(threads);
    ops.iter().for_each(|op| world.run(op));
    world.finish();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn driven_by_the_caller(ops in prop::collection::vec(op(), 1..60)) {
        mix(false, &ops);
    }

    #[test]
    fn done_by_threads(ops in prop::collection::vec(op(), 1..60)) {
        mix(true, &ops);
    }
}
