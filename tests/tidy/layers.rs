//! Does a module name only modules of a lower rank?

use super::text::{Workspace, is_word};

/// The modules of the library by rank. A module names only those of lower ranks and itself.
const RANKS: [&[&str]; 10] = [
    &["units", "error", "sync"],
    &["pmem", "iomap"],
    &["layout"],
    &["journal", "tree"],
    &["alloc"],
    &["extent", "inode"],
    &["mapper"],
    &["io"],
    &["namespace"],
    &["store"],
];

/// Steps within a rank that are meant, with the reason.
const SIDEWAYS: [(&str, &str, &str); 2] = [
    ("error", "units", "an error names a place of the pool; `units` names nothing"),
    ("error", "sync", "an error that several callers get is shared"),
];

/// What the crate's root hands on of a module of rank 0, so that naming it there is naming the module.
const HANDED_ON: [(&str, &str); 2] = [("Error", "error"), ("Result", "error")];

fn rank(module: &str) -> Option<usize> {
    RANKS.iter().position(|modules| modules.contains(&module))
}

/// What `path`'s code names of other modules, with lines.
fn named(path: &str, code: &str) -> Vec<(usize, String)> {
    let parts: Vec<_> = path.trim_start_matches("src/").trim_end_matches(".rs").split('/').collect();
    let depth = if parts.last() == Some(&"mod") { parts.len() - 1 } else { parts.len() };
    let mut found = Vec::new();
    for root in ["crate::".to_owned(), "super::".repeat(depth)] {
        for (at, _) in code.match_indices(&root) {
            let before = at.checked_sub(1).map(|i| code.as_bytes()[i]);
            if before.is_some_and(|b| is_word(b) || b == b':') {
                continue;
            }
            let line = code[..at].matches('\n').count() + 1;
            let names = first_names(&code[at + root.len()..]);
            found.extend(names.into_iter().filter(|name| name != "super").map(|name| (line, name)));
        }
    }
    found
}

/// The first name of the path that `rest` starts with, or of each path where braces open.
fn first_names(rest: &str) -> Vec<String> {
    let word = |s: &str| s.bytes().take_while(|b| is_word(*b)).map(char::from).collect::<String>();
    let Some(group) = rest.strip_prefix('{') else { return vec![word(rest)] };
    let (mut names, mut depth, mut fresh) = (Vec::new(), 0, true);
    for (i, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => fresh = true,
            c if fresh && !c.is_whitespace() => {
                names.push(word(&group[i..]));
                fresh = false;
            }
            _ => {}
        }
    }
    names
}

/// The module at the top of the library that a file belongs to.
fn module(path: &str) -> &str {
    let path = path.trim_start_matches("src/");
    path.split('/').next().unwrap_or(path).trim_end_matches(".rs")
}

fn step(from: &str, to: &str) -> Result<(), &'static str> {
    let to = HANDED_ON.iter().find(|(name, _)| *name == to).map_or(to, |(_, module)| *module);
    let meant = SIDEWAYS.iter().any(|(f, t, _)| *f == from && *t == to);
    match (rank(from), rank(to)) {
        _ if from == to || meant => Ok(()),
        (_, None) => Err("that is no module with a rank: name the module, not the crate's root"),
        (None, _) => Err("the module has no rank"),
        (Some(a), Some(b)) if b > a => Err("a step upward"),
        (Some(a), Some(b)) if b == a => Err("a step sideways"),
        _ => Ok(()),
    }
}

/// What a crate beside the root names of it: the directory, and the modules.
const LEAVES: [(&str, &[&str]); 1] =
    [("fault/src/", &["iomap", "sync", "units", "error", "Error", "Result"])];

/// What `code` names of the root crate that a leaf with these `allowed` modules may not, with lines.
fn foreign(code: &str, allowed: &[&str]) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let root = "daxstore::";
    for (at, _) in code.match_indices(root) {
        let line = code[..at].matches('\n').count() + 1;
        let names = first_names(&code[at + root.len()..]);
        found.extend(names.into_iter().filter(|name| !allowed.contains(&&**name)).map(|name| (line, name)));
    }
    found
}

fn check_leaves(workspace: &Workspace) -> Vec<String> {
    let mut found = Vec::new();
    for (file, code) in workspace.shipped() {
        for (_, allowed) in LEAVES.iter().filter(|(dir, _)| file.path.starts_with(dir)) {
            for (line, name) in foreign(&code, allowed) {
                found.push(format!("{}:{line}: names {name} of the root crate", file.path));
            }
        }
    }
    found
}

pub fn check(workspace: &Workspace) -> Vec<String> {
    let mut found = check_leaves(workspace);
    let root = |file: &super::text::File| file.is_root() && file.path != "src/lib.rs";
    for (file, code) in workspace.shipped().filter(|(file, _)| root(file)) {
        let from = module(&file.path);
        for (line, to) in named(&file.path, &code) {
            if let Err(why) = step(from, &to) {
                found.push(format!("{}:{line}: {from} names {to}: {why}", file.path));
            }
        }
    }
    found
}

#[test]
fn steps_are_told_apart() {
    assert!(step("io", "layout").is_ok() && step("io", "io").is_ok() && step("error", "units").is_ok());
    assert!(
        step("layout", "io").is_err() && step("extent", "inode").is_err() && step("units", "error").is_err()
    );
    assert!(step("io", "Error").is_ok() && step("units", "Error").is_err());
    assert!(step("io", "Store").is_err() && step("news", "units").is_err());
    let leaf = "use daxstore::{Result, iomap::{Iomap, State}};\nuse daxstore::io::read;";
    assert_eq!(foreign(leaf, LEAVES[0].1), [(2, "io".to_owned())]);
    let names = |path, code| named(path, code).into_iter().map(|(_, name)| name).collect::<Vec<_>>();
    assert_eq!(names("src/io/a.rs", "use crate::{error::{A, B}, units};"), ["error", "units"]);
    assert_eq!(names("src/io/a.rs", "use super::super::store::Dir; use super::b;"), ["store"]);
    assert_eq!(names("src/io/mod.rs", "super::layout::X; mycrate::io"), ["layout"]);
    assert_eq!(names("src/units.rs", "pub(crate) fn f() -> crate::error::Error"), ["error"]);
}
