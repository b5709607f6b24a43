//! Do trees survive the way in and out?

#![allow(clippy::unwrap_used, reason = "a test that can not go on fails")]

mod common;

use common::Cli;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

const HOLE_AT: u64 = 64 << 10;
const SPARSE_LEN: u64 = 8 << 20;

/// A tree with something of everything.
fn make_tree(root: &Path) {
    fs::create_dir_all(root.join("sub/empty")).unwrap();
    fs::write(root.join("empty"), b"").unwrap();
    fs::write(root.join("text"), b"some text\n").unwrap();
    fs::write(root.join("large"), (0..3_000_001_u32).map(|i| (i * 31 / 7) as u8).collect::<Vec<_>>())
        .unwrap();
    fs::hard_link(root.join("text"), root.join("sub/text-too")).unwrap();
    symlink("../text", root.join("sub/link")).unwrap();
    symlink("/nowhere at all", root.join("dangling")).unwrap();
    fs::write(root.join(OsStr::from_bytes(b"odd \xff\n\\ name")), b"odd").unwrap();
    fs::write(root.join("n".repeat(255)), b"long").unwrap();
    let sparse = File::create(root.join("sparse")).unwrap();
    sparse.write_all_at(&[5; 5000], HOLE_AT).unwrap();
    sparse.set_len(SPARSE_LEN).unwrap();
    fs::set_permissions(root.join("text"), fs::Permissions::from_mode(0o4751)).unwrap();
    fs::set_permissions(root.join("sub/empty"), fs::Permissions::from_mode(0o1700)).unwrap();
    if xattr::set(root.join("text"), "user.daxstore", b"\0value\xff").is_ok() {
        xattr::set(root.join("sub"), "user.of-a-directory", &[9; 3000]).unwrap();
    }
    set_times(&root.join("large"), 1_500_000_000_123);
    set_times(&root.join("dangling"), 1_234_567_890_987_654_321);
    set_times(&root.join("sub/empty"), 42);
    set_times(&root.join("sub"), 999_999_999_999_999_999);
    set_times(root, 1_000_000_000_000_000_001);
}

fn set_times(path: &Path, nanos: i64) {
    let time = rustix::fs::Timespec {
        tv_sec: nanos.div_euclid(1_000_000_000),
        tv_nsec: nanos.rem_euclid(1_000_000_000),
    };
    let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
    let link = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
    rustix::fs::utimensat(rustix::fs::CWD, path, &times, link).unwrap();
}

/// Everything of a file that a copy must keep.
struct Face {
    mode: u32,
    owner: (u32, u32),
    mtime: (i64, i64),
    links: u64,
    content: Vec<u8>,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

fn face(path: &Path) -> Face {
    let metadata = fs::symlink_metadata(path).unwrap();
    let content = match metadata.file_type() {
        t if t.is_symlink() => fs::read_link(path).unwrap().as_os_str().as_bytes().to_vec(),
        t if t.is_dir() => Vec::new(),
        _ => fs::read(path).unwrap(),
    };
    let names = xattr::list(path).map(Iterator::collect::<Vec<_>>).unwrap_or_default();
    Face {
        mode: metadata.mode(),
        owner: (metadata.uid(), metadata.gid()),
        mtime: (metadata.mtime(), metadata.mtime_nsec()),
        links: if metadata.is_dir() { 0 } else { metadata.nlink() },
        content,
        xattrs: names
            .into_iter()
            .map(|n| (n.as_bytes().to_vec(), xattr::get(path, &n).unwrap().unwrap()))
            .collect(),
    }
}

/// Every file below `root` by its path there.
fn faces(root: &Path) -> BTreeMap<PathBuf, Face> {
    let mut found = BTreeMap::from([(PathBuf::new(), face(root))]);
    let mut waiting = vec![root.to_path_buf()];
    while let Some(dir) = waiting.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if fs::symlink_metadata(&path).unwrap().is_dir() {
                waiting.push(path.clone());
            }
            found.insert(path.strip_prefix(root).unwrap().to_path_buf(), face(&path));
        }
    }
    found
}

fn assert_same(original: &Path, copy: &Path) {
    let (original, copy) = (faces(original), faces(copy));
    for (path, face) in &original {
        let copy = copy.get(path).unwrap_or_else(|| panic!("{path:?} is missing"));
        let meta = |f: &Face| (f.mode, f.owner, f.mtime, f.links);
        assert_eq!(meta(copy), meta(face), "{path:?}");
        assert_eq!(copy.xattrs, face.xattrs, "{path:?}");
        let differs = copy.content.iter().zip(&face.content).position(|(a, b)| a != b);
        assert_eq!((differs, copy.content.len()), (None, face.content.len()), "{path:?}");
    }
    assert_eq!(original.len(), copy.len());
}

#[test]
fn a_tree_survives_the_round_trip() {
    let cli = Cli::with_pool();
    make_tree(&cli.path("tree"));
    let put = cli.run(["put", "pool", "tree", "/", "--json"]).json();
    assert_eq!((&put["files"], &put["symlinks"], &put["hard_links"]), (&6.into(), &2.into(), &1.into()));
    assert!(cli.run(["check", "pool"]).good().contains("no faults"));
    cli.run(["get", "pool", "/tree", "copy"]).good();
    assert_same(&cli.path("tree"), &cli.path("copy"));
    let (a, b) =
        (fs::metadata(cli.path("copy/text")).unwrap(), fs::metadata(cli.path("copy/sub/text-too")).unwrap());
    assert_eq!(a.ino(), b.ino());
    let sparse = fs::metadata(cli.path("copy/sparse")).unwrap();
    assert!(sparse.blocks() * 512 <= 64 << 10, "the hole became {} blocks", sparse.blocks());
    let stat = cli.run(["stat", "pool", "/tree/sparse", "--json"]).json();
    assert!(stat["blocks"].as_u64().unwrap() <= 2, "{stat}");
    assert_eq!(stat["size"], SPARSE_LEN);
}

#[test]
fn times_before_1970_are_kept() {
    let cli = Cli::with_pool();
    fs::write(cli.path("f"), b"old").unwrap();
    set_times(&cli.path("f"), -1_500_000_000_123);
    cli.run(["put", "pool", "f", "/"]).good();
    cli.run(["get", "pool", "/f", "g"]).good();
    assert_eq!(face(&cli.path("g")).mtime, (-1501, 999_999_877));
}

#[test]
fn sources_land_as_with_cp() {
    let cli = Cli::with_pool();
    fs::create_dir(cli.path("d")).unwrap();
    fs::write(cli.path("d/f"), b"1").unwrap();
    fs::write(cli.path("g"), b"2").unwrap();
    cli.run(["put", "pool", "d", "/new"]).good();
    cli.run(["put", "pool", "d", "g", "/new"]).good();
    cli.run(["put", "pool", "g", "/renamed"]).good();
    assert_eq!(cli.run(["ls", "-R", "pool"]).good(), "/:\nnew\nrenamed\n\n/new:\nd\nf\ng\n\n/new/d:\nf\n");
    assert!(cli.run(["put", "pool", "d", "g", "/nowhere"]).refused().contains("need a directory"));
    fs::create_dir(cli.path("out")).unwrap();
    cli.run(["get", "pool", "/new", "/renamed", "out"]).good();
    cli.run(["get", "pool", "/", "all"]).good();
    cli.run(["get", "pool", "/renamed", "here"]).good();
    assert_eq!(fs::read(cli.path("out/new/d/f")).unwrap(), b"1");
    assert_eq!(fs::read(cli.path("out/renamed")).unwrap(), b"2");
    assert_eq!(fs::read(cli.path("all/new/g")).unwrap(), b"2");
    assert_eq!(fs::read(cli.path("here")).unwrap(), b"2");
    assert!(cli.run(["get", "pool", "/new", "/renamed", "here"]).refused().contains("need a directory"));
}

#[test]
fn files_are_replaced_and_directories_merged() {
    let cli = Cli::with_pool();
    make_tree(&cli.path("tree"));
    cli.run(["put", "pool", "tree", "/"]).good();
    fs::write(cli.path("tree/text"), b"changed").unwrap();
    fs::remove_file(cli.path("tree/dangling")).unwrap();
    symlink("elsewhere", cli.path("tree/dangling")).unwrap();
    cli.feed(["write", "pool", "/tree/extra"], b"extra").good();
    cli.run(["put", "pool", "tree", "/"]).good();
    assert_eq!(cli.run(["cat", "pool", "/tree/text"]).good(), "changed");
    cli.run(["rm", "pool", "/tree/extra"]).good();
    set_times(&cli.path("tree"), 77);
    cli.run(["put", "pool", "tree", "/"]).good();
    cli.run(["get", "pool", "/tree", "copy"]).good();
    cli.run(["get", "pool", "/tree/text", "copy"]).good();
    cli.run(["get", "pool", "/", "copies"]).good();
    cli.run(["get", "pool", "/", "copies"]).good();
    assert_same(&cli.path("tree"), &cli.path("copies/tree"));
    assert!(cli.run(["check", "pool"]).good().contains("no faults"));
}

#[test]
fn kinds_that_do_not_fit_are_refused() {
    let cli = Cli::with_pool();
    fs::create_dir_all(cli.path("t/x")).unwrap();
    fs::write(cli.path("t/x/below"), b"1").unwrap();
    fs::write(cli.path("t/y"), b"2").unwrap();
    cli.run(["mkdir", "-p", "pool", "/t/y"]).good();
    cli.feed(["write", "pool", "/t/x"], b"a file").good();
    let run = cli.run(["put", "pool", "t", "/"]);
    assert_eq!(run.code, 1);
    assert!(run.err.contains("daxstore: make directory /t/x: the name exists already"), "{}", run.err);
    assert!(run.err.contains("daxstore: write /t/y: is a directory"), "{}", run.err);
    assert_eq!(run.err.lines().count(), 2, "what is below is not tried: {}", run.err);
}

#[test]
fn special_files_are_left_out_and_counted() {
    let cli = Cli::with_pool();
    fs::create_dir(cli.path("t")).unwrap();
    let fifo = cli.path("t/fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(cli.path("t/socket")).unwrap();
    fs::write(cli.path("t/file"), b"1").unwrap();
    let run = cli.run(["put", "pool", "t", "/"]);
    assert_eq!(run.code, 0);
    assert_eq!(
        run.err,
        "daxstore: warning: t/fifo is a fifo and is left out\ndaxstore: warning: t/socket is a socket and is left out\n"
    );
    assert!(run.out.ends_with("; 2 special files left out\n"), "{}", run.out);
    assert_eq!(cli.run(["ls", "pool", "/t"]).good(), "file\n");
}

#[test]
fn one_bad_file_does_not_stop_the_rest() {
    let cli = Cli::with_pool();
    fs::write(cli.path("good"), b"1").unwrap();
    let run = cli.run(["put", "pool", "missing", "good", "/"]);
    assert_eq!(run.code, 1);
    assert!(run.err.starts_with("daxstore: read missing: No such file"), "{}", run.err);
    assert_eq!(cli.run(["cat", "pool", "/good"]).good(), "1");
    let run = cli.run(["put", "pool", "missing", "good", "/", "--json"]);
    let done: serde_json::Value = serde_json::from_str(&run.out).unwrap();
    assert_eq!((run.code, run.err.as_str()), (1, ""));
    assert_eq!((&done["files"], &done["errors"][0]["what"]), (&1.into(), &"read missing".into()));
    fs::create_dir(cli.path("out")).unwrap();
    let run = cli.run(["get", "pool", "/missing", "/good", "out"]);
    assert_eq!(run.code, 1);
    assert_eq!(fs::read(cli.path("out/good")).unwrap(), b"1");
}

#[test]
fn nothing_escapes_from_the_destination() {
    let cli = Cli::with_pool();
    fs::create_dir_all(cli.path("t/d")).unwrap();
    fs::write(cli.path("t/d/inside"), b"new").unwrap();
    fs::write(cli.path("t/f"), b"new").unwrap();
    cli.run(["put", "pool", "t", "/"]).good();
    fs::create_dir_all(cli.path("outside")).unwrap();
    fs::write(cli.path("victim"), b"safe").unwrap();
    fs::create_dir_all(cli.path("out/t")).unwrap();
    symlink(cli.path("outside"), cli.path("out/t/d")).unwrap();
    symlink(cli.path("victim"), cli.path("out/t/f")).unwrap();
    let run = cli.run(["get", "pool", "/t", "out"]);
    assert_eq!(run.code, 1);
    assert!(run.err.contains("make directory out/t/d"), "{}", run.err);
    assert_eq!(fs::read_dir(cli.path("outside")).unwrap().count(), 0);
    assert_eq!(fs::read(cli.path("victim")).unwrap(), b"safe");
    assert_eq!(fs::read(cli.path("out/t/f")).unwrap(), b"new");
    assert!(!cli.path("out/t/f").is_symlink());
}

#[test]
fn a_pool_does_not_swallow_itself() {
    let cli = Cli::with_pool();
    fs::write(cli.path("file"), b"1").unwrap();
    let run = cli.run(["put", "pool", ".", "/"]);
    assert_eq!(run.code, 0, "{}", run.err);
    assert!(run.err.contains("pool is the pool itself and is left out"), "{}", run.err);
    assert_eq!(cli.run(["ls", "pool"]).good(), "file\n");
}

#[test]
fn finished_files_are_named() {
    let cli = Cli::with_pool();
    fs::create_dir(cli.path("t")).unwrap();
    fs::write(cli.path("t/a\nb"), b"1").unwrap();
    assert_eq!(cli.run(["put", "-v", "pool", "t", "/"]).good(), "/t\n/t/a\\nb\n");
    assert_eq!(cli.run(["put", "-v0", "pool", "t", "/"]).good(), "/t\0/t/a\nb\0");
    assert_eq!(cli.run(["get", "-v", "pool", "/t", "u"]).good(), "u/a\\nb\n");
}

#[test]
fn a_deep_tree_is_no_trouble() {
    let cli = Cli::with_pool();
    let path: PathBuf = std::iter::once("deep").chain(std::iter::repeat_n("d", 600)).collect();
    fs::create_dir_all(cli.path(&path)).unwrap();
    fs::write(cli.path(path.join("f")), b"at the bottom").unwrap();
    cli.run(["put", "pool", "deep", "/"]).good();
    cli.run(["get", "pool", "/deep", "copy"]).good();
    let copy: PathBuf =
        std::iter::once("copy").chain(path.iter().skip(1).map(|c| c.to_str().unwrap())).collect();
    assert_eq!(fs::read(cli.path(copy.join("f"))).unwrap(), b"at the bottom");
    assert_eq!(cli.run(["ls", "-R", "pool"]).good().matches("/d:").count(), 600);
    cli.run(["rm", "-r", "pool", "/deep"]).good();
}
