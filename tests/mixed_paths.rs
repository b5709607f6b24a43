//! Do the ways to write a file agree where they meet: levels of durability, queued I/O, shared blocks, moved blocks?
//!
//! Generated calls on a few files, against vectors of bytes. `DAXSTORE_MIX_SEED` is the first seed (0), `DAXSTORE_MIX_SEEDS` how
//! many (12).

#![cfg(feature = "sim")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use daxstore::pmem::sim::Sim;
use daxstore::{
    AllocateMode, Durability, File, IoQueue, IoQueueOptions, IoRequest, OpenOptions, Store, StoreOptions,
    WriteFlags,
};
use std::sync::Arc;

const BLOCK: u64 = 4096;
const FILES: usize = 3;
/// Bytes that a file has at most.
const MOST: u64 = 24 * BLOCK;
const CALLS: usize = 160;

struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }

    fn chance(&mut self, of: u64) -> bool {
        self.roll(of) == 0
    }

    /// An offset below `below`, often at the start of a block.
    fn offset(&mut self, below: u64) -> u64 {
        let at = self.roll(below.max(1));
        if self.chance(2) { at - at % BLOCK } else { at }
    }
}

/// Files, and what they hold.
struct Mix {
    store: Store,
    queue: IoQueue,
    files: Vec<(File, Vec<u8>)>,
    dice: Dice,
    fill: u8,
}

impl Mix {
    fn new(seed: u64) -> Self {
        let store = Store::create_sim(Arc::new(Sim::new(48 << 20).unwrap()), &StoreOptions::new()).unwrap();
        let open = OpenOptions::new().read(true).write(true).create(true);
        let files = (0..FILES).map(|i| (store.open(format!("/f{i}"), &open).unwrap(), Vec::new())).collect();
        let options = IoQueueOptions::new().workers((seed % 3) as usize).part_bytes(2 * BLOCK);
        let queue = IoQueue::new(&store, options);
        Self { store, queue, files, dice: Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1), fill: 0 }
    }

    fn bytes(&mut self) -> Vec<u8> {
        self.fill = self.fill % 250 + 1;
        let len = if self.dice.chance(2) { self.dice.roll(300) + 1 } else { self.dice.roll(5 * BLOCK) + 1 };
        vec![self.fill; len as usize]
    }

    fn write(&mut self, i: usize, how: u64) {
        let bytes = self.bytes();
        let at = self.dice.offset(MOST - bytes.len() as u64);
        let (file, model) = &mut self.files[i];
        match how {
            0 => file.write_all_at(&bytes, at).unwrap(),
            1 => file.write_atomic(&bytes, at).unwrap(),
            2 => drop(file.write_at_with(&bytes, at, WriteFlags::DSYNC).unwrap()),
            _ => {
                let mut request = IoRequest::write(at, vec![bytes.clone()]);
                assert_eq!(self.queue.submit_and_wait(file, &mut request).unwrap(), bytes.len());
            }
        }
        let end = at as usize + bytes.len();
        model.resize(model.len().max(end), 0);
        model[at as usize..end].copy_from_slice(&bytes);
    }

    fn append(&mut self, i: usize, queued: bool) {
        let bytes = self.bytes();
        let (file, model) = &mut self.files[i];
        if (model.len() + bytes.len()) as u64 > MOST {
            return;
        }
        if queued {
            let mut request = IoRequest::append(vec![bytes.clone()]);
            assert_eq!(self.queue.submit_and_wait(file, &mut request).unwrap(), bytes.len());
        } else {
            assert_eq!(file.append(&bytes).unwrap(), model.len() as u64);
        }
        model.extend_from_slice(&bytes);
    }

    /// Several writes of one file in flight at once.
    fn burst(&mut self, i: usize, what: &str) {
        let mut tickets = Vec::new();
        for _ in 0..4 {
            let bytes = self.bytes();
            let at = self.dice.offset(MOST - bytes.len() as u64);
            let (file, model) = &mut self.files[i];
            tickets.push(self.queue.submit(file, IoRequest::write(at, vec![bytes.clone()])));
            let end = at as usize + bytes.len();
            model.resize(model.len().max(end), 0);
            model[at as usize..end].copy_from_slice(&bytes);
        }
        self.queue.drain();
        for ticket in tickets {
            ticket.wait().result.unwrap_or_else(|error| panic!("{what}: {error}"));
        }
    }

    fn space(&mut self, i: usize) {
        let (dice, (file, model)) = (&mut self.dice, &mut self.files[i]);
        let size = model.len() as u64;
        let (at, len) = (dice.offset(MOST), dice.roll(4 * BLOCK) + 1);
        let (first, blocks) = (at / BLOCK * BLOCK, (len / BLOCK + 1) * BLOCK);
        match dice.roll(6) {
            0 => {
                file.allocate(at, len, AllocateMode::Punch).unwrap();
                let (from, to) = (at.min(size) as usize, (at + len).min(size) as usize);
                model[from..to].fill(0);
            }
            1 => {
                file.allocate(at, len, AllocateMode::Zero).unwrap();
                model.resize(size.max(at + len) as usize, 0);
                model[at as usize..(at + len) as usize].fill(0);
            }
            2 => file.allocate(at, len, AllocateMode::Unshare).unwrap(),
            3 => file.allocate(at, len, AllocateMode::KeepSize).unwrap(),
            4 if first + blocks < size => {
                file.allocate(first, blocks, AllocateMode::Collapse).unwrap();
                drop(model.drain(first as usize..(first + blocks) as usize));
            }
            5 if first < size && size + blocks <= MOST => {
                file.allocate(first, blocks, AllocateMode::Insert).unwrap();
                let rest = model.split_off(first as usize);
                model.resize((first + blocks) as usize, 0);
                model.extend(rest);
            }
            _ => {}
        }
    }

    fn share(&mut self, i: usize) {
        let j = (i + 1 + self.dice.roll(FILES as u64 - 1) as usize) % FILES;
        let source = self.files[j].1.clone();
        if self.dice.chance(3) {
            self.files[i].0.reflink(&self.files[j].0).unwrap();
            self.files[i].1 = source;
            return;
        }
        let blocks = source.len() as u64 / BLOCK;
        if blocks == 0 {
            return;
        }
        let from = self.dice.roll(blocks) * BLOCK;
        let len = ((self.dice.roll(4) + 1) * BLOCK).min(blocks * BLOCK - from);
        let to = self.dice.roll((MOST - len) / BLOCK + 1) * BLOCK;
        let same = self.dice.chance(4);
        let part = source[from as usize..(from + len) as usize].to_vec();
        let (one, other) = (&self.files[i].0, &self.files[j].0);
        if same {
            if to + len > self.files[i].1.len() as u64 {
                return;
            }
            let equal = self.files[i].1[to as usize..(to + len) as usize] == part[..];
            assert_eq!(one.dedupe_range(other, from, to, len).unwrap(), equal);
            return;
        }
        one.reflink_range(other, from, to, len).unwrap();
        let model = &mut self.files[i].1;
        model.resize(model.len().max((to + len) as usize), 0);
        model[to as usize..(to + len) as usize].copy_from_slice(&part);
    }

    fn step(&mut self, what: &str) {
        let i = self.dice.roll(FILES as u64) as usize;
        match self.dice.roll(16) {
            how @ 0..=3 => self.write(i, how),
            4 => self.append(i, false),
            5 => self.append(i, true),
            6 => self.burst(i, what),
            7..=9 => self.space(i),
            10..=12 => self.share(i),
            13 => {
                let levels = [None, Some(Durability::AtomicData), Some(Durability::Ordered)];
                self.files[i].0.set_durability(levels[self.dice.roll(3) as usize]).unwrap();
            }
            14 => {
                let size = self.dice.offset(MOST);
                self.files[i].0.set_len(size).unwrap();
                self.files[i].1.resize(size as usize, 0);
            }
            _ => self.files[i].0.sync_all().unwrap(),
        }
    }

    fn compare(&self, what: &str) {
        for (i, (file, model)) in self.files.iter().enumerate() {
            let mut found = vec![0; file.len() as usize];
            file.read_exact_at(&mut found, 0).unwrap();
            assert_eq!(found.len(), model.len(), "{what}: size of file {i}");
            let differs = found.iter().zip(model).position(|(a, b)| a != b);
            assert_eq!(differs, None, "{what}: a byte of file {i}");
        }
    }
}

fn number(name: &str, or: u64) -> u64 {
    std::env::var(name).map_or(or, |text| text.parse().unwrap())
}

#[test]
fn every_way_to_write_sees_what_the_others_wrote() {
    let first = number("DAXSTORE_MIX_SEED", 0);
    for seed in first..first + number("DAXSTORE_MIX_SEEDS", 12) {
        let mut mix = Mix::new(seed);
        for call in 0..CALLS {
            let what = format!("seed {seed}, call {call}");
            mix.step(&what);
            mix.compare(&what);
        }
        let report = mix.store.check().unwrap();
        assert!(report.is_clean(), "seed {seed}: {:#?}", report.faults);
        assert_eq!(report.blocks_shared, mix.store.shared_blocks().unwrap().0, "seed {seed}");
        mix.files.iter().for_each(|(file, _)| file.set_len(0).unwrap());
        mix.store.sync().unwrap();
        assert_eq!(mix.store.shared_blocks().unwrap(), (0, 0), "seed {seed}: nobody owns anything");
    }
}
