//! Is a mapped file the file?
//!
//! A sparse file is mapped, loaded from and stored to; a part in its middle is punched while it is mapped; and the
//! largest file of the import is compared through a mapping with its original. What was stored through memory is read by calls, and
//! the other way round.

use super::compare::Differences;
use crate::failure::{Context, Result};
use crate::names::shown;
use crate::size::human;
use crate::transfer::plan::{Entry, HostKind, Plan};
use daxstore::{AllocateMode, File, OpenOptions, Store};
use daxstore_fault::{MapOptions, Mapping, Mode, Stats};
use serde::Serialize;
use std::os::unix::fs::FileExt;
use std::time::Instant;

const SLOT: u64 = 2 << 20;
/// Bytes of the sparse file; a quarter of them is stored to.
const SPARSE: u64 = 64 << 20;
const FILE: &str = "/mapped";

/// What mapping files showed.
#[derive(Serialize, Default)]
pub struct Mapped {
    mode: &'static str,
    sparse_bytes: u64,
    stored_bytes: u64,
    store_seconds: f64,
    compared_bytes: u64,
    compare_seconds: f64,
    counts: Vec<(String, u64)>,
}

impl Mapped {
    /// Counts that are not zero.
    fn note(&mut self, stats: &Stats) {
        for row in stats.rows().filter(|row| row.n > 0) {
            let name = row.group.map_or_else(|| row.name.to_owned(), |group| format!("{group}.{}", row.name));
            match self.counts.iter_mut().find(|(known, _)| *known == name) {
                Some((_, n)) => *n += row.n,
                None => self.counts.push((name, row.n)),
            }
        }
    }

    /// For people.
    pub fn lines(&self) -> Vec<String> {
        let rate =
            |bytes: u64, seconds: f64| format!("{}/s", human((bytes as f64 / seconds.max(1e-9)) as u64));
        let counts: Vec<_> = self.counts.iter().map(|(name, n)| format!("{name} {n}")).collect();
        vec![
            format!(
                "mapping   by {}: {} stored into a hole of {} and made durable ({}), {} of a file compared ({})",
                self.mode,
                human(self.stored_bytes),
                human(self.sparse_bytes),
                rate(self.stored_bytes, self.store_seconds),
                human(self.compared_bytes),
                rate(self.compared_bytes, self.compare_seconds),
            ),
            format!("faults    {}", counts.join(", ")),
        ]
    }
}

const fn name(mode: Mode) -> &'static str {
    match mode {
        Mode::Userfault => "userfaultfd",
        Mode::Signal => "SIGSEGV",
        Mode::Eager => "mapping all of it beforehand",
    }
}

/// Maps files of `store` and looks whether they are the same as by calls.
pub fn run(store: &Store, plan: &Plan, differences: &mut Differences) -> Result<Mapped> {
    let mut mapped = Mapped::default();
    let file = store
        .open(FILE, &OpenOptions::new().read(true).write(true).create(true))
        .context(|| String::from("make the file to be mapped"))?;
    sparse(&file, &mut mapped, differences).context(|| String::from("map a sparse file"))?;
    let files = plan.entries.iter().filter(|entry| matches!(entry.kind, HostKind::File { .. }));
    if let Some(entry) = files.max_by_key(|entry| entry.size) {
        original(store, entry, &mut mapped, differences)?;
    }
    Ok(mapped)
}

/// The word that byte `at`, a multiple of 8, of the sparse file is given.
const fn word(at: u64) -> u64 {
    at.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1
}

fn sparse(file: &File, mapped: &mut Mapped, differences: &mut Differences) -> daxstore::Result<()> {
    file.set_len(SPARSE)?;
    let map = MapOptions::new().write(true).map(file, 0, SPARSE)?;
    mapped.mode = name(map.mode());
    mapped.sparse_bytes = SPARSE;
    for slot in (0..SPARSE).step_by(SLOT as usize) {
        expect(&map, slot + 8, 0, "a hole is not zero", differences)?;
    }
    let begun = Instant::now();
    let mut page = [0; 4096];
    for slot in (0..SPARSE).step_by(4 * SLOT as usize) {
        for at in (slot..slot + SLOT).step_by(page.len()) {
            for (i, place) in page.chunks_exact_mut(8).enumerate() {
                place.copy_from_slice(&word(at + 8 * i as u64).to_le_bytes());
            }
            map.write_through(at, &page)?;
        }
        mapped.stored_bytes += SLOT;
    }
    map.fence()?;
    mapped.store_seconds = begun.elapsed().as_secs_f64();
    file.allocate(SLOT / 2, 4096, AllocateMode::Punch)?;
    expect(&map, SLOT / 2, 0, "what was punched is still mapped", differences)?;
    expect(&map, SLOT / 2 - 8, word(SLOT / 2 - 8), "a neighbour of what was punched is lost", differences)?;
    let mut found = [0; 8];
    file.read_exact_at(&mut found, 4 * SLOT)?;
    differences
        .expect(u64::from_le_bytes(found) == word(4 * SLOT), || "a store through memory is not read".into());
    file.write_all_at(&7_u64.to_le_bytes(), SLOT)?;
    expect(&map, SLOT, 7, "a write is not seen in memory", differences)?;
    mapped.note(&map.stats());
    map.close()
}

fn expect(
    map: &Mapping,
    at: u64,
    wanted: u64,
    what: &str,
    differences: &mut Differences,
) -> daxstore::Result<()> {
    let mut found = [0; 8];
    map.read(at, &mut found)?;
    let found = u64::from_le_bytes(found);
    differences.expect(found == wanted, || format!("{FILE}: {what}: {found:#x} at byte {at}"));
    Ok(())
}

/// Compares an imported file, mapped, with its original.
fn original(store: &Store, entry: &Entry, mapped: &mut Mapped, differences: &mut Differences) -> Result<()> {
    let what = || format!("compare {} through a mapping", shown(&entry.dest));
    let file = store.open(&entry.dest, &OpenOptions::new().read(true)).context(what)?;
    let host = std::fs::File::open(&entry.host).context(what)?;
    if file.is_empty() {
        return Ok(());
    }
    let map = MapOptions::new().map(&file, 0, file.len()).context(what)?;
    let begun = Instant::now();
    let (mut ours, mut theirs) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    for at in (0..map.len()).step_by(ours.len()) {
        let part = ours.len().min((map.len() - at) as usize);
        map.read(at, &mut ours[..part]).context(what)?;
        host.read_exact_at(&mut theirs[..part], at).context(what)?;
        let same = ours[..part] == theirs[..part];
        differences.expect(same, || format!("{}: differs in memory near byte {at}", shown(&entry.dest)));
    }
    mapped.compare_seconds = begun.elapsed().as_secs_f64();
    mapped.compared_bytes = map.len();
    mapped.note(&map.stats());
    Ok(())
}
