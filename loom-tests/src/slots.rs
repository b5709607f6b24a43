//! Model 4: slots of arenas. None is given twice, none is lost.
//!
//! Mutation: `FreeUnknownSlot`.

use crate::{Pool, explore, geometry, part, superblock, together};
use daxstore::alloc::Space;
use daxstore::journal::Journal;
use daxstore::layout::{FileKind, Inode, RootArea};
use daxstore::pmem::{Durable, Region};
use daxstore::units::{Ino, PoolOff};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

fn inode() -> Inode {
    Inode {
        version: 0,
        kind: FileKind::Regular,
        permissions: 0,
        links: 1,
        uid: 0,
        gid: 0,
        size: 0,
        blocks: 0,
        atime: 0,
        mtime: 0,
        ctime: 0,
        btime: 0,
        generation: 0,
        flags: 0,
        xattrs: PoolOff(0),
        xattr_level: 0,
        parent: Ino(0),
        hint: 0,
        capacity: 0,
        root: RootArea::default(),
    }
}

fn make(space: &Space) -> Ino {
    let mut op = space.begin();
    let ino = op.alloc_inode().unwrap();
    op.write_inode(ino, &inode()).unwrap();
    op.commit(Durable::no_data()).unwrap();
    ino
}

fn free(space: &Space, ino: Ino) {
    let mut op = space.begin();
    op.free_inode(ino).unwrap();
    op.commit(Durable::no_data()).unwrap();
}

fn open(pool: &Pool) -> Arc<Space> {
    let (journal, _) = Journal::open(Arc::new(Region::sim(pool.copy()))).unwrap();
    Arc::new(Space::new(Arc::new(journal)).unwrap())
}

/// A pool with `count` inodes, whose arenas nobody has scanned yet; and where the inodes are.
fn pool(count: usize) -> (Arc<Pool>, Vec<Ino>) {
    let geometry = geometry(2);
    let made = Arc::new(Mutex::new(Vec::new()));
    let making = made.clone();
    let pool = Pool::new(geometry.size, move |sim| {
        let region = Arc::new(Region::sim(sim));
        Journal::format(&region, &superblock(geometry)).unwrap();
        let space = Space::new(Arc::new(Journal::open(region).unwrap().0)).unwrap();
        making.lock().unwrap().extend((0..count).map(|_| make(&space)));
        space.journal().quiesce().unwrap();
    });
    let made = made.lock().unwrap().clone();
    (pool, made)
}

/// Slots of an arena of one block.
const ARENA: usize = 16;

/// Fills the arenas and fails unless every slot was given once, and no slot was lost.
fn assert_complete(space: &Space, mut used: Vec<Ino>) {
    // What other threads keep for themselves comes back to all.
    assert!(space.try_reclaim().unwrap().is_some(), "nothing is under way");
    let arenas = space.report().unwrap().inode_arena_blocks as usize;
    while used.len() < arenas * ARENA {
        used.push(make(space));
    }
    let distinct: BTreeSet<_> = used.iter().copied().collect();
    assert_eq!(distinct.len(), used.len(), "a slot was given twice");
    assert_eq!(space.report().unwrap().inode_arena_blocks as usize, arenas, "a slot was lost");
    assert_eq!(space.journal().totals().inodes as usize, used.len());
}

#[test]
fn an_arena_is_scanned_while_a_slot_of_it_is_freed() {
    let (pool, made) = pool(10);
    explore("slots: first scan", move || {
        let space = open(&pool);
        let (taker, freer) = (space.clone(), space.clone());
        let taken = Arc::new(Mutex::new(Vec::new()));
        let taking = taken.clone();
        let victim = made[3];
        together(vec![
            part(move || taking.lock().unwrap().push(make(&taker))),
            part(move || free(&freer, victim)),
        ]);
        let mut used: Vec<_> = made.iter().copied().filter(|ino| *ino != victim).collect();
        used.extend(taken.lock().unwrap().iter());
        assert_complete(&space, used);
    });
}

#[test]
fn two_threads_take_and_free_slots() {
    let (pool, made) = pool(15);
    explore("slots: take and free", move || {
        let space = open(&pool);
        let taken = Arc::new(Mutex::new(Vec::new()));
        let parts = [made[0], made[1]].map(|victim| {
            let (space, taken) = (space.clone(), taken.clone());
            part(move || {
                free(&space, victim);
                let ino = make(&space);
                taken.lock().unwrap().push(ino);
            })
        });
        together(parts.into());
        let mut used = made[2..].to_vec();
        used.extend(taken.lock().unwrap().iter());
        assert_complete(&space, used);
    });
}

#[test]
fn two_threads_open_arenas() {
    let (pool, made) = pool(16);
    explore("slots: open arenas", move || {
        let space = open(&pool);
        let taken = Arc::new(Mutex::new(Vec::new()));
        let parts = [0, 1].map(|_| {
            let (space, taken) = (space.clone(), taken.clone());
            part(move || {
                let ino = make(&space);
                taken.lock().unwrap().push(ino);
            })
        });
        together(parts.into());
        let mut used = made.clone();
        used.extend(taken.lock().unwrap().iter());
        assert_complete(&space, used);
    });
}

#[cfg(loom)]
#[test]
fn mutations_are_caught() {
    use daxstore::pmem::mutation::Mutation;
    crate::assert_caught("slots::an_arena_is_scanned_while_a_slot_of_it_is_freed", Mutation::FreeUnknownSlot);
}
