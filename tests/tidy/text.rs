//! What is in the workspace, and which of its text is code?

use std::fs;
use std::path::{Path, PathBuf};

/// A file: its path from the workspace's root, and its text.
pub struct File {
    pub path: String,
    pub text: String,
}

impl File {
    /// Whether it is Rust.
    pub fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Whether it is a page of the documentation.
    pub fn is_page(&self) -> bool {
        self.path.ends_with(".md")
    }

    /// Whether it is part of the library, or of a library beside it.
    pub fn is_library(&self) -> bool {
        self.is_rust() && (self.is_root() || self.path.starts_with("fault/src/"))
    }

    /// Whether it is part of the library at the root.
    pub fn is_root(&self) -> bool {
        self.path.starts_with("src/")
    }
}

/// Every text file of the workspace.
pub struct Workspace(pub Vec<File>);

impl Workspace {
    /// Reads it; build directories and hidden ones (but `.ci`) are left out.
    pub fn read() -> Self {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        let mut files = Vec::new();
        walk(&root, &root, &mut files);
        files.sort_by(|a, b| a.path.cmp(&b.path));
        assert!(files.iter().any(|f| f.path == "src/lib.rs"), "the workspace was not found");
        Self(files)
    }

    pub fn get(&self, path: &str) -> Option<&File> {
        self.0.iter().find(|file| file.path == path)
    }

    /// Library files with the code that ships: without test modules, comments and strings.
    pub fn shipped(&self) -> impl Iterator<Item = (&File, String)> {
        let tests = self.test_files();
        let library = self.0.iter().filter(|file| file.is_library());
        library.filter(move |file| !tests.contains(&file.path)).map(|file| (file, shipped(&file.text)))
    }

    /// Files of modules that are built for tests alone: what stands under a `#[cfg(...)]` that names `test` as
    /// `mod name;`, and the modules below it.
    pub fn test_files(&self) -> Vec<String> {
        let modules: Vec<_> = self.0.iter().filter(|file| file.is_library()).flat_map(test_modules).collect();
        let is_of = |path: &str, module: &String| {
            path.strip_prefix(&**module).is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
        };
        let paths = self.0.iter().map(|file| &file.path);
        paths.filter(|path| modules.iter().any(|module| is_of(path, module))).cloned().collect()
    }
}

/// The modules in files of their own that `file` declares for tests: their paths without `.rs`.
fn test_modules(file: &File) -> Vec<String> {
    let path = file.path.trim_end_matches(".rs");
    let is_root = path.ends_with("/mod") || path.ends_with("/lib");
    let dir = if is_root { path.rsplit_once('/').map_or("", |(dir, _)| dir) } else { path };
    let lines: Vec<_> = file.text.lines().map(str::trim).collect();
    let pairs = lines.windows(2).filter(|pair| pair[0].starts_with("#[cfg("));
    let pairs =
        pairs.filter(|pair| words(pair[0]).any(|(_, word)| word == "test") && !pair[0].contains("not(test"));
    let names = pairs.filter_map(|pair| {
        let (visibility, name) = pair[1].split_once("mod ")?;
        name.strip_suffix(';').filter(|_| visibility.is_empty() || visibility.starts_with("pub"))
    });
    names.map(|name| format!("{dir}/{name}")).collect()
}

fn walk(root: &Path, dir: &Path, files: &mut Vec<File>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let skipped = name.starts_with("target") || (name.starts_with('.') && name != ".ci");
        if skipped {
            continue;
        }
        if path.is_dir() {
            walk(root, &path, files);
        } else if let Ok(text) = fs::read_to_string(&path) {
            let path = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
            files.push(File { path, text });
        }
    }
}

/// The text without its inline test modules, comments and strings; lines keep their numbers.
pub fn shipped(text: &str) -> String {
    let code = blank(text);
    let mut in_tests = false;
    let mut out = String::new();
    let mut before = "";
    for line in code.lines() {
        if before.trim() == "#[cfg(test)]" && line.starts_with("mod ") && line.trim_end().ends_with('{') {
            in_tests = true;
        }
        if !in_tests {
            out.push_str(line);
        }
        out.push('\n');
        if line.starts_with('}') {
            in_tests = false;
        }
        before = line;
    }
    out
}

/// The text with comments, strings and characters turned into spaces.
pub fn blank(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = at + skip(&text[at..], at > 0 && is_word(bytes[at - 1]));
        if end > at {
            out[at..end].iter_mut().filter(|b| **b != b'\n').for_each(|b| *b = b' ');
            at = end;
        } else {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Bytes of the comment, string or character that `rest` starts with; 0 if it starts with code.
fn skip(rest: &str, in_word: bool) -> usize {
    if rest.starts_with("//") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    if rest.starts_with("/*") {
        return rest.find("*/").map_or(rest.len(), |end| end + 2);
    }
    if rest.starts_with('"') {
        return string(rest);
    }
    if rest.starts_with('\'') {
        return character(rest);
    }
    if !in_word && let Some(raw) = rest.trim_start_matches('b').strip_prefix('r') {
        let hashes = raw.bytes().take_while(|b| *b == b'#').count();
        if raw[hashes..].starts_with('"') {
            let close = format!("\"{}", "#".repeat(hashes));
            let head = rest.len() - raw.len() + hashes + 1;
            return rest[head..].find(&close).map_or(rest.len(), |end| head + end + close.len());
        }
    }
    0
}

fn string(rest: &str) -> usize {
    let mut escaped = false;
    for (i, b) in rest.bytes().enumerate().skip(1) {
        match b {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return i + 1,
            _ => {}
        }
    }
    rest.len()
}

/// A character literal's bytes, 0 for a lifetime.
fn character(rest: &str) -> usize {
    let mut chars = rest.char_indices().skip(1);
    match chars.next() {
        Some((_, '\\')) => rest[3..].find('\'').map_or(rest.len(), |end| 3 + end + 1),
        Some(_) => match chars.next() {
            Some((i, '\'')) => i + 1,
            _ => 0,
        },
        None => 0,
    }
}

pub const fn is_word(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b == b'_'
}

/// The words of code, with the number of the line each is on.
pub fn words(code: &str) -> impl Iterator<Item = (usize, &str)> {
    code.lines().enumerate().flat_map(|(i, line)| {
        line.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
            .filter(|word| !word.is_empty())
            .map(move |word| (i + 1, word))
    })
}

#[test]
fn only_code_is_left() {
    let text = "let a = \"// \\\" no\"; // dbg!\nlet b: &'static str = r#\"x\" {\"#; /* } */ let c = '\\''; let d = '{';\n";
    let code = blank(text);
    assert_eq!(code.len(), text.len());
    assert!(!code.contains("dbg") && !code.contains('{') && !code.contains('}'), "{code}");
    assert!(code.contains("&'static str") && code.contains("let d ="), "{code}");
    let text = "fn a() {}\n#[cfg(test)]\nmod tests {\n    fn b() {}\n}\nfn c() {}\n";
    let code = shipped(text);
    assert!(code.contains("fn a") && !code.contains("fn b") && code.contains("fn c"), "{code}");
}

#[test]
fn modules_for_tests_are_found_with_what_is_below_them() {
    let file = |path: &str, text: &str| File { path: path.to_owned(), text: text.to_owned() };
    let declares = "#[cfg(all(test, not(loom)))]\nmod tests;\n#[cfg(any(test, feature = \"mutations\"))]\npub mod toy;\n\
                    #[cfg(not(test))]\nmod real;\n#[cfg(not(loom))]\nmod os;\n";
    let files = vec![
        file("fault/src/lib.rs", declares),
        file("fault/src/os/mod.rs", "#[cfg(test)]\nmod tests;\n"),
        file("src/a.rs", "#[cfg(test)]\npub(crate) mod tests;\n"),
        file("fault/src/tests.rs", ""),
        file("fault/src/toy/file.rs", ""),
        file("fault/src/os/tests/child.rs", ""),
        file("src/a/tests.rs", ""),
        file("src/tests.rs", ""),
        file("fault/src/real.rs", ""),
        file("fault/src/toys.rs", ""),
    ];
    let expected =
        ["fault/src/tests.rs", "fault/src/toy/file.rs", "fault/src/os/tests/child.rs", "src/a/tests.rs"];
    assert_eq!(Workspace(files).test_files(), expected);
}
