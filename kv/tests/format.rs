//! Does `docs/kv.md` draw the tables that the code draws?
//!
//! A table of bytes or bits stands in the `//!` comment of the file that declares the structure. Each of the page must be one of the code's,
//! row for row, and each of the files named here must have all of its own on the page.

#![allow(clippy::unwrap_used, reason = "a test has nobody to report to")]

use std::path::Path;

/// Files whose tables the page draws.
const FILES: [&str; 8] = [
    "layout.rs",
    "sealed.rs",
    "record.rs",
    "ring.rs",
    "batch.rs",
    "hash/mod.rs",
    "hash/split.rs",
    "trees.rs",
];

type Table = Vec<Vec<String>>;

/// The tables among `lines` whose first column counts bytes or bits.
fn tables<'t>(lines: impl Iterator<Item = &'t str>) -> Vec<Table> {
    let (mut all, mut table): (Vec<Table>, Table) = Default::default();
    for line in lines.chain([""]) {
        let line = line.trim();
        if line.starts_with('|') {
            table.push(line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect());
        } else {
            let is_ours = table
                .first()
                .is_some_and(|head| ["offset", "byte", "bits"].iter().any(|n| head[0].starts_with(n)));
            let table = std::mem::take(&mut table);
            all.extend(is_ours.then_some(table));
        }
    }
    all
}

fn of_file(text: &str) -> Vec<Table> {
    tables(text.lines().take_while(|line| line.starts_with("//!")).map(|line| &line[3..]))
}

#[test]
fn the_page_draws_the_tables_of_the_code() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap();
    let page = tables(read("../docs/kv.md").lines());
    let mut code = Vec::new();
    for file in FILES {
        let found = of_file(&read(&format!("src/{file}")));
        assert!(!found.is_empty(), "{file} draws nothing");
        for table in &found {
            assert!(page.contains(table), "{file} draws what docs/kv.md does not:\n{table:#?}");
        }
        code.extend(found);
    }
    for table in &page {
        assert!(code.contains(table), "docs/kv.md draws what no file does:\n{table:#?}");
    }
}

#[test]
fn a_row_that_differs_is_found() {
    let table = |row: &str| {
        of_file(&format!("//! x\n//!\n//! | byte | what |\n//! | ---: | --- |\n//! {row}\n\nuse a;\n"))
    };
    assert_eq!((table("| 0 | a |").len(), table("| 0 | a |")[0].len()), (1, 3));
    assert_eq!(table("| 0 | a |"), table("|  0 |  a |"));
    assert_ne!(table("| 0 | a |"), table("| 8 | a |"));
}
