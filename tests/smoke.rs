//! Does the store work end to end?

#![cfg(feature = "sim")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
use daxstore::pmem::sim::Sim;
use daxstore::{AllocateMode, Follow, RenameMode, Store, StoreOptions, XattrMode};
use std::sync::Arc;

#[test]
fn a_day_in_the_life() {
    let sim = Arc::new(Sim::new(64 << 20).unwrap());
    let store = Store::create_sim(sim.clone(), &StoreOptions::new().label("x")).unwrap();
    store.write("/hello", b"world").unwrap();
    assert_eq!(store.read("hello").unwrap(), b"world");
    store.create_dir("/d", 0o755).unwrap();
    store.symlink("../hello", "/d/link").unwrap();
    assert_eq!(store.read("/d/link").unwrap(), b"world");
    for i in 0..2000 {
        store.write(format!("/d/file{i}"), format!("content {i}").as_bytes()).unwrap();
    }
    assert_eq!(store.read("/d/file1234").unwrap(), b"content 1234");
    assert_eq!(store.open_dir("d").unwrap().read_dir().count(), 2001);
    store.rename("/d/file7", "/seven").unwrap();
    store.rename_to("/seven", &store, "/d/file8", RenameMode::Exchange).unwrap();
    assert_eq!(store.read("/seven").unwrap(), b"content 8");
    let big: Vec<u8> = (0..6_000_000_u32).map(|i| (i * 7 / 3) as u8).collect();
    store.write("/big", &big).unwrap();
    assert_eq!(store.read("/big").unwrap(), big);
    let file = store.open("/big", &daxstore::OpenOptions::new().read(true).write(true)).unwrap();
    file.allocate(10_000, 3_000_000, AllocateMode::Punch).unwrap();
    let mut expected = big;
    expected[10_000..3_010_000].fill(0);
    assert_eq!(store.read("/big").unwrap(), expected);
    file.allocate(0, 8 << 20, AllocateMode::Allocate).unwrap();
    expected.resize(8 << 20, 0);
    assert_eq!(store.read("/big").unwrap(), expected);
    let log = store.create("/log").unwrap();
    for i in 0..3000_u64 {
        assert_eq!(log.append(&[i as u8; 1000]).unwrap(), i * 1000);
    }
    drop(log);
    let node = store.open_node("/hello", Follow::Yes).unwrap();
    node.set_xattr("user.a", b"1", XattrMode::Either).unwrap();
    node.set_xattr("user.b", &[7; 65536], XattrMode::Create).unwrap();
    assert_eq!(node.get_xattr("user.b").unwrap(), [7; 65536]);
    assert_eq!(node.list_xattrs().unwrap(), [b"user.a".to_vec(), b"user.b".to_vec()]);
    drop((store, file, node));
    let store = Store::open_sim(sim).unwrap();
    assert_eq!(store.recovery().records, 0, "it was closed by the last handle");
    assert_eq!(store.read("/big").unwrap(), expected);
    assert_eq!(store.read("/d/file1999").unwrap(), b"content 1999");
    store.remove_dir_all("/d").unwrap();
    for name in ["/big", "/log", "/hello", "/seven"] {
        store.remove_file(name).unwrap();
    }
    let before = store.statfs();
    assert!(store.reclaim().unwrap() > 0, "two thousand inodes were here");
    assert!(store.statfs().free > before.free && before.files == 1);
}
