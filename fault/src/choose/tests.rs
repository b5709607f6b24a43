//! Is each reason reached, and by its own condition alone?

use super::*;
use daxstore::Error;
use daxstore::iomap::Cookie;

const SLOT: u64 = CHUNK_BYTES;
/// A chunk of the pool.
const PLACE: PoolOff = PoolOff(7 * CHUNK_BYTES);

/// A store to 2 MiB of data that can be one translation.
fn store() -> Query {
    Query {
        fault: Fault { offset: SLOT + 5 * BLOCK_BYTES + 7, write: true },
        vma: Vma {
            range: FileRange { offset: 0, len: 3 * CHUNK_BYTES },
            address: 64 * CHUNK_BYTES,
            private: false,
            writable: true,
            huge: true,
        },
        size: 2 * CHUNK_BYTES,
        slot: Slot::default(),
        map: SlotMap { page: Page::Mapped, content: Content::Data(Space::One(PLACE)), shared: false },
        media: Media { unit: BLOCK_BYTES, huge: CHUNK_BYTES, bad: Bad::Nothing, chunk: true },
        system: System { huge_zero: true, room: true },
    }
}

/// A load from them.
fn load() -> Query {
    with(store(), |q| q.fault.write = false)
}

/// A store to 2 MiB without space.
fn store_to_hole() -> Query {
    with(store(), |q| (q.map.page, q.map.content) = (Page::Hole, Content::Zeros))
}

/// A load from them.
fn load_of_hole() -> Query {
    with(store_to_hole(), |q| q.fault.write = false)
}

fn with(mut q: Query, change: impl FnOnce(&mut Query)) -> Query {
    change(&mut q);
    q
}

/// On a medium that has 2 MiB only.
fn coarse(q: Query) -> Query {
    with(q, |q| q.media.unit = CHUNK_BYTES)
}

/// What `change` makes of a store, of a load from a hole, and of a store on a medium that has 2 MiB only.
fn all_three(change: impl Fn(&mut Query)) -> [Decision; 3] {
    [store(), load_of_hole(), coarse(store())].map(|q| choose(&with(q, &change)))
}

fn everywhere(why: Reason) -> [Decision; 3] {
    [Decision::Pte(why), Decision::Zero(ZeroSize::Pte(why)), Decision::Sigbus(Cause::NotHuge(why))]
}

#[test]
fn where_nothing_is_in_the_way_it_is_2_mib() {
    assert_eq!(choose(&store()), Decision::Pmd);
    assert_eq!(choose(&load()), Decision::Pmd);
    assert_eq!(choose(&store_to_hole()), Decision::Pmd);
    assert_eq!(choose(&load_of_hole()), Decision::Zero(ZeroSize::Pmd));
    assert_eq!(choose(&coarse(store())), Decision::Pmd);
    assert_eq!(choose(&coarse(load_of_hole())), Decision::Zero(ZeroSize::Pmd));
    let private = with(load(), |q| q.vma.private = true);
    assert_eq!(choose(&private), Decision::Pmd, "a private mapping loads from the file's blocks");
}

#[test]
fn advised() {
    let got = all_three(|q| q.vma.huge = false);
    let [pte, zero, _] = everywhere(Reason::Advised);
    assert_eq!(got, [pte, zero, Decision::Pmd], "advice does not take what is the only translation there is");
    assert_eq!(
        choose(&coarse(with(load_of_hole(), |q| q.vma.huge = false))),
        Decision::Zero(ZeroSize::Pte(Reason::Advised))
    );
}

#[test]
fn no_huge_unit() {
    let got = all_three(|q| q.media.huge = BLOCK_BYTES);
    let [pte, _, sigbus] = everywhere(Reason::NoHugeUnit);
    assert_eq!(got, [pte, Decision::Zero(ZeroSize::Pmd), sigbus], "zeros are not of the medium");
}

#[test]
fn address() {
    assert_eq!(all_three(|q| q.vma.address += BLOCK_BYTES), everywhere(Reason::Address));
    let moved = all_three(|q| {
        (q.vma.range.offset, q.vma.address) = (BLOCK_BYTES, q.vma.address + BLOCK_BYTES);
    });
    assert_eq!(moved[0], Decision::Pmd, "the difference counts, not the address");
}

#[test]
fn private_write() {
    let private = |q: &mut Query| q.vma.private = true;
    assert_eq!(choose(&with(store(), private)), Decision::Pte(Reason::PrivateWrite));
    assert_eq!(choose(&with(store_to_hole(), private)), Decision::Pte(Reason::PrivateWrite));
    assert_eq!(
        choose(&coarse(with(store(), private))),
        Decision::Pte(Reason::PrivateWrite),
        "a copy is not of the medium"
    );
    let full = with(store(), |q| (q.vma.private, q.system.room) = (true, false));
    assert_eq!(choose(&full), Decision::Pte(Reason::PrivateWrite), "a copy splits no mapping");
}

#[test]
fn before_mapping() {
    let page = |q: &mut Query| {
        q.vma.range = FileRange { offset: SLOT + BLOCK_BYTES, len: 2 * CHUNK_BYTES };
        q.vma.address += BLOCK_BYTES;
    };
    assert_eq!(all_three(page), everywhere(Reason::BeforeMapping));
}

#[test]
fn after_mapping() {
    assert_eq!(
        all_three(|q| q.vma.range.len = 2 * CHUNK_BYTES - BLOCK_BYTES),
        everywhere(Reason::AfterMapping)
    );
    assert_eq!(all_three(|q| q.vma.range.len = 2 * CHUNK_BYTES)[0], Decision::Pmd);
}

#[test]
fn after_end() {
    // R37: 2 MiB and one byte, 2 MiB less a page, and nothing.
    let [pte, zero, _] = everywhere(Reason::AfterEnd);
    for size in [SLOT + 5 * BLOCK_BYTES + 1, 2 * CHUNK_BYTES - BLOCK_BYTES] {
        let rounded_up = Decision::Pmd;
        assert_eq!(all_three(|q| q.size = size), [pte, zero, rounded_up], "{size}");
    }
    assert_eq!(all_three(|q| q.size = 2 * CHUNK_BYTES - 1)[0], Decision::Pmd, "the last page may be in part");
    let tail = with(coarse(store_to_hole()), |q| q.size = SLOT + 5 * BLOCK_BYTES + 1);
    assert_eq!(
        choose(&tail),
        Decision::Sigbus(Cause::NotHuge(Reason::AfterEnd)),
        "what is filled lies in the file"
    );
}

#[test]
fn copies() {
    let private = |q: &mut Query| (q.vma.private, q.slot.copies) = (true, true);
    let got = [load(), load_of_hole(), coarse(load())].map(|q| choose(&with(q, private)));
    assert_eq!(got, everywhere(Reason::Copies));
}

#[test]
fn mixed() {
    assert_eq!(all_three(|q| q.map.content = Content::Holes), everywhere(Reason::Mixed));
    let partly = |q: &mut Query| q.map.content = Content::Unwritten(Space::One(PLACE));
    assert_eq!(choose(&with(load(), partly)), Decision::Pte(Reason::Mixed), "a load converts nothing");
    assert_eq!(choose(&with(store(), partly)), Decision::Pmd, "a store does");
}

#[test]
fn shared() {
    let [pte, _, sigbus] = everywhere(Reason::Shared);
    let got = all_three(|q| q.map.shared = true);
    assert_eq!((got[0], got[2]), (pte, sigbus));
    assert_eq!(choose(&with(load(), |q| q.map.shared = true)), pte, "its stores would not be noticed");
    let read_only = with(load(), |q| (q.map.shared, q.vma.writable) = (true, false));
    assert_eq!(choose(&read_only), Decision::Pmd);
    let private = with(load(), |q| (q.map.shared, q.vma.private) = (true, true));
    assert_eq!(choose(&private), Decision::Pmd);
}

#[test]
fn fragmented() {
    let [pte, _, sigbus] = everywhere(Reason::Fragmented);
    for content in [Content::Data(Space::Pieces), Content::Unwritten(Space::Pieces)] {
        let got = [store(), coarse(store())].map(|q| choose(&with(q, |q| q.map.content = content)));
        assert_eq!(got, [pte, sigbus]);
    }
}

#[test]
fn misplaced() {
    let [pte, _, sigbus] = everywhere(Reason::Misplaced);
    let at = Space::One(PLACE.plus(BLOCK_BYTES));
    for content in [Content::Data(at), Content::Unwritten(at)] {
        let got = [store(), coarse(store())].map(|q| choose(&with(q, |q| q.map.content = content)));
        assert_eq!(got, [pte, sigbus]);
    }
}

#[test]
fn bad_medium() {
    let [pte, _, sigbus] = everywhere(Reason::BadMedium);
    let got = all_three(|q| q.media.bad = Bad::Elsewhere);
    assert_eq!(got, [pte, Decision::Zero(ZeroSize::Pmd), sigbus], "zeros are not of the medium");
}

#[test]
fn no_chunk() {
    let [pte, _, sigbus] = everywhere(Reason::NoChunk);
    let denied = [store_to_hole(), coarse(store_to_hole())].map(|q| choose(&q.without_chunk()));
    assert_eq!(denied, [pte, sigbus]);
    assert_eq!(choose(&store().without_chunk()), Decision::Pmd, "data have their chunk");
    let has_one =
        with(store_to_hole(), |q| (q.map.page, q.map.content) = (Page::Unwritten, Content::Preallocated));
    assert_eq!(choose(&has_one.without_chunk()), Decision::Pmd, "preallocated space has its chunk");
    let load = with(has_one, |q| q.fault.write = false);
    assert_eq!(choose(&load), Decision::Zero(ZeroSize::Pmd));
    let whole = FileRange { offset: SLOT, len: CHUNK_BYTES };
    assert_eq!(has_one.populate(Decision::Pmd), Some((whole, Placement::Any)));
    assert_eq!(choose(&load_of_hole().without_chunk()), Decision::Zero(ZeroSize::Pmd));
}

#[test]
fn no_huge_zero() {
    let got = all_three(|q| q.system.huge_zero = false);
    assert_eq!(got, [Decision::Pmd, Decision::Zero(ZeroSize::Pte(Reason::NoHugeZero)), Decision::Pmd]);
}

#[test]
fn no_room() {
    let got = all_three(|q| q.system.room = false);
    assert_eq!(got, [Decision::Retry, Decision::Zero(ZeroSize::Pte(Reason::NoRoom)), Decision::Retry]);
    let small = with(store(), |q| (q.system.room, q.vma.huge) = (false, false));
    assert_eq!(choose(&small), Decision::Retry);
}

#[test]
fn beyond_the_end_is_sigbus() {
    for size in [0, 1, SLOT, SLOT + 5 * BLOCK_BYTES] {
        assert_eq!(all_three(|q| q.size = size)[..2], [Decision::Sigbus(Cause::Beyond); 2], "{size}");
    }
    assert_eq!(choose(&coarse(with(store(), |q| q.size = SLOT))), Decision::Sigbus(Cause::Beyond));
    assert_eq!(choose(&coarse(with(store(), |q| q.size = SLOT + 1))), Decision::Pmd);
    let stale = with(store(), |q| (q.size, q.slot.page) = (0, Held::Block));
    assert_eq!(choose(&stale), Decision::Sigbus(Cause::Beyond), "whatever is there is to go");
}

#[test]
fn a_bad_page_is_sigbus() {
    let bad = |q: &mut Query| q.media.bad = Bad::Here;
    let sigbus = Decision::Sigbus(Cause::BadMedium);
    for q in [store(), load(), coarse(store()), with(store(), |q| q.vma.private = true)] {
        assert_eq!(choose(&with(q, bad)), sigbus);
    }
    assert_eq!(
        choose(&with(load_of_hole(), bad)),
        Decision::Zero(ZeroSize::Pmd),
        "zeros are not of the medium"
    );
}

#[test]
fn what_is_settled_is_tried_again() {
    let held = |q: Query, page| choose(&with(q, |q| q.slot.page = page));
    for (page, load_again, store_again) in [
        (Held::Nothing, false, false),
        (Held::Zeros, true, false),
        (Held::BlockToRead, true, false),
        (Held::Block, true, true),
        (Held::Copy, true, true),
        (Held::Sigbus, false, false),
    ] {
        assert_eq!(held(load(), page) == Decision::Retry, load_again, "load, {page:?}");
        assert_eq!(held(store(), page) == Decision::Retry, store_again, "store, {page:?}");
    }
}

#[test]
fn only_a_store_to_a_shared_mapping_asks_for_space() {
    let whole = FileRange { offset: SLOT, len: CHUNK_BYTES };
    let page = FileRange { offset: SLOT + 5 * BLOCK_BYTES, len: BLOCK_BYTES };
    let asked = |q: Query| q.populate(choose(&q));
    assert_eq!(asked(store_to_hole()), Some((whole, Placement::Whole)));
    assert_eq!(asked(store_to_hole().without_chunk()), Some((page, Placement::Any)));
    let in_place = with(store(), |q| q.map.content = Content::Unwritten(Space::One(PLACE)));
    assert_eq!(asked(in_place), Some((whole, Placement::Any)));
    let unwritten = with(in_place, |q| (q.vma.huge, q.map.page) = (false, Page::Unwritten));
    assert_eq!(asked(unwritten), Some((page, Placement::Any)));
    assert_eq!(asked(with(in_place, |q| q.vma.huge = false)), None, "the page has data");
    assert_eq!(asked(with(store_to_hole(), |q| q.vma.private = true)), None);
    assert_eq!(asked(with(store_to_hole(), |q| q.system.room = false)), None);
    for q in [store(), load(), load_of_hole()] {
        assert_eq!(asked(q), None);
    }
    let whatever = [Decision::Pmd, Decision::Pte(Reason::Mixed)];
    assert_eq!(whatever.map(|decision| load_of_hole().populate(decision)), [None; 2], "R34");
}

#[test]
fn names_and_texts_are_there_once() {
    for of in [Reason::name, Reason::text] {
        let mut all = Reason::ALL.map(of);
        all.sort_unstable();
        assert!(all.windows(2).all(|pair| pair[0] != pair[1]) && !all[0].is_empty(), "{all:?}");
    }
    assert!(Reason::ALL.iter().enumerate().all(|(i, why)| *why as usize == i), "they are counted by index");
    let why = Error::NotHuge { offset: SLOT, why: Reason::Misplaced.text() }.to_string();
    assert!(
        why.ends_with("can not be one translation: the pages do not begin at 2 MiB of the pool"),
        "{why}"
    );
}

/// A file of runs: pages, state.
fn survey(page: u64, runs: &[(u64, State)]) -> (SlotMap, usize) {
    let mut calls = 0;
    let slot = FileRange { offset: SLOT, len: CHUNK_BYTES };
    let map = SlotMap::survey(SLOT + page * BLOCK_BYTES, slot, |offset, within| {
        calls += 1;
        assert_eq!(within, slot);
        let mut start = SLOT;
        for (pages, state) in runs {
            let range = FileRange { offset: start, len: pages * BLOCK_BYTES };
            if (range.offset..range.end()).contains(&offset) {
                return Ok((Iomap { range, state: *state, shared: false, cookie: Cookie(0) }, false));
            }
            start = range.end();
        }
        Err(Error::InvalidArgument("beyond the runs"))
    });
    (map.unwrap(), calls)
}

#[test]
fn a_slot_of_one_run_is_one_call() {
    let (map, calls) = survey(511, &[(512, State::Mapped(PLACE))]);
    let expected = SlotMap { page: Page::Mapped, content: Content::Data(Space::One(PLACE)), shared: false };
    assert_eq!((map, calls), (expected, 1));
}

#[test]
fn states_of_one_chunk_are_one_piece() {
    let at = |page: u64| PLACE.plus(page * BLOCK_BYTES);
    let runs = [(10, State::Unwritten(at(0))), (1, State::Mapped(at(10))), (501, State::Unwritten(at(11)))];
    let (map, calls) = survey(10, &runs);
    assert_eq!((map.page, map.content, calls), (Page::Mapped, Content::Unwritten(Space::One(PLACE)), 3));
    let (map, _) = survey(11, &[runs[0], (1, State::Mapped(at(11))), runs[2]]);
    assert_eq!(map.content, Content::Unwritten(Space::Pieces));
    let (map, _) = survey(0, &[(512, State::Mapped(PoolOff(BLOCK_BYTES)))]);
    assert_eq!(map.content, Content::Data(Space::One(PoolOff(BLOCK_BYTES))));
}

#[test]
fn space_that_is_promised_is_a_hole() {
    let (map, _) = survey(511, &[(500, State::Mapped(PLACE)), (12, State::Reserved)]);
    assert_eq!((map.page, map.content), (Page::Hole, Content::Holes));
}

#[test]
fn a_place_too_low_for_its_slot_is_another_piece() {
    let runs = [(200, State::Mapped(PLACE)), (312, State::Mapped(PoolOff(3 * BLOCK_BYTES)))];
    for page in [0, 300] {
        assert_eq!(survey(page, &runs).0.content, Content::Data(Space::Pieces));
    }
}

#[test]
fn preallocated_space_is_told_from_other_zeros() {
    let content = |runs: &[(u64, State)]| survey(0, runs).0.content;
    assert_eq!(content(&[(512, State::Unwritten(PLACE))]), Content::Preallocated);
    assert_eq!(content(&[(512, State::Unwritten(PLACE.plus(BLOCK_BYTES)))]), Content::Zeros);
    assert_eq!(content(&[(500, State::Unwritten(PLACE)), (12, State::Hole)]), Content::Zeros);
    assert_eq!(content(&[(500, State::Unwritten(PLACE)), (12, State::Unwritten(PLACE))]), Content::Zeros);
}

#[test]
fn a_slot_in_pieces_is_not_looked_at_to_its_end() {
    let runs: Vec<_> = (0..512).map(|i| (1, State::Mapped(PoolOff((1000 - i) * BLOCK_BYTES)))).collect();
    let (map, calls) = survey(200, &runs);
    assert_eq!((map.content, calls), (Content::Data(Space::Pieces), 2));
    let (map, calls) = survey(200, &[(200, State::Hole), (312, State::Mapped(PLACE))]);
    assert_eq!((map.page, map.content, calls), (Page::Mapped, Content::Holes, 2));
    let (map, calls) =
        survey(0, &[(200, State::Hole), (100, State::Unwritten(PLACE)), (212, State::Reserved)]);
    assert_eq!((map.page, map.content, calls), (Page::Hole, Content::Zeros, 3));
}

#[test]
fn an_error_of_the_file_is_handed_on() {
    let slot = FileRange { offset: SLOT, len: CHUNK_BYTES };
    let got = SlotMap::survey(SLOT, slot, |_, _| Err(Error::InvalidArgument("damage")));
    assert!(matches!(got, Err(Error::InvalidArgument("damage"))));
}
