//! Is everything where it must be?
//!
//! What is looked at: every entry of the hash index and the record that it names, by its checksum; that the record lies in a slot or run
//! of its size; that its key is in its tree's ordered index; every page of the ordered indexes. Keys of one segment wait while it is looked at.

use crate::chunks;
use crate::core::Core;
use crate::db::Db;
use crate::env::TreeId;
use crate::error::{Damage, Error, Result, Structure};
use crate::heap::{class_of, slot_bytes};
use crate::layout::{CHUNK, PAGE};
use crate::media::{Mapped, Media};
use crate::pages::{self, PageKind};
use crate::record::{self, TOMBSTONE, Whole};
use std::collections::BTreeMap;
use std::ops::Bound;

/// What [`Db::verify`] found.
#[derive(Debug, Default)]
pub struct Report {
    /// Records.
    pub records: u64,
    /// Tombstones that wait to be forgotten.
    pub tombstones: u64,
    /// Bytes of the records' keys and values.
    pub logical_bytes: u64,
    /// Bytes that the database's chunks take.
    pub media_bytes: u64,
    /// What is wrong.
    pub faults: Vec<Error>,
}

/// Where slabs and runs of records begin, and how long they are.
type Places = BTreeMap<u64, (u64, Option<u16>)>;

impl<M: Media> Db<M> {
    /// Looks at everything. Damage is no error but a finding.
    ///
    /// # Errors
    /// None but those of making waiting changes of the ordered indexes durable.
    pub fn verify(&self) -> Result<Report> {
        let core = self.core();
        let mut report = Report { media_bytes: core.env.chunks.used() * CHUNK, ..Report::default() };
        let mut gained = BTreeMap::new();
        core.verify_maps(&mut report.faults);
        let walked = core.index.each_segment(core.media(), &core.stripes, |entries| {
            core.verify_records(entries, &mut report, &mut gained);
        });
        report.faults.extend(walked.err());
        for tree in self.all_trees() {
            if !core.read_only {
                match tree.state().ordered.verify() {
                    Ok(findings) => report.faults.extend(findings.errors),
                    // Where changes that wait are to go can not be read.
                    Err(error @ Error::Damage(_)) => report.faults.push(error),
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(report)
    }
}

impl<M: Media> Core<M> {
    /// The slabs and runs of records of a chunk.
    fn places(&self, chunk: u64) -> Result<Places> {
        let mut places = Places::new();
        let mut runs = chunks::runs(&self.env.media)?.into_iter();
        let Some(run) = runs.find(|run| run.at() == chunk) else { return Ok(places) };
        if run.kind == chunks::ChunkKind::Record {
            places.insert(run.at(), (run.count * CHUNK, None));
        }
        if run.kind == chunks::ChunkKind::Pages {
            for run in pages::runs(&self.env.media, chunk)? {
                let class = if let PageKind::Slab(class) = run.kind { Some(class) } else { None };
                places.insert(run.at, (run.kind.pages() as u64 * PAGE, class));
            }
        }
        Ok(places)
    }

    /// Looks at the records of a segment, whose locks the caller has.
    fn verify_records(&self, entries: &[(u64, u64)], report: &mut Report, known: &mut BTreeMap<u64, Places>) {
        let _pin = self.env.pin();
        for (entry, at) in entries {
            match record::read(self.media(), self.salt, *at) {
                Ok(whole) => {
                    let found = self.verify_record(*entry, &whole, known);
                    report.faults.extend(found.err());
                    if whole.head.is(TOMBSTONE) {
                        report.tombstones += 1;
                    } else {
                        report.records += 1;
                        report.logical_bytes += (whole.key.len() + whole.value.len()) as u64;
                    }
                }
                Err(damage) => report.faults.push(damage.into()),
            }
        }
    }

    fn verify_record(&self, entry: u64, whole: &Whole, known: &mut BTreeMap<u64, Places>) -> Result<()> {
        let chunk = whole.at - whole.at % CHUNK;
        // A chunk changes while others are looked at: what is not known of it is looked up again.
        let is_placed = |known: &BTreeMap<u64, Places>| {
            let place = known.get(&chunk).and_then(|places| places.range(..=whole.at).next_back());
            place.is_some_and(|(first, (len, class))| lies(whole, *first, *len, *class))
        };
        if !is_placed(known) {
            known.insert(chunk, self.places(chunk)?);
            if !is_placed(known) {
                let what = "a slot or run of the record's size";
                let damage = Damage::new(Structure::Record, whole.at, what, whole.head.bytes(), 0);
                return Err(damage.into());
            }
        }
        let place = self.index.names(self.media(), whole.hash, whole.at)?.map_or(0, |place| place.at);
        if place != entry {
            let what = "an entry where the key's hash leads";
            return Err(Damage::new(Structure::Entry, entry, what, place, entry).into());
        }
        if whole.head.is(TOMBSTONE) || self.is_ordered(whole.tree, &whole.key)? {
            return Ok(());
        }
        Err(Damage::new(Structure::Ordered, whole.at, "every key of a record", 1, 0).into())
    }

    fn is_ordered(&self, tree: TreeId, key: &[u8]) -> Result<bool> {
        let Some(tree) = self.trees.by_id(tree) else { return Ok(false) };
        let mut cursor = tree.ordered.cursor(Bound::Included(key));
        Ok(cursor.next()?.is_some_and(|(found, _)| found == key))
    }
}

fn lies(whole: &Whole, first: u64, len: u64, class: Option<u16>) -> bool {
    let bytes = whole.head.bytes();
    match class {
        Some(class) => {
            let slot = slot_bytes(usize::from(class));
            class_of(bytes) == Some(usize::from(class))
                && (whole.at - first).is_multiple_of(slot)
                && whole.at + slot <= first + len
        }
        None => whole.at == first && bytes <= len,
    }
}

/// Records of a batch of a backup.
const BACKUP: usize = 1000;

#[cfg(not(loom))]
impl Db {
    /// Copies the database as it is at one moment into a new one at `path` of `store`, in order and without gaps, while it is used.
    ///
    /// # Errors
    /// [`Error::BackupExists`] where there is a file already; those of reading and of the new database.
    pub fn backup(&self, store: &daxstore::Store, path: impl AsRef<std::path::Path>) -> Result<()> {
        if store.metadata(path.as_ref()).is_ok() {
            return Err(Error::BackupExists);
        }
        let copy = Self::open(store, path, crate::Options::new().create(true))?;
        let moment = self.snapshot();
        for tree in self.all_trees() {
            let to = if tree.name().is_empty() { (*copy).clone() } else { copy.tree(tree.name())? };
            let mut batch = crate::Batch::new();
            for record in moment.of(&tree).range(..) {
                let (key, value) = record?;
                batch.put(&key, &value);
                if batch.len() >= BACKUP {
                    to.write(&batch)?;
                    batch.clear();
                }
            }
            to.write(&batch)?;
        }
        drop(moment);
        copy.close()
    }

    /// What became of the mapping's faults, by decision and reason.
    #[must_use]
    pub fn faults(&self) -> daxstore_fault::Stats {
        let media: &Mapped = self.core().media();
        media.faults()
    }
}
