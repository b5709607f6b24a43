//! How does a program keep values of its own types, by keys of its own types, in their order?
//!
//! A [`Tree<K, V>`](Tree) is a tree of a database whose keys are written as [`Key`] says, so that their bytes come in the order of the keys, and whose values
//! are written by `serde` in the form of `postcard` (stable since its version 1.0). Neither names its type in the file: who opens a tree
//! with other types gets [`Error::Codec`], or values that mean nothing.
//!
//! ```
//! use daxstore_kv::{Db, typed};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Serialize, Deserialize, PartialEq, Debug)]
//! struct Reading {
//!     celsius: f64,
//!     unit: String,
//! }
//!
//! # fn main() -> daxstore_kv::Result<()> {
//! # let dir = tempfile::tempdir_in("/dev/shm").expect("a directory");
//! # let options = daxstore::StoreOptions::new().assume_persistent(true);
//! # let store = daxstore::Store::create(dir.path().join("pool"), 64 << 20, &options)?;
//! # let db = Db::open(&store, "/kv", daxstore_kv::Options::new().create(true))?;
//! let readings: typed::Tree<(String, i64), Reading> = typed::Tree::new(db.tree("readings")?);
//! let cold = Reading { celsius: -4.5, unit: "roof".into() };
//! readings.put(&("north".into(), -60), &cold)?;
//! assert_eq!(readings.get(&("north".into(), -60))?, Some(cold));
//! let north = readings.range(("north".into(), i64::MIN)..=("north".into(), i64::MAX))?;
//! assert_eq!(north.count(), 1);
//! # Ok(())
//! # }
//! ```

mod key;

pub use key::Key;

use crate::batch::Batch;
use crate::db;
use crate::error::{Error, Part, Result};
use crate::iter;
use crate::media::{Mapped, Media};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::marker::PhantomData;
use std::ops::{Bound, RangeBounds};

/// A tree with keys of `K` and values of `V`.
#[derive(Debug)]
pub struct Tree<K, V, M: Media = Mapped> {
    tree: db::Tree<M>,
    types: PhantomData<fn() -> (K, V)>,
}

impl<K, V, M: Media> Clone for Tree<K, V, M> {
    fn clone(&self) -> Self {
        Self { tree: self.tree.clone(), types: PhantomData }
    }
}

fn encoded<K: Key>(key: &K) -> Vec<u8> {
    let mut bytes = Vec::new();
    key.encode(&mut bytes);
    bytes
}

fn decoded<K: Key>(mut bytes: &[u8]) -> Result<K> {
    K::decode(&mut bytes).filter(|_| bytes.is_empty()).ok_or(Error::Codec(Part::Key))
}

fn written<V: Serialize>(value: &V) -> Result<Vec<u8>> {
    postcard::to_allocvec(value).map_err(|_| Error::Codec(Part::Value))
}

fn read<V: DeserializeOwned>(bytes: &[u8]) -> Result<V> {
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Ok(value),
        _ => Err(Error::Codec(Part::Value)),
    }
}

impl<K: Key, V: Serialize + DeserializeOwned, M: Media> Tree<K, V, M> {
    /// The tree, with these types from now on.
    #[must_use]
    pub const fn new(tree: db::Tree<M>) -> Self {
        Self { tree, types: PhantomData }
    }

    /// The tree without its types.
    #[must_use]
    pub const fn untyped(&self) -> &db::Tree<M> {
        &self.tree
    }

    /// The value of `key`.
    ///
    /// # Errors
    /// [`Error::Codec`] where it is not one of `V`; those of [`db::Tree::get`].
    pub fn get(&self, key: &K) -> Result<Option<V>> {
        self.tree.get(&encoded(key))?.map(|bytes| read(&bytes)).transpose()
    }

    /// Whether `key` has a value.
    ///
    /// # Errors
    /// Those of [`db::Tree::contains`].
    pub fn contains(&self, key: &K) -> Result<bool> {
        self.tree.contains(&encoded(key))
    }

    /// Gives `key` this value. Durable on return.
    ///
    /// # Errors
    /// [`Error::Codec`] where `serde` can not write it; those of [`db::Tree::put`].
    pub fn put(&self, key: &K, value: &V) -> Result<()> {
        self.tree.put(&encoded(key), &written(value)?)
    }

    /// Deletes `key`: whether it had a value. Durable on return.
    ///
    /// # Errors
    /// Those of [`db::Tree::delete`].
    pub fn delete(&self, key: &K) -> Result<bool> {
        self.tree.delete(&encoded(key))
    }

    /// Gives `key` what `change` makes of its value, with no change of the key in between; `None` deletes it. Durable on return. `change` must not
    /// use the database, and is called again where room had to be made first. Whether the key had a value before.
    ///
    /// # Errors
    /// [`Error::Codec`], before anything changed; those of [`db::Tree::update`].
    pub fn update(&self, key: &K, mut change: impl FnMut(Option<V>) -> Option<V>) -> Result<bool> {
        self.tree.try_update(&encoded(key), |old| {
            let new = change(old.map(read).transpose()?);
            new.map(|new| written(&new)).transpose()
        })
    }

    /// Adds to `batch` that `key` gets a value, whichever tree the batch is written to.
    ///
    /// # Errors
    /// [`Error::Codec`]: the batch is as it was.
    pub fn put_in(&self, batch: &mut Batch, key: &K, value: &V) -> Result<()> {
        let value = written(value)?;
        self.tree.put_in(batch, &encoded(key), &value);
        Ok(())
    }

    /// Adds to `batch` that `key` is deleted, whichever tree the batch is written to.
    pub fn delete_in(&self, batch: &mut Batch, key: &K) {
        self.tree.delete_in(batch, &encoded(key));
    }

    /// The records whose keys lie in `range`, in the order of the keys, from both ends, as they are now.
    ///
    /// # Errors
    /// Those of [`db::Tree::range`].
    pub fn range(&self, range: impl RangeBounds<K>) -> Result<Range<K, V, M>> {
        let (low, high) = (range.start_bound().map(encoded), range.end_bound().map(encoded));
        let bounds: (Bound<&[u8]>, Bound<&[u8]>) =
            (low.as_ref().map(|low| &**low), high.as_ref().map(|high| &**high));
        Ok(Range { range: self.tree.range(bounds)?, types: PhantomData })
    }

    /// The first record.
    ///
    /// # Errors
    /// [`Error::Codec`]; damage.
    pub fn first(&self) -> Result<Option<(K, V)>> {
        self.tree.first()?.map(record).transpose()
    }

    /// The last record.
    ///
    /// # Errors
    /// [`Error::Codec`]; damage.
    pub fn last(&self) -> Result<Option<(K, V)>> {
        self.tree.last()?.map(record).transpose()
    }

    /// How many records the tree has.
    ///
    /// # Errors
    /// Those of [`db::Tree::len`].
    pub fn len(&self) -> Result<u64> {
        self.tree.len()
    }

    /// Whether it has none.
    ///
    /// # Errors
    /// Damage.
    pub fn is_empty(&self) -> Result<bool> {
        self.tree.is_empty()
    }
}

fn record<K: Key, V: DeserializeOwned>((key, value): (db::Key, db::Value)) -> Result<(K, V)> {
    Ok((decoded(&key)?, read(&value)?))
}

/// The records of a typed tree in a range of keys, in order.
#[derive(Debug)]
pub struct Range<K, V, M: Media> {
    range: iter::Range<M>,
    types: PhantomData<fn() -> (K, V)>,
}

impl<K: Key, V: DeserializeOwned, M: Media> Iterator for Range<K, V, M> {
    type Item = Result<(K, V)>;

    fn next(&mut self) -> Option<Self::Item> {
        self.range.next().map(|found| found.and_then(record))
    }
}

impl<K: Key, V: DeserializeOwned, M: Media> DoubleEndedIterator for Range<K, V, M> {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.range.next_back().map(|found| found.and_then(record))
    }
}
