//! Model 9: arenas are given back to files only while no change is under way (J7).
//!
//! Mutation: `NoGate`.

use crate::{Pool, assert_settled, explore, part, together};
use daxstore::Store;

#[test]
fn a_file_is_made_while_arenas_are_reclaimed() {
    let pool = Pool::store(2, |store: &Store| {
        // Two arenas: with the root and the intents, the first one is full; the second one is empty again.
        (0..20).for_each(|i| store.write(format!("/{i}"), b"").unwrap());
        (14..20).for_each(|i| store.remove_file(format!("/{i}")).unwrap());
    });
    explore("reclaim: create", move || {
        let (sim, store) = pool.open();
        let (maker, reclaimer) = (store.clone(), store.clone());
        together(vec![
            part(move || drop(maker.create("/new").unwrap())),
            part(move || _ = reclaimer.reclaim().unwrap()),
        ]);
        // The new inode lies in an arena: `check` looks for it there.
        assert!(store.check().unwrap().faults.is_empty(), "no fault");
        let names: Vec<_> = (0..14).map(|i| format!("/{i}")).chain(["/new".to_owned()]).collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        assert_settled(&sim, store, &names, 1);
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
