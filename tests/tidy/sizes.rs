//! Is a file, or a function, longer than one can hold in mind?

use super::text::{Workspace, blank, shipped};

const FILE_LINES: usize = 700;
const FUNCTION_LINES: usize = 70;

/// Functions that may be longer: file, name, reason.
const LONG_FUNCTIONS: [(&str, &str, &str); 0] = [];

/// Functions of `code`: name, line, and how many lines from the signature to the closing brace.
fn functions(code: &str) -> Vec<(String, usize, usize)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        let starts_word = at.checked_sub(1).is_none_or(|i| !super::text::is_word(code.as_bytes()[i]));
        let name: String = code[at + 3..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        if starts_word
            && !name.is_empty()
            && let Some(end) = body_end(&code[at..])
        {
            let line = code[..at].matches('\n').count() + 1;
            found.push((name, line, code[at..at + end].matches('\n').count() + 1));
        }
    }
    found
}

/// Where the body of the function that `code` starts with ends; `None` for one without a body.
fn body_end(code: &str) -> Option<usize> {
    let (mut braces, mut others) = (0, 0);
    for (i, c) in code.char_indices() {
        match c {
            '(' | '[' => others += 1,
            ')' | ']' => others -= 1,
            ';' if braces == 0 && others == 0 => return None,
            '{' => braces += 1,
            '}' if braces == 1 => return Some(i),
            '}' => braces -= 1,
            _ => {}
        }
    }
    None
}

pub fn check(workspace: &Workspace) -> Vec<String> {
    let tests = workspace.test_files();
    let mut found = Vec::new();
    for file in workspace.0.iter().filter(|file| file.is_rust()) {
        let shipped = shipped(&file.text);
        let lines = shipped.trim_end().matches('\n').count() + 1;
        if lines > FILE_LINES && !tests.contains(&file.path) {
            found.push(format!("{}: {lines} lines before tests; at most {FILE_LINES}", file.path));
        }
        for (name, line, lines) in functions(&blank(&file.text)) {
            let excused = LONG_FUNCTIONS.iter().any(|(path, long, _)| *path == file.path && *long == name);
            if lines > FUNCTION_LINES && !excused {
                let at = format!("{}:{line}", file.path);
                found.push(format!("{at}: fn {name} has {lines} lines; at most {FUNCTION_LINES}"));
            }
        }
    }
    found
}

#[test]
fn functions_are_measured() {
    let code = "trait T {\n    fn a(&self, x: [u8; 2]);\n    fn b() -> [u8; 2] {\n        if x {\n        }\n    }\n}\n";
    assert_eq!(functions(code), [("b".to_owned(), 3, 4)]);
}
