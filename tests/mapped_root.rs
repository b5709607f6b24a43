//! Do a file and its mappings hold what they promise each other?
//!
//! Toy address spaces in place of real mappings: one writes down what a file announces and how the file looked at that
//! moment, another keeps faults and changes apart as a real one does, and its translations are stored through by threads.

#![cfg(feature = "sim")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "mapped_root/populate.rs"]
mod populate;

use daxstore::iomap::{AddressSpace, FaultOps, FileRange, MakeDurable, Placement};
use daxstore::pmem::mutation::{self, Mutation};
use daxstore::pmem::sim::Sim;
use daxstore::{
    AllocateMode, Error, File, IoQueue, IoQueueOptions, IoRequest, OpenOptions, State, Store, StoreOptions,
};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

const BLOCK: u64 = 4096;
const CHUNK: u64 = 2 << 20;

fn store(size: u64) -> Store {
    Store::create_sim(Arc::new(Sim::new(size).unwrap()), &StoreOptions::new()).unwrap()
}

fn range(offset: u64, len: u64) -> FileRange {
    FileRange { offset, len }
}

/// The first twelve blocks of a file: mapped, unwritten or hole.
fn picture(file: &File) -> String {
    let all = range(0, 12 * BLOCK);
    let of = |block: u64| match file.run_at(block * BLOCK, all).unwrap().state {
        State::Mapped(_) => 'm',
        State::Unwritten(_) => 'u',
        _ => '.',
    };
    (0..12).map(of).collect()
}

/// Writes down what is announced, in blocks, with the size and the blocks of the file at that moment.
#[derive(Debug)]
struct Recorder {
    file: File,
    notes: Mutex<Vec<String>>,
    refuses: AtomicBool,
}

impl Recorder {
    fn note(&self, what: &str, range: FileRange) {
        let blocks = |at: u64| {
            assert_eq!(at % BLOCK, 0, "{what} {range:?}");
            if at == 1 << 62 { "all".to_owned() } else { (at / BLOCK).to_string() }
        };
        let (from, to) = (blocks(range.offset), blocks(range.end()));
        let (size, picture) = (self.file.size(), picture(&self.file));
        self.notes.lock().unwrap().push(format!("{what} {from}..{to}: {size} {picture}"));
    }
}

impl AddressSpace for Recorder {
    fn allocate(&self, range: FileRange) {
        self.note("allocate", range);
    }

    fn invalidate(&self, range: FileRange, cut: bool) -> daxstore::Result<()> {
        self.note(if cut { "cut" } else { "invalidate" }, range);
        if self.refuses.load(Ordering::Relaxed) {
            return Err(Error::Unsupported { backend: "toy", why: "it was told so" });
        }
        Ok(())
    }

    fn sync(self: Arc<Self>, _file: &dyn FaultOps, range: FileRange) -> daxstore::Result<u64> {
        self.note("sync", range);
        Ok(0)
    }

    fn write_back(&self, range: FileRange, durable: &mut MakeDurable<'_>) -> daxstore::Result<()> {
        self.note("write back", range);
        durable(&[])
    }

    fn end(&self, range: FileRange) {
        self.note("end", range);
    }
}

/// A file of two mapped, two unwritten and two blocks of hole, and 100 bytes in a seventh block.
fn prepared(store: &Store) -> File {
    let file = store.open("f", &OpenOptions::new().read(true).write(true).create(true)).unwrap();
    file.set_len(0).unwrap();
    file.set_len(7 * BLOCK).unwrap();
    file.allocate(2 * BLOCK, 2 * BLOCK, AllocateMode::Allocate).unwrap();
    file.write_all_at(&[7; 2 * BLOCK as usize], 0).unwrap();
    file.write_all_at(&[9; 100], 6 * BLOCK).unwrap();
    file.set_len(OLD).unwrap();
    assert_eq!(picture(&file), "mmuu..m.....");
    file
}

fn attach(file: &File) -> Arc<Recorder> {
    let (notes, refuses) = (Mutex::default(), AtomicBool::new(false));
    let recorder = Arc::new(Recorder { file: file.clone(), notes, refuses });
    let again = recorder.clone();
    file.attach(&mut || again.clone()).unwrap();
    recorder
}

/// What `change` of a prepared file announces, but for its waiting for faults in blocks that are mapped.
fn announced(change: impl FnOnce(&File)) -> Vec<String> {
    let mut notes = all_announced(change);
    while let Some(at) = notes.windows(2).position(|pair| waits(&pair[0], &pair[1])) {
        notes.drain(at..at + 2);
    }
    notes
}

/// Whether the turn that begins and ends so is one of mapped blocks only, in which nothing changes.
fn waits(begin: &str, end: &str) -> bool {
    let Some((range, rest)) = begin.strip_prefix("allocate ").and_then(|rest| rest.split_once(": ")) else {
        return false;
    };
    let (from, to) = range.split_once("..").unwrap();
    let picture = rest.split_once(' ').unwrap().1;
    let blocks = from.parse().unwrap()..to.parse().unwrap_or(usize::MAX).min(picture.len());
    end == format!("end {range}: {rest}") && picture[blocks].bytes().all(|b| b == b'm')
}

fn all_announced(change: impl FnOnce(&File)) -> Vec<String> {
    let store = store(64 << 20);
    let file = prepared(&store);
    let recorder = attach(&file);
    change(&file);
    file.detach();
    assert!(store.check().unwrap().is_clean());
    std::mem::take(&mut *recorder.notes.lock().unwrap())
}

const OLD: u64 = 6 * BLOCK + 100;

#[test]
fn what_is_overwritten_in_place_is_not_announced() {
    assert_eq!(announced(|f| f.write_all_at(&[1; 9], 5).unwrap()), [""; 0]);
    assert_eq!(announced(|f| f.write_all_at(&[1; 50], 6 * BLOCK).unwrap()), [""; 0]);
    assert_eq!(announced(|f| assert_eq!(f.read_at(&mut [0; 99999], 0).unwrap() as u64, OLD)), [""; 0]);
    // But it waits for a fault that may still be at telling other mappings of the block.
    let waits = [format!("allocate 0..1: {OLD} mmuu..m....."), format!("end 0..1: {OLD} mmuu..m.....")];
    assert_eq!(all_announced(|f| f.write_all_at(&[1; 9], 5).unwrap()), waits);
    mutation::set(Some(Mutation::OverwriteUnsettled));
    let broken = all_announced(|f| f.write_all_at(&[1; 9], 5).unwrap());
    mutation::set(None);
    assert_ne!(broken, waits, "the rule, broken, is noticed");
    assert_eq!(announced(|f| f.set_len(9).and_then(|()| f.detach_and_write()).unwrap()).len(), 2);
}

trait Detached {
    fn detach_and_write(&self) -> daxstore::Result<()>;
}

impl Detached for File {
    /// Writes into a hole when nobody maps the file any more.
    fn detach_and_write(&self) -> daxstore::Result<()> {
        self.detach();
        let written = self.write_all_at(&[1], 9000);
        let recorder = attach(self);
        assert_eq!(recorder.notes.lock().unwrap().len(), 0);
        written
    }
}

#[test]
fn a_write_allocates_then_invalidates_then_is_seen() {
    assert_eq!(
        announced(|f| f.write_all_at(&[1; 10], 4 * BLOCK + 5).unwrap()),
        [
            format!("allocate 4..5: {OLD} mmuu..m....."),
            format!("invalidate 4..5: {OLD} mmuu..m....."),
            format!("end 4..5: {OLD} mmuum.m....."),
        ]
    );
    // Over mapped, unwritten and hole: from the first block that is not mapped on.
    assert_eq!(
        announced(|f| f.write_all_at(&[1; 5 * BLOCK as usize], 100).unwrap()),
        [
            format!("allocate 2..6: {OLD} mmuu..m....."),
            format!("invalidate 2..6: {OLD} mmuu..m....."),
            format!("end 2..6: {OLD} mmmmmmm....."),
        ]
    );
}

/// A queued write has its turn from submission on, and ends it as any other.
#[test]
fn a_queued_write_allocates_at_submission_and_invalidates_at_its_end() {
    let store = store(64 << 20);
    let file = prepared(&store);
    let recorder = attach(&file);
    let queue = IoQueue::new(&store, IoQueueOptions::new().workers(0));
    let submit = |at: u64, len: usize| queue.submit(&file, IoRequest::write(at, vec![vec![1; len]]));
    let notes = || std::mem::take(&mut *recorder.notes.lock().unwrap());
    let queued = submit(4 * BLOCK + 5, 10);
    assert_eq!(notes(), [format!("allocate 4..5: {OLD} mmuu..m.....")]);
    assert!(queue.step() && queued.wait().result.is_ok());
    let ends = [format!("invalidate 4..5: {OLD} mmuu..m....."), format!("end 4..5: {OLD} mmuum.m.....")];
    assert_eq!(notes(), ends);
    // In place: only what waits for faults under way.
    let queued = submit(5, 9);
    let waits = [format!("allocate 0..1: {OLD} mmuum.m....."), format!("end 0..1: {OLD} mmuum.m.....")];
    assert_eq!(notes(), waits);
    assert!(queued.wait().result.is_ok() && notes().is_empty());
    // Turns may be coarser than bytes: one after the other.
    let (first, second) = (submit(2 * BLOCK, 10), submit(5 * BLOCK, 10));
    assert!(first.is_done() && !second.is_done());
    assert_eq!(
        notes().iter().map(|note| &note[..9]).collect::<Vec<_>>(),
        ["allocate ", "invalidat", "end 2..3:", "allocate "]
    );
    assert!(second.wait().result.is_ok());
    notes();
    // A mapping that can not let go: the write fails, and the file is as before.
    recorder.refuses.store(true, Ordering::Relaxed);
    assert!(matches!(submit(3 * BLOCK, 10).wait().result, Err(Error::Unsupported { .. })));
    assert_eq!(notes().last(), Some(&format!("end 3..4: {OLD} mmmummm.....")));
    assert_eq!(picture(&file), "mmmummm.....");
    drop(queue);
    file.detach();
    assert!(store.check().unwrap().is_clean());
}

#[test]
fn a_file_that_grows_is_announced_from_its_end() {
    let new = 9 * BLOCK + 5;
    assert_eq!(
        announced(|f| f.write_all_at(&[1; 5], 9 * BLOCK).unwrap())[..2],
        [format!("allocate 7..10: {OLD} mmuu..m....."), format!("invalidate 7..10: {OLD} mmuu..m.....")]
    );
    let append = announced(|f| assert_eq!(f.append(&[1; 2 * BLOCK as usize]).unwrap(), OLD));
    assert_eq!(
        append[..2].iter().map(|note| &note[..12]).collect::<Vec<_>>(),
        ["allocate 7..", "invalidate 7"]
    );
    assert!(append[2].starts_with(&format!("end 7..9: {} mmuu..mmm", OLD + 2 * BLOCK)), "{append:?}");
    assert_eq!(append.len(), 3);
    assert_eq!(
        announced(|f| f.set_len(new).unwrap()),
        [format!("invalidate 7..10: {OLD} mmuu..m....."), format!("end 7..10: {new} mmuu..m.....")]
    );
    // Within the last block nothing comes to be that a mapping did not hold.
    assert_eq!(announced(|f| f.append(&[1; 9]).map(drop).unwrap()), [""; 0]);
    assert_eq!(announced(|f| f.set_len(7 * BLOCK).unwrap()), [""; 0]);
}

#[test]
fn a_cut_takes_every_page_beyond_the_one_that_holds_the_end() {
    assert_eq!(
        announced(|f| f.set_len(BLOCK + 1).unwrap()),
        [format!("cut 2..all: {OLD} mmuu..m....."), format!("end 2..all: {} mm..........", BLOCK + 1)]
    );
    assert_eq!(
        announced(|f| f.set_len(0).unwrap()),
        [format!("cut 0..all: {OLD} mmuu..m....."), "end 0..all: 0 ............".to_owned()]
    );
}

#[test]
fn space_is_announced_as_its_mode_changes_it() {
    let allocate = |at, len, mode| announced(move |f| f.allocate(at, len, mode).unwrap());
    let old = |what| format!("{what}: {OLD} mmuu..m.....");
    assert_eq!(
        allocate(0, 5 * BLOCK, AllocateMode::Allocate),
        [old("allocate 2..5"), format!("end 2..5: {OLD} mmuuu.m.....")]
    );
    assert_eq!(
        allocate(5 * BLOCK, 4 * BLOCK, AllocateMode::KeepSize),
        [old("allocate 5..9"), format!("end 5..9: {OLD} mmuu.umuu...")]
    );
    let new = 9 * BLOCK - 1;
    assert_eq!(
        allocate(7 * BLOCK, 2 * BLOCK - 1, AllocateMode::Allocate),
        [old("allocate 7..9"), old("invalidate 7..9"), format!("end 7..9: {new} mmuu..muu..."),]
    );
    assert_eq!(
        allocate(100, 3 * BLOCK, AllocateMode::Punch),
        [old("allocate 0..4"), old("invalidate 0..4"), format!("end 0..4: {OLD} m..u..m.....")]
    );
    assert_eq!(
        allocate(BLOCK, 8 * BLOCK - 1, AllocateMode::Zero),
        [old("allocate 1..9"), old("invalidate 1..9"), format!("end 1..9: {new} muuuuuuuu...")]
    );
}

/// Everything behind the border goes before anything moves, and what was stored there is made durable; what the end leaves
/// behind is cut.
#[test]
fn blocks_that_move_are_announced_to_the_end_of_all() {
    let old = |what| format!("{what}: {OLD} mmuu..m.....");
    let shift = |at, len, mode| announced(move |f| f.allocate(at, len, mode).unwrap());
    let collapse = || shift(BLOCK, 2 * BLOCK, AllocateMode::Collapse);
    let new = OLD - 2 * BLOCK;
    let moved = [
        old("invalidate 1..all"),
        old("write back 1..all"),
        format!("end 1..all: {new} mu..m......."),
        format!("cut 5..all: {new} mu..m......."),
        format!("end 5..all: {new} mu..m......."),
    ];
    assert_eq!(collapse(), moved);
    let new = OLD + 3 * BLOCK;
    assert_eq!(
        shift(BLOCK, 3 * BLOCK, AllocateMode::Insert),
        [old("invalidate 1..all"), old("write back 1..all"), format!("end 1..all: {new} m...muu..m..")]
    );
    mutation::set(Some(Mutation::ShiftMapped));
    let unannounced = collapse();
    mutation::set(Some(Mutation::ShiftUnflushed));
    let unflushed = collapse();
    mutation::set(None);
    assert_ne!(unannounced, moved, "ShiftMapped goes unnoticed");
    assert_ne!(unflushed, moved, "ShiftUnflushed goes unnoticed");
    // What is refused announces nothing.
    let announces = announced(|f| {
        assert!(f.allocate(BLOCK, OLD, AllocateMode::Collapse).is_err());
        assert!(f.allocate(1, BLOCK, AllocateMode::Insert).is_err());
    });
    assert_eq!(announces, [""; 0]);
}

/// A sequential file can be looked at through mappings, and not stored to.
#[test]
fn a_sequential_file_is_mapped_to_be_read() {
    let store = store(64 << 20);
    let options = OpenOptions::new().read(true).write(true).create_new(true).sequential(true);
    let file = store.open("s", &options).unwrap();
    file.append(&[7; 9000]).unwrap();
    assert_eq!(file.access(), (true, false));
    assert!(matches!(
        file.populate(range(0, BLOCK), Placement::Any),
        Err(Error::NotSequential { pointer: 9000, offset: 0 })
    ));
    let recorder = attach(&file);
    file.append(&[8; 100]).unwrap();
    file.reset().unwrap();
    let notes = std::mem::take(&mut *recorder.notes.lock().unwrap());
    assert!(notes.iter().any(|note| note.starts_with("cut 0..all: 9100 mmm")), "{notes:?}");
    assert!(notes.last().unwrap().starts_with("end 0..all: 0 ..."), "{notes:?}");
    file.detach();
}

#[test]
fn blocks_are_shared_where_no_mapping_shows_them() {
    let store = store(64 << 20);
    let file = prepared(&store);
    let recorder = attach(&file);
    let copy = store.create("copy").unwrap();
    let notes = || std::mem::take(&mut *recorder.notes.lock().unwrap());
    let old = |what| format!("{what}: {OLD} mmuu..m.....");
    copy.reflink(&file).unwrap();
    assert_eq!(notes(), [old("invalidate 0..7"), old("end 0..7")]);
    // A write to shared blocks gives the file others, as one into a hole; a growth first copies the block of the end.
    file.write_all_at(&[1; 10], BLOCK).unwrap();
    assert_eq!(notes(), [old("allocate 1..2"), old("invalidate 1..2"), old("end 1..2")]);
    file.set_len(OLD + 1).unwrap();
    assert_eq!(notes()[..2], [old("invalidate 6..7"), old("end 6..7")]);
    file.allocate(0, 7 * BLOCK, AllocateMode::Unshare).unwrap();
    let new = |what| format!("{what}: {} mmuu..m.....", OLD + 1);
    assert_eq!(notes(), [new("invalidate 0..7"), new("end 0..7")]);
    file.allocate(0, 7 * BLOCK, AllocateMode::Unshare).unwrap();
    assert_eq!(notes(), [""; 0], "nothing to do");
    // Within the file: one turn around both ranges.
    file.reflink_range(&file, 0, 8 * BLOCK, 2 * BLOCK).unwrap();
    let end = format!("end 0..10: {} mmuu..m.mm..", 10 * BLOCK);
    assert_eq!(notes(), [new("invalidate 0..10"), end]);
    assert!(store.check().unwrap().is_clean());
    recorder.refuses.store(true, Ordering::Relaxed);
    let other = store.create("other").unwrap();
    assert!(matches!(other.reflink(&file), Err(Error::Unsupported { .. })));
    assert_eq!((other.len(), notes().len()), (0, 2));
    recorder.refuses.store(false, Ordering::Relaxed);
    mutation::set(Some(Mutation::ShareMapped));
    other.reflink(&file).unwrap();
    mutation::set(None);
    assert_eq!(notes(), [""; 0], "the rule, broken, is noticed");
    file.detach();
}

#[test]
fn a_refused_change_changes_nothing_and_ends() {
    type Change = fn(&File) -> daxstore::Result<()>;
    let changes: [(Change, &str); 7] = [
        (|f| f.allocate(BLOCK, BLOCK, AllocateMode::Collapse), "1..all"),
        (|f| f.allocate(BLOCK, BLOCK, AllocateMode::Insert), "1..all"),
        (|f| f.write_all_at(&[1; 10], 4 * BLOCK), "4..5"),
        (|f| f.set_len(9 * BLOCK), "7..9"),
        (|f| f.set_len(0), "0..all"),
        (|f| f.allocate(0, BLOCK, AllocateMode::Punch), "0..1"),
        (|f| f.allocate(0, 9 * BLOCK, AllocateMode::Allocate), "2..9"),
    ];
    for (change, place) in changes {
        let notes = announced(|f| {
            f.detach();
            let recorder = attach(f);
            recorder.refuses.store(true, Ordering::Relaxed);
            assert!(matches!(change(f), Err(Error::Unsupported { .. })));
            let notes = std::mem::take(&mut *recorder.notes.lock().unwrap());
            let last = notes.last().unwrap();
            assert_eq!(*last, format!("end {place}: {OLD} mmuu..m....."), "{notes:?}");
            assert_eq!(f.read_exact_at(&mut [0; 8192], 0).map(|()| f.len()).unwrap(), OLD);
        });
        assert_eq!(notes, [""; 0], "a recorder that was detached hears nothing");
    }
}

#[test]
fn a_change_without_space_ends_its_turn() {
    let store = store(8 << 20);
    let file = prepared(&store);
    let recorder = attach(&file);
    let error = file.write_at(&vec![1; 9 << 20], 4 * BLOCK).unwrap_err();
    assert!(matches!(error, Error::NoSpace { .. }), "{error}");
    let notes = std::mem::take(&mut *recorder.notes.lock().unwrap());
    assert_eq!(notes.first().unwrap(), &format!("allocate 4..2308: {OLD} mmuu..m....."));
    assert_eq!(notes.last().unwrap(), &format!("end 4..2308: {OLD} mmuu..m....."));
    assert!(notes.iter().all(|note| !note.starts_with("invalidate")), "{notes:?}");
    file.detach();
}

fn bytes(file: &File, at: u64, len: usize) -> Vec<u8> {
    let mut found = vec![0; len];
    FaultOps::read(file, file.run_at(at, range(at, 1)).unwrap().state.address().unwrap(), &mut found)
        .unwrap();
    found
}

#[test]
fn what_lies_beyond_the_end_is_zeros_while_a_file_is_mapped() {
    let store = store(64 << 20);
    let file = prepared(&store);
    file.set_len(BLOCK + 10).unwrap();
    assert_eq!(bytes(&file, BLOCK, 20)[10..], [7; 10], "a cut leaves them to who makes the file longer");
    let before = store.counts();
    let recorder = attach(&file);
    assert_eq!(store.counts().since(before).fences, 1);
    assert_eq!(bytes(&file, BLOCK, 4096)[..10], [7; 10]);
    assert_eq!(bytes(&file, BLOCK, 4096)[10..], [0; 4086]);
    let before = store.counts();
    let same = file.attach(&mut || unreachable!("it has one")).unwrap();
    assert!(std::ptr::addr_eq(Arc::as_ptr(&same), Arc::as_ptr(&recorder)));
    assert_eq!(store.counts().since(before).fences, 0, "zeros are not zeroed");
    file.set_len(5).unwrap();
    assert_eq!(bytes(&file, 0, 4096)[..5], [7; 5]);
    assert_eq!(bytes(&file, 0, 4096)[5..], [0; 4091]);
    file.detach();
    file.write_all_at(&[3; 4096], 0).unwrap();
    file.set_len(9).unwrap();
    assert_eq!(bytes(&file, 0, 4096)[9..], [0; 4087], "one user is left");
    file.detach();
    file.write_all_at(&[3; 4096], 0).unwrap();
    file.set_len(9).unwrap();
    assert_eq!(bytes(&file, 0, 4096)[9..], [3; 4087]);
}

#[test]
fn a_simulated_pool_has_no_memory_to_map() {
    let store = store(8 << 20);
    let file = store.create("f").unwrap();
    assert!(matches!(file.memory(), Err(Error::Unsupported { .. })));
    assert_eq!(file.access(), (true, true));
    let read = store.open("f", &OpenOptions::new().read(true)).unwrap();
    assert_eq!(read.access(), (true, false));
}

#[test]
fn a_file_of_a_pool_is_mapped_by_blocks_and_chunks() {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    for lines in [false, true] {
        let path = dir.path().join(format!("{lines}"));
        let options = StoreOptions::new().assume_persistent(lines);
        let store = Store::create(&path, 8 << 20, &options).unwrap();
        let file = store.create("f").unwrap();
        file.write_all_at(b"here", 0).unwrap();
        let memory = file.memory().unwrap();
        assert_eq!((memory.sync, memory.unit, memory.huge, memory.by_pages), (false, BLOCK, CHUNK, !lines));
        let at = file.run_at(0, range(0, 4)).unwrap().state.address().unwrap();
        let mut found = [0; 4];
        std::os::unix::fs::FileExt::read_exact_at(&*memory.file, &mut found, at.0).unwrap();
        assert_eq!(&found, b"here");
        file.flush(at, 4).unwrap();
        file.fence().unwrap();
        assert!(matches!(file.flush(at, 9 << 20), Err(Error::OutOfPool { .. })));
    }
}

#[test]
fn a_run_is_maximal_on_both_sides_and_clipped() {
    let store = store(64 << 20);
    let file = prepared(&store);
    let all = range(0, 1 << 40);
    for extent in file.extents(0, 12 * BLOCK).unwrap() {
        for at in [extent.range.offset, extent.range.offset + extent.range.len / 2, extent.range.end() - 1] {
            let run = file.run_at(at, all).unwrap();
            let end = if extent.range.end() == 12 * BLOCK { all.len } else { extent.range.end() };
            assert_eq!((run.range.offset, run.range.end()), (extent.range.offset, end));
            assert_eq!(run.state, extent.state);
            let byte = file.run_at(at, range(at, 1)).unwrap();
            assert_eq!(
                (byte.range, byte.state),
                (range(at, 1), extent.state.advanced(at - extent.range.offset))
            );
        }
    }
    assert!(matches!(file.run_at(5, range(6, 3)), Err(Error::InvalidArgument(_))));
    assert!(matches!(file.run_at(9, range(6, 3)), Err(Error::InvalidArgument(_))));
    // Runs that a fault found are what a read of the same bytes uses, and not once the file changed.
    let mapped = file.run_at(BLOCK + 5, all).unwrap();
    assert_eq!(mapped.range, range(0, 2 * BLOCK));
    file.allocate(0, BLOCK, AllocateMode::Punch).unwrap();
    let mut found = [1; 10];
    file.read_exact_at(&mut found, BLOCK - 5).unwrap();
    assert_eq!(found, [0, 0, 0, 0, 0, 7, 7, 7, 7, 7]);
}

#[test]
fn an_atomic_overwrite_takes_the_translations_of_its_blocks_away() {
    assert_eq!(
        announced(|f| f.write_atomic(&[1; 10], BLOCK - 5).unwrap()),
        [
            format!("allocate 0..2: {OLD} mmuu..m....."),
            format!("invalidate 0..2: {OLD} mmuu..m....."),
            format!("end 0..2: {OLD} mmuu..m....."),
        ]
    );
    let end = 7 * BLOCK + 10;
    assert_eq!(
        announced(|f| f.write_atomic(&[1; 3 * BLOCK as usize], 4 * BLOCK + 10).unwrap()),
        [
            format!("allocate 4..8: {OLD} mmuu..m....."),
            format!("invalidate 4..8: {OLD} mmuu..m....."),
            format!("end 4..8: {end} mmuummmm...."),
        ]
    );
}

#[test]
fn an_atomic_overwrite_of_pinned_blocks_or_of_an_eager_mapping_is_refused() {
    let store = store(64 << 20);
    let file = prepared(&store);
    let recorder = attach(&file);
    let at = file.run_at(0, range(0, BLOCK)).unwrap().state.address().unwrap();
    file.pin(&[(at, BLOCK)]).unwrap();
    let write = || file.write_atomic(&[1; 10], 100);
    assert!(matches!(write(), Err(Error::Unsupported { .. })), "pinned");
    file.unpin(&[(at, BLOCK)]);
    recorder.refuses.store(true, Ordering::Relaxed);
    assert!(matches!(write(), Err(Error::Unsupported { .. })), "mapped eagerly");
    assert_eq!(file.run_at(0, range(0, BLOCK)).unwrap().state, State::Mapped(at), "nothing moved");
    let mut found = [0; 8192];
    file.read_exact_at(&mut found, 0).unwrap();
    assert_eq!(found, [7; 8192]);
    recorder.refuses.store(false, Ordering::Relaxed);
    write().unwrap();
    assert_ne!(file.run_at(0, range(0, BLOCK)).unwrap().state, State::Mapped(at));
    file.detach();
    assert!(store.check().unwrap().is_clean());
}

/// What a mapping stores to the rest of a block until its translation is gone is not lost.
#[test]
fn the_rest_of_an_edge_block_is_copied_when_no_translation_is_left() {
    #[derive(Debug)]
    struct LastStore(File, Arc<Sim>);
    impl AddressSpace for LastStore {
        fn allocate(&self, _: FileRange) {}
        fn invalidate(&self, _: FileRange, _: bool) -> daxstore::Result<()> {
            let at = self.0.run_at(500, range(0, BLOCK))?.state.address().unwrap();
            self.1.poke(at.plus(500), &[42]);
            Ok(())
        }
        fn sync(self: Arc<Self>, _: &dyn FaultOps, _: FileRange) -> daxstore::Result<u64> {
            Ok(0)
        }
        fn end(&self, _: FileRange) {}
    }
    let sim = Arc::new(Sim::new(64 << 20).unwrap());
    let store = Store::create_sim(sim.clone(), &StoreOptions::new()).unwrap();
    let file = prepared(&store);
    file.attach(&mut || Arc::new(LastStore(file.clone(), sim.clone()))).unwrap();
    file.write_atomic(&[1; 10], 100).unwrap();
    let mut found = [0; 1000];
    file.read_exact_at(&mut found, 0).unwrap();
    assert_eq!((found[99], found[100], found[110], found[500]), (7, 1, 7, 42));
    file.detach();
}

#[test]
fn nothing_waits_in_a_mapped_file() {
    let store = store(64 << 20);
    store.set_durability(daxstore::Durability::Ordered).unwrap();
    store.set_ordered_bounds(u64::MAX, std::time::Duration::MAX).unwrap();
    let file = prepared(&store);
    file.write_all_at(&[5; 5000], 100).unwrap();
    let fences = |change: &dyn Fn()| {
        let before = store.counts();
        change();
        store.counts().since(before).fences
    };
    let other = store.create("g").unwrap();
    other.append(&[1; 100]).unwrap();
    assert!(fences(&|| drop(attach(&file))) >= 2, "a mapping commits what waits");
    assert_eq!(fences(&|| store.sync().unwrap()), 0);
    assert_eq!(fences(&|| file.write_all_at(&[6; 100], 0).unwrap()), 2, "old or new as a whole, at once");
    other.append(&[1; 100]).unwrap();
    // A fault commits on the stack of a signal handler, too.
    let (faulting, before) = (file.clone(), store.counts());
    let fault = move || assert!(faulting.populate(range(4 * BLOCK, BLOCK), Placement::Any).unwrap());
    std::thread::Builder::new().stack_size(32 << 10).spawn(fault).unwrap().join().unwrap();
    assert_eq!(store.counts().since(before).fences, 4);
    file.detach();
    assert_eq!(fences(&|| file.write_all_at(&[6; 100], 0).unwrap()), 0, "it waits again");
    assert!(store.check().unwrap().is_clean());
}

/// A fault may be handled on the alternate stack of a signal handler.
#[test]
fn a_fault_needs_little_stack() {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let options = StoreOptions::new().assume_persistent(cfg!(target_arch = "x86_64"));
    let store = Store::create(dir.path().join("pool"), 64 << 20, &options).unwrap();
    let file = prepared(&store);
    file.set_len(4 * CHUNK).unwrap();
    file.allocate(2 * CHUNK, BLOCK, AllocateMode::Allocate).unwrap();
    let work = move || {
        assert!(file.populate(range(0, 12 * BLOCK), Placement::Any).unwrap());
        assert!(file.populate(range(CHUNK, CHUNK), Placement::Whole).unwrap());
        assert!(file.populate(range(2 * CHUNK, CHUNK), Placement::Whole).unwrap());
        file.zero_ahead(1).unwrap();
        file.touch().unwrap();
        assert_eq!(file.run_at(0, range(0, CHUNK)).unwrap().range.offset, 0);
    };
    std::thread::Builder::new().stack_size(32 << 10).spawn(work).unwrap().join().unwrap();
}
