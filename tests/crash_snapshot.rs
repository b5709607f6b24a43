//! Is a snapshot whole or absent wherever the power goes, also in recovery, and is what it is of unharmed?
//!
//! A tree with all that a tree can hold is copied, and every crash of that is recovered: there is the tree as it was, and the
//! copy as a whole or nothing of it, under no name at all. `check` counts the owners of every block.

#![cfg(feature = "sim")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::crash::{Options, POOL_BYTES, check, tiny};
use common::ops::BLOCK;
use daxstore::pmem::mutation::{self, Mutation};
use daxstore::pmem::sim::crash::{Replay, crash_recovery};
use daxstore::pmem::sim::{Event, Sim};
use daxstore::{
    AllocateMode, Dir, Follow, Node, OpenOptions, RenameMode, SNAPSHOT_PREFIX, SetAttributes, Store,
    StoreOptions, XattrMode,
};
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What can be seen of something that has a name, but for what is its own: number and times of changes.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    mode: u32,
    owner: (u32, u32),
    size: u64,
    links: u32,
    mtime: i64,
    content: Vec<u8>,
    attributes: BTreeMap<Vec<u8>, Vec<u8>>,
}

type Tree = BTreeMap<PathBuf, Seen>;

fn seen(dir: &Dir, name: &OsStr, node: &Node) -> Seen {
    let found = node.metadata();
    let content = match () {
        () if found.is_dir() => Vec::new(),
        () if found.is_symlink() => dir.read_link(name).unwrap().into_os_string().as_bytes().to_vec(),
        () => dir.read(name).unwrap(),
    };
    let value = |name: Vec<u8>| {
        let value = node.get_xattr(OsStr::from_bytes(&name)).unwrap();
        (name, value)
    };
    Seen {
        mode: found.mode,
        owner: (found.uid, found.gid),
        size: found.size,
        links: found.links,
        mtime: found.mtime,
        content,
        attributes: node.list_xattrs().unwrap().into_iter().map(value).collect(),
    }
}

/// All below `top`, and itself.
fn tree(store: &Store, top: &str) -> Tree {
    let mut all = Tree::new();
    let mut dirs = vec![(PathBuf::new(), store.open_dir(top).unwrap())];
    while let Some((path, dir)) = dirs.pop() {
        all.insert(path.clone(), seen(&dir, OsStr::new("."), &dir));
        for entry in dir.read_dir() {
            let name = entry.unwrap().name;
            let node = dir.open_node(&name, Follow::No).unwrap();
            if node.metadata().is_dir() {
                dirs.push((path.join(&name), dir.open_dir(&name).unwrap()));
            } else {
                all.insert(path.join(&name), seen(&dir, &name, &node));
            }
        }
    }
    all
}

/// A tree of files that share blocks with each other, one with a second name, links, directories, attributes short and long.
fn plant(store: &Store) {
    store.create_dir("/t", 0o751).unwrap();
    let dir = store.open_dir("/t").unwrap();
    dir.create_dir("d", 0o700).unwrap();
    dir.create_dir("d/empty", 0o705).unwrap();
    let file = dir.create("f").unwrap();
    file.write_all_at(&[1; 3 * BLOCK as usize], 0).unwrap();
    file.write_all_at(&[2; 700], 6 * BLOCK).unwrap();
    file.allocate(4 * BLOCK, BLOCK, AllocateMode::Allocate).unwrap();
    file.set_xattr("user.short", b"value", XattrMode::Either).unwrap();
    file.set_xattr("user.long", &[9; 5000], XattrMode::Either).unwrap();
    drop(file);
    dir.reflink("f", "d/shares").unwrap();
    let other = dir.open("d/shares", &OpenOptions::new().read(true).write(true)).unwrap();
    other.write_all_at(&[3; 100], BLOCK).unwrap();
    drop(other);
    dir.hard_link("f", "d/again").unwrap();
    dir.symlink("d/../f", "link").unwrap();
    dir.write("d/small", b"a few bytes").unwrap();
    dir.set_xattr("user.of-a-directory", b"1", XattrMode::Either).unwrap();
    let attributes =
        SetAttributes { mode: Some(0o640), uid: Some(7), mtime: Some(77), ..SetAttributes::default() };
    dir.set_attributes("d/small", &attributes, Follow::No).unwrap();
}

/// What a store holds after a crash: whether the copy is there.
fn judge(store: &Store, expected: &Tree, to: &str) -> Result<bool, String> {
    check(store)?;
    if tree(store, "/t") != *expected {
        return Err("the source is not what it was".to_owned());
    }
    let names: Vec<OsString> = store.read_dir().map(|entry| entry.unwrap().name).collect();
    let copy = Path::new(to).file_name().unwrap();
    if let Some(other) = names.iter().find(|name| *name != "t" && *name != copy) {
        return Err(format!("{} is left", other.display()));
    }
    let is_there = names.iter().any(|name| name == copy);
    if is_there && tree(store, to) != *expected {
        return Err(format!("the copy is {:?}, not {expected:?}", tree(store, to)));
    }
    Ok(is_there)
}

/// What was tried.
#[derive(Debug, Default)]
struct Tried {
    images: usize,
    /// Where the copy was there.
    whole: usize,
    nested: u64,
}

/// Copies the tree to `to`, crashes that at every event, and each of some images again in its recovery.
fn crash(lane: u32, to: &str, rule: Option<Mutation>) -> Result<Tried, String> {
    let sim = Arc::new(Sim::new(POOL_BYTES).unwrap());
    let store = Store::create_sim(sim.clone(), &StoreOptions::new().geometry(tiny(1, lane))).unwrap();
    plant(&store);
    let expected = tree(&store, "/t");
    store.close().unwrap();
    let scratch = Arc::new(sim.fork().unwrap());
    scratch.start_undo();
    mutation::set(rule);
    let _off = Off;
    sim.start_trace();
    let store = Store::open_sim(sim.clone()).unwrap();
    sim.mark(Event::Begin(0));
    let made = store.snapshot("/t", to).unwrap();
    sim.mark(Event::Return(0));
    assert_eq!((made.files, made.directories, made.symlinks, made.links), (3, 3, 1, 1));
    store.close().unwrap();
    let trace = sim.take_trace();

    let options = Options::sampled(1, 12);
    let mut tried = Tried::default();
    let mut replay = Replay::new(&scratch, &trace);
    while let Some(stop) = replay.advance() {
        for plan in &options.plans {
            let pending = replay.pending(plan.mode);
            let mut images = pending.images(plan, stop.event as u64);
            while let Some(words) = images.next_image() {
                let base = scratch.savepoint();
                scratch.poke_words(words);
                let crashed = scratch.savepoint();
                let whole = recover(&scratch, &expected, to).map_err(|what| format!("{stop:?}: {what}"))?;
                if !whole && stop.returned.is_some() {
                    return Err(format!("{stop:?}: a copy that was made is not there"));
                }
                scratch.roll_back_to(crashed);
                if tried.images % 23 == 7 {
                    tried.nested += crash_recovery(&scratch, &options.nested_plan, |_| {
                        recover(&scratch, &expected, to).map(drop)
                    })
                    .map_err(|what| format!("{stop:?}: after a crash in recovery: {what}"))?
                    .images;
                }
                scratch.roll_back_to(base);
                tried.images += 1;
                tried.whole += usize::from(whole);
            }
        }
    }
    Ok(tried)
}

/// Switches rules on again however the scope is left.
struct Off;

impl Drop for Off {
    fn drop(&mut self) {
        mutation::set(None);
    }
}

fn recover(scratch: &Arc<Sim>, expected: &Tree, to: &str) -> Result<bool, String> {
    let store = Store::open_sim(scratch.clone()).map_err(|error| error.to_string())?;
    judge(&store, expected, to)
}

#[test]
fn a_snapshot_is_whole_or_absent_wherever_the_power_goes() {
    for (lane, to) in [(32768, "/copy"), (8192, "/.snapshot-of-mine")] {
        let tried = crash(lane, to, None).unwrap_or_else(|what| panic!("{what}"));
        println!("{tried:?}");
        assert!(tried.images > 1000 && tried.nested > 100, "too little was tried: {tried:?}");
        assert!(tried.whole > 0 && tried.whole < tried.images / 2, "{tried:?}");
    }
}

#[test]
fn what_is_left_of_a_snapshot_is_noticed() {
    assert!(crash(32768, "/copy", Some(Mutation::SnapshotUnnoted)).is_err());
}

#[test]
fn a_snapshot_that_stays_to_be_removed_is_noticed() {
    assert!(crash(32768, "/.snapshot-of-mine", Some(Mutation::SnapshotStaysNoted)).is_err());
}

#[test]
fn a_file_removed_before_it_is_done_with_is_noticed() {
    assert!(crash(32768, "/copy", Some(Mutation::SnapshotsFirst)).is_err());
}

/// The pool as a crash in the middle of a snapshot left it, opened again.
fn cut_short() -> (Arc<Sim>, Tree) {
    let sim = Arc::new(Sim::new(POOL_BYTES).unwrap());
    let store = Store::create_sim(sim.clone(), &StoreOptions::new().geometry(tiny(1, 32768))).unwrap();
    plant(&store);
    let expected = tree(&store, "/t");
    mutation::set(Some(Mutation::SnapshotStaysNoted));
    let _off = Off;
    store.snapshot("/t", "/.snapshot-was-under-way").unwrap();
    store.close().unwrap();
    (sim, expected)
}

#[test]
fn what_is_left_goes_with_the_next_open() {
    let (sim, expected) = cut_short();
    let store = Store::open_sim(sim.clone()).unwrap();
    assert_eq!(store.recovery().intents, 1);
    assert_eq!(judge(&store, &expected, "/none"), Ok(false));
    store.close().unwrap();
    assert_eq!(Store::open_sim(sim).unwrap().recovery().intents, 0);
}

/// One that is there when a pool is opened, and one that is in the making: both stay under another name, whichever way they
/// got it, and who removes one meanwhile leaves nothing to do.
#[test]
fn what_gets_another_name_is_kept() {
    let sim = Arc::new(Sim::new(POOL_BYTES).unwrap());
    let store = Store::create_sim(sim.clone(), &StoreOptions::new().geometry(tiny(1, 32768))).unwrap();
    plant(&store);
    let expected = tree(&store, "/t");
    store.create_dir("/other", 0o700).unwrap();
    let noted = |store: &Store, name: &str| {
        mutation::set(Some(Mutation::SnapshotStaysNoted));
        let _off = Off;
        store.snapshot("/t", format!("/{SNAPSHOT_PREFIX}{name}")).unwrap();
    };
    ["moved", "exchanged", "replaced", "removed"].into_iter().for_each(|name| noted(&store, name));
    store.rename("/.snapshot-moved", "/.snapshot-kept").unwrap();
    store.rename_to("/other", &store, "/.snapshot-exchanged", RenameMode::Exchange).unwrap();
    store.remove_dir_all("/.snapshot-removed").unwrap();
    store.rename("/.snapshot-replaced", "/.snapshot-exchanged").unwrap();
    drop(store);
    let store = Store::open_sim(sim).unwrap();
    assert_eq!(store.recovery().intents, 0);
    for kept in ["/.snapshot-kept", "/other", "/.snapshot-exchanged"] {
        assert_eq!(tree(&store, kept), expected, "{kept}");
    }
    assert!(!store.exists("/.snapshot-removed").unwrap());
    check(&store).unwrap();
}
