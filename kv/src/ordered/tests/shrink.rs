//! Does a pass leave as few pages as the keys need, and every key, whenever power is cut and whoever looks meanwhile?

#![allow(clippy::unwrap_used, reason = "a test has nobody to report to")]

use super::crash::{crash_again, judge};
use super::memory::{Pages, Random};
use super::model::{Index, Model, assert_same, fresh, key, tell};
use crate::ordered::mutation::{self, Mutation};
use crate::ordered::{Page, Sizes};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

static SEQUENCE: AtomicU64 = AtomicU64::new(1);

/// Tells of `count` keys that `key` makes, and then of the end of all but some of those that are there.
fn thin_out(
    (index, model): (&Index, &mut Model),
    random: &mut Random,
    count: u64,
    keep: u64,
    key: impl Fn(&mut Random) -> Vec<u8>,
) {
    let next = || SEQUENCE.fetch_add(1, Ordering::Relaxed);
    for n in 0..count {
        tell(index, model, &key(random), Some(8 * n), next());
    }
    for key in model.keys().cloned().collect::<Vec<_>>() {
        if random.below(100) >= keep {
            tell(index, model, &key, None, next());
        }
    }
    index.write_back(0).unwrap();
}

fn digits(random: &mut Random) -> Vec<u8> {
    format!("user{:012}", random.below(60_000_000_000)).into_bytes()
}

fn check(pages: &Pages, index: &Index, model: &Model) -> u64 {
    assert_same(index, model);
    let findings = index.verify().unwrap();
    assert!(findings.errors.is_empty(), "{:?}", findings.errors);
    assert_eq!(findings.keys, model.len() as u64);
    assert_eq!(pages.used() - 256, findings.bytes);
    findings.bytes
}

#[test]
fn what_is_left_takes_as_few_pages_as_it_needs() {
    for keep in [50, 10, 1] {
        let (pages, index) = fresh(8 << 20, Sizes::DEFAULT);
        let (mut model, mut random) = (Model::new(), Random(keep));
        thin_out((&index, &mut model), &mut random, 60_000, keep, digits);
        let before = check(&pages, &index, &model);
        index.shrink().unwrap();
        let after = check(&pages, &index, &model);
        // Less of a key is in common where there are fewer; root, log and a group are always there.
        let most = model.len() as u64 * 20 + (20 << 10);
        println!("{} keys: {before} bytes, then {after}", model.len());
        assert!(after <= most && after < before, "{} keys: {before} bytes, then {after}", model.len());
        index.shrink().unwrap();
        let again = check(&pages, &index, &model);
        assert!(again <= after && again + 8192 > after, "{after} bytes, then {again}");
    }
}

#[test]
fn an_index_without_keys_takes_what_a_new_one_does() {
    let (pages, index) = fresh(4 << 20, Sizes::DEFAULT);
    let empty = pages.used();
    let mut model = Model::new();
    thin_out((&index, &mut model), &mut Random(4), 50_000, 0, digits);
    index.shrink().unwrap();
    assert_eq!(check(&pages, &index, &model), empty - 256);
}

/// Every page but those that stay is moved, and the keys are the same.
#[test]
fn pages_that_are_to_be_left_are_left() {
    for (seed, sizes) in [(1, Sizes::DEFAULT), (2, Sizes::SMALL), (3, Sizes::SMALL)] {
        let (pages, index) = fresh(4 << 20, sizes);
        let (mut model, mut random) = (Model::new(), Random(seed));
        thin_out((&index, &mut model), &mut random, 6000, 40, |random| key(random, 6000));
        index.shrink().unwrap();
        let (mut all, mut fixed) = (Vec::new(), Vec::new());
        index.pages(|page| all.push(page)).unwrap();
        index.fixed(|page| fixed.push(page.at));
        let last = all.iter().map(|page| page.at).max().unwrap();
        // What the first few megabytes have free takes the rest in.
        pages.leaving.store((last * 3 / 4) & !255, Ordering::Relaxed);
        let is_left = |page: &Page| page.at >= last * 3 / 4 && !fixed.contains(&page.at);
        assert!(all.iter().any(is_left));
        index.shrink().unwrap();
        pages.leaving.store(u64::MAX, Ordering::Relaxed);
        all.clear();
        index.pages(|page| all.push(page)).unwrap();
        let left = all.iter().filter(|page| is_left(page)).count();
        println!("{left} of {} pages are where they were", all.len());
        check(&pages, &index, &model);
    }
}

/// Rounds of keys that come and go, and passes that are cut off at every fence; goes on with what one of them left.
fn crash_passes(seed: u64, rounds: u64) {
    let mut random = Random(seed);
    let (mut pages, mut index) = fresh(1 << 19, Sizes::SMALL);
    let mut model = Model::new();
    for round in 0..rounds {
        let (count, keep) = (100 + random.below(900), random.below(60));
        thin_out((&index, &mut model), &mut random, count, keep, |random| key(random, 1500));
        if random.below(2) == 0 {
            pages.leaving.store(256 * (40 + random.below(200)), Ordering::Relaxed);
        }
        pages.memory.watch();
        index.shrink().unwrap();
        pages.leaving.store(u64::MAX, Ordering::Relaxed);
        let moments = pages.memory.moments();
        for moment in &moments {
            judge(moment.image(&mut random), &[], &model);
        }
        crash_again(&moments[random.below(moments.len() as u64) as usize], &mut random, &[], &model);
        check(&pages, &index, &model);
        if round % 2 == 0 {
            let at = random.below(moments.len() as u64) as usize;
            (pages, index) = judge(moments[at].image(&mut random), &[], &model);
        }
    }
}

#[test]
fn a_pass_that_is_cut_off_loses_nothing() {
    for seed in 0..6 {
        crash_passes(seed, 6);
    }
}

#[test]
fn a_broken_rule_is_noticed() {
    use Mutation::{FreeEarly, KeepUpper, NoPageFence, NoRecordFence, NoWordFlush};
    let is_caught = |rule| {
        (0..20).any(|seed| {
            let run = move || {
                mutation::set(Some(rule));
                std::panic::catch_unwind(|| crash_passes(seed, 6)).is_err()
            };
            std::thread::spawn(run).join().unwrap()
        })
    };
    let rules = [FreeEarly, KeepUpper, NoPageFence, NoRecordFence, NoWordFlush];
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let missed: Vec<_> = rules.into_iter().filter(|rule| !is_caught(*rule)).collect();
    std::panic::set_hook(hook);
    assert!(missed.is_empty(), "not noticed: {missed:?}");
}

/// What finds no page for a step is as it was, and so is all else.
#[test]
fn a_full_pool_ends_a_pass_early() {
    let (pages, index) = fresh(1 << 20, Sizes::SMALL);
    let (mut model, mut random) = (Model::new(), Random(9));
    thin_out((&index, &mut model), &mut random, 3000, 30, |random| key(random, 3000));
    let mut last = u64::MAX;
    for allowance in 0..60 {
        *pages.allowance.lock().unwrap() = allowance;
        index.shrink().unwrap();
        *pages.allowance.lock().unwrap() = u64::MAX;
        let now = check(&pages, &index, &model);
        assert!(now <= last, "{now} after {last}");
        last = now;
    }
}

/// Walks meet every key that stays, while others come and go and passes are made.
#[test]
fn walks_go_on_beside_passes() {
    let (pages, index) = fresh(4 << 20, Sizes::SMALL);
    let key = |n: u64| n.to_be_bytes();
    let model = Model::from_iter((0..300).map(|n| (key(n * 10).to_vec(), 8 * n)));
    let mut all = Model::new();
    model.iter().for_each(|(key, record)| tell(&index, &mut all, key, Some(*record), 0));
    let over = Arc::new(AtomicBool::new(false));
    std::thread::scope(|scope| {
        let (index, over) = (&index, &over);
        scope.spawn(move || {
            let mut own = Model::new();
            for round in 0..40 {
                let some = || (0..3000).filter(move |n| n % 10 != 0 && (n / 500) % 6 == round % 6);
                for insert in [true, false] {
                    for n in some() {
                        let sequence = SEQUENCE.fetch_add(1, Ordering::Relaxed);
                        tell(index, &mut own, &key(n), insert.then_some(8 * n), sequence);
                    }
                    index.write_back(0).unwrap();
                }
            }
            over.store(true, Ordering::Release);
        });
        scope.spawn(move || {
            while !over.load(Ordering::Acquire) {
                index.shrink().unwrap();
            }
        });
        scope.spawn(move || {
            while !over.load(Ordering::Acquire) {
                let (mut cursor, mut stay) = (index.cursor(Bound::Unbounded), 0);
                while let Some((met, _)) = cursor.next().unwrap() {
                    let met = u64::from_be_bytes(met.try_into().unwrap());
                    stay += u64::from(met.is_multiple_of(10));
                }
                assert_eq!(stay, 300, "keys that stay");
            }
        });
    });
    index.shrink().unwrap();
    check(&pages, &index, &model);
}
