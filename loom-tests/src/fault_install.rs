//! Model 12: what faults install: fault against fault, in one view and in several.
//!
//! The toy table fails when zeros are installed over data, when a block is installed that the file does not have there,
//! and when the file is given blocks by two at once. Mutations: `TurnOfPage`, `KeepZeros`, `MapBeyondTurn`.

use crate::fault_turns::{map, repeat};
use crate::{Event, explore, part, together};
use daxstore_fault::Mode;
use daxstore_fault::toy::{SLOT, ToyFile};
use std::sync::Arc;

/// A file of two slots in a pool without a whole chunk: stores get pages.
fn without_chunks() -> Arc<ToyFile> {
    let file = ToyFile::new(2, 1);
    file.place(SLOT, 9, 1);
    file
}

/// R5: a load that gets zeros of 2 MiB, and a store that gets 4 KiB, in one slot.
#[test]
fn two_mib_against_four_kib() {
    explore("fault: PMD against PTE", || {
        let view = map(&without_chunks(), Mode::Userfault);
        let (loader, storer) = (view.clone(), view.clone());
        together(vec![
            part(move || assert_eq!(loader.load(3), Ok(0))),
            part(move || assert_eq!(storer.store(5, 8), Ok(()))),
        ]);
        assert_eq!((view.load(3), view.load(5)), (Ok(0), Ok(8)));
    });
}

/// R2: two stores that find one hole: neither is lost, in whatever view.
#[test]
fn two_stores_into_one_hole() {
    explore("fault: stores into one hole", || {
        let file = ToyFile::new(1, 1);
        let (one, other) = (map(&file, Mode::Userfault), map(&file, Mode::Signal));
        let (a, b) = (one.clone(), other.clone());
        together(vec![
            part(move || assert_eq!(a.store(0, 1), Ok(()))),
            part(move || assert_eq!(b.store(1, 2), Ok(()))),
        ]);
        for view in [one, other] {
            assert_eq!((view.load(0), view.load(1)), (Ok(1), Ok(2)));
        }
    });
}

/// R4: the zeros of another view are gone when a store has succeeded.
#[test]
fn zeros_against_a_store() {
    explore("fault: zeros against a store", || {
        let file = without_chunks();
        let (one, other) = (map(&file, Mode::Userfault), map(&file, Mode::Userfault));
        assert_eq!(other.load(0), Ok(0));
        let stored = Arc::new(Event::default());
        let told = stored.clone();
        let (a, b) = (one, other);
        together(vec![
            part(move || {
                assert_eq!(a.store(0, 7), Ok(()));
                stored.set();
            }),
            part(move || {
                let early = b.load(1);
                assert!(early == Ok(0), "{early:?}");
                told.wait();
                assert_eq!(b.load(0), Ok(7), "what was stored is seen everywhere");
            }),
        ]);
    });
}

/// The extent around a fault is somebody else's to free.
#[test]
fn an_extent_against_a_punch_of_its_end() {
    explore("fault: extent against punch", || {
        let file = ToyFile::new(2, 2);
        [0, SLOT - 1, SLOT].into_iter().for_each(|page| file.place(page, page, page + 1));
        let view = map(&file, Mode::Userfault);
        let (loader, puncher) = (view.clone(), file);
        together(vec![
            repeat(move || assert_eq!(loader.load(SLOT - 1), Ok(SLOT))),
            repeat(move || puncher.punch(SLOT..SLOT + 1).expect("nothing in the way")),
        ]);
        assert_eq!((view.load(0), view.load(SLOT)), (Ok(1), Ok(0)));
    });
}

#[cfg(loom)]
#[test]
fn mutations_are_caught() {
    use crate::assert_caught;
    use daxstore_fault::mutation::Mutation;
    assert_caught("fault_install::two_mib_against_four_kib", Mutation::TurnOfPage);
    assert_caught("fault_install::zeros_against_a_store", Mutation::KeepZeros);
    assert_caught("fault_install::an_extent_against_a_punch_of_its_end", Mutation::MapBeyondTurn);
}
