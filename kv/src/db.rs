//! How does a program use a database?
//!
//! [`Db`] is an open database, and used as its tree without a name; [`Tree`] is one of its trees. Both are cheap to clone, and may be used
//! by any number of threads. Every call that changes something is durable when it returns.

use crate::batch::Batch;
use crate::core::{Action, Core};
use crate::env::TreeId;
use crate::error::{Error, Result};
use crate::hash::Found;
use crate::iter::Seen;
use crate::layout::{CHUNK, MAX_CHUNKS};
use crate::media::{Mapped, Media};
use crate::ordered::copies::Copies;
use crate::record;
use crate::recover::Recovery;
use crate::sizes::Sizes;
use crate::trees::TreeState;
use daxstore::sync::Arc;
use daxstore::sync::atomic::Ordering;
use daxstore::{OpenOptions, Store, StoreOptions};
use daxstore_fault::Mode;
use std::borrow::Cow;
use std::path::Path;

/// A key, copied out.
pub type Key = Vec<u8>;
/// A value, copied out.
pub type Value = Vec<u8>;

/// Bytes of copies for scans, unless said otherwise.
const SCAN_MEMORY: u64 = 256 << 20;

/// How a database is opened. The default: to be read and written, and it must be there.
#[derive(Clone, Debug, Default)]
pub struct Options {
    create: bool,
    read_only: bool,
    max_bytes: Option<u64>,
    mode: Option<Mode>,
    seed: Option<u64>,
    trust: bool,
    sizes: Sizes,
    pub(crate) alone: bool,
    large: Option<u64>,
    huge: bool,
    repair: bool,
    scan: Option<u64>,
}

impl Options {
    /// The default.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether a database is made where there is none.
    #[must_use]
    pub const fn create(mut self, create: bool) -> Self {
        self.create = create;
        self
    }

    /// Whether nothing may change. The database must have been closed.
    #[must_use]
    pub const fn read_only(mut self, read_only: bool) -> Self {
        self.read_only = read_only;
        self
    }

    /// Bytes that the database may have: so much is reserved of the process's addresses. The default and the most is 256 GiB.
    #[must_use]
    pub const fn max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = Some(bytes);
        self
    }

    /// Forces how faults of the mapping are served.
    #[must_use]
    pub const fn mode(mut self, mode: Mode) -> Self {
        self.mode = Some(mode);
        self
    }

    /// Makes a new database's number from `seed` instead of from chance, so that it is the same the next time.
    #[must_use]
    pub const fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Whether each tree whose order is damaged gets it anew from the records, before the database is used: every record is read.
    /// [`Db::recovery`] tells how many did.
    #[must_use]
    pub const fn repair(mut self, repair: bool) -> Self {
        self.repair = repair;
        self
    }

    /// Whether each 2 MiB of the database must be translated by one translation: opening fails where they can not be, and so does a change that needs
    /// more space where that can not.
    #[must_use]
    pub const fn require_huge(mut self, huge: bool) -> Self {
        self.huge = huge;
        self
    }

    /// Values of more than so many bytes get whole chunks of 2 MiB of their own, in which nothing else lies, so that one translation serves
    /// each 2 MiB of them and [`Db::compact`] never moves them. The default, and the most, is what no chunk of pages holds: about 2 MiB.
    #[must_use]
    pub const fn large_value_bytes(mut self, bytes: u64) -> Self {
        self.large = Some(bytes);
        self
    }

    /// Bytes of the process's own memory in which records of leaves that are scanned again and again are kept side by side, so that such scans are
    /// faster. The default is 256 MiB; with 0 none are kept.
    #[must_use]
    pub const fn scan_memory(mut self, bytes: u64) -> Self {
        self.scan = Some(bytes);
        self
    }

    /// Whether each value that is read is compared with its checksum: the default is yes.
    #[must_use]
    pub const fn check_on_get(mut self, check: bool) -> Self {
        self.trust = !check;
        self
    }

    /// Small parts of the indexes, so that few keys make everything happen. Whoever makes a database so opens it so.
    #[cfg(feature = "sim")]
    #[must_use]
    pub const fn small(mut self) -> Self {
        self.sizes = Sizes::SMALL;
        self
    }
}

/// A database that is closed when the last who uses it is gone.
#[derive(Debug)]
struct Shared<M: Media> {
    core: Core<M>,
    recovery: Recovery,
    copies: Copies,
    trust: bool,
    alone: bool,
    closed: daxstore::sync::atomic::AtomicBool,
}

impl<M: Media> Drop for Shared<M> {
    fn drop(&mut self) {
        if !self.closed.load(Ordering::Acquire) {
            // Nobody is left to be told; `close` tells. The rings have everything.
            let _closed = self.core.close();
        }
    }
}

/// An open database; used as its tree without a name.
#[derive(Debug)]
pub struct Db<M: Media = Mapped> {
    tree: Tree<M>,
}

/// A tree of a database.
#[derive(Debug)]
pub struct Tree<M: Media = Mapped> {
    shared: Arc<Shared<M>>,
    state: Arc<TreeState<M>>,
}

impl<M: Media> Clone for Db<M> {
    fn clone(&self) -> Self {
        Self { tree: self.tree.clone() }
    }
}

impl<M: Media> Clone for Tree<M> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone(), state: self.state.clone() }
    }
}

impl<M: Media> std::ops::Deref for Db<M> {
    type Target = Tree<M>;

    fn deref(&self) -> &Tree<M> {
        &self.tree
    }
}

#[cfg(not(loom))]
impl Db {
    /// Opens the database in the file at `path`.
    ///
    /// # Errors
    /// [`Error::NotFound`] where there is none and none is to be made; [`Error::NotADatabase`], [`Error::FutureVersion`],
    /// [`Error::NeedsRecovery`]; damage; the store's.
    pub fn open(store: &Store, path: impl AsRef<Path>, options: Options) -> Result<Self> {
        let writable = !options.read_only;
        let open = OpenOptions::new().read(true).write(writable).create(options.create && writable);
        let file = match store.open(path.as_ref(), &open) {
            Err(error) if error.errno() == NOT_FOUND => return Err(Error::NotFound),
            done => done?,
        };
        if !options.create && file.len() < CHUNK {
            return Err(if file.is_empty() { Error::NotFound } else { Error::NotADatabase });
        }
        let most = MAX_CHUNKS * CHUNK;
        let capacity = options.max_bytes.unwrap_or(most).clamp(4 * CHUNK, most).next_multiple_of(CHUNK);
        let media = Mapped::new(store, file, capacity, writable, options.mode)?;
        Self::open_in(if options.huge { media.all_huge()? } else { media }, &options)
    }

    /// Opens the database `/kv` in the pool at `pool`. Where there is no pool, one of 1 GiB is made, and where there is no database, one is.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn create_in(pool: impl AsRef<Path>) -> Result<Self> {
        let pool = pool.as_ref();
        let store = match pool.exists() {
            true => Store::open(pool, &StoreOptions::new())?,
            false => Store::create(pool, 1 << 30, &StoreOptions::new())?,
        };
        Self::open(&store, "/kv", Options::new().create(true))
    }
}

/// `ENOENT`.
const NOT_FOUND: i32 = 2;

#[cfg(feature = "sim")]
impl<M: Media> Db<M> {
    /// Opens the database in any memory.
    ///
    /// # Errors
    /// As [`Db::open`].
    pub fn open_media(media: M, options: &Options) -> Result<Self> {
        Self::open_in(media, options)
    }
}

#[cfg(feature = "sim")]
impl Db<crate::media::SimMedia> {
    /// Opens the database in simulated memory.
    ///
    /// # Errors
    /// As [`Db::open`].
    pub fn open_sim(sim: Arc<daxstore::pmem::sim::Sim>, options: &Options) -> Result<Self> {
        Self::open_in(crate::media::SimMedia::new(sim), options)
    }

    /// The hash of a key of the tree without a name, by which the hash index places it.
    ///
    /// # Errors
    /// [`Error::KeyLength`].
    pub fn hash_of(&self, key: &[u8]) -> Result<u64> {
        Ok(self.shared.core.key(TreeId(0), key)?.hash)
    }

    /// What was asked of the memory until now.
    #[must_use]
    pub fn counts(&self) -> crate::media::SimCounts {
        self.shared.core.media().counts()
    }
}

impl<M: Media> Db<M> {
    fn open_in(media: M, options: &Options) -> Result<Self> {
        let (core, recovery) = match Core::open(media, options.read_only, options.repair, options.sizes)? {
            Ok(opened) => opened,
            Err(media) if options.create && !options.read_only => (
                Core::create(media, options.seed, options.sizes)?,
                Recovery { clean: true, ..Recovery::default() },
            ),
            Err(_) => return Err(Error::NotFound),
        };
        let state = core.trees.by_name("").ok_or(Error::NotADatabase)?;
        let closed = daxstore::sync::atomic::AtomicBool::new(false);
        core.env.set_large(options.large);
        let Options { trust, alone, .. } = *options;
        let copies = Copies::new(options.scan.unwrap_or(SCAN_MEMORY));
        let shared = Arc::new(Shared { core, recovery, copies, trust, alone, closed });
        Ok(Self { tree: Tree { shared, state } })
    }

    /// What the open found.
    #[must_use]
    pub fn recovery(&self) -> Recovery {
        self.shared.recovery
    }

    /// Closes the database, so that the next open has nothing to do. What other clones change after that is durable all the same.
    ///
    /// # Errors
    /// What writing back fails with.
    pub fn close(self) -> Result<()> {
        if Arc::strong_count(&self.tree.shared) > 1 {
            return Ok(());
        }
        self.tree.shared.closed.store(true, Ordering::Release);
        self.tree.shared.core.close()
    }

    /// The tree with this name; made, durably, if there is none.
    ///
    /// # Errors
    /// [`Error::NameLength`], [`Error::TooManyTrees`], [`Error::NoSpace`], [`Error::ReadOnly`].
    pub fn tree(&self, name: &str) -> Result<Tree<M>> {
        if name.is_empty() {
            return Err(Error::NameLength(0));
        }
        let core = &self.shared.core;
        let state = match core.trees.by_name(name) {
            Some(state) => state,
            None if core.read_only => return Err(Error::ReadOnly),
            None => core.tree(name)?,
        };
        Ok(Tree { shared: self.shared.clone(), state })
    }

    /// The names of all trees, that of the one without left out.
    ///
    /// # Errors
    /// None.
    pub fn trees(&self) -> Result<Vec<String>> {
        let all = self.shared.core.trees.each().into_iter().map(|tree| tree.name.clone());
        Ok(all.filter(|name| !name.is_empty()).collect())
    }

    /// Every tree, that without a name first.
    pub(crate) fn all_trees(&self) -> Vec<Tree<M>> {
        let all = self.shared.core.trees.each().into_iter();
        all.map(|state| Tree { shared: self.shared.clone(), state }).collect()
    }

    /// Deletes a tree and its records: whether there was one. Nobody finds it from the moment that this is durable; the records are
    /// deleted one by one after that, also if power is cut meanwhile, by the next open. Who has the tree still can not change it
    /// ([`Error::TreeDropped`]), and finds less and less in it, then nothing, whatever trees are made later; snapshots that were taken
    /// before show what it had.
    ///
    /// # Errors
    /// [`Error::ReadOnly`], [`Error::NoSpace`]; those of the fences.
    pub fn drop_tree(&self, name: &str) -> Result<bool> {
        let core = &self.shared.core;
        if name.is_empty() {
            return Err(Error::NameLength(0));
        }
        if core.read_only {
            return Err(Error::ReadOnly);
        }
        let Some(tree) = core.trees.by_name(name) else { return Ok(false) };
        // By its order its records are found: that is to have what only a ring tells of, also when power is cut.
        core.drain_all()?;
        core.trees.begin_drop(core.media(), &tree)?;
        // What is put by a change that did not see that, is there to be deleted.
        core.sessions.wait_for(core.last_sequence() + 1);
        core.finish_drop(tree.id)?;
        Ok(true)
    }

    /// Fails unless every 2 MiB of the database are translated by one translation.
    ///
    /// # Errors
    /// [`daxstore::Error::NotHuge`] with the first that is not, and why.
    pub fn require_huge(&self) -> Result<()> {
        self.shared.core.media().require_huge()
    }
}

impl<M: Media> Tree<M> {
    pub(crate) fn copies(&self) -> &Copies {
        &self.shared.copies
    }

    pub(crate) fn core(&self) -> &Core<M> {
        &self.shared.core
    }

    pub(crate) fn state(&self) -> &TreeState<M> {
        &self.state
    }

    pub(crate) fn id(&self) -> TreeId {
        self.state.id
    }

    /// Whether values are not compared with their checksums.
    pub(crate) fn trusts(&self) -> bool {
        self.shared.trust
    }

    /// Whether nobody else touches the file.
    pub(crate) fn is_alone(&self) -> bool {
        self.shared.alone
    }

    /// Appends the value of a record to `buf`, and checks it.
    #[inline]
    pub(crate) fn read_value(&self, key: &record::Key<'_>, seen: Seen, buf: &mut Vec<u8>) -> Result<()> {
        let (at, head) = seen;
        let start = buf.len();
        self.core().media().append_to(at + head.before_value(), head.value_len(), buf);
        let checked = self.check_value(key, seen, &buf[start..]);
        if checked.is_err() {
            buf.truncate(start);
        }
        checked
    }

    /// The newest record of `key`. The caller is pinned.
    #[inline]
    pub(crate) fn find(&self, key: &record::Key<'_>) -> Result<Option<Found>> {
        Ok(self.core().find(key)?.filter(|found| self.state.has(&found.head)))
    }

    /// The value of `key`. A tree that was dropped has none any more.
    ///
    /// # Errors
    /// [`Error::KeyLength`]; damage.
    pub fn get(&self, key: &[u8]) -> Result<Option<Value>> {
        let mut value = Vec::new();
        Ok(self.get_into(key, &mut value)?.then_some(value))
    }

    /// Puts the value of `key` into `buf`, in place of what that held: whether there is one. It allocates only where `buf` is too small.
    ///
    /// # Errors
    /// As [`Self::get`].
    #[inline]
    pub fn get_into(&self, key: &[u8], buf: &mut Vec<u8>) -> Result<bool> {
        buf.clear();
        let key = self.core().key(self.state.id, key)?;
        if !self.trusts() && self.core().get_unpinned(&self.state, &key, buf) {
            return Ok(true);
        }
        self.get_pinned(&key, buf)
    }

    #[cold]
    fn get_pinned(&self, key: &record::Key<'_>, buf: &mut Vec<u8>) -> Result<bool> {
        buf.clear();
        let _pin = self.core().env.pin();
        let Some(found) = self.find(key)? else { return Ok(false) };
        self.read_value(key, (found.at, found.head), buf)?;
        Ok(true)
    }

    /// Whether `key` has a value.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub fn contains(&self, key: &[u8]) -> Result<bool> {
        let key = self.core().key(self.state.id, key)?;
        let _pin = self.core().env.pin();
        Ok(self.find(&key)?.is_some())
    }

    /// A key for a change of this tree.
    fn key_to_change<'k>(&self, key: &'k [u8]) -> Result<record::Key<'k>> {
        if self.state.dropped.load(Ordering::Relaxed) {
            return Err(Error::TreeDropped);
        }
        self.core().key(self.state.id, key)
    }

    /// Gives `key` this value. Durable on return.
    ///
    /// # Errors
    /// [`Error::KeyLength`], [`Error::ValueLength`], [`Error::NoSpace`], [`Error::ReadOnly`], [`Error::TreeDropped`], before anything
    /// changed; damage.
    #[inline]
    pub fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        let key = self.key_to_change(key)?;
        self.core()
            .change(&self.state, &key, Some(value.len()), |_| Ok(Action::Put(Cow::Borrowed(value))))?;
        Ok(())
    }

    /// Deletes `key`: whether it had a value. Durable on return.
    ///
    /// # Errors
    /// As [`Self::put`].
    #[inline]
    pub fn delete(&self, key: &[u8]) -> Result<bool> {
        let key = self.key_to_change(key)?;
        self.core().change(&self.state, &key, Some(0), |_| Ok(Action::Delete))
    }

    /// Makes every change of `batch`, or none. Durable on return. Snapshots and iterators see all of it or nothing.
    ///
    /// # Errors
    /// As [`Self::put`].
    pub fn write(&self, batch: impl std::borrow::Borrow<Batch>) -> Result<()> {
        self.key_to_change(b"-")?;
        self.core().write_batch(&self.state, batch.borrow())
    }

    /// Gives `key` what `change` makes of its value, with no change of the key in between; `None` deletes it. Durable on return. `change` must
    /// not use the database, and is called again where room had to be made first. Whether the key had a value before.
    ///
    /// # Errors
    /// As [`Self::put`].
    pub fn update(
        &self,
        key: &[u8],
        mut change: impl FnMut(Option<&[u8]>) -> Option<Vec<u8>>,
    ) -> Result<bool> {
        self.try_update(key, |old| Ok(change(old)))
    }

    /// As [`Self::update`]; where `change` fails, nothing changes.
    ///
    /// # Errors
    /// Those of `change`; as [`Self::put`].
    pub fn try_update(
        &self,
        key: &[u8],
        mut change: impl FnMut(Option<&[u8]>) -> Result<Option<Vec<u8>>>,
    ) -> Result<bool> {
        let key = self.key_to_change(key)?;
        let mut old = Vec::new();
        self.core().change(&self.state, &key, None, |found| {
            old.clear();
            let old = match found {
                Some(found) => {
                    self.read_value(&key, (found.at, found.head), &mut old)?;
                    Some(&*old)
                }
                None => None,
            };
            Ok(change(old)?.map_or(Action::Delete, |new| Action::Put(Cow::Owned(new))))
        })
    }

    /// Gives `key` the value `new` (`None`: deletes it) if its value is `expected` (`None`: it has none): whether it was. Durable on return.
    ///
    /// # Errors
    /// As [`Self::put`].
    pub fn compare_and_swap(&self, key: &[u8], expected: Option<&[u8]>, new: Option<&[u8]>) -> Result<bool> {
        let key = self.key_to_change(key)?;
        let (mut old, mut is_expected) = (Vec::new(), false);
        self.core().change(&self.state, &key, None, |found| {
            old.clear();
            if let Some(found) = found {
                self.read_value(&key, (found.at, found.head), &mut old)?;
            }
            is_expected = found.map(|_| &*old) == expected;
            Ok(match new {
                _ if !is_expected => Action::Nothing,
                Some(new) => Action::Put(Cow::Borrowed(new)),
                None => Action::Delete,
            })
        })?;
        Ok(is_expected)
    }

    /// Adds to `batch` that `key` of this tree gets a value, whichever tree the batch is written to.
    pub fn put_in(&self, batch: &mut Batch, key: &[u8], value: &[u8]) {
        batch.push(Some((self.state.id, self.state.birth)), key, Some(value));
    }

    /// Adds to `batch` that `key` of this tree is deleted, whichever tree the batch is written to.
    pub fn delete_in(&self, batch: &mut Batch, key: &[u8]) {
        batch.push(Some((self.state.id, self.state.birth)), key, None);
    }

    /// How many records the tree has. After a crash the first call counts those of all trees; else it is known.
    ///
    /// # Errors
    /// Damage.
    pub fn len(&self) -> Result<u64> {
        if let Some(count) = self.state.count() {
            return Ok(count);
        }
        self.count()
    }

    /// Whether it has none.
    ///
    /// # Errors
    /// Damage.
    pub fn is_empty(&self) -> Result<bool> {
        self.snapshot().is_empty()
    }

    /// The tree's name; empty for the one without.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.state.name
    }
}
