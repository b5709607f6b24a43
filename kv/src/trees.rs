//! Which trees does a database have?
//!
//! The catalog has an entry of 256 bytes a tree. A tree's number is its place in the catalog; that of the tree without a name is 0.
//!
//! | offset | bytes | what |
//! | ---: | ---: | --- |
//! | 0 | 8 | 0: free; sealed, also over the length and checksum of the name: 1: a tree; 2: a tree whose records are being deleted |
//! | 8 | 8 | offset of the root of its ordered index, sealed: a repair changes it alone |
//! | 16 | 8 | its records, when the database was closed last, sealed; the greatest number: not known |
//! | 24 | 8 | bytes of its name, and a checksum of the name in the upper half |
//! | 32 | 200 | its name |
//!
//! Invariants:
//! 1. An entry's other words are durable before its first word becomes 1; every record of a tree is deleted durably before it becomes 0.
//! 2. K18. A number is given to another tree when the one that had it is at its end: the sequence numbers of the records of two trees with one
//!    number do not overlap ([`TreeState::begin`], [`TreeState::end`]). So a handle or a snapshot of one of them never shows a record of the other.

use crate::env::{Env, TreeId};
use crate::error::{Damage, Error, Result, Structure};
use crate::layout::{CATALOG, TREE_BYTES, TREES};
use crate::media::Media;
use crate::mutation::{self, Mutation};
use crate::ordered::Ordered;
use crate::record::Head;
use crate::repair::with_order;
use crate::sealed::{seal, unseal};
use daxstore::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use daxstore::sync::{Arc, Mutex, RwLock, Weak};
use xxhash_rust::xxh3::xxh3_64;

/// Longest name of a tree in bytes.
pub const MAX_NAME: usize = 200;
/// The count of records is not known.
const UNKNOWN: u64 = u64::MAX;

const LIVE: u64 = 1;
const DROPPING: u64 = 2;

const ROOT: u64 = 8;
const COUNT: u64 = 16;
const NAME_LEN: u64 = 24;
const NAME: u64 = 32;

const fn entry(tree: TreeId) -> u64 {
    CATALOG + tree.0 as u64 * TREE_BYTES
}

/// A tree in memory.
#[derive(Debug)]
pub struct TreeState<M: Media> {
    /// Its number.
    pub id: TreeId,
    /// Its name; empty for the one without.
    pub name: String,
    /// Its keys in order.
    pub ordered: Ordered<Env<M>>,
    /// Records more than when the database was opened.
    pub gained: AtomicI64,
    /// Records when the database was opened, if known.
    pub base: Mutex<Option<u64>>,
    /// It was dropped.
    pub dropped: AtomicBool,
    /// Tells it from a later one with its number.
    pub birth: u64,
    /// Its records have this sequence number or a later one.
    pub begin: u64,
    /// Its records have smaller sequence numbers; the greatest number, as long as its number can not be another tree's.
    pub end: AtomicU64,
}

/// A number that no other tree in this process has.
fn birth() -> u64 {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}

/// The trees of a database.
#[derive(Debug)]
pub struct Trees<M: Media> {
    all: RwLock<Vec<Option<Arc<TreeState<M>>>>>,
    /// Trees that were dropped, while anybody may still read them.
    gone: Mutex<Vec<Weak<TreeState<M>>>>,
    /// Held while the catalog changes.
    changing: Mutex<()>,
}

fn name_word(name: &str) -> u64 {
    name.len() as u64 | (xxh3_64(name.as_bytes()) >> 32) << 32
}

impl<M: Media> Trees<M> {
    /// Those of a new database: none.
    #[must_use]
    pub fn new() -> Self {
        Self { all: RwLock::default(), gone: Mutex::default(), changing: Mutex::default() }
    }

    /// Those in the catalog, and which of them were being dropped. With `repair`, a tree whose order can not be read at all is there too.
    ///
    /// # Errors
    /// Damage of an entry.
    pub fn open(env: &Arc<Env<M>>, clean: bool, repair: bool) -> Result<(Self, Vec<TreeId>)> {
        let media = &env.media;
        let (mut all, mut dropping) = (Vec::new(), Vec::new());
        for id in (0..TREES as u32).map(TreeId) {
            let at = entry(id);
            let Some(state) = read_state(media, at)? else { continue };
            let name = read_name(media, at)?;
            let base = media.load(at + COUNT);
            let base = unseal(0, at + COUNT, base).filter(|_| clean && base != UNKNOWN);
            let tree = TreeState {
                id,
                name,
                ordered: Self::order(env, id, repair)?,
                gained: AtomicI64::new(0),
                base: Mutex::new(base),
                dropped: AtomicBool::new(state == DROPPING),
                birth: birth(),
                begin: 0,
                end: AtomicU64::new(u64::MAX),
            };
            if state == DROPPING {
                dropping.push(id);
            }
            all.resize(id.0 as usize, None);
            all.push(Some(Arc::new(tree)));
        }
        let all = RwLock::new(all);
        Ok((Self { all, gone: Mutex::default(), changing: Mutex::default() }, dropping))
    }

    /// The tree with this number.
    pub fn by_id(&self, id: TreeId) -> Option<Arc<TreeState<M>>> {
        self.all.read().get(id.0 as usize).cloned().flatten()
    }

    /// The tree with this name.
    pub fn by_name(&self, name: &str) -> Option<Arc<TreeState<M>>> {
        self.each().into_iter().find(|tree| tree.name == name)
    }

    /// All that were not dropped, by number.
    pub fn each(&self) -> Vec<Arc<TreeState<M>>> {
        let all = self.all.read();
        all.iter().flatten().filter(|tree| !tree.dropped.load(Ordering::Acquire)).cloned().collect()
    }

    /// All whose records are not all deleted: also those that were dropped, by number.
    pub fn each_with_records(&self) -> Vec<Arc<TreeState<M>>> {
        self.all.read().iter().flatten().cloned().collect()
    }

    /// The tree with this name; it is made if there is none, and has records from the sequence number on that `next` says. Durable on return.
    ///
    /// # Errors
    /// [`Error::NameLength`], [`Error::TooManyTrees`]; [`Error::NoSpace`]; those of the fences.
    pub fn get_or_make(
        &self,
        env: &Arc<Env<M>>,
        name: &str,
        next: impl FnOnce() -> u64,
    ) -> Result<Arc<TreeState<M>>> {
        if name.len() > MAX_NAME {
            return Err(Error::NameLength(name.len()));
        }
        let _one = self.changing.lock();
        if let Some(tree) = self.by_name(name) {
            return Ok(tree);
        }
        let free = {
            let all = self.all.read();
            (0..TREES).find(|id| all.get(*id).is_none_or(Option::is_none))
        };
        let id = TreeId(free.ok_or(Error::TooManyTrees(TREES))? as u32);
        let root = Ordered::create_sized(env, id, env.sizes.ordered)?;
        self.write_entry(env, id, name, root)?;
        let tree = Arc::new(TreeState {
            id,
            name: name.to_owned(),
            ordered: Ordered::open(env, id, root)?,
            gained: AtomicI64::new(0),
            base: Mutex::new(Some(0)),
            dropped: AtomicBool::new(false),
            birth: birth(),
            begin: next(),
            end: AtomicU64::new(u64::MAX),
        });
        let mut all = self.all.write();
        if all.len() <= id.0 as usize {
            all.resize(id.0 as usize + 1, None);
        }
        all[id.0 as usize] = Some(tree.clone());
        Ok(tree)
    }

    fn write_entry(&self, env: &Env<M>, id: TreeId, name: &str, root: u64) -> Result<()> {
        let (media, at) = (&env.media, entry(id));
        let mut bytes = [0; TREE_BYTES as usize];
        for (offset, word) in
            [(ROOT, seal(0, at + ROOT, root)), (COUNT, UNKNOWN), (NAME_LEN, name_word(name))]
        {
            bytes[offset as usize..offset as usize + 8].copy_from_slice(&word.to_le_bytes());
        }
        bytes[NAME as usize..NAME as usize + name.len()].copy_from_slice(name.as_bytes());
        media.write_through(at + 8, &bytes[8..]);
        media.fence()?;
        self.set_state(media, id, LIVE)
    }

    /// Says durably that the tree's records are being deleted: nobody finds it any more.
    ///
    /// # Errors
    /// Those of the fence.
    pub fn begin_drop(&self, media: &M, tree: &TreeState<M>) -> Result<()> {
        let _one = self.changing.lock();
        tree.dropped.store(true, Ordering::SeqCst);
        self.set_state(media, tree.id, DROPPING)
    }

    /// Forgets a tree without records, durably. What gets the sequence number `next` or a later one is none of its.
    ///
    /// # Errors
    /// Those of the fence.
    pub fn finish_drop(&self, media: &M, id: TreeId, next: u64) -> Result<()> {
        let _one = self.changing.lock();
        if let Some(tree) = self.by_id(id) {
            tree.end.store(next, Ordering::SeqCst);
        }
        self.set_state(media, id, 0)?;
        let tree = self.all.write()[id.0 as usize].take();
        self.gone.lock().extend(tree.iter().map(Arc::downgrade));
        Ok(())
    }

    /// All whose ordered indexes somebody may read: those that were dropped too, while they are in use.
    pub fn reachable(&self) -> Vec<Arc<TreeState<M>>> {
        // A tree that is being made has pages, and is found only when it is finished.
        let _one = self.changing.lock();
        let mut gone = self.gone.lock();
        gone.retain(|tree| tree.strong_count() > 0);
        let all = self.all.read();
        all.iter().flatten().cloned().chain(gone.iter().filter_map(Weak::upgrade)).collect()
    }

    /// Whether the catalog names the tree's ordered index.
    pub fn names(&self, media: &M, tree: &TreeState<M>) -> bool {
        root_of(media, tree.id).is_ok_and(|root| root == tree.ordered.root())
    }

    /// Puts an ordered index, which is durable, in the place of the tree's, durably. Nobody uses the tree.
    ///
    /// # Errors
    /// Those of the fence.
    pub fn replace(&self, media: &M, id: TreeId, root: u64, ordered: Ordered<Env<M>>) -> Result<()> {
        let _one = self.changing.lock();
        let at = entry(id) + ROOT;
        media.store(at, seal(0, at, root));
        media.flush(at, 8);
        media.fence()?;
        let mut all = self.all.write();
        if let Some(Some(tree)) = all.get_mut(id.0 as usize) {
            *tree = Arc::new(with_order(tree, ordered));
        }
        Ok(())
    }

    fn set_state(&self, media: &M, id: TreeId, state: u64) -> Result<()> {
        let at = entry(id);
        media.store(at, if state == 0 { 0 } else { seal(rest_of(media, at), at, state) });
        media.flush(at, 8);
        media.fence()
    }

    /// Writes down how many records each tree has: durable with this thread's fence. Without `known`, that nobody knows.
    pub fn write_counts(&self, media: &M, known: bool) {
        for tree in self.each() {
            let at = entry(tree.id) + COUNT;
            let count = tree.count().filter(|_| known).map_or(UNKNOWN, |count| seal(0, at, count));
            media.store(at, count);
            media.flush(at, 8);
        }
    }
}

impl<M: Media> TreeState<M> {
    /// Whether the newest record of a key, found under the tree's number, is one of its records. Those of an earlier tree are deleted.
    #[inline]
    pub fn has(&self, head: &Head) -> bool {
        // After the record was found: who made the next tree of this number said before that this one is at its end.
        head.sequence() < self.end.load(Ordering::Acquire) || mutation::is(Mutation::NoEnd)
    }

    /// What a snapshot with this number sees of the tree: all up to the answer. A tree that was not there has nothing: 0.
    #[inline]
    pub fn seen_by(&self, sequence: u64) -> u64 {
        let has_begun = sequence >= self.begin || mutation::is(Mutation::NoBegin);
        let is_over = sequence >= self.end.load(Ordering::Acquire) && !mutation::is(Mutation::NoEnd);
        if has_begun && !is_over { sequence } else { 0 }
    }

    /// How many records it has, if that is known.
    pub fn count(&self) -> Option<u64> {
        let base = *self.base.lock();
        base.map(|base| base.saturating_add_signed(self.gained.load(Ordering::Acquire)))
    }
}

/// Where the catalog says that the ordered index of a tree lies.
///
/// # Errors
/// [`Damage`] of the entry.
pub(crate) fn root_of<M: Media>(media: &M, id: TreeId) -> Result<u64> {
    let at = entry(id) + ROOT;
    let word = media.load(at);
    let damage =
        || Damage::new(Structure::Ordered, at, "the checksum of the root's place", seal(0, at, word), word);
    Ok(unseal(0, at, word).ok_or_else(damage)?)
}

/// What an entry's first word is sealed over beside itself.
fn rest_of<M: Media>(media: &M, at: u64) -> u64 {
    media.load(at + NAME_LEN).rotate_left(40)
}

/// The state of the entry at `at`; `None`: it is free.
fn read_state<M: Media>(media: &M, at: u64) -> Result<Option<u64>> {
    let word = media.load(at);
    if word == 0 {
        return Ok(None);
    }
    let state = unseal(rest_of(media, at), at, word).filter(|state| matches!(*state, LIVE | DROPPING));
    let damage = || Damage::new(Structure::Tree, at, "the entry's checksum", LIVE, word);
    Ok(Some(state.ok_or_else(damage)?))
}

fn read_name<M: Media>(media: &M, at: u64) -> Result<String> {
    let word = media.load(at + NAME_LEN);
    let mut bytes = vec![0; ((word & 0xffff_ffff) as usize).min(MAX_NAME)];
    media.read(at + NAME, &mut bytes);
    let name = String::from_utf8(bytes).unwrap_or_default();
    if name_word(&name) == word {
        return Ok(name);
    }
    Err(Damage::new(Structure::Tree, at, "the name's checksum", word, name_word(&name)).into())
}
