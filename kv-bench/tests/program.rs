//! Does the program print what it measured?

#![allow(clippy::unwrap_used, reason = "a test that can not go on fails")]

use serde_json::Value;
use std::process::Command;

fn run(args: &[&str]) -> (bool, String, String) {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_kv-bench"));
    command.current_dir(dir.path()).args(["--records", "3000", "--seconds", "300", "--dir", "."]).args(args);
    let output = command.output().unwrap();
    let left = std::fs::read_dir(dir.path()).unwrap().filter(|entry| {
        let name = entry.as_ref().unwrap().file_name();
        name != "plot.svg"
    });
    assert_eq!(left.count(), 0);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.success(), text(output.stdout), text(output.stderr))
}

#[test]
fn one_run_as_json() {
    let (good, out, err) =
        run(&["--engine", "lmdb", "--workload", "ycsb-a", "--threads", "2", "--json", "--seed", "9"]);
    assert!(good, "{err}");
    let outcomes: Value = serde_json::from_str(&out).unwrap();
    let outcome = &outcomes[0];
    assert_eq!((&outcome["engine"], &outcome["workload"]), (&"lmdb".into(), &"ycsb-a".into()));
    assert_eq!((&outcome["operations"], &outcome["seed"]), (&3000.into(), &9.into()));
    let latency = |name: &str| outcome["latency"][name].as_u64().unwrap();
    assert!(latency("p50") > 0 && latency("p50") <= latency("p99") && latency("p999") <= latency("max"));
    assert!(outcome["media_bytes"].as_u64() > outcome["logical_bytes"].as_u64());
    assert!(outcome["configuration"].as_str().unwrap().contains("fdatasync"));
}

#[test]
fn a_killed_child_left_everything() {
    for engine in daxstore_kv_bench::engine::Kind::built() {
        let (good, out, err) = run(&["--engine", engine.name(), "--workload", "reopen", "--json"]);
        assert!(good, "{engine:?}: {err}");
        let outcomes: Value = serde_json::from_str(&out).unwrap();
        assert!(outcomes[0]["reopened"]["open_seconds"].as_f64().unwrap() > 0.0);
        assert_eq!(outcomes[0]["reopened"]["checked"], 10_000);
    }
}

#[test]
fn several_runs_make_a_table_and_a_plot() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let plot = dir.path().join("plot.svg");
    let args = ["--engine", "lmdb,redb", "--workload", "load-seq,get,scan", "--runs", "2", "--plot"];
    let (good, out, err) = run(&[&args[..], &[plot.to_str().unwrap()]].concat());
    assert!(good, "{err}");
    for wanted in
        ["3000 records", "load-seq", "get", "scan", "lmdb", "redb", "p99.9", "Durability::Immediate"]
    {
        assert!(out.contains(wanted), "{wanted} in {out}");
    }
    let svg = std::fs::read_to_string(plot).unwrap();
    assert!(svg.starts_with("<?xml") && svg.contains("load-seq") && svg.matches("<rect").count() > 6);
}

#[test]
fn what_is_not_built_in_is_said() {
    if cfg!(feature = "rocksdb") {
        return;
    }
    let (good, _, err) = run(&["--engine", "rocksdb", "--workload", "put"]);
    assert!(!good && err.contains("--features rocksdb"), "{err}");
}
