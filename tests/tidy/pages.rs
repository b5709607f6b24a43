//! Can every page be found, and does every link lead somewhere?

use super::text::{File, Workspace};

/// The pages from which every other page must be linked.
const ENTRANCES: [&str; 2] = ["README.md", "docs/architecture.md"];

/// The paths that `file` links to, from the workspace's root, without fragments; links into the web are left out.
fn links(file: &File) -> Vec<String> {
    let mut found = Vec::new();
    for after in file.text.split("](").skip(1) {
        let target = after.split([')', '#', ' ']).next().unwrap_or_default();
        if !target.is_empty() && !target.contains("://") {
            found.push(resolve(&file.path, target));
        }
    }
    found
}

fn resolve(from: &str, target: &str) -> String {
    let mut parts: Vec<_> = from.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "." | "" => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

pub fn check(workspace: &Workspace) -> Vec<String> {
    let mut found = Vec::new();
    let entrances: Vec<_> = ENTRANCES.iter().filter_map(|path| workspace.get(path)).collect();
    let linked: Vec<_> = entrances.iter().flat_map(|page| links(page)).collect();
    for page in workspace.0.iter().filter(|file| file.is_page()) {
        if page.path.starts_with("docs/") && page.path != ENTRANCES[1] && !linked.contains(&page.path) {
            found.push(format!(
                "{}: linked neither from {} nor from {}",
                page.path, ENTRANCES[0], ENTRANCES[1]
            ));
        }
        let is_there = |path: &String| workspace.0.iter().any(|f| f.path.starts_with(path.as_str()));
        let broken = links(page).into_iter().filter(|path| !is_there(path));
        found.extend(broken.map(|path| format!("{}: links to {path}, which is not there", page.path)));
    }
    found
}

#[test]
fn lost_pages_and_broken_links_are_found() {
    let page = |path: &str, text: &str| File { path: path.to_owned(), text: text.to_owned() };
    let entrance =
        page("docs/architecture.md", "[a](a.md#top) [src](../src) [web](https://x.org) [c](decisions/c.md)");
    assert_eq!(links(&entrance), ["docs/a.md", "src", "docs/decisions/c.md"]);
    let files = vec![entrance, page("docs/a.md", ""), page("docs/b.md", ""), page("src/lib.rs", "")];
    let found = check(&Workspace(files));
    assert_eq!(found.len(), 2, "{found:?}");
}
