//! How are names that need not be UTF-8 shown?
//!
//! Invariant: what is shown names the file without loss. In text, bytes that are not printable UTF-8 and the
//! backslash are escaped as `\xNN` and `\\`; in JSON a name that is not UTF-8 has its bytes in hexadecimal in
//! a second field.

use serde::Serialize;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// The name in text that names it without loss.
pub fn shown(name: impl AsRef<OsStr>) -> String {
    let mut text = String::new();
    for part in name.as_ref().as_bytes().utf8_chunks() {
        for letter in part.valid().chars() {
            push_letter(&mut text, letter);
        }
        for byte in part.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

fn push_letter(text: &mut String, letter: char) {
    match letter {
        '\\' => text.push_str("\\\\"),
        '\n' => text.push_str("\\n"),
        letter if letter.is_control() => {
            let mut bytes = [0; 4];
            for byte in letter.encode_utf8(&mut bytes).bytes() {
                text.push_str(&format!("\\x{byte:02x}"));
            }
        }
        letter => text.push(letter),
    }
}

/// Bytes in hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A name (or any bytes that mostly are text) in JSON: to be flattened or nested.
#[derive(Serialize, Debug, PartialEq, Eq)]
pub struct JsonName {
    /// The name, with U+FFFD for what is not UTF-8.
    pub name: String,
    /// All its bytes in hexadecimal, where `name` does not tell them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name_hex: Option<String>,
}

impl JsonName {
    /// The JSON form of `name`.
    pub fn new(name: impl AsRef<OsStr>) -> Self {
        let name = name.as_ref();
        let name_hex = name.to_str().is_none().then(|| hex(name.as_bytes()));
        Self { name: name.to_string_lossy().into_owned(), name_hex }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_without_loss() {
        assert_eq!(shown("grün ✓"), "grün ✓");
        assert_eq!(shown("a\\b\nc\x1b\u{85}"), "a\\\\b\\nc\\x1b\\xc2\\x85");
        assert_eq!(shown(OsStr::from_bytes(b"x\xffy\xe2\x82")), "x\\xffy\\xe2\\x82");
    }

    #[test]
    fn json_has_the_bytes_only_where_needed() {
        assert_eq!(JsonName::new("grün"), JsonName { name: "grün".into(), name_hex: None });
        let odd = JsonName::new(OsStr::from_bytes(b"x\xff"));
        assert_eq!(odd, JsonName { name: "x\u{fffd}".into(), name_hex: Some("78ff".into()) });
    }
}
