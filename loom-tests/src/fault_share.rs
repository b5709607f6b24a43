//! Model 18: stores through mappings against the file's blocks being shared, and against each other.
//!
//! The toy file fails when anything is stored to a page that another file has too, and the toy table when a page is
//! translated that was taken away. Mutation: `StoreShared`.

use crate::fault_turns::map;
use crate::{explore, part, together};
use daxstore_fault::Mode;
use daxstore_fault::toy::{SLOT, ToyFile};
use std::sync::Arc;

/// A file of a slot with one page of data, in a pool with room.
fn file() -> Arc<ToyFile> {
    let file = ToyFile::new(1, 2);
    file.place(3, SLOT + 9, 5);
    file
}

/// A reflink against a store: what is stored is the file's, and never the copy's once there is one.
#[test]
fn a_store_against_a_reflink() {
    explore("fault: store against reflink", || {
        let file = file();
        let view = map(&file, Mode::Userfault);
        let (storer, sharer) = (view.clone(), file.clone());
        together(vec![
            part(move || {
                assert_eq!(storer.store(3, 6), Ok(()));
                assert_eq!(storer.store(3, 7), Ok(()));
            }),
            part(move || sharer.share(3..4).expect("nothing in the way")),
        ]);
        assert_eq!((view.load(3), file.read_page(3)), (Ok(7), 7));
    });
}

/// Two views of a shared page: a store through one is seen through the other.
#[test]
fn a_store_to_a_shared_page_is_seen_everywhere() {
    explore("fault: store to a shared page", || {
        let file = file();
        file.share(3..4).expect("nothing in the way");
        let (one, other) = (map(&file, Mode::Userfault), map(&file, Mode::Signal));
        assert_eq!((one.load(3), other.load(3)), (Ok(5), Ok(5)));
        let (storer, loader) = (one.clone(), other.clone());
        together(vec![
            part(move || assert_eq!(storer.store(3, 6), Ok(()))),
            part(move || assert!(matches!(loader.load(3), Ok(5 | 6)))),
        ]);
        assert_eq!((one.load(3), other.load(3), file.read_page(3)), (Ok(6), Ok(6), 6));
    });
}

/// A write to a shared page, whose source may be a mapping of it, against a store.
#[test]
fn a_store_against_a_write_to_a_shared_page() {
    explore("fault: store against a write to a shared page", || {
        let file = file();
        file.share(3..4).expect("nothing in the way");
        let view = map(&file, Mode::Userfault);
        let (storer, loader, writer) = (view.clone(), view.clone(), file.clone());
        together(vec![
            part(move || assert_eq!(storer.store(3, 6), Ok(()))),
            part(move || {
                let copied = || loader.load(3).map_or(0, |value| value + 10);
                writer.write_with(3, copied).expect("space");
            }),
        ]);
        let found = file.read_page(3);
        assert!([6, 15, 16].contains(&found), "{found}");
        assert_eq!(view.load(3), Ok(found));
    });
}

#[cfg(loom)]
#[test]
fn mutations_are_caught() {
    use daxstore_fault::mutation::Mutation;
    crate::assert_caught("fault_share::a_store_against_a_reflink", Mutation::StoreShared);
    crate::assert_caught("fault_share::a_store_to_a_shared_page_is_seen_everywhere", Mutation::StoreShared);
}
