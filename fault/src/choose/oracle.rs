//! Does [`choose`] say what the rules say, page by page?
//!
//! A world is 512 pages with their properties. [`rule`] goes through them one at a time, and knows neither runs nor the
//! order of tests in `choose`; [`installed`] carries a decision out, and looks at each page through the translation.

use super::*;
use daxstore::iomap::Cookie;
use proptest::prelude::*;
use std::collections::BTreeSet;

const PAGES: u64 = CHUNK_BYTES / BLOCK_BYTES;
/// Where the pool's free chunk is.
const FREE: u64 = 99 * CHUNK_BYTES;

/// A page of the file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Content4K {
    /// Byte of the pool where it is, if it has space.
    at: Option<u64>,
    data: bool,
    shared: bool,
    bad: bool,
}

#[derive(Clone, Debug)]
struct World {
    pages: Vec<Content4K>,
    q: Query,
}

impl World {
    fn slot(&self) -> u64 {
        self.q.fault.offset / CHUNK_BYTES * CHUNK_BYTES
    }

    fn touched(&self) -> usize {
        usize::try_from(self.q.fault.offset % CHUNK_BYTES / BLOCK_BYTES).unwrap()
    }

    /// The first byte in the file of each page of the slot, with the page.
    fn each(&self) -> impl Iterator<Item = (u64, &Content4K)> {
        (0..).map(|i| self.slot() + i * BLOCK_BYTES).zip(&self.pages)
    }

    /// Whether the translation that would hold `offset` has nothing of the file.
    fn ends_before(&self, offset: u64) -> bool {
        offset / self.q.media.unit * self.q.media.unit >= self.q.size
    }

    fn is_mapped(&self, offset: u64) -> bool {
        offset >= self.q.vma.range.offset && offset < self.q.vma.range.offset + self.q.vma.range.len
    }

    /// The pages that a survey may look at.
    fn seen(&self) -> impl Iterator<Item = (u64, &Content4K)> {
        self.each().filter(|(offset, _)| self.is_mapped(*offset) && !self.ends_before(*offset))
    }

    /// The run at `offset`, page by page.
    fn run_at(&self, offset: u64, within: FileRange) -> Iomap {
        let index = |offset: u64| usize::try_from((offset - self.slot()) / BLOCK_BYTES).unwrap();
        let joins = |a: Content4K, b: Content4K| {
            let follows = a.at.map(|at| at + BLOCK_BYTES) == b.at;
            a.data == b.data && a.shared == b.shared && follows && a.at.is_some() == b.at.is_some()
        };
        let (mut first, mut end) =
            (offset / BLOCK_BYTES * BLOCK_BYTES, offset / BLOCK_BYTES * BLOCK_BYTES + BLOCK_BYTES);
        while first > within.offset && joins(self.pages[index(first) - 1], self.pages[index(first)]) {
            first -= BLOCK_BYTES;
        }
        while end < within.end() && joins(self.pages[index(end) - 1], self.pages[index(end)]) {
            end += BLOCK_BYTES;
        }
        let page = self.pages[index(first)];
        let state = match page.at.map(PoolOff) {
            None => State::Hole,
            Some(at) if page.data => State::Mapped(at),
            Some(at) => State::Unwritten(at),
        };
        Iomap {
            range: FileRange { offset: first, len: end - first },
            state,
            shared: page.shared,
            cookie: Cookie(0),
        }
    }

    /// The run at `offset`, and whether there is a hole beside it.
    fn look_at(&self, offset: u64, within: FileRange) -> (Iomap, bool) {
        let run = self.run_at(offset, within);
        let beside = [run.range.offset.wrapping_sub(BLOCK_BYTES), run.range.end()];
        let inside = beside.into_iter().filter(|at| (within.offset..within.end()).contains(at));
        let is_hole = |at| self.run_at(at, within).state == State::Hole;
        (run, run.state != State::Hole && inside.into_iter().any(is_hole))
    }

    /// The world with what a survey finds in its question.
    fn surveyed(mut self) -> Self {
        let seen: Vec<_> = self.seen().map(|(offset, _)| offset).collect();
        let first = seen.first().copied().unwrap_or(0);
        let within = FileRange { offset: first, len: seen.len() as u64 * BLOCK_BYTES };
        if within.offset <= self.q.fault.offset && self.q.fault.offset < within.end() {
            let map = SlotMap::survey(self.q.fault.offset, within, |offset, within| {
                Ok(self.look_at(offset, within))
            });
            self.q.map = map.unwrap();
        }
        let touched = self.pages[self.touched()];
        let somewhere = self.seen().any(|(_, page)| page.bad && page.data);
        self.q.media.bad = match somewhere {
            _ if touched.bad && touched.data => Bad::Here,
            true => Bad::Elsewhere,
            false => Bad::Nothing,
        };
        self
    }

    /// What a populate of `range` makes of the world.
    fn populated(mut self, range: FileRange, placement: Placement) -> Self {
        let slot = self.slot();
        for (i, page) in (0..).zip(&mut self.pages) {
            let offset = slot + i * BLOCK_BYTES;
            if page.data || offset < range.offset || offset >= range.end() {
                continue;
            }
            let given = match placement {
                Placement::Whole => FREE + i * BLOCK_BYTES,
                // Single blocks are wherever there are some.
                Placement::Any => page.at.unwrap_or(FREE + (PAGES - i) * 3 * BLOCK_BYTES),
            };
            *page = Content4K { at: Some(given), data: true, shared: false, bad: false };
        }
        self
    }
}

/// Every reason against 2 MiB of zeros that some page gives.
fn against_zeros(world: &World) -> BTreeSet<Reason> {
    let q = &world.q;
    let mut all = against_slot(world);
    for (holds, why) in [
        (!q.vma.huge, Reason::Advised),
        (!q.system.huge_zero, Reason::NoHugeZero),
        (!q.system.room, Reason::NoRoom),
    ] {
        all.extend(holds.then_some(why));
    }
    all.extend(world.seen().any(|(_, page)| page.data).then_some(Reason::Mixed));
    all
}

/// Every reason that some page gives against covering the slot, with whatever.
fn against_slot(world: &World) -> BTreeSet<Reason> {
    let (q, mut all) = (&world.q, BTreeSet::new());
    for (offset, _) in world.each() {
        let address = q.vma.address.wrapping_add(offset.wrapping_sub(q.vma.range.offset));
        if address % CHUNK_BYTES != offset % CHUNK_BYTES {
            all.insert(Reason::Address);
        }
        if !world.is_mapped(offset) {
            let before = offset < q.vma.range.offset;
            all.insert(if before { Reason::BeforeMapping } else { Reason::AfterMapping });
        }
        if world.ends_before(offset) {
            all.insert(Reason::AfterEnd);
        }
        if q.slot.copies {
            all.insert(Reason::Copies);
        }
    }
    all
}

/// Every reason against 2 MiB of the pool that some page, or two together, give.
fn against_block(world: &World) -> BTreeSet<Reason> {
    let (q, mut all) = (&world.q, against_slot(world));
    if q.media.unit != CHUNK_BYTES && !q.vma.huge {
        all.insert(Reason::Advised);
    }
    if q.media.huge != CHUNK_BYTES {
        all.insert(Reason::NoHugeUnit);
    }
    if q.vma.private && q.fault.write {
        all.insert(Reason::PrivateWrite);
    }
    let (has_data, has_hole) =
        (world.seen().any(|(_, page)| page.data), world.seen().any(|(_, page)| page.at.is_none()));
    // What is to be filled lies within the file, in whole blocks.
    let fills = q.fault.write && world.seen().any(|(_, page)| !page.data) && !(has_data && has_hole);
    if fills && world.each().any(|(offset, _)| offset >= q.size) {
        all.insert(Reason::AfterEnd);
    }
    if !has_data {
        let chunk = world.pages[0].at.filter(|at| at % CHUNK_BYTES == 0);
        let has_one = chunk.is_some_and(|chunk| {
            world.pages.iter().zip(0..).all(|(page, i)| page.at == Some(chunk + i * BLOCK_BYTES))
        });
        all.extend((!q.media.chunk && !has_one).then_some(Reason::NoChunk));
        return all;
    }
    let mut before: Option<(u64, u64)> = None;
    for (offset, page) in world.seen() {
        let converted = q.fault.write && page.at.is_some();
        if !page.data && !converted {
            all.insert(Reason::Mixed);
        }
        if page.shared && q.vma.writable && !q.vma.private {
            all.insert(Reason::Shared);
        }
        if page.data && page.bad {
            all.insert(Reason::BadMedium);
        }
        let Some(at) = page.at else { continue };
        if before
            .is_some_and(|(offset_before, at_before)| at.wrapping_sub(at_before) != offset - offset_before)
        {
            all.insert(Reason::Fragmented);
        }
        if at % CHUNK_BYTES != offset % CHUNK_BYTES {
            all.insert(Reason::Misplaced);
        }
        before = Some((offset, at));
    }
    all
}

/// Either an answer, or the reasons against 2 MiB of zeros or of the pool.
enum Rule {
    Is(Decision),
    Zero(BTreeSet<Reason>),
    Block(BTreeSet<Reason>),
}

fn rule(world: &World) -> Rule {
    let (q, page) = (&world.q, world.pages[world.touched()]);
    if world.ends_before(q.fault.offset) {
        return Rule::Is(Decision::Sigbus(Cause::Beyond));
    }
    let enough_for: &[bool] = match q.slot.page {
        Held::Nothing | Held::Sigbus => &[],
        Held::Zeros | Held::BlockToRead => &[false],
        Held::Block | Held::Copy => &[false, true],
    };
    if enough_for.contains(&q.fault.write) {
        return Rule::Is(Decision::Retry);
    }
    if page.data && page.bad {
        return Rule::Is(Decision::Sigbus(Cause::BadMedium));
    }
    if !page.data && !q.fault.write {
        Rule::Zero(against_zeros(world))
    } else {
        Rule::Block(against_block(world))
    }
}

/// Whether `why` may be named of `all`: it is the first, but for what a survey does not see any more once it saw pieces.
fn may_be_named(why: Reason, all: &BTreeSet<Reason>) -> bool {
    let stopped = why <= Reason::Fragmented && all.contains(&Reason::Fragmented);
    let unseen =
        |other: &Reason| stopped && matches!(other, Reason::Mixed | Reason::Shared | Reason::AfterEnd);
    all.contains(&why) && all.range(..why).all(unseen)
}

fn agrees(world: &World, got: Decision) -> bool {
    let q = &world.q;
    match rule(world) {
        Rule::Is(decision) => got == decision,
        Rule::Zero(against) => match got {
            Decision::Zero(ZeroSize::Pmd) => against.is_empty(),
            Decision::Zero(ZeroSize::Pte(why)) => may_be_named(why, &against),
            _ => false,
        },
        Rule::Block(against) => {
            let copied = q.fault.write && q.vma.private;
            let only_huge = q.media.unit == CHUNK_BYTES && !copied;
            match got {
                Decision::Pmd => against.is_empty() && q.system.room,
                Decision::Pte(why) => !only_huge && (q.system.room || copied) && may_be_named(why, &against),
                Decision::Sigbus(Cause::NotHuge(why)) => only_huge && may_be_named(why, &against),
                Decision::Retry => !q.system.room && !copied && (against.is_empty() || !only_huge),
                _ => false,
            }
        }
    }
}

/// Carries 2 MiB of the pool out, and finds what is wrong with a page then.
fn installed(world: &World) -> Option<String> {
    let q = &world.q;
    let after = match q.populate(Decision::Pmd) {
        Some((range, placement)) => world.clone().populated(range, placement),
        None => world.clone(),
    };
    let base = after.pages[0].at?;
    for (i, (offset, page)) in (0..).zip(after.each()) {
        let wrong = [
            (page.at != Some(base + i * BLOCK_BYTES), "shows another page"),
            (!page.data, "shows what was never written"),
            (page.bad, "is bad"),
            (page.shared && q.vma.writable && !q.vma.private, "lets another file be written"),
            (!world.is_mapped(offset), "is not in the mapping"),
            (world.ends_before(offset), "is beyond the end"),
            (q.slot.copies, "loses a copy"),
            (q.vma.private && q.fault.write, "stores to the file"),
        ];
        if let Some((_, why)) = wrong.iter().find(|(holds, _)| *holds) {
            return Some(format!("page {i} {why}"));
        }
    }
    (base % CHUNK_BYTES != 0).then(|| "the system has no such translation".to_owned())
}

prop_compose! {
    /// A part of the slot: its pages, what it is, whether it lies where the chunk has it.
    fn part()(pages in prop_oneof![1u64..8, 1u64..513], kind in 0..5u8, in_place in prop::bool::weighted(0.85),
              shared in prop::bool::weighted(0.1), bad in prop::bool::weighted(0.08)) -> (u64, u8, bool, bool, bool) {
        (pages, kind, in_place, shared, bad)
    }
}

/// The pages of a slot of a few parts, in a chunk that begins at `base`. `kinds` says which states there are.
fn pages(parts: &[(u64, u8, bool, bool, bool)], kinds: u8, base: u64) -> Vec<Content4K> {
    let mut pages = Vec::new();
    for (i, (len, kind, in_place, shared, bad)) in parts.iter().cycle().enumerate() {
        for page in 0..*len {
            let place =
                base + pages.len() as u64 * BLOCK_BYTES + if *in_place { 0 } else { (i as u64 + 1) << 30 };
            let (at, data) = match (kinds, kind) {
                (0, _) | (1, 0..=2) | (2, 0..=2) => (Some(place), true),
                (1, _) | (3, 0..=2) => (Some(place), false),
                _ => (None, false),
            };
            let bad = *bad && page == 0;
            pages.push(Content4K { at, data, shared: *shared && data, bad: bad && at.is_some() });
            if pages.len() as u64 == PAGES {
                return pages;
            }
        }
    }
    pages
}

fn held() -> impl Strategy<Value = Held> {
    let others =
        prop::sample::select(vec![Held::Zeros, Held::BlockToRead, Held::Block, Held::Copy, Held::Sigbus]);
    prop_oneof![4 => Just(Held::Nothing), 1 => others]
}

prop_compose! {
    fn range()(first in prop_oneof![4 => Just(0), 1 => 0..2 * PAGES], end in prop_oneof![4 => Just(4 * PAGES), 1 => PAGES..4 * PAGES])
        -> FileRange
    {
        let first = first.min(end - 1);
        FileRange { offset: first * BLOCK_BYTES, len: (end - first) * BLOCK_BYTES }
    }
}

prop_compose! {
    fn vma()(range in range(), askew in prop::bool::weighted(0.05), private in prop::bool::weighted(0.2),
             writable in prop::bool::ANY, huge in prop::bool::weighted(0.9)) -> Vma
    {
        let address = 77 * CHUNK_BYTES + range.offset % CHUNK_BYTES + if askew { BLOCK_BYTES } else { 0 };
        Vma { range, address, private, writable, huge }
    }
}

prop_compose! {
    fn media()(medium in prop::sample::select(vec![(BLOCK_BYTES, CHUNK_BYTES), (CHUNK_BYTES, CHUNK_BYTES), (BLOCK_BYTES, BLOCK_BYTES)]),
               chunk in prop::bool::weighted(0.8)) -> Media
    {
        Media { unit: medium.0, huge: medium.1, bad: Bad::Nothing, chunk }
    }
}

prop_compose! {
    fn world()(vma in vma(), media in media(), write in prop::bool::ANY, touched in 0.0..1.0f64,
               size in prop_oneof![3 => Just(8 * CHUNK_BYTES), 1 => 0..4 * CHUNK_BYTES],
               held in held(), copies in prop::bool::weighted(0.1), kinds in 0..4u8,
               parts in prop::collection::vec(part(), 1..4), aligned in prop::bool::weighted(0.85),
               huge_zero in prop::bool::weighted(0.8), room in prop::bool::weighted(0.9)) -> World
    {
        let base = 40 * CHUNK_BYTES + if aligned { 0 } else { 8 * BLOCK_BYTES };
        let offset = vma.range.offset + (touched * vma.range.len as f64) as u64;
        let q = Query {
            fault: Fault { offset, write },
            vma,
            size,
            slot: Slot { page: held, copies },
            map: SlotMap { page: Page::Hole, content: Content::Zeros, shared: false },
            media,
            system: System { huge_zero, room },
        };
        World { pages: pages(&parts, kinds, base), q }.surveyed()
    }
}

#[test]
fn the_worlds_reach_every_decision() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let (mut runner, worlds) = (TestRunner::deterministic(), world());
    let mut got = std::collections::HashSet::new();
    for _ in 0..20_000 {
        got.insert(choose(&worlds.new_tree(&mut runner).unwrap().current().q));
    }
    let of_zeros = [Reason::NoHugeZero, Reason::NoRoom];
    let of_zeros_too =
        |why: &Reason| *why <= Reason::Mixed && !matches!(why, Reason::NoHugeUnit | Reason::PrivateWrite);
    // Where 2 MiB are all there is, they are huge, and advice against them is void.
    let no_sigbus = [Reason::Advised, Reason::NoHugeUnit, Reason::PrivateWrite];
    let mut all = vec![Decision::Pmd, Decision::Retry, Decision::Zero(ZeroSize::Pmd)];
    all.extend([Cause::Beyond, Cause::BadMedium].map(Decision::Sigbus));
    for why in Reason::ALL {
        let is_of_zeros = of_zeros.contains(&why);
        all.extend((!is_of_zeros).then_some(Decision::Pte(why)));
        all.extend((is_of_zeros || of_zeros_too(&why)).then_some(Decision::Zero(ZeroSize::Pte(why))));
        let can_be_sigbus = !is_of_zeros && !no_sigbus.contains(&why);
        all.extend(can_be_sigbus.then_some(Decision::Sigbus(Cause::NotHuge(why))));
    }
    let missing: Vec<_> = all.iter().filter(|decision| !got.contains(decision)).collect();
    assert!(missing.is_empty() && got.len() == all.len(), "{missing:?}, {} of {}", got.len(), all.len());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_decision_is_what_the_rules_say(world in world()) {
        let got = choose(&world.q);
        prop_assert!(agrees(&world, got), "{got:?}");
    }

    #[test]
    fn two_mib_are_right_in_each_page(world in world()) {
        if choose(&world.q) == Decision::Pmd {
            prop_assert_eq!(installed(&world), None);
        }
    }

    #[test]
    fn what_is_populated_gets_the_same_translation(world in world()) {
        let decision = choose(&world.q);
        let Some((range, placement)) = world.q.populate(decision) else { return Ok(()) };
        prop_assert!(world.q.fault.write && !world.q.vma.private, "a load took space");
        let after = world.populated(range, placement).surveyed();
        let again = choose(&after.q);
        prop_assert_eq!(after.q.populate(again), None, "once is enough");
        prop_assert_eq!(std::mem::discriminant(&again), std::mem::discriminant(&decision));
    }

    #[test]
    fn a_denied_chunk_changes_only_what_wants_one(world in world()) {
        let (first, second) = (choose(&world.q), choose(&world.q.without_chunk()));
        let wants = matches!(world.q.populate(first), Some((_, Placement::Whole)));
        prop_assert!(wants || first == Decision::Retry || !world.q.media.chunk || first == second);
        prop_assert!(!matches!(world.q.populate(second), Some((_, Placement::Whole))), "it would be asked for ever");
    }

    #[test]
    fn what_does_not_matter_changes_nothing(world in world(), byte in 0..BLOCK_BYTES, chunks in 1..9u64) {
        let got = choose(&world.q);
        let mut other = world.q;
        other.fault.offset = other.page_range().offset + byte;
        prop_assert_eq!(choose(&other), got, "the byte in the page");

        let mut other = world.q;
        other.size = other.size.next_multiple_of(BLOCK_BYTES);
        prop_assert_eq!(choose(&other), got, "the byte in the last page of the file");

        let mut other = world.clone();
        other.pages.iter_mut().for_each(|page| page.at = page.at.map(|at| at + chunks * CHUNK_BYTES));
        prop_assert_eq!(choose(&other.surveyed().q), got, "which chunk");

        let mut other = world.q;
        let moved = chunks * CHUNK_BYTES;
        other.vma.address += 3 * moved;
        (other.fault.offset, other.vma.range.offset, other.size) =
            (other.fault.offset + moved, other.vma.range.offset + moved, other.size + moved);
        prop_assert_eq!(choose(&other), got, "which slot of the file");

        let mut other = world.q;
        other.system.huge_zero = !other.system.huge_zero;
        prop_assert!(matches!(got, Decision::Zero(_)) || choose(&other) == got, "zeros, for a block");

        let mut other = world.q;
        other.media.huge = if other.media.unit == BLOCK_BYTES { BLOCK_BYTES } else { other.media.huge };
        other.media.bad = Bad::Nothing;
        other.vma.writable = !other.vma.writable;
        prop_assert!(!matches!(got, Decision::Zero(_)) || choose(&other) == got, "the medium, for zeros");
    }
}
