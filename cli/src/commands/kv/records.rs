//! How do single records get in and out?

use super::base::{Base, KvContext};
use super::encoding::{JsonRecord, decode, encode};
use crate::args::kv::{Del, Encoding, Get, Put, Scan, Target};
use crate::failure::{Context, Failure, Result};
use crate::names::shown;
use crate::output::{Output, Verdict};
use crate::pool::Opener;
use daxstore_kv::Tree;
use serde::Serialize;
use std::ffi::{OsStr, OsString};
use std::io::{BufRead, Read};
use std::ops::Bound;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

#[derive(Serialize)]
struct Records {
    records: Vec<JsonRecord>,
}

#[derive(Serialize)]
struct Deleted {
    deleted: Vec<JsonRecord>,
}

#[derive(Serialize)]
struct Stored {
    records: u64,
}

fn name(key: &[u8]) -> String {
    shown(OsStr::from_bytes(key))
}

fn missing(what: &str, key: &[u8]) -> Failure {
    Failure::new(
        format!("{what} {}", name(key)),
        "no such key",
        "see what is there with `daxstore kv POOL:PATH scan`",
    )
}

fn keys(encoding: Encoding, keys: &[OsString]) -> Result<Vec<Vec<u8>>> {
    keys.iter().map(|key| decode(encoding, key.as_bytes())).collect()
}

/// `kv get`.
pub fn get(opener: Opener, target: &Target, args: &Get, output: &mut Output) -> Result<Verdict> {
    let base = Base::read(opener, target)?;
    let tree = base.tree(args.form.tree.as_deref())?;
    let mut records = Vec::new();
    for key in keys(args.form.encoding, &args.keys)? {
        let found = tree.get(&key).kv(|| format!("get {}", name(&key)))?;
        let value = found.ok_or_else(|| missing("get", &key))?;
        if output.json() {
            records.push(JsonRecord::new(&key, Some(&value)));
        } else if args.form.encoding == Encoding::Text {
            output.bytes(&value)?;
        } else {
            output.line(encode(args.form.encoding, &value))?;
        }
    }
    drop(tree);
    output.document(&Records { records })?;
    base.close()?;
    Ok(Verdict::Good)
}

/// `kv put`.
pub fn put(opener: Opener, target: &Target, args: &Put, output: &mut Output) -> Result<Verdict> {
    let base = Base::write(opener, target, true)?;
    let tree = base.tree(args.form.tree.as_deref())?;
    let records = match &args.key {
        None => put_lines(&tree, args, output)?,
        Some(key) => {
            let key = decode(args.form.encoding, key.as_bytes())?;
            let value = match (&args.file, &args.value) {
                (Some(file), _) => contents(file)?,
                (None, value) => decode(args.form.encoding, value.as_deref().unwrap_or_default().as_bytes())?,
            };
            tree.put(&key, &value).kv(|| format!("put {}", name(&key)))?;
            1
        }
    };
    drop(tree);
    base.close()?;
    output.document(&Stored { records })?;
    Ok(Verdict::Good)
}

fn contents(file: &Path) -> Result<Vec<u8>> {
    if file == Path::new("-") {
        let mut value = Vec::new();
        std::io::stdin().lock().read_to_end(&mut value).context(|| String::from("read standard input"))?;
        return Ok(value);
    }
    std::fs::read(file).context(|| format!("read {}", shown(file)))
}

/// Puts line after line; one that is acknowledged is durable.
fn put_lines(tree: &Tree, args: &Put, output: &mut Output) -> Result<u64> {
    let mut input = std::io::stdin().lock();
    let (mut line, mut count) = (Vec::new(), 0);
    loop {
        line.clear();
        if input.read_until(b'\n', &mut line).context(|| String::from("read standard input"))? == 0 {
            return Ok(count);
        }
        let line = line.strip_suffix(b"\n").unwrap_or(&line);
        count += 1;
        let Some(tab) = line.iter().position(|byte| *byte == b'\t') else {
            let what = format!("read line {count} of standard input");
            return Err(Failure::new(what, "there is no tab in it", "write a key, a tab and a value"));
        };
        let key = decode(args.form.encoding, &line[..tab])?;
        let value = decode(args.form.encoding, &line[tab + 1..])?;
        tree.put(&key, &value).kv(|| format!("put {}", name(&key)))?;
        if args.ack {
            output.line(encode(args.form.encoding, &key))?;
            output.finish()?;
        }
    }
}

/// `kv del`.
pub fn del(opener: Opener, target: &Target, args: &Del, output: &mut Output) -> Result<Verdict> {
    let base = Base::write(opener, target, false)?;
    let tree = base.tree(args.form.tree.as_deref())?;
    let mut deleted = Vec::new();
    for key in keys(args.form.encoding, &args.keys)? {
        if !tree.delete(&key).kv(|| format!("delete {}", name(&key)))? {
            return Err(missing("delete", &key));
        }
        deleted.push(JsonRecord::new(&key, None));
    }
    drop(tree);
    base.close()?;
    output.document(&Deleted { deleted })?;
    Ok(Verdict::Good)
}

/// `kv scan`.
pub fn scan(opener: Opener, target: &Target, args: &Scan, output: &mut Output) -> Result<Verdict> {
    let base = Base::read(opener, target)?;
    let tree = base.tree(args.form.tree.as_deref())?;
    let (from, to) = bounds(args)?;
    let what = || String::from("scan");
    let range = tree.range((as_slice(&from), as_slice(&to))).kv(what)?;
    let mut range: Box<dyn Iterator<Item = _>> =
        if args.reverse { Box::new(range.rev()) } else { Box::new(range) };
    let mut records = Vec::new();
    for record in range.by_ref().take(args.limit.unwrap_or(usize::MAX)) {
        let (key, value) = record.kv(what)?;
        let value = (!args.keys).then_some(&value[..]);
        if output.json() {
            records.push(JsonRecord::new(&key, value));
        } else {
            let text = |bytes: &[u8]| encode(args.form.encoding, bytes);
            let value = value.map(|value| format!("\t{}", text(value))).unwrap_or_default();
            output.line(format_args!("{}{value}", text(&key)))?;
        }
    }
    drop(range);
    drop(tree);
    output.document(&Records { records })?;
    base.close()?;
    Ok(Verdict::Good)
}

type Bounds = (Bound<Vec<u8>>, Bound<Vec<u8>>);

fn as_slice(bound: &Bound<Vec<u8>>) -> Bound<&[u8]> {
    bound.as_ref().map(Vec::as_slice)
}

fn bounds(args: &Scan) -> Result<Bounds> {
    let key = |key: &OsString| decode(args.form.encoding, key.as_bytes());
    if let Some(prefix) = &args.prefix {
        let prefix = key(prefix)?;
        let end = after_prefix(&prefix).map_or(Bound::Unbounded, Bound::Excluded);
        return Ok((Bound::Included(prefix), end));
    }
    let from = args.from.as_ref().map(key).transpose()?.map_or(Bound::Unbounded, Bound::Included);
    let to = args.to.as_ref().map(key).transpose()?.map_or(Bound::Unbounded, Bound::Excluded);
    Ok((from, to))
}

/// The least key that is greater than all keys that begin with `prefix`.
fn after_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let at = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut end = prefix[..=at].to_vec();
    end[at] += 1;
    Some(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_where_no_key_begins_with_it() {
        assert_eq!(after_prefix(b"ab"), Some(b"ac".to_vec()));
        assert_eq!(after_prefix(b"a\xff\xff"), Some(b"b".to_vec()));
        assert_eq!(after_prefix(b"\xff"), None);
        assert_eq!(after_prefix(b""), None);
    }
}
