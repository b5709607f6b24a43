//! Does `docs/format.md` draw the tables that the code draws?
//!
//! A table of the code stands in the `//!` comment of the file that declares the structure. The page names the file
//! in the line `Declared in FILE.` above its tables, and every row must be the same, in the same order.

use super::text::Workspace;
use std::collections::BTreeMap;

const PAGE: &str = "docs/format.md";
/// What the first column of a table of bytes is headed.
const HEADS: [&str; 4] = ["offset", "byte", "bits", "block"];

type Table = Vec<Vec<String>>;

/// The tables of bytes among `lines`.
fn tables<'t>(lines: impl Iterator<Item = &'t str>) -> Vec<Table> {
    let (mut all, mut table): (Vec<Table>, Table) = Default::default();
    for line in lines.chain([""]) {
        let line = line.trim();
        if line.starts_with('|') {
            table.push(line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect());
            continue;
        }
        if table.first().is_some_and(|head| HEADS.iter().any(|name| head[0].starts_with(name))) {
            all.push(std::mem::take(&mut table));
        }
        table.clear();
    }
    all
}

fn of_code(workspace: &Workspace) -> BTreeMap<String, Vec<Table>> {
    let mut all = BTreeMap::new();
    for file in workspace.0.iter().filter(|file| file.is_library()) {
        let comment = file.text.lines().take_while(|line| line.starts_with("//!"));
        let found = tables(comment.map(|line| &line[3..]));
        if !found.is_empty() {
            all.insert(file.path.clone(), found);
        }
    }
    all
}

fn of_page(page: &str) -> BTreeMap<String, Vec<Table>> {
    let mut all = BTreeMap::new();
    for section in page.split("Declared in `").skip(1) {
        let (path, rest) = section.split_once('`').unwrap_or((section, ""));
        all.entry(path.to_owned()).or_insert_with(Vec::new).extend(tables(rest.lines()));
    }
    all
}

fn compare(path: &str, code: &[Table], page: &[Table]) -> Vec<String> {
    let mut found = Vec::new();
    if code.len() != page.len() {
        found.push(format!("{path} draws {} tables, {PAGE} {} of it", code.len(), page.len()));
    }
    for (code, page) in code.iter().zip(page) {
        for i in 0..code.len().max(page.len()) {
            if code.get(i) != page.get(i) {
                found.push(format!("{path}: row {i}:\n  code {:?}\n  page {:?}", code.get(i), page.get(i)));
            }
        }
    }
    found
}

pub fn check(workspace: &Workspace) -> Vec<String> {
    let Some(page) = workspace.get(PAGE) else { return vec![format!("{PAGE} is missing")] };
    let (code, page) = (of_code(workspace), of_page(&page.text));
    assert!(code.len() >= 10, "the tables of the code were not found: {:?}", code.keys());
    let none = Vec::new();
    let mut paths: Vec<_> = code.keys().chain(page.keys()).collect();
    paths.sort();
    paths.dedup();
    let of = |all: &BTreeMap<_, _>, path: &String| all.get(path).unwrap_or(&none).clone();
    paths.iter().flat_map(|path| compare(path, &of(&code, path), &of(&page, path))).collect()
}

#[test]
fn rows_that_differ_are_found() {
    let table = |row: &str| tables(format!("x\n| offset | field |\n| ---: | --- |\n{row}\n").lines());
    let code = table("| 0 | version |");
    assert_eq!((code.len(), code[0].len()), (1, 3));
    assert!(compare("a", &code, &table("|   0 | version |")).is_empty());
    assert_eq!(compare("a", &code, &table("| 8 | version |")).len(), 1);
    assert_eq!(compare("a", &code, &table("| 0 | version |\n| 8 | check |")).len(), 1);
    assert_eq!(compare("a", &code, &[]).len(), 1);
    assert!(tables("| rank | modules |".lines()).is_empty());
    let page = of_page("Declared in `src/a.rs`.\n\n| bits | what |\n| 0 | a |\n\nDeclared in `src/b.rs`.\n");
    assert_eq!((page["src/a.rs"].len(), page["src/b.rs"].len()), (1, 0));
}
