//! How does a dump write records, and how are they read back?
//!
//! JSON lines: one object for each record, with `key` or `key_hex`, `value` or `value_hex`, and `tree` where it is in a
//! tree with a name.
//!
//! Binary, numbers little-endian: the 8 bytes of [`MAGIC`], then entries, each a byte and what follows it: 1, a tree for
//! the records behind it: length of its name (2 bytes), the name; 2, a record: length of the key (2 bytes), of the value
//! (4 bytes), key, value; 0, the end: how many records there are (8 bytes), and the XXH3 of all bytes before itself (8
//! bytes).
//!
//! Invariant: a binary dump that was cut off or changed is noticed before the command says that it is done.

use super::encoding::{from_hex, text_or_hex};
use crate::args::kv::Format;
use crate::failure::{Context, Failure, Result};
use serde::{Deserialize, Serialize};
use std::io::{BufRead, Read, Write};
use xxhash_rust::xxh3::Xxh3Default;

/// The first bytes of a binary dump; the last one is the version.
const MAGIC: [u8; 8] = *b"daxkv\r\n\x01";
const END: u8 = 0;
const TREE: u8 = 1;
const RECORD: u8 = 2;

/// A line of JSON.
#[derive(Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Line {
    #[serde(skip_serializing_if = "Option::is_none")]
    tree: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_hex: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_hex: Option<String>,
}

/// A record of a dump.
#[derive(Debug, PartialEq, Eq)]
pub struct Record {
    /// The tree that the dump names.
    pub tree: Option<String>,
    /// Its key.
    pub key: Vec<u8>,
    /// Its value.
    pub value: Vec<u8>,
}

/// Writes a dump.
pub struct Writer<W> {
    out: W,
    format: Format,
    tree: Option<String>,
    records: u64,
    sum: Xxh3Default,
}

impl<W: Write> Writer<W> {
    /// Begins a dump.
    pub fn new(out: W, format: Format) -> std::io::Result<Self> {
        let mut writer = Self { out, format, tree: None, records: 0, sum: Xxh3Default::new() };
        if format == Format::Binary {
            writer.bytes(&MAGIC)?;
        }
        Ok(writer)
    }

    fn bytes(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.sum.update(bytes);
        self.out.write_all(bytes)
    }

    /// The records that follow are in this tree.
    pub fn tree(&mut self, name: &str) -> std::io::Result<()> {
        self.tree = Some(name.to_owned());
        if self.format == Format::Jsonl {
            return Ok(());
        }
        self.bytes(&[TREE])?;
        self.bytes(&(name.len() as u16).to_le_bytes())?;
        self.bytes(name.as_bytes())
    }

    /// Writes a record.
    pub fn record(&mut self, key: &[u8], value: &[u8]) -> std::io::Result<()> {
        self.records += 1;
        if self.format == Format::Jsonl {
            let ((key, key_hex), (value, value_hex)) = (text_or_hex(key), text_or_hex(value));
            let line = Line { tree: self.tree.clone(), key, key_hex, value, value_hex };
            serde_json::to_writer(&mut self.out, &line)?;
            return self.out.write_all(b"\n");
        }
        self.bytes(&[RECORD])?;
        self.bytes(&(key.len() as u16).to_le_bytes())?;
        self.bytes(&(value.len() as u32).to_le_bytes())?;
        self.bytes(key)?;
        self.bytes(value)
    }

    /// Ends the dump, and tells how many records it has.
    pub fn finish(mut self) -> std::io::Result<u64> {
        if self.format == Format::Binary {
            self.bytes(&[END])?;
            self.bytes(&self.records.to_le_bytes())?;
            let sum = self.sum.digest();
            self.out.write_all(&sum.to_le_bytes())?;
        }
        self.out.flush()?;
        Ok(self.records)
    }
}

/// Reads a dump.
pub struct Reader<R> {
    input: R,
    format: Format,
    tree: Option<String>,
    records: u64,
    bytes: u64,
    sum: Xxh3Default,
}

impl<R: BufRead> Reader<R> {
    /// Begins to read.
    pub fn new(input: R, format: Format) -> Result<Self> {
        let mut reader = Self { input, format, tree: None, records: 0, bytes: 0, sum: Xxh3Default::new() };
        if format == Format::Binary && reader.array()? != MAGIC {
            let advice = "name a dump made with `--format binary`, or leave that out";
            return Err(Failure::new("read the dump", "it is no binary dump of this version", advice));
        }
        Ok(reader)
    }

    /// Bytes read so far.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The next record; `None` after the last.
    pub fn next(&mut self) -> Result<Option<Record>> {
        match self.format {
            Format::Jsonl => self.line(),
            Format::Binary => self.entry(),
        }
    }

    fn wrong(&self, why: impl Into<String>) -> Failure {
        let what = format!("read record {} of the dump", self.records + 1);
        Failure::new(what, why, "all records before it are stored; mend or make the dump again")
    }

    fn line(&mut self) -> Result<Option<Record>> {
        let mut text = Vec::new();
        let got = self.input.read_until(b'\n', &mut text);
        let got = got.context(|| String::from("read the dump"))?;
        if got == 0 {
            return Ok(None);
        }
        self.bytes += got as u64;
        let line: Line = serde_json::from_slice(&text).map_err(|error| self.wrong(error.to_string()))?;
        let key = bytes_of(line.key, line.key_hex).ok_or_else(|| self.wrong("it needs key or key_hex"))?;
        let value =
            bytes_of(line.value, line.value_hex).ok_or_else(|| self.wrong("it needs value or value_hex"))?;
        self.records += 1;
        Ok(Some(Record { tree: line.tree, key, value }))
    }

    fn entry(&mut self) -> Result<Option<Record>> {
        loop {
            match self.array()? {
                [RECORD] => {
                    let key = u16::from_le_bytes(self.array()?).into();
                    let value = u32::from_le_bytes(self.array()?).into();
                    let (key, value) = (self.take(key)?, self.take(value)?);
                    self.records += 1;
                    return Ok(Some(Record { tree: self.tree.clone(), key, value }));
                }
                [TREE] => {
                    let name = u16::from_le_bytes(self.array()?).into();
                    let name = String::from_utf8(self.take(name)?);
                    self.tree = Some(name.map_err(|_| self.wrong("the tree's name is not text"))?);
                }
                [END] => return self.end().map(|()| None),
                [other] => return Err(self.wrong(format!("there is no entry of kind {other}"))),
            }
        }
    }

    fn end(&mut self) -> Result<()> {
        let records = u64::from_le_bytes(self.array()?);
        let sum = self.sum.digest();
        if records != self.records || u64::from_le_bytes(self.array()?) != sum {
            return Err(self.wrong("the checksum at the end is of other records"));
        }
        Ok(())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        let read = self.input.read_exact(&mut bytes);
        read.map_err(|_| self.wrong("the dump ends in the middle"))?;
        self.sum.update(&bytes);
        self.bytes += bytes.len() as u64;
        Ok(bytes)
    }

    fn take(&mut self, len: u64) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let got = self.input.by_ref().take(len).read_to_end(&mut bytes);
        if got.context(|| String::from("read the dump"))? as u64 != len {
            return Err(self.wrong("the dump ends in the middle"));
        }
        self.sum.update(&bytes);
        self.bytes += bytes.len() as u64;
        Ok(bytes)
    }
}

/// The bytes of the one of the two that is there.
fn bytes_of(text: Option<String>, hex: Option<String>) -> Option<Vec<u8>> {
    match (text, hex) {
        (Some(text), None) => Some(text.into_bytes()),
        (None, Some(hex)) => from_hex(hex.as_bytes()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dump(format: Format) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes, format).unwrap();
        writer.record(b"a", b"text").unwrap();
        writer.record(b"\xff\n", b"\x00\x80").unwrap();
        writer.tree("names").unwrap();
        writer.record("ö".as_bytes(), b"").unwrap();
        assert_eq!(writer.finish().unwrap(), 3);
        bytes
    }

    fn read(format: Format, bytes: &[u8]) -> Result<Vec<Record>> {
        let mut reader = Reader::new(bytes, format)?;
        std::iter::from_fn(|| reader.next().transpose()).collect()
    }

    #[test]
    fn what_is_written_is_read() {
        for format in [Format::Jsonl, Format::Binary] {
            let found = read(format, &dump(format)).unwrap();
            let record = |tree: Option<&str>, key: &[u8], value: &[u8]| Record {
                tree: tree.map(str::to_owned),
                key: key.to_vec(),
                value: value.to_vec(),
            };
            let wanted = [
                record(None, b"a", b"text"),
                record(None, b"\xff\n", b"\x00\x80"),
                record(Some("names"), "ö".as_bytes(), b""),
            ];
            assert_eq!(found, wanted);
        }
        let text = String::from_utf8(dump(Format::Jsonl)).unwrap();
        assert_eq!(text.lines().nth(1).unwrap(), r#"{"key_hex":"ff0a","value_hex":"0080"}"#);
        assert_eq!(text.lines().nth(2).unwrap(), r#"{"tree":"names","key":"ö","value":""}"#);
    }

    #[test]
    fn a_binary_dump_that_was_cut_or_changed_is_noticed() {
        let whole = dump(Format::Binary);
        for len in 0..whole.len() {
            assert!(read(Format::Binary, &whole[..len]).is_err(), "{len}");
        }
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 4;
            assert!(read(Format::Binary, &changed).is_err(), "{at}");
        }
    }

    #[test]
    fn lines_that_are_no_records_are_refused() {
        for line in ["{}", "[]", "x", r#"{"key":"a"}"#, r#"{"key":"a","key_hex":"61","value":""}"#] {
            assert!(read(Format::Jsonl, line.as_bytes()).is_err(), "{line}");
        }
        assert!(read(Format::Jsonl, br#"{"key":"a","value":"b","more":1}"#).is_err());
        assert!(read(Format::Jsonl, br#"{"key_hex":"0","value":"b"}"#).is_err());
    }
}
