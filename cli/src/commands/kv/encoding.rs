//! How do keys and values, which are any bytes, stand in text?
//!
//! Invariant: what is printed in hexadecimal or base64 reads back as the same bytes; text is for people.

use crate::args::kv::Encoding;
use crate::failure::{Failure, Result};
use crate::names::{hex, shown};
use serde::Serialize;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// The bytes that `text` stands for.
pub fn decode(encoding: Encoding, text: &[u8]) -> Result<Vec<u8>> {
    let decoded = match encoding {
        Encoding::Text => Some(text.to_vec()),
        Encoding::Hex => from_hex(text),
        Encoding::Base64 => from_base64(text),
    };
    let name = if encoding == Encoding::Hex { "hexadecimal" } else { "base64" };
    decoded.ok_or_else(|| {
        let cause = format!("it is not {name}");
        Failure::new(format!("read {}", shown(OsStr::from_bytes(text))), cause, "see --encoding")
    })
}

/// The text that stands for `bytes` in a line.
pub fn encode(encoding: Encoding, bytes: &[u8]) -> String {
    match encoding {
        Encoding::Text => shown(OsStr::from_bytes(bytes)),
        Encoding::Hex => hex(bytes),
        Encoding::Base64 => base64(bytes),
    }
}

/// The bytes of pairs of hexadecimal digits.
pub fn from_hex(text: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let pair = |pair: &[u8]| Some((digit(pair[0])? * 16 + digit(*pair.get(1)?)?) as u8);
    text.chunks(2).map(pair).collect()
}

fn base64(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let byte = |i: usize| u32::from(three.get(i).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for i in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * i) & 63) as usize];
            text.push(if i <= three.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

fn from_base64(text: &[u8]) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(4) {
        return None;
    }
    let padding = text.iter().rev().take_while(|byte| **byte == b'=').count();
    let digits = text.get(..text.len().checked_sub(padding)?)?;
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    for four in digits.chunks(4) {
        let mut bits = 0;
        for i in 0..4 {
            let digit = four.get(i).map_or(Some(0), |byte| DIGITS.iter().position(|digit| digit == byte))?;
            bits = bits << 6 | digit as u32;
        }
        let [_, three @ ..] = bits.to_be_bytes();
        // What padding stands for is no byte, and its bits are zero.
        let (kept, cut) = three.split_at(four.len().checked_sub(1).filter(|n| *n > 0)?);
        if cut.iter().any(|byte| *byte != 0) {
            return None;
        }
        bytes.extend_from_slice(kept);
    }
    (padding <= 2).then_some(bytes)
}

/// A record in JSON: text where it is UTF-8, else hexadecimal.
#[derive(Serialize, Debug, Default, PartialEq, Eq)]
pub struct JsonRecord {
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_hex: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_hex: Option<String>,
}

impl JsonRecord {
    /// A record, or with no value a key.
    pub fn new(key: &[u8], value: Option<&[u8]>) -> Self {
        let (key, key_hex) = text_or_hex(key);
        let (value, value_hex) = value.map(text_or_hex).unwrap_or_default();
        Self { key, key_hex, value, value_hex }
    }
}

/// `bytes` as text, or in hexadecimal.
pub fn text_or_hex(bytes: &[u8]) -> (Option<String>, Option<String>) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (Some(text.to_owned()), None),
        Err(_) => (None, Some(hex(bytes))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_reads_back() {
        let all: Vec<u8> = (0..=255).collect();
        for encoding in [Encoding::Hex, Encoding::Base64] {
            for len in 0..=all.len() {
                let text = encode(encoding, &all[..len]);
                assert_eq!(decode(encoding, text.as_bytes()).unwrap(), &all[..len], "{text}");
            }
        }
        assert_eq!(encode(Encoding::Text, b"a\xff\n"), "a\\xff\\n");
        assert_eq!(decode(Encoding::Text, b"a\xff").unwrap(), b"a\xff");
    }

    /// The examples of RFC 4648.
    #[test]
    fn base64_is_the_one_of_the_standard() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["a", "0g", "0x12", "é0"] {
            assert!(from_hex(text.as_bytes()).is_none(), "{text}");
        }
        for text in ["Z", "Zg=", "Zg", "Zh==", "Z===", "====", "Zg==Zg==", "Zm9?"] {
            assert!(from_base64(text.as_bytes()).is_none(), "{text}");
        }
    }

    #[test]
    fn json_has_text_or_hexadecimal() {
        let json = |key: &[u8], value| serde_json::to_string(&JsonRecord::new(key, value)).unwrap();
        assert_eq!(json("kö".as_bytes(), Some(b"v")), r#"{"key":"kö","value":"v"}"#);
        assert_eq!(json(b"\xff", Some(b"\x80")), r#"{"key_hex":"ff","value_hex":"80"}"#);
        assert_eq!(json(b"k", None), r#"{"key":"k"}"#);
    }
}
