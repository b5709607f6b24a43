//! Model 13: stores through a mapping, and what makes them durable.
//!
//! The toy file knows what a crash would leave of each page. Mutations: `RecordLate`, `ClearFirst`, `FlushFirst`,
//! `ForgetDirty`.

use crate::fault_turns::map;
use crate::{explore, part, together};
use daxstore::iomap::FileRange;
use daxstore_fault::Mode;
use daxstore_fault::toy::{PAGE, SLOT, ToyFile, ToyView};
use std::sync::Arc;

const ALL: FileRange = FileRange { offset: 0, len: SLOT * PAGE };

/// A file with one page, and a view of it.
fn one_page() -> (Arc<ToyFile>, ToyView) {
    let file = ToyFile::new(1, 1);
    file.place(0, 0, 0);
    let view = map(&file, Mode::Userfault);
    (file, view)
}

fn sync(view: &ToyView) {
    view.view.sync(ALL).expect("a flush");
}

/// R7: what is stored while somebody else's sync is under way is made durable by the storer's own.
#[test]
fn a_store_against_a_sync() {
    explore("fault: store against sync", || {
        let (file, view) = one_page();
        assert_eq!(view.store(0, 1), Ok(()));
        let (syncer, storer) = (view.clone(), view);
        together(vec![
            part(move || sync(&syncer)),
            part(move || {
                assert_eq!(storer.store(0, 2), Ok(()));
                sync(&storer);
                assert_eq!(file.durable(0), 2, "stored before the sync");
            }),
        ]);
    });
}

/// R8: neither of two syncs returns before what was stored before both is durable.
#[test]
fn a_sync_against_a_sync() {
    explore("fault: sync against sync", || {
        let (file, view) = one_page();
        assert_eq!(view.store(0, 1), Ok(()));
        let syncer = |file: Arc<ToyFile>, view: ToyView| {
            part(move || {
                sync(&view);
                assert_eq!(file.durable(0), 1, "stored before either");
            })
        };
        together(vec![syncer(file.clone(), view.clone()), syncer(file, view)]);
    });
}

/// R36: a store through what another thread's load installed, and the sync after it.
#[test]
fn a_sync_against_an_installation() {
    explore("fault: sync against installation", || {
        let (file, view) = one_page();
        let (loader, storer) = (view.clone(), view);
        together(vec![
            part(move || assert!(matches!(loader.load(0), Ok(0 | 1)))),
            part(move || {
                assert_eq!(storer.store(0, 1), Ok(()));
                sync(&storer);
                assert_eq!(file.durable(0), 1, "stored before the sync");
            }),
        ]);
    });
}

/// R9: what an eviction takes away is still to be flushed.
#[test]
fn an_eviction_against_a_sync() {
    explore("fault: eviction against sync", || {
        let (file, view) = one_page();
        assert_eq!(view.store(0, 1), Ok(()));
        let (evictor, syncer) = (view.clone(), view);
        together(vec![
            part(move || evictor.view.evict(ALL).expect("a fault handler")),
            part(move || {
                sync(&syncer);
                assert_eq!(file.durable(0), 1, "stored before the sync");
            }),
        ]);
    });
}

#[cfg(loom)]
#[test]
fn mutations_are_caught() {
    use crate::assert_caught;
    use daxstore_fault::mutation::Mutation;
    assert_caught("fault_sync::a_store_against_a_sync", Mutation::FlushFirst);
    assert_caught("fault_sync::a_sync_against_a_sync", Mutation::ClearFirst);
    assert_caught("fault_sync::a_sync_against_an_installation", Mutation::RecordLate);
    assert_caught("fault_sync::an_eviction_against_a_sync", Mutation::ForgetDirty);
}
