//! Is every record of a key-value store there that was acknowledged before the power was cut?
//!
//! The records are put by the command-line tool, one after the other; this program says which, and knows from a listing of
//! all records after how many puts it was made. A put is a function of the seed and its number, and its value names the
//! number: the listing is that of N puts where each key has the value of the last of them that put it.

use crate::Result;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Keys, so that most puts replace a record.
const KEYS: u64 = 300;
/// Bytes of a value at most.
const LONGEST: u64 = 700;

fn random(seed: u64, number: u64) -> u64 {
    xxh3_64_with_seed(&number.to_le_bytes(), seed)
}

/// The key and the value of put `number`, which counts from 1.
fn put(seed: u64, number: u64) -> (String, String) {
    let bits = random(seed, number);
    let len = ((bits >> 32) % LONGEST) as usize;
    (format!("key{:03}", bits % KEYS), format!("{number}-{:016x}-{}", random(!seed, number), "v".repeat(len)))
}

/// Reads a listing, finds the number of puts that led to it, and tells the host.
pub fn found(seed: &str, listing: impl BufRead) -> Result<()> {
    println!("@@ found 0 {} {:016x};", count(seed.parse()?, listing)?, 0);
    Ok(())
}

/// After how many puts was this listed?
fn count(seed: u64, listing: impl BufRead) -> Result<u64> {
    let mut records = BTreeMap::new();
    for line in listing.lines() {
        let line = line?;
        let (key, value) = line.split_once('\t').ok_or("a line without a tab")?;
        if records.insert(key.to_owned(), value.to_owned()).is_some() {
            return Err(format!("{key} is listed twice").into());
        }
    }
    let numbers = records.values().map(|value| value.split('-').next().unwrap_or_default().parse::<u64>());
    let last = numbers.collect::<std::result::Result<Vec<_>, _>>()?.into_iter().max().unwrap_or(0);
    let expected: BTreeMap<_, _> = (1..=last).map(|number| put(seed, number)).collect();
    if expected == records {
        return Ok(last);
    }
    let differs = expected.iter().find(|(key, value)| records.get(*key) != Some(value));
    Err(format!(
        "after {last} puts {differs:?} is {:?}; {} records of {}",
        differs.and_then(|(key, _)| records.get(key)),
        records.len(),
        expected.len()
    )
    .into())
}

/// Writes the puts after the first `count`, a key, a tab and a value a line, until nobody reads them.
pub fn lines(seed: &str, count: &str, mut out: impl Write) -> Result<()> {
    let (seed, count) = (seed.parse()?, count.parse::<u64>()?);
    for number in count + 1.. {
        let (key, value) = put(seed, number);
        out.write_all(format!("{key}\t{value}\n").as_bytes())?;
    }
    Ok(())
}

/// Standard input, which is a pipe, so that little of what was acknowledged is under way to the host.
pub fn narrow() -> Result<impl BufRead> {
    let input = File::open("/proc/self/fd/0")?;
    rustix::pipe::fcntl_setpipe_size(&input, 4096)?;
    Ok(BufReader::with_capacity(64, input))
}

/// Reads the keys that the tool acknowledges after the first `count` puts, and tells the host of each.
pub fn acknowledged(seed: &str, count: &str, keys: impl BufRead) -> Result<()> {
    let (seed, count) = (seed.parse()?, count.parse::<u64>()?);
    for (number, key) in (count + 1..).zip(keys.lines()) {
        let (key, expected) = (key?, put(seed, number).0);
        if key != expected {
            return Err(format!("put {number} of {expected} was acknowledged as {key}").into());
        }
        let line = format!("@@ ack 0 {number} {:016x};\n", 0);
        std::io::stdout().lock().write_all(line.as_bytes())?;
    }
    Err("the tool puts no more".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(records: &BTreeMap<String, String>) -> String {
        records.iter().map(|(key, value)| format!("{key}\t{value}\n")).collect()
    }

    #[test]
    fn the_number_of_puts_is_found_again() {
        for puts in [0, 1, 2, 299, 2000] {
            let records: BTreeMap<_, _> = (1..=puts).map(|number| put(7, number)).collect();
            assert_eq!(count(7, listing(&records).as_bytes()).unwrap(), puts);
        }
    }

    #[test]
    fn a_lost_or_old_or_torn_record_is_found() {
        let whole: BTreeMap<_, _> = (1..=2000).map(|number| put(7, number)).collect();
        let old: BTreeMap<_, _> = (1..=1999).map(|number| put(7, number)).collect();
        let key = put(7, 1500).0;
        let mut lost = whole.clone();
        lost.remove(&key);
        assert!(count(7, listing(&lost).as_bytes()).unwrap_err().to_string().contains(&key));
        let mut torn = whole.clone();
        torn.get_mut(&key).unwrap().push('w');
        assert!(count(7, listing(&torn).as_bytes()).is_err());
        let mut stale = whole;
        let number = (1..1999).rev().find(|n| put(7, *n).0 == put(7, 2000).0).unwrap();
        stale.insert(put(7, number).0, put(7, number).1);
        assert_eq!(count(7, listing(&stale).as_bytes()).unwrap(), 1999, "as before the last: {}", old.len());
        let twice = format!("{}{}", listing(&old), listing(&old));
        assert!(count(7, twice.as_bytes()).unwrap_err().to_string().contains("twice"));
    }
}
