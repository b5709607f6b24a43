//! How long does the host's own file system take for the same work?

use super::place::{BASELINE, Place};
use super::table::Step;
use super::{FIRST, tally_of};
use crate::failure::{Context, Result};
use crate::names::shown;
use crate::transfer::PIECE_BYTES;
use crate::transfer::host::{self, Attributes, HostTree};
use crate::transfer::plan::{Entry, HostId, HostKind, Plan};
use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

struct Baseline {
    tree: HostTree,
    links: HashMap<HostId, PathBuf>,
    piece: Vec<u8>,
    operations: u64,
}

/// Copies the plan with the same reads and the same kinds of changes as an import, and removes the copy.
pub fn copy(plan: &Plan, place: &Place) -> Result<Step> {
    let begun = Instant::now();
    let tree = HostTree::open(place.dir()).context(|| format!("open {}", shown(place.dir())))?;
    let mut baseline = Baseline { tree, links: HashMap::new(), piece: vec![0; PIECE_BYTES], operations: 0 };
    for entry in &plan.entries {
        baseline.one(entry).context(|| format!("copy {}", shown(&entry.host)))?;
    }
    for entry in plan.entries.iter().rev().filter(|e| e.kind == HostKind::Directory) {
        baseline.finish_directory(entry).context(|| format!("copy {}", shown(&entry.host)))?;
    }
    let seconds = begun.elapsed().as_secs_f64();
    let copy = place.dir().join(BASELINE);
    std::fs::remove_dir_all(&copy).context(|| format!("remove {}", shown(&copy)))?;
    let name = if place.tmpfs { "copy on the host's tmpfs" } else { "copy on the host's disk" };
    Ok(Step::new(name, &tally_of(plan.files, plan.bytes, baseline.operations), seconds))
}

fn below(entry: &Entry) -> PathBuf {
    super::place::join(Path::new(BASELINE), entry.dest.strip_prefix(FIRST).unwrap_or(&entry.dest))
}

impl Baseline {
    fn one(&mut self, entry: &Entry) -> std::io::Result<()> {
        let below = below(entry);
        self.operations += 1;
        match entry.kind {
            HostKind::Directory => self.tree.make_dir(&below),
            HostKind::Symlink => {
                let target = std::fs::read_link(&entry.host)?;
                let attributes = Attributes::of_host(&std::fs::symlink_metadata(&entry.host)?);
                self.operations += 1;
                self.tree.make_symlink(&below, &target, &attributes)
            }
            HostKind::File { link } => match link.and_then(|id| self.links.get(&id)).cloned() {
                Some(first) => self.tree.make_link(&first, &below),
                None => {
                    if let Some(id) = link {
                        self.links.insert(id, below.clone());
                    }
                    self.file(entry, &below)
                }
            },
        }
    }

    fn file(&mut self, entry: &Entry, below: &Path) -> std::io::Result<()> {
        let source = host::open_source(&entry.host)?;
        let metadata = source.metadata()?;
        let new = self.tree.make_file(below)?;
        let (mut at, len, sparse) = (0, metadata.len(), host::may_have_holes(&metadata));
        while at < len {
            let data = if sparse { host::next_data(&source, at, len)? } else { Some((at, len)) };
            let Some((start, end)) = data else { break };
            self.run_of_data(&source, &new.file, start, end)?;
            at = end;
        }
        new.file.set_len(len)?;
        self.set(&new.file, &Attributes::of_host(&metadata), &host::xattrs_of(&source)?)?;
        self.tree.publish(below, new)
    }

    fn run_of_data(&mut self, source: &File, new: &File, start: u64, end: u64) -> std::io::Result<()> {
        let mut at = start;
        while at < end {
            let want = usize::try_from(end - at).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
            let piece = self.piece.get_mut(..want).unwrap_or_default();
            let got = source.read_at(piece, at)?;
            if got == 0 {
                break;
            }
            new.write_all_at(piece.get(..got).unwrap_or_default(), at)?;
            self.operations += 1;
            at += got as u64;
        }
        Ok(())
    }

    fn finish_directory(&mut self, entry: &Entry) -> std::io::Result<()> {
        let attributes = Attributes::of_host(&std::fs::symlink_metadata(&entry.host)?);
        let xattrs = host::xattrs_at(&entry.host)?;
        let dir = File::from(self.tree.dir(&below(entry))?.try_clone_to_owned()?);
        self.set(&dir, &attributes, &xattrs)
    }

    fn set(
        &mut self,
        file: &File,
        attributes: &Attributes,
        xattrs: &[(std::ffi::OsString, Vec<u8>)],
    ) -> std::io::Result<()> {
        use xattr::FileExt;
        attributes.own(file)?;
        for (name, value) in xattrs {
            match file.set_xattr(name, value) {
                Err(error) if !host::is_unsupported(&error) => return Err(error),
                _ => self.operations += 1,
            }
        }
        self.operations += 1;
        attributes.finish(file)
    }
}
