//! What do mappings, pins and a lack of chunks make of a file that is defragmented?

use crate::error::{Error, Result};
use crate::io::{AllocateMode, Defragmented};
use crate::iomap::{AddressSpace, FaultOps, FileRange};
use crate::layout::Geometry;
use crate::pmem::sim::Sim;
use crate::store::{File, OpenOptions, Store, StoreOptions};
use crate::sync::{Arc, Mutex};
use crate::units::{CHUNK_BYTES, Run};

const SLOT: usize = CHUNK_BYTES as usize;

fn store(size: u64) -> Store {
    let options = StoreOptions::new().geometry(Geometry::for_size(size));
    Store::create_sim(Arc::new(Sim::new(size).unwrap()), &options).unwrap()
}

/// A file of `slots` slots, the first blocks of each of which lie between those of another file.
fn fragmented(store: &Store, name: &str, slots: u64) -> (File, Vec<u8>) {
    let (file, other) = (store.create(name).unwrap(), store.create(format!("{name}-other")).unwrap());
    let bytes: Vec<u8> = (0..slots * CHUNK_BYTES).map(|i| (i / 8 % 251) as u8 + 1).collect();
    // Nothing is reserved ahead of a write that does not go past the end.
    file.set_len(slots * CHUNK_BYTES).unwrap();
    for (n, slot) in bytes.chunks(SLOT).enumerate() {
        let at = (n * SLOT) as u64;
        for block in 0..4 {
            file.write_all_at(&slot[block * 4096..][..4096], at + block as u64 * 4096).unwrap();
            other.append(&[9; 4096]).unwrap();
        }
        file.write_all_at(&slot[4 * 4096..], at + 4 * 4096).unwrap();
    }
    (file, bytes)
}

fn content(file: &File) -> Vec<u8> {
    let mut bytes = vec![0; file.len() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

fn reopened(store: &Store, name: &str) -> File {
    store.open(name, &OpenOptions::new().read(true).write(true)).unwrap()
}

fn huge(file: &File) -> bool {
    file.extents(0, file.len()).unwrap().iter().all(|extent| extent.huge)
}

#[test]
fn every_slot_becomes_one_chunk_and_they_follow_each_other() {
    let store = store(64 << 20);
    let (file, bytes) = fragmented(&store, "/f", 3);
    let (before, free) = (file.metadata(), store.statfs().free);
    let found = file.defrag().unwrap();
    assert_eq!(found, Defragmented { slots: 3, moved: 3, ..Defragmented::default() });
    assert!(huge(&file));
    assert_eq!(file.extents(0, file.len()).unwrap().len(), 1, "one run");
    assert_eq!((content(&file), file.metadata(), store.statfs().free), (bytes, before, free));
    assert_eq!(file.defrag().unwrap().already, 3);
    assert!(store.check().unwrap().is_clean());
}

#[test]
fn what_is_unwritten_is_not_copied_and_stays_so() {
    let store = store(64 << 20);
    let (file, other) = (store.create("/f").unwrap(), store.create("/g").unwrap());
    for block in 0..6u64 {
        file.write_all_at(&[7; 4096], block * 3 * 4096).unwrap();
        other.append(&[9; 4096]).unwrap();
    }
    file.allocate(0, CHUNK_BYTES, AllocateMode::Allocate).unwrap();
    let (bytes, unwritten) = (content(&file), store.info().unwrap().space.unwritten_blocks);
    let stored = store.counts();
    assert_eq!(file.defrag().unwrap().moved, 1);
    assert!(store.counts().since(stored).fences <= 3);
    assert_eq!(store.info().unwrap().space.unwritten_blocks, unwritten);
    assert_eq!((content(&file), file.defrag().unwrap().already), (bytes, 1));
}

#[test]
fn slots_with_holes_and_at_the_end_are_left() {
    let store = store(64 << 20);
    let (file, _) = fragmented(&store, "/f", 2);
    file.allocate(4096, 4096, AllocateMode::Punch).unwrap();
    file.set_len(2 * CHUNK_BYTES - 4096).unwrap();
    let found = file.defrag().unwrap();
    assert_eq!(found, Defragmented { slots: 1, with_holes: 1, ..Defragmented::default() });
    file.set_len(2 * CHUNK_BYTES - 4095).unwrap();
    file.write_all_at(&[3; 4096], 2 * CHUNK_BYTES - 5000).unwrap();
    let found = file.defrag_range(CHUNK_BYTES - 1, CHUNK_BYTES + 1).unwrap();
    assert_eq!((found.slots, found.moved), (1, 1), "the second one, whose last block is not full");
    assert_eq!(store.create("/empty").unwrap().defrag().unwrap().slots, 0);
    assert!(reopened(&store, "/f").defrag_range(1, 1 << 63).is_err());
    let read_only = store.open("/f", &OpenOptions::new().read(true)).unwrap();
    assert!(matches!(read_only.defrag(), Err(Error::NotOpenedFor(_))));
}

#[test]
fn without_a_free_chunk_slots_stay() {
    let store = store(16 << 20);
    let (file, bytes) = fragmented(&store, "/f", 1);
    let mut fillers = Vec::new();
    while let Ok(filler) = store.create(format!("/{}", fillers.len())).and_then(|filler| {
        filler.allocate(0, CHUNK_BYTES, AllocateMode::Allocate)?;
        Ok(filler)
    }) {
        fillers.push(filler);
    }
    let free = store.statfs().free;
    assert_eq!(file.defrag().unwrap().no_chunk, 1);
    assert_eq!((content(&file), store.statfs().free), (bytes, free));
    fillers[0].set_len(0).unwrap();
    assert_eq!(file.defrag().unwrap().moved, 1);
}

/// Mappings that note what they are told.
#[derive(Debug, Default)]
struct Noted {
    calls: Mutex<Vec<(&'static str, FileRange)>>,
    eager: bool,
}

impl AddressSpace for Noted {
    fn allocate(&self, range: FileRange) {
        self.calls.lock().push(("allocate", range));
    }

    fn invalidate(&self, range: FileRange, cut: bool) -> Result<()> {
        assert!(!cut);
        self.calls.lock().push(("invalidate", range));
        if self.eager { Err(Error::Unsupported { backend: "a test", why: "eager" }) } else { Ok(()) }
    }

    fn sync(self: Arc<Self>, _file: &dyn FaultOps, range: FileRange) -> Result<u64> {
        self.calls.lock().push(("sync", range));
        Ok(0)
    }

    fn end(&self, range: FileRange) {
        self.calls.lock().push(("end", range));
    }
}

fn map(file: &File, eager: bool) -> Arc<Noted> {
    let noted = Arc::new(Noted { eager, ..Noted::default() });
    let space: Arc<dyn AddressSpace> = noted.clone();
    let core = file.node.handle.core();
    let _all = core.io.exclusive(0, u64::MAX);
    core.space.attach(&mut || space.clone());
    noted
}

#[test]
fn mappings_let_go_of_what_moves_and_of_nothing_else() {
    let store = store(64 << 20);
    let (file, bytes) = fragmented(&store, "/f", 2);
    let noted = map(&file, false);
    assert_eq!(file.defrag_range(CHUNK_BYTES, CHUNK_BYTES).unwrap().moved, 1);
    let slot = FileRange { offset: CHUNK_BYTES, len: CHUNK_BYTES };
    assert_eq!(*noted.calls.lock(), [("invalidate", slot), ("end", slot)]);
    assert_eq!(file.defrag_range(CHUNK_BYTES, CHUNK_BYTES).unwrap().already, 1);
    assert_eq!(noted.calls.lock().len(), 2, "what lies well stays mapped");
    assert_eq!(content(&file), bytes);
}

#[test]
fn what_an_eager_mapping_holds_stays() {
    let store = store(64 << 20);
    let (file, _) = fragmented(&store, "/f", 1);
    let noted = map(&file, true);
    assert_eq!(file.defrag().unwrap().mapped, 1);
    let ends = noted.calls.lock().iter().filter(|call| call.0 == "end").count();
    assert_eq!((ends, huge(&file)), (1, false));
}

#[test]
fn pinned_blocks_stay() {
    let store = store(64 << 20);
    let (file, _) = fragmented(&store, "/f", 2);
    let at = file.extents(CHUNK_BYTES, 4096).unwrap()[0].state.address().unwrap();
    let space = &file.node.handle.fs().space;
    let pinned = [Run::new(at.block(), 1)];
    space.pin(&pinned).unwrap();
    let found = file.defrag().unwrap();
    assert_eq!((found.moved, found.pinned), (1, 1));
    space.unpin(&pinned);
    assert_eq!(file.defrag().unwrap().huge(), 2);
}
