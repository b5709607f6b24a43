//! Model 9: arenas are given back to files only while no change is under way (J7).
//!
//! Mutation: `NoGate`.

use crate::{Pool, assert_settled, explore, part, together};
use daxstore::Store;

#[test]
fn a_file_is_made_while_arenas_are_reclaimed() {
    let pool = Pool::store(2, |store: &Store| {
        // Two arenas; the second one is empty again.
        (0..20).for_each(|i| store.write(format!("/{i}"), b"").unwrap());
        (0..20).for_each(|i| store.remove_file(format!("/{i}")).unwrap());
    });
    explore("reclaim: create", move || {
        let (sim, store) = pool.open();
        store.write("/first", b"1").unwrap();
        let (maker, reclaimer) = (store.clone(), store.clone());
        together(vec![
            part(move || maker.write("/second", b"2").unwrap()),
            part(move || _ = reclaimer.reclaim().unwrap()),
        ]);
        assert_eq!(store.read("/second").unwrap(), b"2");
        assert_settled(&sim, store, &["/first", "/second"], 1);
    });
}

#[test]
fn two_reclaim_at_once() {
    let pool = Pool::store(2, |store: &Store| {
        (0..20).for_each(|i| store.write(format!("/{i}"), b"").unwrap());
        (0..20).for_each(|i| store.remove_file(format!("/{i}")).unwrap());
    });
    explore("reclaim: twice", move || {
        let (sim, store) = pool.open();
        let (one, two) = (store.clone(), store.clone());
        together(vec![part(move || _ = one.reclaim().unwrap()), part(move || _ = two.reclaim().unwrap())]);
        assert_eq!(store.reclaim().unwrap(), 0, "everything was given back");
        assert_settled(&sim, store, &[], 1);
    });
}

#[cfg(loom)]
#[test]
fn mutations_are_caught() {
    use daxstore::pmem::mutation::Mutation;
    crate::assert_caught("reclaim::a_file_is_made_while_arenas_are_reclaimed", Mutation::NoGate);
}
