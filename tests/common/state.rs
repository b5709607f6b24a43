//! Do two file systems look the same?
//!
//! A [`State`] is everything a user can see of a store through names, in comparable form; [`State::difference`]
//! tells the first difference in words. Times are compared where they were set explicitly. Where an overwrite
//! in place was in flight, every aligned word of its range may be old or new ([`Torn`]).

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::ops::Range;
use std::sync::Arc;

/// A block's bytes, shared by the states that have the same.
pub type Page = Arc<[u8; 4096]>;

/// What a block of a file is; holes are left out.
#[derive(Clone, PartialEq, Eq)]
pub enum Cell {
    Unwritten,
    Mapped(Page),
}

impl std::fmt::Debug for Cell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Unwritten => "unwritten",
            Self::Mapped(_) => "mapped",
        })
    }
}

/// What a name leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    Directory,
    Symlink(Vec<u8>),
    /// Blocks by number; those past the end are left out, and so are bytes past the end.
    File(BTreeMap<u64, Cell>),
}

/// Everything seen of one inode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The first of its names, in order.
    pub identity: String,
    pub mode: u32,
    pub links: u32,
    pub uid: u32,
    pub gid: u32,
    /// Bytes of a file; 0 for anything else.
    pub size: u64,
    /// `None` where not known.
    pub atime: Option<i64>,
    /// `None` where not known.
    pub mtime: Option<i64>,
    pub xattrs: BTreeMap<String, Vec<u8>>,
    /// Of a sequential file.
    pub capacity: Option<u64>,
    /// The file grew by writing: holes may have been preallocated.
    pub grown: bool,
    pub body: Body,
}

/// Bytes of the file with this identity that were being overwritten in place.
pub type Torn = (String, Range<u64>);

/// Everything seen of a store, by path; the root is the empty path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    pub names: BTreeMap<String, Entry>,
}

impl State {
    /// The first difference of `found` from this, in words. `other` is the state on the other side of the
    /// operation in flight, whose words may be found within `torn`.
    pub fn difference(&self, found: &Self, other: &Self, torn: &[Torn]) -> Option<String> {
        for (path, entry) in &self.names {
            let Some(there) = found.names.get(path) else {
                return Some(format!("/{path} is missing"));
            };
            let other = other.names.get(path);
            if let Some(difference) = entry.difference(there, other, torn) {
                return Some(format!("/{path}: {difference}"));
            }
        }
        let extra = found.names.keys().find(|path| !self.names.contains_key(*path));
        extra.map(|path| format!("/{path} should not be there"))
    }
}

/// "`what` is `found` instead of `expected`", where they differ.
fn unequal<T: PartialEq + std::fmt::Debug>(what: &str, expected: &T, found: &T) -> Option<String> {
    (expected != found).then(|| format!("{what} is {found:?} instead of {expected:?}"))
}

impl Entry {
    fn difference(&self, found: &Self, other: Option<&Self>, torn: &[Torn]) -> Option<String> {
        let time = |what, expected: Option<i64>, found: Option<i64>| {
            expected.and_then(|expected| unequal(what, &Some(expected), &found))
        };
        unequal("the same inode as", &self.identity, &found.identity)
            .or_else(|| unequal("mode", &self.mode, &found.mode))
            .or_else(|| unequal("link count", &self.links, &found.links))
            .or_else(|| unequal("uid", &self.uid, &found.uid))
            .or_else(|| unequal("gid", &self.gid, &found.gid))
            .or_else(|| unequal("size", &self.size, &found.size))
            .or_else(|| unequal("capacity", &self.capacity, &found.capacity))
            .or_else(|| time("mtime", self.mtime, found.mtime))
            .or_else(|| time("atime", self.atime, found.atime))
            .or_else(|| self.xattr_difference(found))
            .or_else(|| self.body_difference(found, other, torn))
    }

    fn xattr_difference(&self, found: &Self) -> Option<String> {
        let names = |entry: &Self| entry.xattrs.keys().cloned().collect::<Vec<_>>();
        unequal("attributes", &names(self), &names(found)).or_else(|| {
            let differs = self.xattrs.iter().find(|(name, value)| found.xattrs[*name] != **value)?;
            let there = &found.xattrs[differs.0];
            Some(format!("attribute {} has another value ({} bytes)", differs.0, there.len()))
        })
    }

    fn body_difference(&self, found: &Self, other: Option<&Self>, torn: &[Torn]) -> Option<String> {
        let (Body::File(cells), Body::File(there)) = (&self.body, &found.body) else {
            return unequal("content", &self.body, &found.body);
        };
        for block in cells.keys().chain(there.keys()) {
            match (cells.get(block), there.get(block)) {
                (Some(Cell::Mapped(page)), Some(Cell::Mapped(there))) => {
                    let difference = self.page_difference(*block, page, there, other, torn);
                    if difference.is_some() {
                        return difference;
                    }
                }
                (None, Some(Cell::Unwritten)) if self.grown => {}
                (expected, found) if expected == found => {}
                (expected, found) => return Some(state_of_block(*block, expected, found)),
            }
        }
        None
    }

    fn page_difference(
        &self,
        block: u64,
        page: &Page,
        there: &Page,
        other: Option<&Self>,
        torn: &[Torn],
    ) -> Option<String> {
        if page == there {
            return None;
        }
        let other = match other.map(|other| &other.body) {
            Some(Body::File(cells)) => match cells.get(&block) {
                Some(Cell::Mapped(page)) => Some(page),
                _ => None,
            },
            _ => None,
        };
        let word = (0..512).find(|word| {
            let (range, at) = (word * 8..word * 8 + 8, block * 4096 + *word as u64 * 8);
            let torn = torn
                .iter()
                .any(|(identity, torn)| *identity == self.identity && torn.start < at + 8 && at < torn.end);
            let new = other.filter(|_| torn).map(|page| self.cut(at, &page[range.clone()]));
            there[range.clone()] != page[range.clone()] && new.is_none_or(|new| new != there[range])
        })?;
        let range = word * 8..word * 8 + 8;
        let mut text = format!("content at offset {:#x}", block * 4096 + word as u64 * 8);
        let _ = write!(text, ": {:02x?} instead of {:02x?}", &there[range.clone()], &page[range]);
        Some(text)
    }

    /// The word at file offset `at`, with zeros past the end of this file.
    fn cut(&self, at: u64, word: &[u8]) -> Vec<u8> {
        let seen = self.size.saturating_sub(at).min(8) as usize;
        word.iter().enumerate().map(|(i, byte)| if i < seen { *byte } else { 0 }).collect()
    }
}

fn state_of_block(block: u64, expected: Option<&Cell>, found: Option<&Cell>) -> String {
    let name = |cell: Option<&Cell>| cell.map_or("a hole".to_string(), |cell| format!("{cell:?}"));
    format!("block {block} is {} instead of {}", name(found), name(expected))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(size: u64, byte: u8) -> State {
        let mut page = Arc::new([0; 4096]);
        Arc::make_mut(&mut page)[..size as usize].fill(byte);
        let entry = Entry {
            identity: "a".into(),
            mode: 0o644,
            links: 1,
            uid: 0,
            gid: 0,
            size,
            atime: None,
            mtime: Some(5),
            xattrs: BTreeMap::new(),
            capacity: None,
            grown: false,
            body: Body::File([(0, Cell::Mapped(page))].into()),
        };
        State { names: [("a".to_string(), entry)].into() }
    }

    fn with_word(state: &State, word: usize, bytes: [u8; 8]) -> State {
        let mut state = state.clone();
        if let Some(Entry { body: Body::File(cells), .. }) = state.names.get_mut("a")
            && let Some(Cell::Mapped(page)) = cells.get_mut(&0)
        {
            Arc::make_mut(page)[word * 8..word * 8 + 8].copy_from_slice(&bytes);
        }
        state
    }

    #[test]
    fn torn_words_are_old_or_new_and_nothing_else() {
        let (old, new) = (file(100, 1), file(200, 2));
        let torn = [("a".to_string(), 3..100)];
        assert_eq!(old.difference(&old, &new, &torn), None);
        let mixed = with_word(&with_word(&old, 0, [2; 8]), 12, [2, 2, 2, 2, 0, 0, 0, 0]);
        assert_eq!(old.difference(&mixed, &new, &torn), None, "a word at the end is cut there");
        assert!(old.difference(&mixed, &new, &[]).is_some());
        assert!(old.difference(&mixed, &new, &[("b".to_string(), 0..100)]).is_some());
        let half = with_word(&old, 3, [1, 1, 1, 1, 2, 2, 2, 2]);
        assert!(old.difference(&half, &new, &torn).is_some(), "a word is never torn");
        let outside = with_word(&new, 20, [1; 8]);
        assert!(new.difference(&outside, &old, &torn).is_some());
    }

    #[test]
    fn every_field_is_compared() {
        let state = file(100, 1);
        let change = |change: fn(&mut Entry)| {
            let mut changed = state.clone();
            changed.names.values_mut().for_each(change);
            state.difference(&changed, &state, &[]).is_some()
        };
        assert!(change(|e| e.identity = "b".into()));
        assert!(change(|e| e.mode = 0));
        assert!(change(|e| e.links = 2));
        assert!(change(|e| e.uid = 2));
        assert!(change(|e| e.gid = 2));
        assert!(change(|e| e.size = 2));
        assert!(change(|e| e.capacity = Some(2)));
        assert!(change(|e| e.mtime = Some(6)));
        assert!(!change(|e| e.atime = Some(6)), "an unknown time is not compared");
        assert!(change(|e| drop(e.xattrs.insert("user.x".into(), vec![]))));
        assert!(change(|e| e.body = Body::Directory));
        assert!(change(|e| e.body = Body::File(BTreeMap::new())));
        assert!(state.difference(&State::default(), &state, &[]).is_some());
        assert!(State::default().difference(&state, &state, &[]).is_some());
    }
}
