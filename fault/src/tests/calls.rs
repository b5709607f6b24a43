//! Do the calls do what they say: sync, evict, pin, leave?

use super::{PRIVATE, SHARED, budget, map, map_in};
use crate::table::Mode;
use crate::toy::{PAGE, SLOT, ToyFile, ToyView};
use crate::{Count, FileSpace, What};
use daxstore::iomap::FileRange;

fn pages(from: u64, len: u64) -> FileRange {
    FileRange { offset: from * PAGE, len: len * PAGE }
}

fn data(slots: u64) -> std::sync::Arc<ToyFile> {
    let file = ToyFile::new(slots, slots + 2);
    (0..slots * SLOT).for_each(|page| file.place(page, page, page));
    file
}

#[test]
fn a_sync_makes_stores_durable_and_what_was_clean_is_not_flushed_again() {
    let file = data(40);
    let all = pages(0, 40 * SLOT);
    let view = map(&file, SHARED);
    view.store(3, 100).unwrap();
    view.store(39 * SLOT, 101).unwrap();
    assert_eq!(file.durable(3), 3);
    assert_eq!(view.view.sync(all).unwrap(), 40 * SLOT * PAGE, "what could be stored to counts");
    assert_eq!((file.durable(3), file.durable(39 * SLOT)), (100, 101));
    assert_eq!(view.view.sync(all).unwrap(), 0);
    view.store(5, 102).unwrap();
    assert_eq!(view.view.sync(all).unwrap(), SLOT * PAGE, "little is mapped after a sync");
    assert_eq!(file.durable(5), 102);
}

#[test]
fn a_sequence_of_stores_after_a_sync_maps_more_and_more() {
    let file = data(16);
    let view = map(&file, SHARED);
    view.view.sync(pages(0, 16 * SLOT)).unwrap();
    let before = view.view.stats();
    (0..16 * SLOT).step_by(64).for_each(|page| view.store(page, 1).unwrap());
    let faults = view.view.stats().since(&before).get(Count::Stores);
    assert!(faults <= 5, "1, 2, 4, 8 slots: {faults} faults");
    view.view.evict(pages(0, 16 * SLOT)).unwrap();
    view.store(7 * SLOT, 1).unwrap();
    view.store(3 * SLOT, 1).unwrap();
    assert_eq!(view.view.resolved(pages(0, 16 * SLOT)).len(), 2);
}

#[test]
fn a_sync_of_a_part_leaves_the_rest() {
    let file = data(4);
    let view = map(&file, SHARED);
    view.store(1, 100).unwrap();
    view.store(3 * SLOT, 101).unwrap();
    assert_eq!(view.view.sync(pages(0, 1)).unwrap(), PAGE);
    assert_eq!((file.durable(1), file.durable(3 * SLOT)), (1, 3 * SLOT), "one page was asked for");
    assert_eq!(view.view.sync(pages(0, 2)).unwrap(), PAGE, "what of it is still mapped");
    assert_eq!(file.durable(1), 100);
}

#[test]
fn what_an_invalidation_took_away_is_flushed_by_the_next_sync() {
    let file = data(1);
    let (view, other) = (map(&file, SHARED), map(&file, SHARED));
    view.store(3, 100).unwrap();
    view.view.evict(pages(0, SLOT)).unwrap();
    assert_eq!(file.durable(3), 3);
    other.view.sync(pages(500, 1)).unwrap();
    assert_eq!(file.durable(3), 100, "whatever range it has");
    view.store(4, 101).unwrap();
    view.leave().unwrap();
    assert_eq!(file.durable(4), 4);
    other.leave().unwrap();
    assert_eq!(file.durable(4), 101, "the last one to leave flushes");
}

#[test]
fn a_medium_of_pages_keeps_its_translations_at_a_sync() {
    let file = ToyFile::with(2, 3, true, PAGE);
    (0..2 * SLOT).for_each(|page| file.place(page, page, page));
    let view = map(&file, SHARED);
    view.store(3, 100).unwrap();
    let faults = view.view.stats().get(Count::Stores);
    assert_eq!(view.view.sync(pages(0, SLOT)).unwrap(), SLOT * PAGE);
    assert_eq!(file.durable(3), 100);
    view.store(3, 101).unwrap();
    assert_eq!(view.view.stats().get(Count::Stores), faults, "nothing was taken away");
    view.view.sync(pages(0, SLOT)).unwrap();
    assert_eq!(file.durable(3), 101);
}

#[test]
fn without_faults_a_sync_flushes_what_is_mapped() {
    let file = data(1);
    let view = map_in(&file, SHARED, Mode::Eager);
    view.store(3, 100).unwrap();
    view.view.sync(pages(0, SLOT)).unwrap();
    assert_eq!(file.durable(3), 100);
    view.store(3, 101).unwrap();
    view.view.sync(pages(0, SLOT)).unwrap();
    assert_eq!(file.durable(3), 101);
    assert!(view.view.evict(pages(0, 1)).is_err());
}

#[test]
fn private_copies_survive_an_eviction_and_need_no_flush() {
    let file = data(1);
    let view = map(&file, PRIVATE);
    view.store(3, 100).unwrap();
    view.view.evict(pages(0, SLOT)).unwrap();
    assert_eq!((view.load(3), view.view.sync(pages(0, SLOT)).unwrap(), file.read_page(3)), (Ok(100), 0, 3));
}

#[test]
fn pinned_blocks_are_not_given_to_anybody_else() {
    let file = ToyFile::new(2, 2);
    let view = map(&file, SHARED);
    let pin = view.view.pin(pages(0, 2)).unwrap();
    let pinned: Vec<_> = pin.runs().to_vec();
    assert_eq!(pinned.iter().map(|(_, len)| len).sum::<u64>(), 2 * PAGE, "holes were given blocks");
    file.punch(0..SLOT).unwrap();
    (0..2 * SLOT - 2).for_each(|page| file.write(page, 1).unwrap());
    assert!(file.write(2 * SLOT - 1, 1).is_err(), "the rest is pinned");
    drop(pin);
    file.write(2 * SLOT - 1, 1).unwrap();
}

#[test]
fn prefault_installs_what_a_touch_would() {
    let file = ToyFile::new(3, 4);
    file.place(SLOT, 0, 5);
    let view = map(&file, SHARED);
    view.view.prefault(pages(0, 3 * SLOT), false).unwrap();
    let before = view.view.stats().get(Count::Loads);
    (0..3 * SLOT).for_each(|page| assert_eq!(view.load(page), Ok(if page == SLOT { 5 } else { 0 })));
    assert_eq!(view.view.stats().get(Count::Loads), before);
    assert_eq!(file.used(), 1);
    view.view.prefault(pages(0, SLOT), true).unwrap();
    assert_eq!(file.used() as u64, SLOT + 1);
    (0..SLOT).for_each(|page| view.store(page, 1).unwrap());
    assert_eq!(view.view.stats().get(Count::Stores), 0);
}

#[test]
fn the_last_view_lets_the_file_go() {
    let file = data(1);
    let first = FileSpace::of(file.clone()).unwrap();
    let space = first.space().clone();
    let view = map(&file, SHARED);
    assert!(std::sync::Arc::ptr_eq(view.view.space(), &space), "one space a file");
    view.leave().unwrap();
    drop((view, first));
    let again = ToyView::map(&file, 0..SLOT, Mode::Userfault, SHARED, &budget()).unwrap();
    assert!(!std::sync::Arc::ptr_eq(again.view.space(), &space), "a new one");
    assert!(matches!(again.view.resolved(pages(0, SLOT)).as_slice(), []));
    again.load(0).unwrap();
    assert!(matches!(again.view.resolved(pages(0, 1))[0].what, What::Block(_)));
}
