//! What does a mapped file do on real persistent memory?
//!
//! `vm-guest mapping PART POOL UNIT MODE`: one part of the scenario in a process of its own. `UNIT` is the smallest
//! translation of the medium in bytes; on a device it is told by `device:`. Everything is done by whole units.

mod devices;
mod huge;
mod seen;

use crate::{Result, toucher};
use daxstore::{File, OpenOptions, Store, StoreOptions};
use daxstore_fault::{MapOptions, Mapping, Mode};
use std::path::{Path, PathBuf};

pub const PAGE: u64 = 4096;
pub const SLOT: u64 = 2 << 20;
const POOL_BYTES: u64 = 96 << 20;

/// Fails with a text where something does not hold.
macro_rules! holds {
    ($what:expr, $($text:tt)+) => {
        if !$what {
            return Err(format!($($text)+).into());
        }
    };
}
pub(super) use holds;

/// Where and how a part runs.
pub struct Stage {
    pub pool: PathBuf,
    pub unit: u64,
    pub is_device: bool,
    pub mode: Mode,
}

impl Stage {
    pub fn create(&self) -> Result<Store> {
        // A device holds the pool of the part before.
        Ok(Store::create(&self.pool, POOL_BYTES, &StoreOptions::new().force(true))?)
    }

    pub fn open(&self) -> Result<Store> {
        Ok(Store::open(&self.pool, &StoreOptions::new())?)
    }

    /// A shared mapping of the first `len` bytes that may be stored to.
    pub fn map(&self, file: &File, len: u64) -> Result<Mapping> {
        Ok(MapOptions::new().write(true).mode(self.mode).map(file, 0, len)?)
    }
}

pub fn file(store: &Store, name: &str) -> Result<File> {
    Ok(store.open(name, &OpenOptions::new().read(true).write(true).create(true))?)
}

/// Takes all that is free for a file of `fill`.
pub fn take_all(store: &Store, name: &str, fill: u8) -> Result<File> {
    let file = file(store, name)?;
    let data = vec![fill; SLOT as usize];
    let mut at = 0;
    for piece in [SLOT, 64 << 10, PAGE] {
        while file.write_all_at(&data[..piece as usize], at).is_ok() {
            at += piece;
        }
    }
    Ok(file)
}

fn address(map: &Mapping, at: u64) -> usize {
    map.as_ptr().expose_provenance() + at as usize
}

/// The word at `at`, or the signal that the load raises.
pub fn load(map: &Mapping, at: u64) -> std::result::Result<u64, i32> {
    toucher::load(address(map, at)).map_err(|raised| raised.signal)
}

/// Stores a word at `at`, or tells the signal that this raises.
pub fn store(map: &Mapping, at: u64, word: u64) -> std::result::Result<(), i32> {
    toucher::store(address(map, at), word).map_err(|raised| raised.signal)
}

/// The word at `at`, read.
pub fn word(file: &File, at: u64) -> Result<u64> {
    let mut bytes = [0; 8];
    file.read_exact_at(&mut bytes, at)?;
    Ok(u64::from_ne_bytes(bytes))
}

/// Why 2 MiB can not be had, by what was said.
pub fn refusal<T>(result: daxstore::Result<T>) -> String {
    match result {
        Ok(_) => String::from("it was granted"),
        Err(error) => error.to_string(),
    }
}

/// What the arguments of the guest's scripts say.
pub fn stage(pool: &Path, unit: &str, mode: &str) -> Result<Stage> {
    let (is_device, unit) = match unit.strip_prefix("device:") {
        Some(unit) => (true, unit),
        None => (false, unit),
    };
    let mode = match mode {
        "U" => Mode::Userfault,
        "S" => Mode::Signal,
        _ => return Err("modes are U and S".into()),
    };
    toucher::install();
    Ok(Stage { pool: pool.to_owned(), unit: unit.parse()?, is_device, mode })
}

/// Runs one part.
pub fn run(part: &str, pool: &Path, unit: &str, mode: &str) -> Result<()> {
    let stage = stage(pool, unit, mode)?;
    crate::plant::set()?;
    match part {
        "seen" => seen::run(&stage),
        "huge" => huge::run(&stage),
        "askew" => huge::askew(&stage),
        "kept" => huge::kept(&stage),
        "spoiled" => huge::spoiled(&stage),
        "devices" => devices::run(&stage),
        "stress" => crate::stress::run(&stage),
        _ => Err("no such part".into()),
    }
}
