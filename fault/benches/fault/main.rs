//! What do faults cost, against the kernel's own and against the barest handler that could serve them?
//!
//! Each row is measured in rounds, ours and its yardstick in turns, over the same memory and the same order of touches; the
//! medians of the rounds are compared. Needs root, to mount a tmpfs with 2 MiB pages.
//!
//! `cargo bench -p daxstore-fault --bench fault [ROW...]`

#![allow(clippy::unwrap_used, reason = "a benchmark that can not go on stops")]

mod bare;
mod mount;

use bare::{Bare, Shape};
use daxstore::{File, FileRange, OpenOptions, Store, StoreOptions};
use daxstore_fault::{MapOptions, Mapping, Mode};
use mount::Mount;
use std::time::{Duration, Instant};

const BLOCK: u64 = 4096;
const SLOT: u64 = 2 << 20;
const ROUNDS: usize = 15;
/// Bytes of the files that are touched from end to end.
const LARGE: u64 = 512 << 20;

/// A store in memory with pages of one size, and a plain file beside it.
struct Ground {
    mount: Mount,
    store: Store,
}

impl Ground {
    fn new(huge: bool) -> Self {
        let mount = Mount::tmpfs(huge);
        let options = StoreOptions::new().assume_persistent(true);
        let store = Store::create(mount.path().join("pool"), 4 << 30, &options).unwrap();
        Self { mount, store }
    }

    fn file(&self, name: &str) -> File {
        self.store.open(name, &OpenOptions::new().read(true).write(true).create(true)).unwrap()
    }

    /// A file of `pieces` extents of `len` bytes with holes as long between them.
    fn pieces(&self, name: &str, pieces: u64, len: u64) -> File {
        let file = self.file(name);
        // Within the size nothing is allocated ahead.
        file.set_len(pieces * 2 * len).unwrap();
        let bytes = vec![7; len as usize];
        for piece in 0..pieces {
            file.write_all_at(&bytes, piece * 2 * len).unwrap();
        }
        file
    }

    /// A file written from end to end.
    fn large(&self) -> File {
        let file = self.file("large");
        let bytes = vec![7; 8 << 20];
        for at in (0..LARGE).step_by(bytes.len()) {
            file.write_all_at(&bytes, at).unwrap();
        }
        file
    }

    /// A plain file of the same memory, written from end to end.
    fn plain(&self) -> std::fs::File {
        use std::os::unix::fs::FileExt;
        let path = self.mount.path().join("plain");
        let mut options = std::fs::OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(true).open(path).unwrap();
        let bytes = vec![7; 8 << 20];
        for at in (0..LARGE).step_by(bytes.len()) {
            file.write_all_at(&bytes, at).unwrap();
        }
        file
    }
}

/// Stores to the byte at each offset; the time it took.
fn touch(base: *mut u8, offsets: &[u64]) -> Duration {
    let start = Instant::now();
    for offset in offsets {
        // SAFETY: callers name offsets of a mapping of theirs that may be stored to, and nobody else uses it.
        unsafe { base.add(*offset as usize).write_volatile(1) };
    }
    start.elapsed()
}

/// A new mapping of `file` from its start.
fn mapped(file: &File, len: u64, mode: Mode) -> Mapping {
    MapOptions::new().write(true).mode(mode).map(file, 0, len).unwrap()
}

/// Where `len` bytes of each piece of `file` lie in the pool.
fn places(file: &File, offsets: &[u64], len: u64) -> Vec<(u64, u64)> {
    let place = |offset: &u64| {
        let extent = file.extents(*offset, 2 * len).unwrap()[0];
        assert_eq!(extent.range, FileRange { offset: *offset, len }, "a piece in one extent");
        (*offset, extent.state.address().unwrap().0)
    };
    offsets.iter().map(place).collect()
}

struct Row {
    name: String,
    ours: Vec<f64>,
    yardstick: Vec<f64>,
    asked: f64,
}

impl Row {
    fn new(name: String, asked: f64) -> Self {
        Self { name, ours: Vec::new(), yardstick: Vec::new(), asked }
    }

    /// One round: nanoseconds a touch.
    fn round(&mut self, touches: usize, ours: Duration, yardstick: Duration) {
        let each = |time: Duration| time.as_nanos() as f64 / touches as f64;
        self.ours.push(each(ours));
        self.yardstick.push(each(yardstick));
    }

    fn print(mut self) {
        let (ours, yardstick) = (median(&mut self.ours), median(&mut self.yardstick));
        let ratio = ours / yardstick;
        println!("{:58} {ours:9.0} {yardstick:9.0} {ratio:6.2} {:6.2}", self.name, self.asked);
    }
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Offsets in an order without order, the same each time.
fn shuffled(mut offsets: Vec<u64>) -> Vec<u64> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    for i in (1..offsets.len()).rev() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        offsets.swap(i, (state >> 33) as usize % (i + 1));
    }
    offsets
}

/// One handled fault on an extent of `len` bytes, against the prototype, and against a handler that knows where everything is
/// and does nothing else.
fn handled(ground: &Ground, mode: Mode, len: u64, pieces: u64) {
    let size = if len == SLOT { "2 MiB" } else { "4 KiB" };
    let file = ground.pieces(size, pieces, len);
    let offsets = shuffled((0..pieces).map(|piece| piece * 2 * len).collect());
    let places = places(&file, &offsets, len);
    let path = ground.mount.path().join("pool");
    let pool = std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let row = |of| Row::new(format!("fault on {size}, {mode:?}, against {of}"), 1.3);
    let mut rows = [
        (Shape::Prototype, row("the prototype")),
        (Shape::Barest, row("the barest handler, for comparison")),
    ];
    for _ in 0..ROUNDS {
        let map = mapped(&file, pieces * 2 * len, mode);
        let ours = touch(map.as_ptr(), &offsets);
        assert_eq!(
            map.stats().get(daxstore_fault::Count::Stores),
            pieces,
            "each touch is a fault: {}",
            map.stats()
        );
        drop(map);
        for (shape, row) in &mut rows {
            let bare = Bare::new(&pool, pieces * 2 * len, len, &places, (mode, *shape));
            row.round(offsets.len(), ours, touch(bare.base(), &offsets));
        }
    }
    rows.into_iter().for_each(|(_, row)| row.print());
}

/// The first touch of every page of a large file, against the kernel's own mapping of a plain one.
fn first_touch(ground: &Ground, huge: bool, random: bool, asked: f64) {
    let (file, plain) = (ground.large(), ground.plain());
    let pages: Vec<u64> = (0..LARGE / BLOCK).map(|page| page * BLOCK).collect();
    let offsets = if random { shuffled(pages) } else { pages };
    let order = if random { "random" } else { "in order" };
    let size = if huge { "2 MiB" } else { "4 KiB" };
    let mut row = Row::new(format!("first touch {order}, {size} pages, against mmap"), asked);
    for _ in 0..ROUNDS {
        let map = mapped(&file, LARGE, Mode::Userfault);
        let ours = touch(map.as_ptr(), &offsets);
        drop(map);
        let kernel = bare::map_aligned(&plain, LARGE);
        row.round(offsets.len(), ours, touch(kernel.base(), &offsets));
    }
    row.print();
}

fn main() {
    let wanted: Vec<_> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|part| name.contains(part));
    println!("{:58} {:>9} {:>9} {:>6} {:>6}", "nanoseconds a touch", "ours", "yardstick", "ratio", "asked");
    for huge in [false, true] {
        let ground = Ground::new(huge);
        for mode in [Mode::Userfault, Mode::Signal] {
            let (name, len, pieces) =
                if huge { ("handled 2m", SLOT, 200) } else { ("handled 4k", BLOCK, 4000) };
            if is_wanted(&format!("{name} {mode:?}")) {
                handled(&ground, mode, len, pieces);
            }
        }
        for (random, asked) in [(false, 1.2), (true, 1.5)] {
            if is_wanted(if random { "random" } else { "sequential" }) {
                first_touch(&ground, huge, random, asked);
            }
        }
    }
}
