//! Does every command about a database do what it says, in text and in JSON?

#![allow(clippy::unwrap_used, reason = "a test that can not go on fails")]

mod common;

use common::{Cli, Run};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};

const DB: &str = "pool:/db";

fn kv(cli: &Cli, args: &[&str]) -> Run {
    cli.run([&["kv", DB], args].concat())
}

fn fill(cli: &Cli) {
    let lines = "apple\tred\nbanana\tyellow\ncherry\tdark red\n";
    assert_eq!(cli.feed(["kv", DB, "put", "--stdin"], lines.as_bytes()).good(), "");
}

#[test]
fn records_come_and_go() {
    let cli = Cli::with_pool();
    assert_eq!(kv(&cli, &["put", "k", "value"]).good(), "");
    assert_eq!(kv(&cli, &["get", "k"]).good(), "value");
    kv(&cli, &["put", "k", "another"]).good();
    assert_eq!(kv(&cli, &["put", "l", "", "--json"]).json(), json!({"records": 1}));
    assert_eq!(kv(&cli, &["get", "k", "l"]).good(), "another");
    let found = kv(&cli, &["get", "k", "l", "--json"]).json();
    let records = json!([{"key": "k", "value": "another"}, {"key": "l", "value": ""}]);
    assert_eq!(found, json!({ "records": records }));
    let deleted = kv(&cli, &["del", "k", "--json"]).json();
    assert_eq!(deleted, json!({"deleted": [{"key": "k"}]}));
    for args in [["get", "k"], ["del", "k"]] {
        let text = kv(&cli, &args).refused();
        assert!(text.contains("k: no such key; see what is there"), "{text}");
    }
    assert_eq!(cli.run(["ls", "pool"]).good(), "db\n");
}

#[test]
fn values_of_files_and_of_standard_input() {
    let cli = Cli::with_pool();
    let bytes: Vec<u8> = (0..200_000_u32).flat_map(u32::to_le_bytes).collect();
    std::fs::write(cli.path("file"), &bytes).unwrap();
    kv(&cli, &["put", "big", "--file", "file"]).good();
    cli.feed(["kv", DB, "put", "same", "-f", "-"], &bytes).good();
    for key in ["big", "same"] {
        let output = cli.command(["kv", DB, "get", key]).output().unwrap();
        assert!(output.status.success() && output.stdout == bytes, "{key}");
    }
}

#[test]
fn keys_and_values_may_be_any_bytes() {
    let cli = Cli::with_pool();
    kv(&cli, &["put", "-e", "hex", "ff00", "0a80"]).good();
    assert_eq!(kv(&cli, &["get", "-e", "hex", "ff00"]).good(), "0a80\n");
    assert_eq!(kv(&cli, &["get", "-e", "base64", "/wA="]).good(), "CoA=\n");
    assert_eq!(kv(&cli, &["scan"]).good(), "\\xff\\x00\t\\n\\x80\n");
    assert_eq!(kv(&cli, &["scan", "-e", "base64"]).good(), "/wA=\tCoA=\n");
    let records = kv(&cli, &["scan", "--json"]).json();
    assert_eq!(records, json!({"records": [{"key_hex": "ff00", "value_hex": "0a80"}]}));
    let text = kv(&cli, &["get", "-e", "hex", "f"]).refused();
    assert_eq!(text, "daxstore: read f: it is not hexadecimal; see --encoding");
}

#[test]
fn a_scan_keeps_to_its_bounds() {
    let cli = Cli::with_pool();
    fill(&cli);
    let keys = |args: &[&str]| kv(&cli, &[&["scan", "-k"], args].concat()).good().replace('\n', " ");
    assert_eq!(kv(&cli, &["scan"]).good(), "apple\tred\nbanana\tyellow\ncherry\tdark red\n");
    assert_eq!(keys(&[]), "apple banana cherry ");
    assert_eq!(keys(&["--reverse"]), "cherry banana apple ");
    assert_eq!(keys(&["--from", "banana"]), "banana cherry ");
    assert_eq!(keys(&["--from", "b", "--to", "cherry"]), "banana ");
    assert_eq!(keys(&["--to", "c", "--reverse", "--limit", "1"]), "banana ");
    assert_eq!(keys(&["--prefix", "ch"]), "cherry ");
    assert_eq!(keys(&["--prefix", "x"]), "");
    assert_eq!(kv(&cli, &["scan", "--prefix", "a", "--from", "b"]).code, 2);
    let records = kv(&cli, &["scan", "-k", "-n", "1", "--json"]).json();
    assert_eq!(records, json!({"records": [{"key": "apple"}]}));
}

#[test]
fn trees_are_apart() {
    let cli = Cli::with_pool();
    kv(&cli, &["put", "k", "plain"]).good();
    kv(&cli, &["put", "k", "named", "--tree", "t"]).good();
    assert_eq!(kv(&cli, &["get", "k"]).good(), "plain");
    assert_eq!(kv(&cli, &["get", "k", "--tree", "t"]).good(), "named");
    assert!(kv(&cli, &["get", "k", "-t", "u"]).refused().contains("there is no such tree"));
    kv(&cli, &["del", "k"]).good();
    assert_eq!(kv(&cli, &["scan", "-t", "t"]).good(), "k\tnamed\n");
    assert_eq!(kv(&cli, &["scan"]).good(), "");
}

#[test]
fn what_is_dumped_is_loaded() {
    let cli = Cli::with_pool();
    fill(&cli);
    kv(&cli, &["put", "-e", "hex", "ff", "00"]).good();
    kv(&cli, &["put", "k", "in a tree", "--tree", "t"]).good();
    for format in ["jsonl", "binary"] {
        let done = kv(&cli, &["dump", "dump", "-f", format, "--json"]).json();
        let bytes = std::fs::metadata(cli.path("dump")).unwrap().len();
        assert_eq!((&done["records"], &done["bytes"]), (&json!(5), &json!(bytes)));
        let other = format!("pool:/of-{format}");
        let text = cli.run(["kv", &other, "load", "dump", "-f", format, "--batch", "2"]).good();
        assert!(text.starts_with("dump: 5 records stored, "), "{text}");
        for tree in [&[][..], &["--tree", "t"]] {
            let scan = |db: &str| cli.run([&["kv", db, "scan"], tree].concat()).good();
            assert_eq!(scan(&other), scan(DB));
        }
    }
    let dump = kv(&cli, &["dump"]).good();
    assert_eq!(dump.lines().next().unwrap(), r#"{"key":"apple","value":"red"}"#);
    assert_eq!(dump.lines().last().unwrap(), r#"{"tree":"t","key":"k","value":"in a tree"}"#);
    assert_eq!(kv(&cli, &["dump", "-t", "t"]).good(), "{\"key\":\"k\",\"value\":\"in a tree\"}\n");
    cli.feed(["kv", "pool:/into", "load", "-t", "u"], b"{\"key\":\"a\",\"value\":\"b\"}\n").good();
    assert_eq!(cli.run(["kv", "pool:/into", "get", "a", "-t", "u"]).good(), "b");
}

#[test]
fn a_bad_dump_is_refused_and_what_came_before_is_stored() {
    let cli = Cli::with_pool();
    let lines = b"{\"key\":\"a\",\"value\":\"b\"}\n{\"key\":1}\n";
    let run = cli.feed(["kv", DB, "load", "--batch", "1"], lines);
    assert_eq!(run.code, 1);
    assert!(run.err.starts_with("daxstore: read record 2 of the dump: "), "{}", run.err);
    assert_eq!(kv(&cli, &["get", "a"]).good(), "b");
    let run = cli.feed(["kv", DB, "load", "-f", "binary"], lines);
    assert!(run.err.contains("it is no binary dump"), "{}", run.err);
}

/// The acknowledged keys of a process that is killed are there.
#[test]
fn what_is_acknowledged_survives_a_kill() {
    let cli = Cli::with_pool();
    let mut child = cli.start(["kv", DB, "put", "--stdin", "--ack"]);
    let mut input = child.stdin.take().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    for i in 0..50 {
        writeln!(input, "key{i}\tvalue{i}").unwrap();
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        assert_eq!(line, format!("key{i}\n"));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    for i in 0..50 {
        assert_eq!(kv(&cli, &["get", &format!("key{i}")]).good(), format!("value{i}"));
    }
}

#[test]
fn a_line_without_a_tab_is_refused() {
    let cli = Cli::with_pool();
    let run = cli.feed(["kv", DB, "put", "--stdin"], b"a\tb\nnothing\n");
    assert_eq!((run.code, run.out.as_str()), (1, ""));
    assert!(run.err.contains("read line 2 of standard input: there is no tab in it"), "{}", run.err);
    assert_eq!(kv(&cli, &["get", "a"]).good(), "b");
}

#[test]
fn upkeep() {
    let cli = Cli::with_pool();
    fill(&cli);
    let stats = kv(&cli, &["stats", "--json"]).json();
    assert_eq!(stats["records"], 3);
    assert!(kv(&cli, &["stats"]).good().lines().any(|line| line.starts_with("records")));
    assert!(kv(&cli, &["verify"]).good().starts_with("pool:/db: 3 records: no faults"));
    assert_eq!(kv(&cli, &["verify", "--json"]).json()["faults"], json!([]));
    assert!(kv(&cli, &["compact", "--json"]).json()["after"].is_u64());
    assert_eq!(kv(&cli, &["scan", "-k"]).good(), "apple\nbanana\ncherry\n");
}

#[test]
fn a_backup_is_a_copy_in_this_pool_and_in_another() {
    let cli = Cli::with_pool();
    cli.run(["mkfs", "other", "--size", "64M"]).good();
    fill(&cli);
    for to in ["pool:/copy", "other:/copy"] {
        assert_eq!(kv(&cli, &["backup", to]).good(), format!("{to}: a copy of pool:/db\n"));
        kv(&cli, &["put", "apple", "changed since"]).good();
        assert_eq!(cli.run(["kv", to, "scan", "-n", "1"]).good(), "apple\tred\n");
        kv(&cli, &["put", "apple", "red"]).good();
        assert!(cli.run(["kv", to, "verify"]).good().contains("no faults"));
    }
}

#[test]
fn refusals_say_what_to_do() {
    let cli = Cli::with_pool();
    let text = kv(&cli, &["get", "k"]).refused();
    assert!(
        text.starts_with("daxstore: open pool:/db: there is no database") && text.contains("`put`"),
        "{text}"
    );
    let text = cli.run(["kv", "missing:/db", "get", "k"]).refused();
    assert!(text.starts_with("daxstore: open missing: "), "{text}");
    let refusal: Value = serde_json::from_str(&kv(&cli, &["get", "k", "--json"]).refused()).unwrap();
    assert_eq!(refusal["error"]["what"], "open pool:/db");
    let text = kv(&cli, &["put", "", "v"]).refused();
    assert!(text.contains("the key has 0 bytes; a key has 1 to 4096"), "{text}");
    for args in [&["kv", "pool", "get", "k"][..], &["kv", DB], &["kv", DB, "put", "k"], &["kv", DB, "get"]] {
        assert_eq!(cli.run(args).code, 2, "{args:?}");
    }
    assert!(cli.run(["kv", "get", "k"]).refused().contains("put POOL:PATH in front"));
    assert!(kv(&cli, &["bench"]).refused().contains("leave POOL:PATH out"));
}
