//! How is a value read where it lies, without a copy?
//!
//! A [`ValueRef`] holds its record (`held`): while it lives, that record's space is not used again, whatever becomes of the key. Nothing
//! else waits for it. Its checksum was looked at once, when it was made.
//!
//! A reference to plain bytes must not be one to bytes that somebody stores to. The database never does that to a record that is held;
//! that nobody else does, with another handle of the file, only the program can promise: [`Options::alone`]. Without that promise
//! the value is copied once, when it is asked for.
//!
//! Invariant: the bytes that are lent are those of a durable record which was found under a pin and held before the pin went.

use crate::db::{Options, Tree, Value};
use crate::error::Result;
use crate::heap::class_of;
use crate::media::Media;
use crate::record;
use std::fmt;
use std::ops::Deref;

impl Options {
    /// Says that nobody but this database touches its file while it is open, so that [`Tree::get_ref`] lends values where they lie.
    ///
    /// # Safety
    /// While the database is open, and any [`ValueRef`] of it lives, no bytes of its file are changed but by it: not by writes, truncation
    /// or fallocate through another handle of the file, not through another mapping of it, and not through the pool's own bytes.
    #[must_use]
    pub const unsafe fn alone(mut self) -> Self {
        self.alone = true;
        self
    }
}

/// Where the bytes are.
enum Bytes<'t> {
    /// In the mapping.
    InPlace(&'t [u8]),
    /// Copied out.
    Copied(Value),
}

/// A value that is read where it lies. While it lives, the space of its record, and of no other, is not used again: also not
/// when the key is overwritten or deleted, nor by [`crate::Db::compact`].
///
/// Where the medium loses these bytes while it lives, a load of them raises SIGBUS, as it does in every mapping; a loss that was there
/// before is met by the check of the record's checksum, when this is made.
pub struct ValueRef<'t, M: Media> {
    tree: &'t Tree<M>,
    at: u64,
    bytes: Bytes<'t>,
}

impl<M: Media> Tree<M> {
    /// The value of `key`, where it lies: without a copy if the database was opened with [`Options::alone`] and lies in a mapping.
    /// What it shows is the value as of now, for as long as it lives.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub fn get_ref(&self, key: &[u8]) -> Result<Option<ValueRef<'_, M>>> {
        let core = self.core();
        let key = core.key(self.id(), key)?;
        let find = || Ok(self.find(&key)?.map(|found| (found.at, found)));
        let Some((_, found)) = core.held.hold_found(&core.env.epochs, find)? else { return Ok(None) };
        // From here on the guard lets go of the record, also where that is damaged.
        let mut value = ValueRef { tree: self, at: found.at, bytes: Bytes::Copied(Value::new()) };
        if self.is_alone() {
            let (at, len) = (found.at + found.head.before_value(), found.head.value_len() as u64);
            // SAFETY: the record is durable and named by the index, so its bytes were not changed since they were written, and are not until it is
            // freed (K6); it is held, from within the pin under which it was found, so it is not freed before `value` goes; that nobody else
            // stores to the file is the promise of `Options::alone`.
            let lent = unsafe { core.media().lend(at, len) };
            if let Some(lent) = lent {
                self.check_value(&key, (found.at, found.head), lent)?;
                value.bytes = Bytes::InPlace(lent);
                return Ok(Some(value));
            }
        }
        let mut copy = Value::with_capacity(found.head.value_len());
        self.read_value(&key, (found.at, found.head), &mut copy)?;
        value.bytes = Bytes::Copied(copy);
        Ok(Some(value))
    }
}

impl<M: Media> ValueRef<'_, M> {
    /// Whether the record lies where it was found.
    #[cfg(feature = "sim")]
    #[must_use]
    pub fn is_still_there(&self) -> bool {
        let (core, mut now) = (self.tree.core(), Value::new());
        let head = crate::record::Head::load(core.media(), self.at);
        core.media().append_to(self.at + head.before_value(), head.value_len(), &mut now);
        now == **self
    }

    /// Whether the bytes are those of the medium, and no copy.
    #[must_use]
    pub const fn is_in_place(&self) -> bool {
        matches!(self.bytes, Bytes::InPlace(_))
    }
}

impl<M: Media> Deref for ValueRef<'_, M> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.bytes {
            Bytes::InPlace(bytes) => bytes,
            Bytes::Copied(bytes) => bytes,
        }
    }
}

impl<M: Media> AsRef<[u8]> for ValueRef<'_, M> {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl<M: Media> fmt::Debug for ValueRef<'_, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.is_in_place() { "in place" } else { "copied" };
        write!(f, "ValueRef {{ {} bytes, {kind} }}", self.len())
    }
}

impl<M: Media> Drop for ValueRef<'_, M> {
    fn drop(&mut self) {
        let core = self.tree.core();
        let Some(old) = core.held.let_go(self.at) else { return };
        match class_of(old.bytes) {
            Some(class) => core.heap.give(class, old.at),
            // Nobody is left to be told; the database takes no more changes then.
            None => drop(core.poison(core.env.free(old.at))),
        }
    }
}

impl<M: Media> Tree<M> {
    /// Compares a value with its record's checksum, unless the database was opened to trust it.
    #[inline]
    pub(crate) fn check_value(
        &self,
        key: &record::Key<'_>,
        seen: crate::iter::Seen,
        value: &[u8],
    ) -> Result<()> {
        let (at, head) = seen;
        if self.trusts() || head.is_right(self.core().salt, at, key.hash, value) {
            return Ok(());
        }
        Err(damaged(key, seen))
    }
}

/// That the record of `key` is damaged.
#[cold]
fn damaged(key: &record::Key<'_>, (at, head): crate::iter::Seen) -> crate::Error {
    use crate::error::{Damage, RecordDamage, Structure};
    let damage = Damage::new(Structure::Record, at, "the record's checksum", 0, head.second >> 32);
    let first = &key.bytes[..key.bytes.len().min(32)];
    crate::Error::Record(Box::new(RecordDamage {
        tree: key.tree.0,
        key: first.escape_ascii().to_string(),
        damage,
    }))
}
