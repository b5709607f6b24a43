//! Model 15: the ordered index of the key-value store.
//!
//! A cursor walks on while leaves, and the group they are in, are split, or emptied and taken out: it meets every key that is there all
//! the time, once and in order. A change that a thread told of is seen by its own cursor, whoever took it into the leaves.

use crate::{Event, Pool, explore, part, together};
use daxstore::pmem::sim::Sim;
use daxstore_kv::media::{Media, SimMedia};
use daxstore_kv::ordered::{Change, Ordered, Page, Sizes, Space, TreeId};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const BYTES: u64 = 128 << 10;
const TREE: TreeId = TreeId(3);

/// Pages one after the other; none is used again.
#[derive(Debug)]
struct Pages {
    media: SimMedia,
    next: AtomicU64,
}

impl Space for Pages {
    type Memory = SimMedia;

    fn memory(&self) -> &SimMedia {
        &self.media
    }

    fn take(&self, bytes: u64) -> daxstore_kv::Result<u64> {
        let at = self.next.fetch_add(bytes, Ordering::Relaxed);
        assert!(at + bytes <= self.media.len(), "room for the model");
        Ok(at)
    }

    fn give(&self, _page: Page) -> daxstore_kv::Result<()> {
        Ok(())
    }
}

fn pages(sim: Arc<Sim>, next: u64) -> Arc<Pages> {
    Arc::new(Pages { media: SimMedia::new(sim), next: AtomicU64::new(next) })
}

fn key(n: u64) -> [u8; 16] {
    let mut key = [b'k'; 16];
    key[..8].copy_from_slice(&n.to_be_bytes());
    key
}

type Index = Ordered<Pages>;

/// Keys 0, 10, 20, ... in as many leaves as a group holds.
const FULL: u64 = 24;

/// How many keys there are, and the pool with them.
fn full_group() -> (u64, Arc<Pool>) {
    let count = Arc::new(AtomicU64::new(0));
    let counted = count.clone();
    let pool = Pool::new(BYTES, move |sim| {
        let pages = pages(sim, 4096);
        let root = Index::create_sized(&pages, TREE, Sizes::SMALL).expect("an index");
        let index = Index::open(&pages, TREE, root).expect("an index");
        let mut n = 0;
        while index.verify().expect("a sound index").leaves < FULL {
            index.apply(Change::Insert, &key(10 * n), 8 * n, n).expect("told");
            n += 1;
        }
        counted.store(n, Ordering::Relaxed);
    });
    (count.load(Ordering::Relaxed), pool)
}

fn open(pool: &Pool) -> Arc<Index> {
    Arc::new(Index::open(&pages(pool.copy(), BYTES / 2), TREE, 4096).expect("an index"))
}

/// Meets the keys `from`, `from` + 10, ... below `to`, upward or downward, and tells that it has begun after the first.
fn walk(index: &Index, from: u64, to: u64, upward: bool, begun: &Event) {
    let mut expected: Vec<_> = (from..to).step_by(10).collect();
    if !upward {
        expected.reverse();
    }
    let first = key(expected[0]);
    let bound = if upward { Bound::Included(&first[..]) } else { Bound::Excluded(&first[..]) };
    let mut cursor = index.cursor(bound);
    for (i, n) in expected.into_iter().enumerate() {
        loop {
            let met = if upward { cursor.next() } else { cursor.prev() };
            let (met, _) = met.expect("a sound index").expect("a key that is there all the time");
            let met = u64::from_be_bytes(met[..8].try_into().expect("eight bytes"));
            if met == n {
                break;
            }
            assert!(met % 10 != 0, "{met} instead of {n}");
        }
        if i == 0 {
            begun.set();
        }
    }
}

/// One thread walks between `walked` while another tells changes and looks for what they did.
fn beside(name: &'static str, upward: bool, change: fn(&Index, u64)) {
    let (count, pool) = full_group();
    explore(name, move || {
        let index = open(&pool);
        let begun = Arc::new(Event::default());
        let middle = count / 2 * 10;
        let (walker, writer) = (index.clone(), index.clone());
        let (tell, wait) = (begun.clone(), begun);
        together(vec![
            part(move || walk(&walker, middle - 200, middle + 600, upward, &tell)),
            part(move || {
                wait.wait();
                change(&writer, middle);
            }),
        ]);
        index.write_back(0).expect("written");
        assert!(index.verify().expect("a sound index").errors.is_empty());
    });
}

/// So many keys in a few leaves that they are split, however much room their neighbours have, and with them the group.
fn split(index: &Index, middle: u64) {
    for n in (1..40).filter(|n| n % 10 != 0) {
        index.apply(Change::Insert, &key(middle + 100 + n), 8, 10_000 + n).expect("told");
    }
    assert!(index.cursor(Bound::Unbounded).next().expect("a sound index").is_some());
}

#[test]
fn a_cursor_walks_up_while_a_group_is_split() {
    beside("ordered index: up beside a split", true, split);
}

#[test]
fn a_cursor_walks_down_while_a_group_is_split() {
    beside("ordered index: down beside a split", false, split);
}

#[test]
fn a_thread_sees_what_it_told() {
    let (_count, pool) = full_group();
    explore("ordered index: own changes", move || {
        let index = open(&pool);
        let told = |n: u64| {
            let index = index.clone();
            part(move || {
                index.apply(Change::Insert, &key(n), 8, 10_000 + n).expect("told");
                let mut cursor = index.cursor(Bound::Included(&key(n)));
                let met = cursor.next().expect("a sound index").map(|(key, _)| key.to_vec());
                assert_eq!(met.as_deref(), Some(&key(n)[..]), "what was told");
            })
        };
        together(vec![told(15), told(17)]);
    });
}

#[cfg(loom)]
#[test]
fn broken_rules_are_noticed() {
    use daxstore_kv::ordered::mutation::Mutation;
    // Upward a cursor goes on in the group that it knows, whose bounds tell it where that ends; downward it asks the top for each leaf.
    crate::assert_caught("kv_ordered::a_cursor_walks_down_while_a_group_is_split", Mutation::NoRetry);
    crate::assert_caught("kv_ordered::a_thread_sees_what_it_told", Mutation::SettleEarly);
}
