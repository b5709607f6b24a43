//! What becomes of a pool whose medium loses bytes?
//!
//! Bad ranges are marked in an open store; where the memory is simulated they are scribbled over, too, so that whoever
//! reads them gets wrong bytes.

#![cfg(feature = "sim")]

mod common;

use common::crash::{Options, POOL_BYTES, each_image, tiny};
use daxstore::error::Structure;
use daxstore::iomap::State;
use daxstore::pmem::sim::{Event, Sim};
use daxstore::units::{BLOCK_BYTES, CHUNK_BYTES, PoolOff};
use daxstore::{AllocateMode, Error, FaultKind, File, OpenOptions, Store, StoreOptions, XattrMode};
use proptest::prelude::*;
use std::io::IoSliceMut;
use std::sync::Arc;

const B: usize = BLOCK_BYTES as usize;
const LEN: u64 = BLOCK_BYTES;

/// A store in simulated memory, and one in a file of memory.
struct Pools {
    sim: (Arc<Sim>, Store),
    tmpfs: Store,
    _dir: tempfile::TempDir,
}

fn pools(size: u64) -> Pools {
    let dir = tempfile::tempdir_in("/dev/shm").expect("a directory");
    let options = StoreOptions::new().assume_persistent(true);
    let tmpfs = Store::create(dir.path().join("pool"), size, &options).expect("a store");
    let sim = Arc::new(Sim::new(size).expect("memory"));
    let store = Store::create_sim(sim.clone(), &StoreOptions::new()).expect("a store");
    Pools { sim: (sim, store), tmpfs, _dir: dir }
}

/// Shows `test` both.
fn on_both(size: u64, test: impl Fn(&Store)) {
    let pools = pools(size);
    test(&pools.sim.1);
    test(&pools.tmpfs);
}

fn pattern(len: usize, seed: usize) -> Vec<u8> {
    (0..len).map(|i| (i / 7 + i * 3 + seed * 31) as u8 | 1).collect()
}

/// Where byte `offset` of the file lies.
fn place(file: &File, offset: u64) -> PoolOff {
    let runs = file.extents(offset, 1).expect("extents");
    runs[0].state.address().expect("a place")
}

/// Marks `blocks` of the file from block `from` on.
fn lose(store: &Store, file: &File, from: u64, blocks: u64) {
    for block in from..from + blocks {
        store.mark_bad(place(file, block * LEN), 1).expect("marked");
    }
}

fn bad_bytes(store: &Store) -> u64 {
    store.info().expect("info").bad.iter().map(|(_, len)| len).sum()
}

fn read(file: &File, offset: usize, len: usize) -> Result<Vec<u8>, Error> {
    let mut bytes = vec![0xEE; len];
    let found = file.read_at(&mut bytes, offset as u64)?;
    assert!(bytes[found..].iter().all(|byte| *byte == 0xEE), "bytes beyond what was said to be read");
    bytes.truncate(found);
    Ok(bytes)
}

fn assert_lost<T: std::fmt::Debug>(result: Result<T, Error>, file: &File, from: usize, bytes: u64) {
    let error = result.expect_err("the medium lost these bytes");
    assert_eq!(error.errno(), libc::EIO);
    let Error::BadMedium { ino, offset, len, .. } = error else { panic!("{error}") };
    assert_eq!((ino, offset, len), (file.metadata().ino.0, from as u64, bytes));
}

#[test]
fn a_read_ends_before_what_is_lost_and_fails_at_it() {
    on_both(16 << 20, |store| {
        let (file, data) = (store.create("/f").expect("a file"), pattern(6 * B, 1));
        file.write_all_at(&data, 0).expect("written");
        lose(store, &file, 2, 2);
        assert_eq!(read(&file, 0, 6 * B).expect("the blocks before"), data[..2 * B]);
        assert_eq!(read(&file, 2 * B - 1, 2).expect("the byte before"), data[2 * B - 1..2 * B]);
        assert_lost(read(&file, 2 * B, 1), &file, 2 * B, 1);
        assert_lost(read(&file, 2 * B + 100, 6 * B), &file, 2 * B + 100, 2 * LEN - 100);
        assert_eq!(read(&file, 4 * B, 3 * B).expect("the blocks behind"), data[4 * B..]);
        assert_eq!(read(&file, 2 * B, 0).expect("nothing"), []);
        assert_lost(file.read_exact_at(&mut [0; 3 * B], 0), &file, 2 * B, LEN);
        let (mut one, mut two) = ([0; B], [0; 3 * B]);
        let mut buffers = [IoSliceMut::new(&mut one), IoSliceMut::new(&mut two)];
        assert_eq!(file.read_vectored_at(&mut buffers, 0).expect("short"), 2 * B);
        assert_eq!((&one[..], &two[..B]), (&data[..B], &data[B..2 * B]));
        assert_eq!(two[B..], [0; 2 * B]);
    });
}

#[test]
fn an_overwrite_of_whole_blocks_repairs_them_and_keeps_the_others() {
    on_both(16 << 20, |store| {
        let (file, mut data) = (store.create("/f").expect("a file"), pattern(9 * B, 1));
        file.write_all_at(&data, 0).expect("written");
        let blocks = file.metadata().blocks;
        lose(store, &file, 2, 1);
        lose(store, &file, 5, 2);
        // Over good blocks and bad ones, partly over good ones at its ends.
        let new = pattern(6 * B, 2);
        file.write_all_at(&new, B as u64 + 50).expect("repaired");
        data[B + 50..7 * B + 50].copy_from_slice(&new);
        assert_eq!(read(&file, 0, 9 * B).expect("all of it"), data);
        assert_eq!(file.metadata().blocks, blocks);
        assert_eq!(bad_bytes(store), 0, "the medium takes the blocks again");
        let report = store.check().expect("checked");
        assert!(report.is_clean(), "{:?}", report.faults);
    });
}

#[test]
fn a_write_of_a_part_of_a_lost_block_changes_nothing() {
    on_both(16 << 20, |store| {
        let (file, data) = (store.create("/f").expect("a file"), pattern(5 * B + 100, 1));
        file.write_all_at(&data, 0).expect("written");
        lose(store, &file, 2, 1);
        for (from, len) in [(2 * B, 10), (2 * B + 1, B - 1), (B, B + 10), (2 * B + 8, 3 * B), (0, 3 * B - 1)]
        {
            let new = pattern(len, 2);
            assert_lost(file.write_at(&new, from as u64), &file, 2 * B, LEN);
        }
        for mode in [AllocateMode::Zero, AllocateMode::Punch] {
            let lost = file.allocate(LEN, LEN + 10, mode);
            assert_lost(lost, &file, 2 * B, 10);
        }
        assert_eq!(read(&file, 0, 2 * B).expect("before"), data[..2 * B]);
        assert_eq!(read(&file, 3 * B, 3 * B).expect("behind"), data[3 * B..]);
        assert_eq!((file.len(), bad_bytes(store)), (5 * LEN + 100, LEN));
    });
}

#[test]
fn the_last_block_is_repaired_by_all_that_the_file_has_in_it() {
    on_both(16 << 20, |store| {
        let (file, data) = (store.create("/f").expect("a file"), pattern(B + 100, 1));
        file.write_all_at(&data, 0).expect("written");
        lose(store, &file, 1, 1);
        assert_lost(file.append(&[1; 10]), &file, B, LEN);
        assert_lost(file.set_len(3 * LEN), &file, B + 100, LEN - 100);
        assert_lost(file.write_at(&[1; 99], LEN), &file, B, LEN);
        file.write_all_at(&[7; 100], LEN).expect("repaired");
        file.set_len(3 * LEN).expect("longer");
        let mut expected = data[..B].to_vec();
        expected.extend_from_slice(&[7; 100]);
        expected.resize(3 * B, 0);
        assert_eq!(read(&file, 0, 4 * B).expect("all of it"), expected);
        lose(store, &file, 1, 1);
        file.write_all_at(&pattern(4 * B, 3), LEN).expect("repaired by a write that makes the file longer");
        assert_eq!(read(&file, B, 5 * B).expect("all of it"), pattern(4 * B, 3));
    });
}

#[test]
fn unwritten_space_on_lost_blocks_reads_as_zeros_and_can_be_written() {
    on_both(16 << 20, |store| {
        let file = store.create("/f").expect("a file");
        file.allocate(0, 4 * LEN, AllocateMode::Allocate).expect("space");
        lose(store, &file, 1, 2);
        assert_eq!(read(&file, 0, 4 * B).expect("zeros"), [0; 4 * B]);
        file.write_all_at(&[5; 10], LEN + 20).expect("a part of a block");
        let mut expected = vec![0; 4 * B];
        expected[B + 20..B + 30].fill(5);
        assert_eq!(read(&file, 0, 4 * B).expect("zeros around"), expected);
        file.allocate(0, 4 * LEN, AllocateMode::Zero).expect("zeroed");
        assert_eq!(read(&file, 0, 4 * B).expect("zeros"), [0; 4 * B]);
        assert!(store.check().expect("checked").is_clean());
    });
}

#[test]
fn zeroing_or_punching_lost_blocks_as_a_whole_repairs_them() {
    on_both(16 << 20, |store| {
        for mode in [AllocateMode::Zero, AllocateMode::Punch] {
            let file = store.create("/f").expect("a file");
            file.write_all_at(&pattern(4 * B, 1), 0).expect("written");
            lose(store, &file, 1, 2);
            file.allocate(LEN, 2 * LEN, mode).expect("changed");
            assert_eq!(read(&file, B, 2 * B).expect("zeros"), [0; 2 * B]);
            assert_eq!(read(&file, 3 * B, B).expect("as before"), pattern(4 * B, 1)[3 * B..]);
        }
    });
}

/// Fills the store with files and returns them; none of their blocks is bad.
fn fill(store: &Store, step: usize) -> Vec<File> {
    let mut files = Vec::new();
    for i in 0.. {
        let written = store.create(format!("/fill{i}")).and_then(|file| {
            file.write_all_at(&vec![i as u8 | 1; step], 0)?;
            Ok(file)
        });
        match written {
            Ok(file) => files.push(file),
            Err(Error::NoSpace { .. }) => break,
            Err(error) => panic!("{error}"),
        }
    }
    let bad = store.info().expect("info").bad;
    for run in files.iter().flat_map(|file| file.extents(0, file.len()).expect("extents")) {
        let Some(at) = run.state.address() else { continue };
        let meets = bad.iter().any(|(from, len)| at.0 < from.0 + len && from.0 < at.0 + run.range.len);
        assert!(!meets, "{run:?} lies on a lost block");
    }
    files
}

#[test]
fn lost_blocks_are_given_to_nobody_until_the_medium_takes_them_again() {
    for step in [B, 40 * B, CHUNK_BYTES as usize] {
        on_both(16 << 20, |store| {
            let all = store.statfs().free;
            // In chunks that are free, in one that is broken, and of a file that goes.
            let file = store.create("/f").expect("a file");
            file.write_all_at(&pattern(3 * B, 1), 0).expect("written");
            lose(store, &file, 1, 1);
            store.mark_bad(place(&file, 2 * LEN).plus(LEN), 8 * LEN).expect("behind the file");
            store.mark_bad(PoolOff(8 << 20), 1).expect("in a free chunk");
            store.mark_bad(PoolOff((12 << 20) - 1), 2).expect("across two free chunks");
            drop(file);
            store.remove_file("/f").expect("removed");
            let lost = bad_bytes(store) / LEN;
            assert_eq!(lost, 12);
            assert!(store.statfs().free <= all - lost + 20);
            let files = fill(store, step);
            assert!(files.len() as u64 * step as u64 > if step > 1 << 20 { 2 << 20 } else { 10 << 20 });
            for (i, file) in files.iter().enumerate() {
                assert_eq!(read(file, 0, step).expect("content"), vec![i as u8 | 1; step]);
            }
            let free = store.statfs().free;
            store.mend().expect("mended");
            assert_eq!(bad_bytes(store), 0);
            assert!(store.statfs().free >= free);
            assert!(store.check().expect("checked").is_clean());
        });
    }
}

#[test]
fn mended_blocks_can_be_had_and_are_counted() {
    on_both(16 << 20, |store| {
        store.write("/a", b"so that the group is known").expect("written");
        let free = store.statfs().free;
        store.mark_bad(PoolOff(6 << 20), 3 * LEN).expect("marked");
        assert_eq!(store.statfs().free, free - 3);
        assert_eq!(store.mend().expect("mended"), 3);
        assert_eq!(store.statfs().free, free);
        let whole = store.create("/whole").expect("a file");
        whole.write_all_at(&vec![1; 10 << 20], 0).expect("every chunk is whole again");
        let runs = whole.extents(0, 10 << 20).expect("extents");
        assert!(runs.iter().all(|run| run.huge), "{runs:?}");
    });
}

#[test]
fn a_chunk_with_a_lost_block_is_not_taken_for_a_huge_page() {
    on_both(32 << 20, |store| {
        for chunk in 2..8 {
            store.mark_bad(PoolOff(chunk * CHUNK_BYTES + 77 * LEN), 1).expect("marked");
        }
        let file = store.create("/f").expect("a file");
        file.write_all_at(&vec![1; 8 << 20], 0).expect("written");
        let runs = file.extents(0, 8 << 20).expect("extents");
        assert!(runs.iter().all(|run| run.huge && run.state.address().is_some_and(|at| at.0 >= 16 << 20)));
    });
}

#[test]
fn a_check_names_the_file_and_the_bytes() {
    on_both(16 << 20, |store| {
        store.create_dir("/d", 0o755).expect("a directory");
        let file = store.create("/d/f").expect("a file");
        file.write_all_at(&pattern(3 * B + 5, 1), 0).expect("written");
        file.set_xattr("user.long", &[3; 9000], XattrMode::Either).expect("an attribute");
        let at = place(&file, LEN);
        store.mark_bad(at, 2 * LEN).expect("marked");
        let report = store.check().expect("checked");
        assert_eq!(report.faults.len(), 1, "{:?}", report.faults);
        let fault = &report.faults[0];
        assert_eq!((fault.kind, fault.at), (FaultKind::LostBytes, at));
        assert_eq!(fault.ino.map(|ino| ino.0), Some(file.metadata().ino.0));
        assert_eq!(fault.path.as_deref(), Some(&b"/d/f"[..]));
        assert!(fault.what.contains("bytes 4096 to 12288"), "{}", fault.what);
        file.write_all_at(&pattern(2 * B, 2), LEN).expect("repaired");
        assert!(store.check().expect("checked").is_clean());
    });
}

#[test]
fn lost_metadata_is_damage_with_a_place_and_the_rest_works() {
    let pools = pools(16 << 20);
    for store in [&pools.sim.1, &pools.tmpfs] {
        store.write("/other", &pattern(B, 1)).expect("written");
        let file = store.create("/f").expect("a file");
        let many: Vec<_> = (0..40).map(|i| (i * 2 * LEN, pattern(100, i as usize))).collect();
        for (at, bytes) in &many {
            file.write_all_at(bytes, *at).expect("written");
        }
        let (ino, open) = (file.metadata().ino.0, store.open("/other", &OpenOptions::new().read(true)));
        drop(file);
        // The block of its inode, which other inodes have too.
        store.mark_bad(PoolOff(ino * 256), 1).expect("marked");
        let mut seen = 0;
        for result in [store.read("/f").map(drop), store.remove_file("/f"), store.write("/new", b"x")] {
            match result {
                Ok(()) => {}
                Err(Error::Corrupt(damage)) if damage.structure == Structure::Medium => seen += 1,
                Err(error) => panic!("{error}"),
            }
        }
        assert!(seen >= 1);
        drop(open);
        assert!(!store.check().expect("a check reports").is_clean());
    }
}

/// One block is lost in a file, and written again with its neighbours: every crash leaves it as it was or as written.
#[test]
fn a_crash_in_a_repair_leaves_the_lost_block_or_the_new_one() {
    let primary = Arc::new(Sim::new(POOL_BYTES).expect("memory"));
    let options = StoreOptions::new().geometry(tiny(1, 8192)).seed(1);
    let store = Store::create_sim(primary.clone(), &options).expect("a pool");
    let file = store.create("/f").expect("a file");
    let (old, new) = (pattern(4 * B, 1), pattern(3 * B, 2));
    file.write_all_at(&old, 0).expect("data");
    let (was, scratch) = (place(&file, LEN), Arc::new(primary.fork().expect("memory")));
    store.mark_bad(was, 1).expect("marked");
    primary.start_trace();
    primary.mark(Event::Begin(0));
    file.write_all_at(&new, 0).expect("repaired");
    primary.mark(Event::Return(0));
    let trace = primary.take_trace();
    for event in &trace.events {
        if let Event::Store { at, len, .. } = event {
            assert!(at + len <= was.0 || *at >= was.0 + LEN, "a store to the lost block");
        }
    }
    let (mut olds, mut news) = (0, 0);
    each_image(&scratch, &trace, &Options::sampled(1, 60), |stop, store| {
        let file = store.open("/f", &OpenOptions::new().read(true)).expect("the file");
        let found = read(&file, 0, 5 * B).expect("content");
        assert_eq!(found[3 * B..], old[3 * B..], "{stop:?}");
        // The neighbours are overwritten in place: each word is old or new.
        for word in (0..3 * B).step_by(8).map(|at| at..at + 8) {
            let sound = found[word.clone()] == old[word.clone()] || found[word.clone()] == new[word.clone()];
            assert!(sound, "{stop:?}: bytes {word:?} are neither old nor new");
        }
        match &found[B..2 * B] {
            block if *block == new[B..2 * B] => {
                assert_ne!(place(&file, LEN), was);
                news += 1;
            }
            block => {
                assert!(*block == old[B..2 * B] && stop.returned.is_none(), "{stop:?}: a torn block");
                // Which the kernel's list still names.
                assert_eq!(place(&file, LEN), was);
                olds += 1;
            }
        }
        assert_eq!(stop.returned.is_some(), stop.returned.is_some() && found[..3 * B] == new[..]);
        let report = store.check().expect("checked");
        assert!(report.is_clean(), "{stop:?}: {:?}", report.faults);
        drop((file, store));
    });
    assert!(olds > 2 && news > 2, "{olds} old, {news} new");
}

#[derive(Clone, Debug)]
enum Step {
    Write {
        from: usize,
        len: usize,
        seed: usize,
    },
    Punch {
        from: usize,
        len: usize,
    },
    Zero {
        from: usize,
        len: usize,
    },
    Cut {
        len: usize,
    },
    /// The block of the file with this number.
    Lose {
        block: usize,
    },
    /// Anywhere in the pool behind its first chunk.
    LoseAny {
        block: u64,
        blocks: u64,
    },
    Mend,
}

fn steps() -> impl Strategy<Value = Step> {
    const MOST: usize = 24 * B;
    let aligned = |blocks: bool, n: usize| if blocks { n - n % B } else { n };
    let range = (0..MOST, 1..8 * B, any::<bool>())
        .prop_map(move |(from, len, blocks)| (aligned(blocks, from), aligned(blocks, len).max(1)));
    prop_oneof![
        6 => (range.clone(), 0usize..99).prop_map(|((from, len), seed)| Step::Write { from, len, seed }),
        2 => range.clone().prop_map(|(from, len)| Step::Punch { from, len }),
        1 => range.prop_map(|(from, len)| Step::Zero { from, len }),
        1 => (0..MOST).prop_map(|len| Step::Cut { len }),
        4 => (0usize..24).prop_map(|block| Step::Lose { block }),
        2 => (0u64..1530, 1u64..5).prop_map(|(block, blocks)| Step::LoseAny { block, blocks }),
        1 => Just(Step::Mend),
    ]
}

/// Scribbles over what is bad now: nobody may read it.
fn scribble(sim: &Sim, store: &Store) {
    for (at, len) in store.info().expect("info").bad {
        let words: Vec<_> = (at.0..at.0 + len).step_by(8).map(|at| (at, 0xDEAD_DEAD_DEAD_DEAD)).collect();
        sim.poke_words(&words);
    }
}

fn run(store: &Store, file: &File, model: &mut Vec<u8>, step: &Step) -> Result<(), Error> {
    match *step {
        Step::Write { from, len, seed } => {
            let data = pattern(len, seed);
            let done = file.write_at(&data, from as u64)?;
            model.resize(model.len().max(from + done), 0);
            model[from..from + done].copy_from_slice(&data[..done]);
        }
        Step::Punch { from, len } => {
            file.allocate(from as u64, len as u64, AllocateMode::Punch)?;
            let end = (from + len).min(model.len());
            if from < end {
                model[from..end].fill(0);
            }
        }
        Step::Zero { from, len } => {
            file.allocate(from as u64, len as u64, AllocateMode::Zero)?;
            model.resize(model.len().max(from + len), 0);
            model[from..from + len].fill(0);
        }
        Step::Cut { len } => {
            file.set_len(len as u64)?;
            model.resize(len, 0);
        }
        Step::Lose { block } => {
            let runs = file.extents((block * B) as u64, LEN)?;
            if let Some(at) = runs.first().and_then(|run| run.state.address()) {
                store.mark_bad(at, 1)?;
            }
        }
        Step::LoseAny { block, blocks } => {
            store.mark_bad(PoolOff(CHUNK_BYTES + block * LEN), blocks * LEN)?
        }
        Step::Mend => drop(store.mend()?),
    }
    Ok(())
}

/// Compares the file with the model, block by block: what can be read is right, and what can not is lost.
///
/// # Errors
/// The store's, where it can not be compared.
fn compare(store: &Store, file: &File, model: &[u8]) -> Result<(), Error> {
    assert_eq!(file.len(), model.len() as u64);
    let bad = store.info().expect("info").bad;
    for (number, expected) in model.chunks(B).enumerate() {
        let state = file.extents((number * B) as u64, 1)?[0].state;
        let is_lost = match state {
            State::Mapped(at) => bad.iter().any(|(from, len)| (from.0..from.0 + len).contains(&at.0)),
            _ => false,
        };
        match read(file, number * B, B) {
            Ok(found) => assert!(found == expected && !is_lost, "block {number}, lost: {is_lost}"),
            Err(Error::BadMedium { .. }) => assert!(is_lost, "block {number}"),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Whether it is said that metadata are lost: a marked range may hold the arenas of the file's nodes, and its inode.
fn is_lost_metadata(error: &Error) -> bool {
    matches!(error, Error::Corrupt(damage) if damage.structure == Structure::Medium)
}

/// Takes the steps, and looks after each; ends early, and says so, where metadata are lost.
fn judge(steps: &[Step]) -> bool {
    let sim = Arc::new(Sim::new(POOL_BYTES).expect("memory"));
    let store = Store::create_sim(sim.clone(), &StoreOptions::new().seed(7)).expect("a pool");
    let (file, mut model) = (store.create("/f").expect("a file"), Vec::new());
    for step in steps {
        match run(&store, &file, &mut model, step) {
            Ok(()) | Err(Error::BadMedium { .. } | Error::NoSpace { .. }) => {}
            Err(error) if is_lost_metadata(&error) => return true,
            Err(error) => panic!("{step:?}: {error}"),
        }
        scribble(&sim, &store);
        match compare(&store, &file, &model) {
            Ok(()) => {}
            Err(error) if is_lost_metadata(&error) => return true,
            Err(error) => panic!("after {step:?}: {error}"),
        }
    }
    let bad = store.info().expect("info").bad;
    let report = store.check().expect("checked");
    let lost = |at: PoolOff| bad.iter().any(|(from, len)| (from.0..from.0 + len).contains(&at.0));
    // Where the medium lost metadata, what they were about is wrong too.
    let lost_metadata =
        report.faults.iter().any(|fault| lost(fault.at) && fault.kind != FaultKind::LostBytes);
    let wrong = report.faults.iter().find(|fault| fault.kind != FaultKind::LostBytes || !lost(fault.at));
    assert!(lost_metadata || wrong.is_none(), "{wrong:?}");
    lost_metadata
}

proptest! {
    #[test]
    fn no_operation_returns_or_keeps_wrong_bytes(steps in prop::collection::vec(steps(), 1..40)) {
        let _ = judge(&steps);
    }
}

/// Its extents no longer fit the inode, so that they lie in a node, in the first block behind the first chunk.
#[test]
fn a_lost_node_of_a_files_extents_is_said_to_be_lost() {
    let lost = judge(&[
        Step::Zero { from: 7400, len: 25369 },
        Step::Write { from: 40960, len: 1, seed: 0 },
        Step::Write { from: 20480, len: 1, seed: 0 },
        Step::Write { from: 0, len: 1, seed: 0 },
        Step::LoseAny { block: 0, blocks: 1 },
    ]);
    assert!(lost);
}
