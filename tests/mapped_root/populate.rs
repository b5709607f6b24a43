//! Do faults get blocks of zeros where they need them, and nothing where data are?

use super::*;

/// A store whose free blocks hold what a removed file had.
fn used(size: u64, filled: usize) -> Store {
    let store = store(size);
    let old = store.create("old").unwrap();
    old.write_all_at(&vec![0xcc; filled], 0).unwrap();
    drop(old);
    store.remove_file("old").unwrap();
    store
}

#[test]
fn holes_and_unwritten_space_become_zeros_and_data_stay() {
    let store = used(64 << 20, 40 << 20);
    let file = prepared(&store);
    let before = file.metadata();
    assert!(file.populate(range(BLOCK, 5 * BLOCK), Placement::Any).unwrap());
    assert_eq!(picture(&file), "mmmmmmm.....");
    let mut found = vec![1; OLD as usize];
    file.read_exact_at(&mut found, 0).unwrap();
    assert!(found[..8192] == [7; 8192] && found[8192..24576] == [0; 16384] && found[24576..] == [9; 100]);
    let after = file.metadata();
    assert_eq!((after.size, after.blocks), (before.size, before.blocks + 2));
    assert!(after.mtime > before.mtime);
    let counts = store.counts();
    assert!(file.populate(range(0, 7 * BLOCK), Placement::Any).unwrap(), "nothing is left to do");
    assert_eq!(store.counts().since(counts).fences, 0);
    assert!(store.check().unwrap().is_clean());
}

#[test]
fn a_slot_gets_one_chunk_of_zeros() {
    let store = used(64 << 20, 40 << 20);
    let file = store.create("f").unwrap();
    file.set_len(5 * CHUNK).unwrap();
    // Pieces of unwritten space in slot 1, one aligned run of it in slot 2, data in slot 3.
    for block in [0, 3, 9, 500] {
        file.allocate(CHUNK + block * BLOCK, 2 * BLOCK, AllocateMode::Allocate).unwrap();
    }
    file.allocate(2 * CHUNK, CHUNK, AllocateMode::Allocate).unwrap();
    file.write_all_at(&[5], 3 * CHUNK + 9).unwrap();
    for slot in 0..3 {
        let before = file.run_at(slot * CHUNK, range(slot * CHUNK, CHUNK)).unwrap();
        assert!(file.populate(range(slot * CHUNK, CHUNK), Placement::Whole).unwrap());
        let run = file.run_at(slot * CHUNK, range(slot * CHUNK, CHUNK)).unwrap();
        let State::Mapped(at) = run.state else { panic!("{run:?}") };
        assert_eq!((run.range.len, at.0 % CHUNK), (CHUNK, 0));
        assert!(slot != 2 || before.state == State::Unwritten(at), "it lay well and was kept");
        let mut found = vec![1; CHUNK as usize];
        file.read_exact_at(&mut found, slot * CHUNK).unwrap();
        assert!(found.iter().all(|byte| *byte == 0));
    }
    let counts = store.counts();
    assert!(!file.populate(range(3 * CHUNK, CHUNK), Placement::Whole).unwrap(), "it holds data");
    assert!(!file.populate(range(4 * CHUNK, BLOCK), Placement::Whole).unwrap(), "it is no slot");
    assert_eq!(store.counts().since(counts).fences, 0);
    assert_eq!(file.metadata().blocks, 3 * 512 + 1);
    assert!(store.check().unwrap().is_clean());
}

#[test]
fn a_slot_without_a_chunk_for_it_stays_as_it_is() {
    let store = used(8 << 20, 4 << 20);
    let file = store.create("f").unwrap();
    file.set_len(2 * CHUNK).unwrap();
    let filler = store.create("filler").unwrap();
    let most = (store.statfs().free - 300) * BLOCK;
    filler.allocate(0, most, AllocateMode::Allocate).unwrap();
    assert!(!file.populate(range(0, CHUNK), Placement::Whole).unwrap());
    let error = file.populate(range(0, CHUNK), Placement::Any).unwrap_err();
    assert!(matches!(error, Error::NoSpace { .. }), "{error}");
    assert_eq!(picture(&file), "............");
    assert!(file.populate(range(3 * BLOCK, 2 * BLOCK), Placement::Any).unwrap());
    assert_eq!(picture(&file), "...mm.......");
    assert!(store.check().unwrap().is_clean());
}

#[test]
fn only_whole_blocks_of_one_slot_in_the_file_are_populated() {
    let store = store(64 << 20);
    let file = store.create("f").unwrap();
    file.set_len(2 * CHUNK + 1).unwrap();
    for (at, len) in
        [(0, 0), (1, BLOCK), (0, 100), (CHUNK - BLOCK, 2 * BLOCK), (2 * CHUNK, 2 * BLOCK), (0, 2 * CHUNK)]
    {
        for placement in [Placement::Any, Placement::Whole] {
            let error = file.populate(range(at, len), placement).unwrap_err();
            assert!(matches!(error, Error::InvalidArgument(_)), "{at} {len}: {error}");
        }
    }
    assert!(file.populate(range(2 * CHUNK, BLOCK), Placement::Any).unwrap(), "the block that holds the end");
}

/// More pieces than fit a record of a small lane.
#[test]
fn a_slot_in_pieces_is_populated_in_several_records() {
    let geometry = daxstore::layout::Geometry { size: 16 << 20, lanes: 1, lane_bytes: 8192, arena_blocks: 1 };
    let sim = Arc::new(Sim::new(16 << 20).unwrap());
    let store = Store::create_sim(sim, &StoreOptions::new().geometry(geometry)).unwrap();
    let file = store.create("f").unwrap();
    file.set_len(CHUNK).unwrap();
    for block in (0..512).step_by(2) {
        file.write_all_at(&[6; BLOCK as usize], block * BLOCK).unwrap();
    }
    let before = store.counts();
    assert!(file.populate(range(0, CHUNK), Placement::Any).unwrap());
    let fences = store.counts().since(before).fences;
    assert!((4..30).contains(&fences), "{fences}");
    let mut found = vec![1; CHUNK as usize];
    file.read_exact_at(&mut found, 0).unwrap();
    let is =
        |(block, bytes): (usize, &[u8])| bytes.iter().all(|byte| *byte == if block % 2 == 0 { 6 } else { 0 });
    assert!(found.chunks(BLOCK as usize).enumerate().all(is));
    assert_eq!(file.metadata().blocks, 512);
    assert!(store.check().unwrap().is_clean());
}
