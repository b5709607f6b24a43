//! In which order do the keys of a tree come, and where may their records lie?
//!
//! An index beside the hash index, one a tree: leaves of about 2 KiB with whole keys and hints, in groups, under one root. It is told
//! of new and deleted keys ([`Ordered::apply`]), takes them into its leaves before anybody looks, and makes them durable
//! in groups ([`Ordered::write_back`]). What it was told and did not make durable, the database tells it again after a crash.
//!
//! A hint is where a key's record lay when the index was told of the key. It may be out of date: who follows it compares
//! the record's key, and else asks the hash index.
//!
//! `docs/kv-ordered.md` has the invariants O1 to O9, the bytes, and what it costs.

pub mod copies;
mod cursor;
mod group;
mod hand;
mod keys;
mod leaf;
mod log;
pub mod mutation;
mod open;
mod pending;
mod plan;
mod root;
mod shrink;
mod split;
mod verify;
mod view;
mod writer;

#[cfg(all(test, not(loom)))]
mod tests;

use crate::env::Env;
pub use crate::env::TreeId;
use crate::error::{Damage, Error, Result, Structure};
use crate::media::Media;
use crate::pages::PageKind;
pub use cursor::{Ask, Cursor};
use daxstore::sync::atomic::{AtomicBool, Ordering};
use daxstore::sync::{Arc, Mutex, RwLock};
use group::{Group, Read};
use keys::Keys;
pub use leaf::Hint;
pub use pending::Change;
use pending::Pending;
pub use root::Page;
pub use verify::Findings;
pub use view::{Listed, Slot};
use writer::Writer;

/// The longest page, in bytes.
const MAX_PAGE: u64 = 64 << 10;
/// Bytes of a leaf that are asked for ahead: all, where keys are short.
const LEAF_BYTES: u64 = 2048;
/// So many changes wait before somebody takes so many into the leaves: few, as he has a change of his own to make meanwhile.
const SOME: usize = 4;
/// How many wait at most where others take some at the moment: who comes then waits for them, and takes all.
const WAITING: usize = 256;

fn corrupt(at: u64, what: &'static str, expected: impl TryInto<u64>, found: impl TryInto<u64>) -> Error {
    let [expected, found] = [expected.try_into().unwrap_or(u64::MAX), found.try_into().unwrap_or(u64::MAX)];
    Damage::new(Structure::Ordered, at, what, expected, found).into()
}

/// Where the index lies, and who gives it pages.
pub trait Space: Send + Sync + 'static {
    /// The memory.
    type Memory: Media;

    /// The memory.
    fn memory(&self) -> &Self::Memory;

    /// A page of `bytes` bytes, a power of two of at least 256, at a multiple of 256: its offset. It holds what it held before.
    ///
    /// # Errors
    /// [`Error::NoSpace`], before anything changed.
    fn take(&self, bytes: u64) -> Result<u64>;

    /// As [`Self::take`], of a group: whoever opens the index reads all of these, so that they lie together as far as that can be.
    ///
    /// # Errors
    /// As [`Self::take`].
    fn take_group(&self, bytes: u64) -> Result<u64> {
        self.take(bytes)
    }

    /// Gives a page back. Nothing durable links it, and nobody reads it.
    ///
    /// # Errors
    /// The medium's.
    fn give(&self, page: Page) -> Result<()>;

    /// Whether the page is to be left ([`Ordered::shrink`]): it is taken by nobody any more.
    fn is_leaving(&self, _page: Page) -> bool {
        false
    }
}

impl<M: Media> Space for Env<M> {
    type Memory = M;

    fn memory(&self) -> &M {
        &self.media
    }

    fn take(&self, bytes: u64) -> Result<u64> {
        self.alloc_pages(PageKind::Ordered(bytes.div_ceil(crate::layout::PAGE) as u16))
    }

    fn take_group(&self, bytes: u64) -> Result<u64> {
        self.alloc_pages(PageKind::Group(bytes.div_ceil(crate::layout::PAGE) as u16))
    }

    fn give(&self, page: Page) -> Result<()> {
        self.free(page.at)
    }

    fn is_leaving(&self, page: Page) -> bool {
        self.pages.is_closed(page.at)
    }
}

/// Lengths of pages in bytes, powers of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Of a leaf of short keys.
    pub leaf: u64,
    /// Of a group.
    pub group: u64,
    /// Of the root; tables that continue it are 16 times as long, at most 64 KiB.
    pub root: u64,
}

impl Sizes {
    /// What databases have.
    pub const DEFAULT: Self = Self { leaf: 2048, group: 2048, root: 4096 };
    /// Small ones, so that few keys make everything happen.
    pub const SMALL: Self = Self { leaf: 256, group: 256, root: 256 };

    /// How many free pages the writer keeps.
    const fn spare(self) -> usize {
        if self.leaf < Self::DEFAULT.leaf { 4 } else { 64 }
    }

    const fn table(self) -> u64 {
        if self.root * 16 < MAX_PAGE { self.root * 16 } else { MAX_PAGE }
    }
}

/// The groups by their low bounds.
#[derive(Debug, Default)]
struct Top {
    keys: Keys,
    groups: Vec<Arc<Group>>,
    /// Groups, or links to them, that could not be read: their offsets.
    damaged: Vec<u64>,
}

/// The ordered index of one tree.
///
/// Locks, in this order: writer, group, top. Readers hold one of them at a time.
#[derive(Debug)]
pub struct Ordered<S: Space> {
    space: Arc<S>,
    tree: u32,
    top: RwLock<Top>,
    pending: Pending,
    /// Leaves whose records are in memory.
    clock: copies::Clock,
    /// Memory of cursors that are gone.
    parts: hand::Pool,
    writer: Mutex<Writer>,
    /// Whether leaves that a crash had torn have been replaced, so that what is torn now is damage.
    whole: AtomicBool,
}

impl<S: Space> Ordered<S> {
    /// Makes an empty index: its root's offset. Durable on return.
    ///
    /// # Errors
    /// [`Error::NoSpace`]; the medium's.
    pub fn create(space: &Arc<S>, tree: TreeId) -> Result<u64> {
        Self::create_sized(space, tree, Sizes::DEFAULT)
    }

    /// As [`Self::create`], with pages of other lengths.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub fn create_sized(space: &Arc<S>, tree: TreeId, sizes: Sizes) -> Result<u64> {
        open::create(&**space, tree.0, sizes)
    }

    /// Opens the index whose root is at `root`, after a crash or a clean close: reads a few lines a group, and of leaves nothing
    /// but the first of each group. What was told and not written back before is to be told again ([`Self::told_again`]).
    ///
    /// # Errors
    /// [`Damage`] where nothing of it can be read: [`Self::rebuild`] it.
    pub fn open(space: &Arc<S>, tree: TreeId, root: u64) -> Result<Self> {
        let (top, writer) = open::open(space.memory(), tree.0, root)?;
        let (top, writer) = (RwLock::new(top), Mutex::new(writer));
        let lists = if cfg!(loom) { 1 } else { 16 };
        Ok(Self {
            space: space.clone(),
            tree: tree.0,
            top,
            pending: Pending::new(lists),
            clock: copies::Clock::default(),
            parts: Mutex::default(),
            writer,
            whole: AtomicBool::new(false),
        })
    }

    /// Makes a new index of `keys`, each with the offset of its record, in any order: its root's offset. Durable on return. The
    /// pages of a damaged one that it replaces are found by a sweep ([`Self::pages`]).
    ///
    /// # Errors
    /// As [`Self::create`]; the first error of `keys`.
    pub fn rebuild(
        space: &Arc<S>,
        tree: TreeId,
        keys: impl Iterator<Item = Result<(Vec<u8>, u64)>>,
    ) -> Result<u64> {
        let root = Self::create(space, tree)?;
        let ordered = Self::open(space, tree, root)?;
        for key in keys {
            let (key, record) = key?;
            ordered.apply(Change::Insert, &key, record, 0)?;
        }
        ordered.write_back(0)?;
        Ok(root)
    }

    /// Whether keys of the leaf that `read` was taken from are missing.
    fn misses(&self, read: &Read) -> bool {
        read.lost || (!read.clean && self.whole.load(Ordering::Acquire))
    }

    fn memory(&self) -> &S::Memory {
        self.space.memory()
    }

    /// Tells of a new or deleted key of at most 4096 bytes. Cursors that are positioned from now on see it; it is durable after the
    /// next [`Self::write_back`]. `record`, a multiple of 8, is where its record lies. Of changes to a key that wait together the one
    /// with the greatest `sequence` counts; of others the later one, so tell of them in order. A change may be told again.
    ///
    /// # Errors
    /// What taking changes into leaves fails with: the change waits nevertheless, and is taken later.
    pub fn apply(&self, change: Change, key: &[u8], record: u64, sequence: u64) -> Result<()> {
        self.announce(change, key, record, sequence)?;
        self.settle_many(false)
    }

    /// As [`Self::apply`], where more changes follow at once and [`Self::settle_many`] after them.
    ///
    /// # Errors
    /// [`Error::KeyLength`].
    pub fn announce(&self, change: Change, key: &[u8], record: u64, sequence: u64) -> Result<()> {
        if key.len() > leaf::MAX_KEY {
            return Err(Error::KeyLength(key.len()));
        }
        self.pending.push(change, key, record, sequence);
        Ok(())
    }

    /// Tells of new keys, of at most 4096 bytes each, and where their records lie; more changes or [`Self::settle_many`] follow. Keys that come in
    /// order are taken in faster.
    pub fn announce_all<'k>(&self, keys: impl Iterator<Item = (&'k [u8], u64)>, sequence: u64) {
        self.pending.push_all(keys, sequence);
    }

    /// Takes some of what waits into the leaves, if that is much; with `few`, also if it is not.
    ///
    /// # Errors
    /// As [`Self::apply`].
    #[inline]
    pub fn settle_many(&self, few: bool) -> Result<()> {
        match self.pending.len() {
            ..SOME if !few => Ok(()),
            ..WAITING => self.settle_some(SOME).map(drop),
            _ => self.settle(),
        }
    }

    /// Takes up to `most` of the changes that wait into the leaves, unless somebody else is at that: whether any wait still. When leaves were replaced
    /// for one, which takes as long as many others, the rest goes on waiting.
    ///
    /// # Errors
    /// As [`Self::apply`].
    pub fn settle_some(&self, most: usize) -> Result<bool> {
        if !self.pending.is_empty()
            && let Some(mut writer) = self.writer.try_lock()
        {
            self.take_readable(&mut writer, most)?;
        }
        Ok(!self.pending.is_empty())
    }

    /// How many changes wait.
    pub fn waiting(&self) -> usize {
        self.pending.len()
    }

    /// Makes durable what the index was told of before, by whomever: with a fence where anything changed, and another where
    /// leaves were replaced. The session's own fence is not needed.
    ///
    /// # Errors
    /// [`Error::NoSpace`]: what was not taken waits, and can be seen by nobody; the medium's.
    pub fn write_back(&self, _session: usize) -> Result<()> {
        self.make_durable(&mut self.writer.lock())
    }

    /// Says that everything which the index was told before a crash, deletions too, was told again and written back. From now on
    /// an entry of a leaf that is torn is damage, and told of as such; until then, or where this is never said, it is taken for what
    /// the crash left, and passed over in silence.
    pub fn told_again(&self) {
        self.whole.store(true, Ordering::Release);
    }

    fn make_durable(&self, writer: &mut Writer) -> Result<()> {
        let taken = self.take_pending(writer, usize::MAX);
        taken.and(self.commit(writer))
    }

    /// Takes what waits into the leaves, where readers see it.
    #[cold]
    fn settle_waiting(&self) -> Result<()> {
        self.take_readable(&mut self.writer.lock(), usize::MAX)
    }

    #[inline]
    fn settle(&self) -> Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        self.settle_waiting()
    }
}
