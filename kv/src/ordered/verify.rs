//! Is the index whole, and which pages are its own?

use super::group::State;
use super::leaf::Content;
use super::root::{Page, check_group, linked, links};
use super::writer::Writer;
use super::{Ordered, Space, corrupt, log};
use crate::error::{Error, Result};
use crate::media::Media;

/// What a check of an index found.
#[derive(Debug, Default)]
pub struct Findings {
    /// Keys in all leaves that could be read.
    pub keys: u64,
    /// Leaves.
    pub leaves: u64,
    /// Bytes of all pages.
    pub bytes: u64,
    /// Leaves whose last appended entries can not be read: a crash left them so, or they are damaged.
    pub torn: u64,
    /// What is wrong.
    pub errors: Vec<Error>,
}

impl<S: Space> Ordered<S> {
    /// Makes durable what waits, and reads every page: hashes, order, and bounds.
    ///
    /// # Errors
    /// As [`Self::write_back`]; damage is no error but a finding.
    pub fn verify(&self) -> Result<Findings> {
        let mut findings = Findings::default();
        let mut writer = self.writer.lock();
        self.make_durable(&mut writer)?;
        let top = self.top.read();
        findings.errors.extend(top.damaged.iter().map(|at| corrupt(*at, "a group that can be read", 1, 0)));
        let mut content = Content::default();
        for (index, group) in top.groups.iter().enumerate() {
            let mut state = group.state.write();
            if let Err(error) = state.load(self.memory(), self.tree) {
                findings.errors.push(error);
                continue;
            }
            findings.errors.extend(state.damaged.iter().map(super::group::Damaged::error));
            findings.errors.extend(self.differs(&state));
            for place in 0..state.leaves.len() {
                self.verify_leaf(&state, place, index == 0 && place == 0, &mut content, &mut findings);
            }
        }
        drop(top);
        let _told_above = self.walk(&writer, |page| findings.bytes += page.bytes);
        Ok(findings)
    }

    /// A link of the medium that is not what memory has.
    fn differs(&self, state: &State) -> Option<Error> {
        let wrong = state.leaves.iter().find(|leaf| {
            let word = self.memory().load(leaf.link);
            !linked(word, leaf.link).is_ok_and(|page| page == Some(leaf.page))
        })?;
        Some(corrupt(wrong.link, "the link of a leaf", wrong.page.at, self.memory().load(wrong.link)))
    }

    fn verify_leaf(
        &self,
        state: &State,
        place: usize,
        first: bool,
        content: &mut Content,
        findings: &mut Findings,
    ) {
        let leaf = &state.leaves[place];
        findings.leaves += 1;
        match leaf.read(self.memory(), self.tree, &mut Vec::new(), content) {
            Ok(read) if self.misses(&read) => {
                findings.errors.push(corrupt(leaf.page.at, "a leaf of which nothing was lost", 0, 1))
            }
            Ok(read) => findings.torn += u64::from(!read.clean),
            Err(error) => return findings.errors.push(error),
        }
        findings.keys += content.items.len() as u64;
        let keys = || content.items.iter().map(|item| content.key(item));
        let ascending = keys().zip(keys().skip(1)).all(|(a, b)| a < b);
        let above = first || keys().next().is_none_or(|key| key >= state.keys.get(place));
        let below = state.high_of(place).is_none_or(|high| keys().next_back().is_none_or(|key| key < high));
        if !(ascending && above && below) {
            findings.errors.push(corrupt(leaf.page.at, "keys in order, within the leaf's bounds", 1, 0));
        }
    }

    /// Where the root lies.
    pub fn root(&self) -> u64 {
        self.writer.lock().root.page.at
    }

    /// Calls `each` with every page that is reached from the root, having made durable what waits: whatever else was taken for
    /// this index is free. Pages that the writer keeps for its next leaves are named too. Reads groups, not leaves.
    ///
    /// # Errors
    /// As [`Self::write_back`]; [`crate::error::Damage`] where a group can not be read, whose leaves are not known then.
    pub fn pages(&self, mut each: impl FnMut(Page)) -> Result<()> {
        let mut writer = self.writer.lock();
        self.make_durable(&mut writer)?;
        self.walk(&writer, &mut each)
    }

    /// Calls `each` with the pages that stay where they are: the root, its tables, and the log.
    pub fn fixed(&self, mut each: impl FnMut(Page)) {
        let writer = self.writer.lock();
        writer.tables.iter().for_each(|table| each(*table));
        each(writer.root.page);
        each(Page { at: writer.root.log, bytes: log::BYTES });
    }

    /// Every page; the first error, having passed what could not be read.
    fn walk(&self, writer: &Writer, mut each: impl FnMut(Page)) -> Result<()> {
        writer.tables.iter().for_each(|table| each(*table));
        each(Page { at: writer.root.log, bytes: log::BYTES });
        writer.kept().for_each(&mut each);
        let groups = writer.tables.iter().flat_map(|table| links(*table));
        let results: Vec<_> = groups.map(|at| self.walk_group(at, &mut each)).collect();
        results.into_iter().collect()
    }

    fn walk_group(&self, at: u64, each: &mut impl FnMut(Page)) -> Result<()> {
        let media = self.memory();
        let Some(group) = linked(media.load(at), at)? else { return Ok(()) };
        each(group);
        check_group(media, self.tree, group)?;
        let leaves: Vec<_> = links(group).map(|at| linked(media.load(at), at)).collect();
        leaves.iter().flatten().flatten().for_each(|leaf| each(*leaf));
        leaves.into_iter().try_for_each(|leaf| leaf.map(drop))
    }
}
