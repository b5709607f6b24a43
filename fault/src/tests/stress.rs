//! Do views stay right when everything happens at once?
//!
//! Stores go up: each page is stored to by one thread, in rising numbers, so that a load that sees less than what its
//! own thread saw before, without a punch between, saw something stale.

use super::{PRIVATE, SHARED, budget};
use crate::table::Mode;
use crate::toy::{Fatal, PAGE, SLOT, ToyFile, ToyView};
use daxstore::iomap::FileRange;
use daxstore::sync::Arc;
use daxstore::sync::atomic::{AtomicBool, Ordering};
use daxstore::sync::thread;
use std::time::{Duration, Instant};

const SLOTS: u64 = 3;
const FOR: Duration = Duration::from_millis(700);

/// A stop that comes after a while.
fn until(body: impl Fn(u64)) {
    let start = Instant::now();
    let mut i = 0;
    while start.elapsed() < FOR {
        body(i);
        i += 1;
    }
}

fn scattered(i: u64) -> u64 {
    i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20
}

/// Whoever owns a page sees its own last store; others see it not go back.
#[test]
fn no_store_is_lost_while_others_map_sync_and_evict() {
    let file = ToyFile::new(SLOTS, 2 * SLOTS);
    let budget = crate::Budget::new(60);
    let map = |mode| ToyView::map(&file, 0..SLOTS * SLOT, mode, SHARED, &budget).unwrap();
    let views = [map(Mode::Userfault), map(Mode::Userfault), map(Mode::Signal)];
    thread::scope(|scope| {
        for (owner, view) in views.iter().enumerate() {
            scope.spawn(move || store_and_look(view, owner as u64));
        }
        let (view, file) = (&views[0], &file);
        scope.spawn(move || {
            until(|i| {
                let range = FileRange { offset: scattered(i) % SLOTS * SLOT * PAGE, len: SLOT * PAGE };
                match i % 3 {
                    0 => view.view.evict(range).unwrap(),
                    1 => _ = view.view.sync(range).unwrap(),
                    _ => _ = file.defragment(scattered(i) % SLOTS).unwrap(),
                }
            });
        });
    });
    let all = FileRange { offset: 0, len: SLOTS * SLOT * PAGE };
    views[0].view.sync(all).unwrap();
    (0..SLOTS * SLOT).for_each(|page| assert_eq!(file.durable(page), file.read_page(page)));
}

/// Pages of `owner` are those with its number modulo 4; pages of 3 are written by `write_at` alone.
fn store_and_look(view: &ToyView, owner: u64) {
    until(|i| {
        let page = scattered(i * 3 + owner) % (SLOTS * SLOT / 4) * 4 + owner;
        let before = view.load(page).unwrap();
        view.store(page, before + 1).unwrap();
        assert_eq!(view.load(page), Ok(before + 1), "page {page}");
        let other = scattered(i) % (SLOTS * SLOT);
        let (first, second) = (view.load(other).unwrap(), view.load(other).unwrap());
        assert!(first <= second, "page {other} went back");
    });
}

/// Punches, truncates and growth against touches: the toys check every block that is freed.
#[test]
fn nothing_that_was_freed_is_reached() {
    let file = ToyFile::new(SLOTS, SLOTS + 1);
    let budget = budget();
    let map = |mode, access| ToyView::map(&file, 0..SLOTS * SLOT, mode, access, &budget).unwrap();
    let views = [map(Mode::Userfault, SHARED), map(Mode::Signal, SHARED), map(Mode::Userfault, PRIVATE)];
    let stopped = AtomicBool::new(false);
    thread::scope(|scope| {
        for (seed, view) in views.iter().enumerate() {
            let stopped = &stopped;
            scope.spawn(move || {
                let mut i = seed as u64;
                while !stopped.load(Ordering::Relaxed) {
                    i += 3;
                    let page = scattered(i) % (SLOTS * SLOT);
                    let touched =
                        if i.is_multiple_of(2) { view.store(page, i) } else { view.load(page).map(|_| ()) };
                    assert!(matches!(touched, Ok(()) | Err(Fatal::Bus)));
                }
            });
        }
        // Also when a check fails here: else the others would go on for ever.
        let _stop = Stop(&stopped);
        let file: &Arc<ToyFile> = &file;
        until(|i| change(file, i));
        file.resize(SLOTS * SLOT).unwrap();
    });
    (0..SLOTS * SLOT).for_each(|page| assert_eq!(views[0].load(page), Ok(file.read_page(page))));
    views.iter().for_each(|view| view.leave().unwrap());
}

/// Says stop when it is dropped.
struct Stop<'s>(&'s AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn change(file: &Arc<ToyFile>, i: u64) {
    let page = scattered(i) % (SLOTS * SLOT);
    match i % 5 {
        0 => file.resize(page.max(1)).unwrap(),
        1 => file.resize(SLOTS * SLOT).unwrap(),
        2 => _ = file.write(page.min(file.pages() - 1), i),
        3 => file.punch(page..(page + scattered(i * 7) % 300).min(SLOTS * SLOT)).unwrap(),
        _ => _ = file.defragment(page / SLOT).unwrap(),
    }
}
