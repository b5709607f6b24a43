//! Is an explicit mtime set in one step, and does no earlier time come back later?
//!
//! The time of an overwrite in place lies beside the inode, tagged with the low 10 bits of the inode's version: a word
//! that stayed there would be believed again 1024 versions later.

#![cfg(feature = "sim")]

mod common;

use common::crash::{Options, POOL_BYTES, each_image, tiny};
use daxstore::pmem::sim::{Event, Sim};
use daxstore::{Follow, SetAttributes, Store, StoreOptions};
use std::sync::Arc;

const LONG_AGO: i64 = 7_000_000_000;

fn mtime(store: &Store) -> i64 {
    store.metadata("/f").expect("the file").mtime
}

fn set(store: &Store, attributes: &SetAttributes) {
    store.set_attributes("/f", attributes, Follow::Yes).expect("set");
}

#[test]
fn a_time_that_was_set_is_old_or_new_and_stays() {
    let primary = Arc::new(Sim::new(POOL_BYTES).expect("memory"));
    let options = StoreOptions::new().geometry(tiny(1, 8192)).seed(1);
    let store = Store::create_sim(primary.clone(), &options).expect("a pool");
    let file = store.create("/f").expect("a file");
    file.write_all_at(&[1; 5000], 0).expect("data");
    std::thread::sleep(std::time::Duration::from_millis(10));
    file.write_all_at(&[2; 100], 0).expect("an overwrite");
    let old = mtime(&store);
    drop(file);
    store.close().expect("closed");
    let scratch = Arc::new(primary.fork().expect("memory"));
    primary.start_trace();
    let store = Store::open_sim(primary.clone()).expect("the pool");
    assert_eq!(mtime(&store), old, "the lazy time outlives a close");
    primary.mark(Event::Begin(0));
    set(&store, &SetAttributes { mtime: Some(LONG_AGO), ..SetAttributes::default() });
    primary.mark(Event::Return(0));
    let trace = primary.take_trace();
    let (mut olds, mut news) = (0, 0);
    each_image(&scratch, &trace, &Options::sampled(1, 60), |stop, store| {
        match mtime(&store) {
            LONG_AGO => {
                assert!(stop.returned.is_some() || !stop.in_flight.is_empty(), "{stop:?}");
                news += 1;
                // Until the version has the tag of the time before.
                let other = SetAttributes { mode: Some(0o600), ..SetAttributes::default() };
                (0..1023).for_each(|_| set(&store, &other));
                drop(store);
                let store = Store::open_sim(scratch.clone()).expect("the pool");
                assert_eq!(mtime(&store), LONG_AGO, "{stop:?}: a time came back");
            }
            found => {
                assert_eq!(found, old, "{stop:?}: neither the time before nor the one set");
                assert!(stop.returned.is_none(), "{stop:?}");
                olds += 1;
                // Before the memory is put back: a store that goes writes.
                drop(store);
            }
        }
    });
    assert!(olds > 2 && news > 2, "{olds} old, {news} new");
}
