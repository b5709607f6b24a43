//! Is there a word in the code that must not be there?

use super::text::{File, Workspace, blank, words};

/// Macros that no code may call.
const NOWHERE: [&str; 3] = ["todo", "unimplemented", "dbg"];
/// Macros that the library does not call.
const NOT_IN_LIBRARY: [&str; 6] = ["println", "eprintln", "print", "eprint", "panic", "unreachable"];
/// Marks of things left for later, in two halves so that this file does not hold them.
const MARKS: [(&str, &str); 3] = [("FIX", "ME"), ("X", "XX"), ("HA", "CK")];
/// Starts of paths that are somebody's workplace, in two halves too.
const WORKPLACES: [(&str, &str); 4] = [("/ho", "me/"), ("/ro", "ot/"), ("/wo", "rk/"), ("/Us", "ers/")];

/// Lines of `code` that call a macro of `macros`.
fn calls(code: &str, macros: &[&str]) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (i, line) in code.lines().enumerate() {
        for name in macros {
            let call = format!("{name}!");
            let is_call = |at: usize| at == 0 || !super::text::is_word(line.as_bytes()[at - 1]);
            if line.match_indices(&call).any(|(at, _)| is_call(at)) {
                found.push((i + 1, call));
            }
        }
    }
    found
}

fn marks(file: &File) -> Vec<(usize, String)> {
    let marks = MARKS.map(|(a, b)| format!("{a}{b}"));
    let marked = words(&file.text).filter(|(_, word)| marks.iter().any(|mark| word == mark));
    marked.map(|(line, word)| (line, word.to_owned())).collect()
}

fn workplaces(file: &File) -> Vec<(usize, String)> {
    let starts = WORKPLACES.map(|(a, b)| format!("{a}{b}"));
    let mut found = Vec::new();
    for (i, line) in file.text.lines().enumerate() {
        for start in &starts {
            let is_start =
                |at: usize| at == 0 || !matches!(line.as_bytes()[at - 1], b if b.is_ascii_alphanumeric());
            if line.match_indices(start).any(|(at, _)| is_start(at)) {
                found.push((i + 1, start.clone()));
            }
        }
    }
    found
}

pub fn check(workspace: &Workspace) -> Vec<String> {
    let mut all = Vec::new();
    for file in &workspace.0 {
        let mut found = marks(file);
        found.extend(workplaces(file));
        if file.is_rust() {
            found.extend(calls(&blank(&file.text), &NOWHERE));
        }
        all.extend(found.into_iter().map(|(line, what)| format!("{}:{line}: {what}", file.path)));
    }
    for (file, code) in workspace.shipped() {
        let found = calls(&code, &NOT_IN_LIBRARY);
        all.extend(found.into_iter().map(|(line, what)| format!("{}:{line}: {what}", file.path)));
    }
    all
}

/// The files that `docs/unsafe.md` names in its table.
fn listed(page: &str) -> Vec<&str> {
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.filter_map(|row| row.split('`').next()).collect()
}

pub fn check_unsafe(workspace: &Workspace) -> Vec<String> {
    let Some(page) = workspace.get("docs/unsafe.md") else {
        return vec!["docs/unsafe.md is missing".to_owned()];
    };
    let listed = listed(&page.text);
    let mut found = Vec::new();
    for file in workspace.0.iter().filter(|file| file.is_rust()) {
        let first = words(&blank(&file.text)).find(|(_, word)| *word == "unsafe").map(|(line, _)| line);
        match (first, listed.contains(&&*file.path)) {
            (Some(line), false) => found.push(format!("{}:{line}: unsafe, and not listed", file.path)),
            (None, true) => found.push(format!("{}: listed, and nothing in it is unsafe", file.path)),
            _ => {}
        }
    }
    found.extend(
        listed
            .iter()
            .filter(|path| workspace.get(path).is_none())
            .map(|path| format!("{path}: listed, no file")),
    );
    found
}

pub fn check_openings(workspace: &Workspace) -> Vec<String> {
    let silent = workspace.0.iter().filter(|file| file.is_rust() && !file.text.starts_with("//! "));
    silent.map(|file| format!("{}: does not open with `//!`", file.path)).collect()
}

#[test]
fn words_are_found() {
    let file = |text: String| File { path: "src/a.rs".to_owned(), text };
    assert_eq!(calls("    dbg!(1);\n my_dbg!(2)", &NOWHERE), [(1, "dbg!".to_owned())]);
    assert_eq!(marks(&file(format!("a\n// {}{}: b", "FIX", "ME"))).len(), 1);
    assert_eq!(workplaces(&file(format!("see {}{}x and a{}{}x", "/ho", "me/", "/ro", "ot/"))).len(), 1);
    assert_eq!(listed("| file |\n| --- |\n| `src/a.rs` (x) | y |"), ["src/a.rs"]);
    let page = |path: &str, text: &str| File { path: path.to_owned(), text: text.to_owned() };
    let workspace = Workspace(vec![
        page("docs/unsafe.md", "| `src/b.rs` |\n| `src/c.rs` |"),
        page("src/a.rs", "unsafe {}"),
        page("src/b.rs", "// unsafe"),
    ]);
    assert_eq!(check_unsafe(&workspace).len(), 3);
    assert_eq!(check_openings(&workspace).len(), 2);
}
