//! Is a pool whole at every moment while it grows, and while another is made over it?

#![cfg(feature = "sim")]

mod common;

use common::crash::{Options, POOL_BYTES, check, tiny};
use common::real;
use common::state::State;
use daxstore::error::Class;
use daxstore::pmem::Region;
use daxstore::pmem::sim::crash::{Cause, Replay, Stop};
use daxstore::pmem::sim::{Event, Sim, Trace};
use daxstore::units::{BLOCK_BYTES, CHUNK_BYTES, GROUP_BYTES, PoolOff};
use daxstore::{Error, Store, StoreOptions};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of a pool that grew into a second group.
const GROWN: u64 = GROUP_BYTES + POOL_BYTES;

fn options(seed: u64) -> StoreOptions {
    StoreOptions::new().geometry(tiny(2, 8192)).seed(seed)
}

/// A closed pool with a file, in memory that can grow.
fn old_pool() -> (Arc<Sim>, State) {
    let sim = Arc::new(Sim::with_capacity(POOL_BYTES, GROWN).expect("memory"));
    let store = Store::create_sim(sim.clone(), &options(1)).expect("a pool");
    store.create_dir("/d", 0o755).expect("a directory");
    store.write("/d/old", &[7; 50_000]).expect("a file");
    let state = real::state(&store).expect("its state");
    store.close().expect("closed");
    (sim, state)
}

/// Hands every image of `trace` on `scratch`, opened, to `judge`; how many there were.
fn every_image(
    scratch: &Arc<Sim>,
    trace: &Trace,
    images: usize,
    mut judge: impl FnMut(&Stop, Result<Store, Error>),
) -> u64 {
    scratch.start_undo();
    let (mut replay, mut count) = (Replay::new(scratch, trace), 0);
    while let Some(stop) = replay.advance() {
        for plan in &Options::sampled(1, images).plans {
            let pending = replay.pending(plan.mode);
            let mut images = pending.images(plan, stop.event as u64);
            while let Some(words) = images.next_image() {
                let base = scratch.savepoint();
                scratch.poke_words(words);
                judge(&stop, Store::open_sim(scratch.clone()));
                scratch.roll_back_to(base);
                count += 1;
            }
        }
    }
    count
}

/// Crashes a growth; `before`: what lies behind the pool's end, if the medium is longer than the pool.
fn crash_growth(before: Option<u8>) -> u64 {
    let (primary, state) = old_pool();
    if let Some(byte) = before {
        Region::sim(primary.clone()).grow(GROWN).expect("a longer device");
        for at in [BLOCK_BYTES, 2 * BLOCK_BYTES, 3 * BLOCK_BYTES + 64] {
            primary.poke(PoolOff(GROUP_BYTES + at), &[byte; 256]);
        }
    }
    let scratch = Arc::new(primary.fork().expect("memory"));
    scratch.grow(GROWN);
    primary.start_trace();
    let store = Store::open_sim(primary.clone()).expect("the pool");
    primary.mark(Event::Begin(0));
    store.grow(GROWN).expect("growth");
    primary.mark(Event::Return(0));
    let trace = primary.take_trace();
    let (mut grown, mut used) = (0, 0);
    let images = every_image(&scratch, &trace, 200, |stop, store| {
        let store = store.unwrap_or_else(|error| panic!("{stop:?}: {error}"));
        let info = store.info().expect("info");
        assert!(info.space.damage.is_empty(), "{stop:?}: {:?}", info.space.damage);
        match info.geometry.size {
            GROWN => assert!(stop.returned.is_some() || !stop.in_flight.is_empty(), "{stop:?}"),
            size => assert!(size == POOL_BYTES && stop.returned.is_none(), "{stop:?}: {size}"),
        }
        check(&store).unwrap_or_else(|what| panic!("{stop:?}: {what}"));
        let found = real::state(&store).expect("a pool that opens can be read");
        assert_eq!(state.difference(&found, &state, &[]), None, "{stop:?}");
        if info.geometry.size == GROWN {
            grown += 1;
        }
        if info.geometry.size == GROWN && used < 3 {
            used += 1;
            let more = GROUP_BYTES + 2 * CHUNK_BYTES;
            let file = store.create("/new").expect("a file");
            file.allocate(0, more, daxstore::AllocateMode::Allocate).expect("space in the new group");
            file.write_all_at(&[3; 4096], more - 4096).expect("data in the new group");
            check(&store).unwrap_or_else(|what| panic!("{stop:?}, used further: {what}"));
        }
    });
    assert!(grown > 0 && grown < images && used > 0, "{grown} of {images} have grown");
    images
}

#[test]
fn growing_with_its_file() {
    println!("{} images", crash_growth(None));
}

#[test]
fn growing_over_what_a_longer_device_held() {
    println!("{} images", crash_growth(Some(0xa5)) + crash_growth(Some(1)));
}

#[test]
fn growing_costs_the_fences_of_a_quiesce() {
    let (sim, _) = old_pool();
    let store = Store::open_sim(sim.clone()).expect("the pool");
    let fences = |size| {
        let before = store.counts();
        store.grow(size).expect("growth");
        store.counts().since(before).fences
    };
    assert_eq!(fences(POOL_BYTES + CHUNK_BYTES), 2, "the superblocks");
    store.write("/a", b"a").expect("a file");
    assert_eq!(fences(POOL_BYTES + 2 * CHUNK_BYTES), 3, "a lane in use too");
    Region::sim(sim.clone()).grow(GROWN).expect("a longer device");
    drop(store);
    let store = Store::open_sim(sim).expect("the pool");
    let before = store.counts();
    store.grow(GROWN).expect("growth");
    assert_eq!(store.counts().since(before).fences, 3, "headers that were not zeros for sure");
}

#[test]
fn of_two_growths_at_once_the_larger_stays() {
    let rounds = 400;
    let most = POOL_BYTES + 2 * rounds * CHUNK_BYTES;
    let sim = Arc::new(Sim::with_capacity(POOL_BYTES, most).expect("memory"));
    drop(Store::create_sim(sim.clone(), &options(1)).expect("a pool"));
    // As on a longer device, where nothing but the superblock says how long the pool is.
    Region::sim(sim.clone()).grow(most).expect("a longer device");
    let store = Store::open_sim(sim).expect("the pool");
    let arrived = AtomicU64::new(0);
    // Not a barrier of the system's: both are to go on at the same moment.
    let meet = |all: u64| {
        arrived.fetch_add(1, Ordering::AcqRel);
        while arrived.load(Ordering::Acquire) < all {
            std::thread::yield_now();
        }
    };
    std::thread::scope(|scope| {
        for thread in 0..2 {
            let (store, meet) = (&store, &meet);
            scope.spawn(move || {
                for round in 0..rounds {
                    meet(4 * round + 2);
                    let size = POOL_BYTES + (2 * round + 1 + thread) * CHUNK_BYTES;
                    let result = store.grow(size);
                    meet(4 * round + 4);
                    assert!(matches!(result, Ok(()) | Err(Error::CanNotShrink { .. })), "{result:?}");
                    let found = store.info().expect("info").geometry.size;
                    assert_eq!(found, POOL_BYTES + (2 * round + 2) * CHUNK_BYTES, "round {round}");
                }
            });
        }
    });
}

/// Making a pool over an old one leaves the old one, or none, or the new one: never some of each.
#[test]
fn making_a_pool_over_another() {
    let (primary, old) = old_pool();
    let scratch = Arc::new(primary.fork().expect("memory"));
    primary.start_trace();
    let store = Store::create_sim(primary.clone(), &options(2).force(true)).expect("a new pool");
    primary.mark(Event::Return(0));
    let trace = primary.take_trace();
    let empty = real::state(&store).expect("an empty pool");
    let new_uuid = store.info().expect("info").uuid;
    let (mut olds, mut news, mut none) = (0, 0, 0);
    every_image(&scratch, &trace, 1000, |stop, store| match store {
        Ok(store) => {
            check(&store).unwrap_or_else(|what| panic!("{stop:?}: {what}"));
            let found = real::state(&store).expect("a pool that opens can be read");
            let is_new = store.info().expect("info").uuid == new_uuid;
            let expected = if is_new { &empty } else { &old };
            assert_eq!(expected.difference(&found, expected, &[]), None, "{stop:?}");
            *if is_new { &mut news } else { &mut olds } += 1;
        }
        Err(error) => {
            assert_eq!(error.class(), Class::Damage, "{stop:?}: {error}");
            assert!(!matches!(stop.cause, Cause::Return(_) | Cause::End), "{stop:?}: {error}");
            none += 1;
        }
    });
    println!("{olds} images with the old pool, {none} without, {news} with the new one");
    assert!(olds > 2 && none > 1000 && news > 20, "{olds} old, {none} none, {news} new");
}
