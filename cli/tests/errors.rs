//! Does every refusal say what, why and what to do, in the agreed form and with the agreed exit code?

#![allow(clippy::unwrap_used, reason = "a test that can not go on fails")]

mod common;

use common::Cli;
use serde_json::Value;
use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;

#[test]
fn the_form() {
    let cli = Cli::with_pool();
    assert_eq!(
        cli.run(["cat", "pool", "/nothing"]).refused(),
        "daxstore: read /nothing: no such file or directory; see what is there with `daxstore ls`"
    );
    assert_eq!(
        cli.run(["info", "missing"]).refused(),
        "daxstore: open missing: opening: No such file or directory (os error 2); check the path"
    );
    assert_eq!(
        cli.run(["mkfs", "small", "--size", "1M"]).refused(),
        "daxstore: make small: a pool has 8 MiB to 16 TiB, not 1048576 bytes; choose another size"
    );
    let refusal: Value =
        serde_json::from_str(&cli.run(["cat", "pool", "/nothing", "--json"]).refused()).unwrap();
    let error = &refusal["error"];
    assert_eq!(error["what"], "read /nothing");
    assert_eq!(error["cause"], "no such file or directory");
    assert_eq!(error["advice"], "see what is there with `daxstore ls`");
    assert_eq!(error["errno"], 2);
}

#[test]
fn usage_is_exit_code_2() {
    let cli = Cli::new();
    for args in [
        &["frobnicate"][..],
        &["mkfs", "p"],
        &["mkfs", "p", "--size", "8X"],
        &["put", "p", "one"],
        &["put", "-v", "--json", "p", "a", "b"],
        &[],
    ] {
        assert_eq!(cli.run(args).code, 2, "{args:?}");
    }
    assert_eq!(cli.run(["--help"]).code, 0);
}

#[test]
fn not_a_pool() {
    let cli = Cli::new();
    std::fs::write(cli.path("f"), vec![b'x'; 16 << 20]).unwrap();
    assert_eq!(
        cli.run(["ls", "f"]).refused(),
        "daxstore: open f: not a daxstore pool (no superblock found); make one with `daxstore mkfs`"
    );
    assert_eq!(cli.run(["check", "f"]).code, 1);
}

#[test]
fn a_truncated_pool() {
    let cli = Cli::with_pool();
    OpenOptions::new().write(true).open(cli.path("pool")).unwrap().set_len(32 << 20).unwrap();
    let text = cli.run(["ls", "pool"]).refused();
    assert!(
        text.starts_with("daxstore: open pool: the pool is truncated: its superblock says 67108864"),
        "{text}"
    );
}

/// Gives both superblocks another version and a check that fits.
fn set_version(pool: &Path, version: u32) {
    let file = OpenOptions::new().read(true).write(true).open(pool).unwrap();
    for at in [0, 26 * 4096] {
        let mut block = [0; 512];
        file.read_exact_at(&mut block, at).unwrap();
        block[16..20].copy_from_slice(&version.to_le_bytes());
        let check = xxhash_rust::xxh3::xxh3_64(&block[16..]);
        block[8..16].copy_from_slice(&check.to_le_bytes());
        file.write_all_at(&block, at).unwrap();
    }
}

#[test]
fn a_future_version() {
    let cli = Cli::with_pool();
    set_version(&cli.path("pool"), 77);
    assert_eq!(
        cli.run(["ls", "pool"]).refused(),
        "daxstore: open pool: the pool has format version 77, this program knows up to 1; use a later daxstore"
    );
}

fn holds_a_lock(process: u32) -> bool {
    let locks = std::fs::read_to_string("/proc/locks").unwrap();
    locks.lines().any(|l| l.contains("FLOCK") && l.split_whitespace().nth(4) == Some(&process.to_string()))
}

#[test]
fn a_second_opener_is_told_who_holds_the_pool() {
    let cli = Cli::with_pool();
    let mut holder = cli.start(["write", "pool", "/f"]);
    let who = format!("the pool is in use by process {} (daxstore)", holder.id());
    while !holds_a_lock(holder.id()) {
        assert!(holder.try_wait().unwrap().is_none(), "it waits for standard input");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let text = cli.run(["mkdir", "pool", "/d"]).refused();
    drop(holder.stdin.take());
    assert!(holder.wait().unwrap().success());
    assert_eq!(text, format!("daxstore: open pool: {who}; close it there first"));
}

#[test]
fn a_full_pool_is_an_answer() {
    let cli = Cli::new();
    cli.run(["mkfs", "pool", "--size", "8M"]).good();
    std::fs::write(cli.path("big"), vec![1; 9 << 20]).unwrap();
    std::fs::write(cli.path("small"), b"fits").unwrap();
    let run = cli.run(["put", "pool", "big", "small", "/"]);
    assert_eq!(run.code, 1);
    assert!(run.err.starts_with("daxstore: write /big: the pool is full: "), "{}", run.err);
    assert_eq!(cli.run(["ls", "pool"]).good(), "small\n");
    assert!(cli.run(["check", "pool"]).good().contains("no faults"));
}

#[test]
fn a_closed_pipe_is_silent() {
    let cli = Cli::with_pool();
    cli.feed(["write", "pool", "/f"], &vec![b'x'; 4 << 20]).good();
    let mut child = cli.start(["cat", "pool", "/f"]);
    let mut first = [0; 10];
    child.stdout.take().unwrap().read_exact(&mut first).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
}

#[test]
fn an_unclean_pool_is_recovered_by_a_reader() {
    let cli = Cli::with_pool();
    cli.feed(["write", "pool", "/kept"], b"kept").good();
    let mut victim = cli.start(["put", "pool", "-v", "/proc/self/exe", "/proc/self/cmdline", "/"]);
    victim.kill().unwrap();
    victim.wait().unwrap();
    assert_eq!(cli.run(["cat", "pool", "/kept"]).good(), "kept");
    assert_eq!(cli.run(["info", "pool"]).code, 0);
}
