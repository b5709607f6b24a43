//! Does every command do what it says, in text and in JSON?

#![allow(clippy::unwrap_used, reason = "a test that can not go on fails")]

mod common;

use common::Cli;
use serde_json::{Value, json};

#[test]
fn mkfs_and_info() {
    let cli = Cli::new();
    let text = cli.run(["mkfs", "p", "--size", "8M"]).good();
    assert_eq!(text, "p: an empty pool of 8.0 MiB\n");
    assert!(cli.run(["mkfs", "p", "--size", "8M"]).refused().contains("--force"));
    let made = cli.run(["mkfs", "p", "--size", "64M", "--label", "höhle", "--force", "--json"]).json();
    assert_eq!((&made["size"], &made["label"]), (&json!(64 << 20), &json!("höhle")));
    let info = cli.run(["info", "p", "--json"]).json();
    assert_eq!((&info["label"], &info["geometry"]["size"]), (&json!("höhle"), &json!(64 << 20)));
    assert_eq!(info["uuid"].as_str().unwrap().len(), 36);
    assert_eq!(info["survives_power_loss"], false);
    assert_eq!((&info["warnings"][0]["costs"], &info["eadr"]), (&json!("durability"), &json!(false)));
    let space = &info["space"];
    assert_eq!(space["chunks"], 32);
    assert_eq!(sum(space, &["free_chunks", "whole_chunks", "broken_chunks"]), 32);
    let text = cli.run(["info", "p"]).good();
    for name in ["label", "backend", "durability", "size", "fragmentation", "features", "recovery", "chunks"]
    {
        assert!(text.lines().any(|line| line.starts_with(name)), "{name} in {text}");
    }
}

#[test]
fn levels_of_durability_are_told_and_set() {
    let cli = Cli::new();
    cli.run(["mkfs", "p", "--size", "8M", "--durability", "atomic-data"]).good();
    assert_eq!(cli.run(["durability", "p"]).good(), "atomic-data\n");
    assert_eq!(cli.run(["info", "p", "--json"]).json()["level"], "atomic-data");
    cli.run(["mkdir", "p", "/d"]).good();
    assert_eq!(cli.run(["durability", "p", "/d"]).good(), "atomic-data (the pool's)\n");
    assert_eq!(cli.run(["durability", "p", "/d", "--set", "ordered"]).good(), "ordered\n");
    cli.run(["mkdir", "p", "/d/e"]).good();
    let found = cli.run(["durability", "p", "/d/e", "--json"]).json();
    assert_eq!(found, json!({"name": "/d/e", "named": "ordered", "level": "ordered"}));
    assert_eq!(cli.run(["stat", "p", "/d/e", "--json"]).json()["level"], "ordered");
    assert_eq!(cli.run(["durability", "p", "/d", "--set", "pool"]).good(), "atomic-data (the pool's)\n");
    assert_eq!(cli.run(["durability", "p", "--set", "strict", "--json"]).json()["level"], "strict");
    cli.run(["check", "p"]).good();
}

fn sum(object: &Value, names: &[&str]) -> u64 {
    names.iter().map(|name| object[name].as_u64().unwrap()).sum()
}

#[test]
fn a_plain_file_is_power_safe_unless_said_otherwise() {
    let cli = Cli::new();
    cli.run(["mkfs", "p", "--size", "8M"]).good();
    let backend = |args: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_daxstore"));
        let output = command.args(["info", "--json"]).args(args).arg(cli.path("p")).output().unwrap();
        let info: Value = serde_json::from_slice(&output.stdout).unwrap();
        (info["backend"].as_str().unwrap().to_owned(), info["survives_power_loss"].as_bool().unwrap())
    };
    let (plain, plain_survives) = backend(&[]);
    let (lines, lines_survive) = backend(&["--assume-persistent"]);
    assert!(plain.starts_with("pages") && plain_survives, "{plain}");
    assert!(lines.starts_with("lines") && !lines_survive, "{lines}");
}

#[test]
fn names_come_go_and_move() {
    let cli = Cli::with_pool();
    cli.run(["mkdir", "pool", "/a", "/b"]).good();
    cli.run(["mkdir", "-p", "pool", "/a/x/y", "/a"]).good();
    assert_eq!(
        cli.run(["mkdir", "pool", "/c", "-m", "700", "--json"]).json(),
        json!({"made": [{"name": "/c"}]})
    );
    cli.feed(["write", "pool", "/f"], b"content").good();
    cli.run(["ln", "pool", "/f", "/a"]).good();
    cli.run(["ln", "-s", "pool", "../f", "/a/s"]).good();
    assert_eq!(cli.run(["cat", "pool", "/a/s", "/a/f"]).good(), "contentcontent");
    let linked = cli.run(["ln", "-s", "pool", "x", "/l", "--json"]).json();
    assert_eq!(linked, json!({"linked": {"from": {"name": "/l"}, "to": {"name": "x"}}, "symbolic": true}));
    cli.run(["rm", "pool", "/l"]).good();
    assert_eq!(cli.run(["ls", "pool"]).good(), "a\nb\nc\nf\n");
    assert_eq!(cli.run(["ls", "-R", "pool", "/a"]).good(), "/a:\nf\ns\nx\n\n/a/x:\ny\n\n/a/x/y:\n");
    cli.run(["mv", "pool", "/f", "/a/s", "/b"]).good();
    assert_eq!(cli.run(["ls", "pool", "/b"]).good(), "f\ns\n");
    cli.run(["mv", "pool", "/b/f", "/g"]).good();
    assert!(cli.run(["mv", "-n", "pool", "/g", "/b/s"]).refused().contains("the name exists already"));
    cli.run(["mv", "--exchange", "pool", "/b", "/c"]).good();
    assert_eq!(cli.run(["ls", "pool", "/c"]).good(), "s\n");
    let moved = cli.run(["mv", "pool", "/g", "/c", "--json"]).json();
    assert_eq!(moved["moved"][0]["to"]["name"], "/c/g");
    assert!(cli.run(["mv", "pool", "/c/g", "/c/s", "/nowhere"]).refused().contains("need a directory"));
    assert!(cli.run(["rm", "pool", "/a"]).refused().contains("is a directory"));
    cli.run(["rm", "-r", "pool", "/a", "/c"]).good();
    assert_eq!(cli.run(["rm", "-r", "pool", "/b", "--json"]).json()["removed"][0]["name"], "/b");
    assert_eq!(cli.run(["ls", "pool"]).good(), "");
}

#[test]
fn long_listings_and_stat() {
    let cli = Cli::with_pool();
    cli.feed(["write", "pool", "/f"], &[7; 5000]).good();
    cli.run(["ln", "-s", "pool", "f", "/link"]).good();
    let listing = cli.run(["ls", "-l", "pool"]).good();
    let lines: Vec<_> = listing.lines().collect();
    assert!(lines[0].starts_with("-rw-r--r-- 1 ") && lines[0].ends_with(" f"), "{listing}");
    assert!(lines[0].contains(" 5000 20"), "{listing}");
    assert!(lines[1].starts_with("lrwxrwxrwx 1 ") && lines[1].ends_with(" link -> f"), "{listing}");
    let listing = cli.run(["ls", "-l", "pool", "--json"]).json();
    let entries = &listing["directories"][0]["entries"];
    assert_eq!(
        (&entries[0]["attributes"]["size"], &entries[1]["target"]["name"]),
        (&json!(5000), &json!("f"))
    );
    let stat = cli.run(["stat", "pool", "f", "--json"]).json();
    assert_eq!(
        (&stat["kind"], &stat["size"], &stat["blocks"], &stat["mode"]),
        (&json!("file"), &json!(5000), &json!(2), &json!("0644"))
    );
    assert!(cli.run(["stat", "pool", "link"]).good().contains("target  f\n"));
    assert_eq!(cli.run(["stat", "pool", "link", "--json"]).json()["kind"], "symlink");
    assert_eq!(cli.run(["stat", "pool", "/", "--json"]).json()["kind"], "directory");
}

#[test]
fn content() {
    let cli = Cli::with_pool();
    cli.feed(["write", "pool", "/f"], b"0123456789").good();
    cli.feed(["write", "pool", "/f", "--offset", "4"], b"xx").good();
    assert_eq!(cli.run(["cat", "pool", "/f"]).good(), "0123xx6789");
    let written = cli.feed(["write", "pool", "/f", "--append", "--json"], b"end").json();
    assert_eq!(written, json!({"path": {"name": "/f"}, "offset": 10, "bytes": 3, "size": 13}));
    cli.feed(["write", "pool", "/f"], b"new").good();
    assert_eq!(cli.run(["cat", "pool", "/f"]).good(), "new");
    cli.run(["truncate", "pool", "/f", "-s", "2"]).good();
    let read = cli.run(["cat", "pool", "/f", "--json"]).json();
    assert_eq!(read["files"][0], json!({"name": "/f", "bytes": 2, "text": "ne"}));
    cli.feed(["write", "pool", "/f"], b"\xff\x00").good();
    assert_eq!(cli.run(["cat", "pool", "/f", "--json"]).json()["files"][0]["hex"], "ff00");
    let large: Vec<u8> = (0..5_000_001_u32).map(|i| (i / 7) as u8 & 0x7f).collect();
    cli.feed(["write", "pool", "/large"], &large).good();
    assert!(cli.run(["cat", "pool", "/large"]).good().as_bytes() == large);
    cli.run(["truncate", "pool", "/made", "--size", "1M"]).good();
    assert_eq!(cli.run(["stat", "pool", "/made", "--json"]).json()["size"], 1 << 20);
    let cut = cli.run(["truncate", "pool", "/made", "--size", "0", "--json"]).json();
    assert_eq!(cut, json!({"path": {"name": "/made"}, "size": 0, "blocks": 0}));
    let got = cli.run(["get", "pool", "/f", "f", "--json"]).json();
    assert_eq!((&got["files"], &got["bytes"], &got["errors"]), (&json!(1), &json!(2), &json!([])));
}

#[test]
fn space_of_files() {
    let cli = Cli::with_pool();
    let made = cli.run(["fallocate", "pool", "/f", "--length", "32K", "--json"]).json();
    assert_eq!((&made["size"], &made["blocks"]), (&json!(32768), &json!(8)));
    let kept =
        cli.run(["fallocate", "pool", "/f", "-m", "keep-size", "-o", "32K", "-l", "32K", "--json"]).json();
    assert_eq!((&kept["size"], &kept["blocks"]), (&json!(32768), &json!(16)));
    cli.feed(["write", "pool", "/f", "--offset", "0"], &[1; 16384]).good();
    cli.run(["fallocate", "pool", "/f", "--mode", "punch", "--offset", "4K", "--length", "4K"]).good();
    cli.run(["fallocate", "pool", "/f", "--mode", "zero", "--offset", "8K", "--length", "4K"]).good();
    let found = cli.run(["extents", "pool", "/f", "--json"]).json();
    let states: Vec<_> = found["extents"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| (e["state"].as_str().unwrap(), e["offset"].as_u64().unwrap(), e["len"].as_u64().unwrap()))
        .collect();
    assert_eq!(states[..2], [("mapped", 0, 4096), ("hole", 4096, 4096)]);
    assert_eq!(states.iter().map(|s| s.2).sum::<u64>(), 65536);
    let text = cli.run(["extents", "pool", "/f"]).good();
    assert!(text.starts_with("state "), "{text}");
    assert!(text.lines().nth(2).unwrap().ends_with("-  no"), "{text}");
    assert!(cli.run(["fallocate", "pool", "/f", "--length", "0"]).refused().contains("length is 0"));
    assert!(
        cli.run(["fallocate", "pool", "/no", "-m", "punch", "-l", "1"]).refused().contains("no such file")
    );
}

#[test]
fn a_large_file_can_be_mapped_huge() {
    let cli = Cli::with_pool();
    std::fs::write(cli.path("large"), vec![3; 6 << 20]).unwrap();
    cli.run(["put", "pool", "large", "/"]).good();
    let found = cli.run(["extents", "pool", "/large", "--json"]).json();
    let huge = found["extents"].as_array().unwrap().iter().filter(|e| e["huge"] == true);
    assert_eq!(huge.map(|e| e["len"].as_u64().unwrap()).sum::<u64>(), 6 << 20, "{found}");
}

#[test]
fn defrag_makes_slots_huge_and_keeps_what_they_hold() {
    let cli = Cli::with_pool();
    cli.run(["mkdir", "-p", "pool", "/d/e"]).good();
    for path in ["/d/e/f", "/d/g"] {
        // Blocks in the middle of a chunk, and then space for the rest of two slots, but for a block.
        cli.run(["truncate", "pool", path, "--size", "4M"]).good();
        cli.feed(["write", "pool", path, "--offset", "8192"], &[7; 5000]).good();
        cli.feed(["write", "pool", &format!("{path}-"), "--offset", "0"], &[9; 4096]).good();
        cli.run(["fallocate", "pool", path, "--length", "4092K"]).good();
    }
    cli.run(["ln", "pool", "/d/g", "/d/link"]).good();
    let before = cli.run(["cat", "pool", "/d/e/f"]).good();
    let text = cli.run(["defrag", "pool", "/d/e"]).good();
    let line = "2 slots of 2 MiB, 0 huge before, 1 after, 1 left: with holes\n";
    assert_eq!(text, format!("/d/e/f: {line}1 file: {line}"));
    assert_eq!(cli.run(["cat", "pool", "/d/e/f"]).good(), before);
    let found = cli.run(["defrag", "pool", "--json"]).json();
    assert_eq!(found["files"].as_array().unwrap().len(), 2, "each file once: {found}");
    let total = &found["total"];
    assert_eq!(
        (&total["slots"], &total["huge_before"], &total["huge_after"]),
        (&json!(4), &json!(1), &json!(2))
    );
    assert_eq!((&total["with_holes"], &total["no_free_chunk"]), (&json!(2), &json!(0)));
    assert_eq!(found["files"][0]["name"], "/d/e/f");
    assert!(cli.run(["defrag", "pool", "/no"]).refused().contains("no such file"));
    assert!(cli.run(["check", "pool"]).good().contains("no faults"));
}

#[test]
fn sequential_files_and_moves() {
    let cli = Cli::with_pool();
    cli.run(["create", "pool", "/s", "--sequential", "--capacity", "10K", "--extent-hint", "64K"]).good();
    cli.feed(["write", "pool", "/s", "--append"], b"first\n").good();
    cli.feed(["write", "pool", "/s", "--append"], b"second\n").good();
    assert_eq!(cli.run(["cat", "pool", "/s"]).good(), "first\nsecond\n");
    let refused = cli.feed(["write", "pool", "/s", "--offset", "3"], b"x").refused();
    assert!(refused.contains("byte 13"), "{refused}");
    let refused = cli.feed(["write", "pool", "/s", "--append"], &[1; 20_000]).refused();
    assert!(refused.contains("10240 bytes"), "{refused}");
    let stat = cli.run(["stat", "pool", "/s"]).good();
    assert!(
        stat.contains("at its end alone, byte 13 of 10 240") || stat.contains("byte 13 of 10,240"),
        "{stat}"
    );
    let stat = cli.run(["stat", "pool", "/s", "--json"]).json();
    assert_eq!(
        (stat["sequential_capacity"].as_u64(), stat["extent_hint"].as_u64()),
        (Some(10240), Some(65536))
    );
    assert!(cli.run(["truncate", "pool", "/s", "-s", "0"]).refused().contains("write pointer"));
    cli.run(["reset", "pool", "/s"]).good();
    assert_eq!(cli.run(["cat", "pool", "/s"]).good(), "");
    assert!(cli.run(["create", "pool", "/s"]).refused().contains("exists"));

    let pages: Vec<u8> = (0..4).flat_map(|n| [b'a' + n; 4096]).collect();
    cli.feed(["write", "pool", "/p"], &pages).good();
    let fallocate = |mode, offset, length| {
        cli.run(["fallocate", "pool", "/p", "--mode", mode, "--offset", offset, "--length", length])
    };
    fallocate("collapse", "4K", "8K").good();
    assert_eq!(cli.run(["cat", "pool", "/p"]).good(), "a".repeat(4096) + &"d".repeat(4096));
    fallocate("insert", "4K", "4K").good();
    let text = cli.run(["cat", "pool", "/p"]).good();
    assert!(text.starts_with("aaaa") && text.ends_with("dddd") && text.len() == 12288);
    assert!(fallocate("collapse", "0", "12K").refused().contains("truncate it instead"));
    assert!(fallocate("insert", "5", "4K").refused().contains("whole blocks"));
    cli.run(["check", "pool"]).good();
}

#[test]
fn grow_and_check() {
    let cli = Cli::with_pool();
    cli.feed(["write", "pool", "/f"], b"stays").good();
    let grown = cli.run(["grow", "pool", "--size", "128M", "--json"]).json();
    assert_eq!(grown["size"], 128 << 20);
    assert_eq!(cli.run(["info", "pool", "--json"]).json()["geometry"]["size"], 128 << 20);
    assert!(cli.run(["grow", "pool", "--size", "64M"]).refused().contains("can not shrink"));
    assert_eq!(cli.run(["cat", "pool", "/f"]).good(), "stays");
    assert!(cli.run(["check", "pool"]).good().contains("no faults"));
    let checked = cli.run(["check", "pool", "--repair", "--json"]).json();
    assert_eq!((&checked["clean"], &checked["faults"]), (&json!(true), &json!([])));
}

#[test]
fn damage_is_told_with_its_place() {
    use std::os::unix::fs::FileExt;
    let cli = Cli::with_pool();
    cli.feed(["write", "pool", "/f"], b"content").good();
    let ino = cli.run(["stat", "pool", "/f", "--json"]).json()["ino"].as_u64().unwrap();
    let pool = std::fs::OpenOptions::new().write(true).open(cli.path("pool")).unwrap();
    pool.write_all_at(&[0xa5; 8], ino * 256 + 40).unwrap();
    let place = format!("{:#x}", ino * 256);
    let refusal = cli.run(["cat", "pool", "/f"]).refused();
    assert!(refusal.starts_with("daxstore: read /f: damaged: inode at pool offset"), "{refusal}");
    assert!(refusal.contains(&place) && refusal.ends_with("; run `daxstore check`"), "{refusal}");
    let run = cli.run(["check", "pool"]);
    assert_eq!(run.code, 1);
    assert!(run.out.contains(&place) && run.out.contains("--repair"), "{}", run.out);
    let run = cli.run(["check", "pool", "--json"]);
    let report: Value = serde_json::from_str(&run.out).unwrap();
    assert_eq!((run.code, &report["clean"]), (1, &json!(false)));
    assert!(report["faults"].as_array().unwrap().iter().any(|f| f["at"] == ino * 256), "{report}");
    assert_eq!(report["lost"], json!([]), "nothing was asked to be repaired");
    let run = cli.run(["check", "pool", "--repair", "--json"]);
    let report: Value = serde_json::from_str(&run.out).unwrap();
    assert_eq!(run.code, 1);
    assert!(report["faults"].as_array().unwrap().iter().all(|f| f["repair"].is_string()), "{report}");
    assert_ne!(report["lost"], json!([]), "the file is gone, and that is said");
    assert!(cli.run(["check", "pool"]).good().contains("no faults"));
    assert_eq!(cli.run(["ls", "pool"]).good(), "");
}

#[test]
fn pictures() {
    let cli = Cli::with_pool();
    cli.feed(["write", "pool", "/<f>"], &[1; 100_000]).good();
    cli.run(["map", "pool", "-o", "p.svg", "--file", "/<f>"]).good();
    let svg = std::fs::read_to_string(cli.path("p.svg")).unwrap();
    assert!(svg.starts_with("<?xml") && svg.trim_end().ends_with("</svg>"));
    assert_eq!(svg.matches("<g>").count(), 32);
    assert!(svg.contains("/&lt;f&gt; (97.7 KiB"), "the marked file's name is escaped");
    assert_eq!(cli.run(["map", "pool", "-o", "-", "--file", "/<f>"]).good(), svg);
    let drawn = cli.run(["map", "pool", "-o", "q.svg", "--json"]).json();
    assert_eq!((&drawn["cells"], &drawn["chunks_per_cell"]), (&json!(32), &json!(1)));
    cli.run(["mkfs", "large", "--size", "100G"]).good();
    let drawn = cli.run(["map", "large", "-o", "q.svg", "--json"]).json();
    assert_eq!((&drawn["cells"], &drawn["chunks_per_cell"]), (&json!(3200), &json!(16)));
}

#[test]
fn odd_names_are_shown_without_loss() {
    use std::os::unix::ffi::OsStrExt;
    let cli = Cli::with_pool();
    let odd = std::ffi::OsStr::from_bytes(b"/a\xff\n\\");
    cli.run([std::ffi::OsStr::new("mkdir"), std::ffi::OsStr::new("pool"), odd]).good();
    assert_eq!(cli.run(["ls", "pool"]).good(), "a\\xff\\n\\\\\n");
    let entry = &cli.run(["ls", "pool", "--json"]).json()["directories"][0]["entries"][0];
    assert_eq!((&entry["name"], &entry["name_hex"]), (&json!("a\u{fffd}\n\\"), &json!("61ff0a5c")));
}

#[test]
fn files_share_blocks() {
    let cli = Cli::with_pool();
    cli.run(["mkdir", "pool", "/d"]).good();
    cli.feed(["write", "pool", "/d/a"], &[7; 50_000]).good();
    let copied = cli.run(["cp", "--reflink", "pool", "/d/a", "/b", "--json"]).json();
    assert_eq!((&copied["copied"][0]["to"]["name"], &copied["reflink"]), (&json!("/b"), &json!(true)));
    assert!(cli.run(["cp", "--reflink", "pool", "/d/a", "/b"]).refused().contains("the name exists already"));
    cli.run(["cp", "pool", "/d/a", "/c"]).good();
    let shared = |path| cli.run(["extents", "pool", path, "--json"]).json()["extents"][0]["shared"].clone();
    assert_eq!((shared("/b"), shared("/c")), (json!(true), json!(false)));
    assert!(cli.run(["extents", "pool", "/b"]).good().contains("shared"));
    let space = cli.run(["info", "pool", "--json"]).json()["space"].clone();
    assert_eq!((&space["shared_blocks"], &space["saved_blocks"]), (&json!(13), &json!(13)));
    assert!(cli.run(["info", "pool"]).good().contains("52.0 KiB by several files, which saves 52.0 KiB"));
    let deduped = cli.run(["dedupe", "pool", "/d/a", "/c", "--json"]).json();
    assert_eq!((&deduped["files"][0]["same"], &deduped["freed_blocks"]), (&json!(50_000), &json!(13)));
    assert_eq!(cli.run(["snapshot", "pool", "/d", "/s"]).good(), "/s: 1 file, 1 directory\n");
    assert_eq!(cli.run(["cat", "pool", "/s/a"]).good().len(), 50_000);
    cli.run(["fallocate", "pool", "/b", "--mode", "unshare", "--length", "50000"]).good();
    assert_eq!(shared("/b"), json!(false));
    assert_eq!(cli.run(["check", "pool", "--json"]).json()["blocks_shared"], 13);
}
