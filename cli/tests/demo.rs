//! Does the main job run, and clean up?

#![allow(clippy::unwrap_used, reason = "a test that can not go on fails")]

mod common;

use common::Cli;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

fn make_tree(root: &Path) {
    for dir in 0..10 {
        let dir = root.join(format!("d{dir}"));
        fs::create_dir_all(&dir).unwrap();
        for file in 0..50 {
            fs::write(dir.join(format!("f{file}")), vec![file; usize::from(file) * 300]).unwrap();
        }
        fs::hard_link(dir.join("f1"), dir.join("hard")).unwrap();
        symlink("f2", dir.join("soft")).unwrap();
    }
}

fn leftovers(process: u32) -> usize {
    let name = format!("daxstore-demo-{process}-");
    let in_dir = |dir: &Path| {
        let names = fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.file_name());
        names.filter(|n| n.to_string_lossy().starts_with(&name)).count()
    };
    in_dir(Path::new("/dev/shm")) + in_dir(&std::env::temp_dir())
}

#[test]
fn the_main_job() {
    let cli = Cli::new();
    make_tree(&cli.path("tree"));
    let child = cli.command(["demo", "tree", "--records", "4000", "--json"]).spawn().unwrap();
    let process = child.id();
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert!(output.status.success());
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["files"], &report["differences"]), (&520.into(), &serde_json::json!([])));
    let acknowledged = report["acknowledged"].as_u64().unwrap();
    assert!((266..=531).contains(&acknowledged), "{acknowledged}");
    assert!(report["survived"].as_u64().unwrap() >= acknowledged);
    assert_eq!(report["steps"][1]["files"], 520);
    assert!(report["steps"][1]["fences_per_operation"].as_f64().unwrap() > 0.5);
    let records = &report["records"];
    let acknowledged = records["acknowledged"].as_u64().unwrap();
    assert!((2000..4000).contains(&acknowledged), "{acknowledged}");
    assert!(records["survived"].as_u64().unwrap() >= acknowledged);
    assert_eq!(records["workloads"].as_array().unwrap().len(), 9);
    assert_eq!(leftovers(process), 0);
}

#[test]
fn limits_hold_and_the_table_is_printed() {
    let cli = Cli::new();
    make_tree(&cli.path("tree"));
    let text = cli.run(["demo", "tree", "--max-files", "100", "--records", "1000"]).good();
    assert!(text.contains("100 files") && text.contains("a part of it"), "{text}");
    for line in [
        "copy on the host's",
        "import into the pool",
        "export to the host",
        "kill ",
        "recovery ",
        "records   SIGKILL",
        "ycsb-e ",
        "verdict   all",
    ] {
        assert!(text.lines().any(|l| l.starts_with(line)), "{line} in {text}");
    }
}

#[test]
fn nothing_to_import_is_refused() {
    let cli = Cli::new();
    assert!(cli.run(["demo", "missing"]).refused().contains("import missing"));
    fs::write(cli.path("file"), b"").unwrap();
    assert!(cli.run(["demo", "file"]).refused().contains("it is not a directory"));
}
