//! What does a tree hold, in order, at one moment?
//!
//! A [`Snapshot`] sees a tree as it was when it was taken, whatever is changed meanwhile; a [`Range`] goes over one, from both ends. Keys come
//! from the ordered index, some dozens at a time; each is then looked up as the snapshot sees it, so that keys of deleted records, and new
//! ones, are passed over.

use crate::core::Core;
use crate::db::{Key, Tree, Value};
use crate::env::TreeId;
use crate::error::Result;
use crate::media::Media;
use crate::ordered::Cursor;
use crate::record::{self, Head};
use crate::scan::{Number, Scan};
use daxstore::sync::Arc;
use std::collections::VecDeque;
use std::ops::{Bound, RangeBounds};

/// Where a record lies, and its header.
pub(crate) type Seen = (u64, Head);

/// A tree as it was at one moment. While it lives, what it sees takes space.
#[derive(Debug)]
pub struct Snapshot<M: Media> {
    tree: Tree<M>,
    number: Arc<Number<M>>,
}

impl<M: Media> Clone for Snapshot<M> {
    fn clone(&self) -> Self {
        Self { tree: self.tree.clone(), number: self.number.clone() }
    }
}

impl<M: Media> Tree<M> {
    /// The tree as it is now. It sees every change that returned before, and none that begins after. Of a tree that was dropped it shows what
    /// is not deleted yet, and nothing in the end; one that was taken before still shows all.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot<M> {
        Snapshot { tree: self.clone(), number: Number::take(self) }
    }

    /// The records whose keys lie in `range`, in order, as they are now.
    ///
    /// # Errors
    /// None here; the iterator gives damage as an item, and goes on.
    pub fn range<R: RangeBounds<[u8]>>(&self, range: R) -> Result<Range<M>> {
        Ok(self.snapshot().range(range))
    }

    /// The records whose keys lie in `range`, in order, as they are now, lent one by one: the fastest way to read many.
    #[must_use]
    pub fn scan<R: RangeBounds<[u8]>>(&self, range: R) -> Scan<'_, M> {
        Scan::now(self, range.start_bound(), range.end_bound().map(<[u8]>::to_vec))
    }

    /// The records whose keys begin with `prefix`, in order, as they are now.
    ///
    /// # Errors
    /// As [`Self::range`].
    pub fn prefix(&self, prefix: &[u8]) -> Result<Range<M>> {
        Ok(self.snapshot().prefix(prefix))
    }

    /// The first record.
    ///
    /// # Errors
    /// Damage.
    pub fn first(&self) -> Result<Option<(Key, Value)>> {
        self.snapshot().range(..).next().transpose()
    }

    /// The last record.
    ///
    /// # Errors
    /// Damage.
    pub fn last(&self) -> Result<Option<(Key, Value)>> {
        self.snapshot().range(..).next_back().transpose()
    }
}

impl<M: Media> Snapshot<M> {
    /// The same moment, of another tree of the database: empty if that was made later, also where another tree had its name or number then.
    #[must_use]
    pub fn of(&self, tree: &Tree<M>) -> Self {
        Self { tree: tree.clone(), number: self.number.clone() }
    }

    /// Up to which sequence number it shows changes.
    pub(crate) fn sequence(&self) -> u64 {
        self.number.of(&self.tree)
    }

    /// The value that `key` had.
    ///
    /// # Errors
    /// [`crate::Error::KeyLength`]; damage.
    pub fn get(&self, key: &[u8]) -> Result<Option<Value>> {
        let core = self.tree.core();
        let key = core.key(self.tree.id(), key)?;
        let _pin = core.env.pin();
        let Some(seen) = core.find_at(&key, self.sequence())? else { return Ok(None) };
        let mut value = Vec::new();
        self.tree.read_value(&key, seen, &mut value)?;
        Ok(Some(value))
    }

    /// Whether `key` had a value.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub fn contains(&self, key: &[u8]) -> Result<bool> {
        let core = self.tree.core();
        let key = core.key(self.tree.id(), key)?;
        let _pin = core.env.pin();
        Ok(core.find_at(&key, self.sequence())?.is_some())
    }

    /// The records whose keys lie in `range`, in order.
    #[must_use]
    pub fn range<R: RangeBounds<[u8]>>(&self, range: R) -> Range<M> {
        let bound = |bound: Bound<&[u8]>| bound.map(<[u8]>::to_vec);
        Range {
            snapshot: self.clone(),
            low: bound(range.start_bound()),
            high: bound(range.end_bound()),
            front: Side::default(),
            back: Side::default(),
        }
    }

    /// The records whose keys lie in `range`, in order, lent one by one.
    #[must_use]
    pub fn scan<R: RangeBounds<[u8]>>(&self, range: R) -> Scan<'_, M> {
        let high = range.end_bound().map(<[u8]>::to_vec);
        Scan::new(&self.tree, self.number.clone(), range.start_bound(), high)
    }

    /// The records whose keys begin with `prefix`, in order.
    #[must_use]
    pub fn prefix(&self, prefix: &[u8]) -> Range<M> {
        let mut high = prefix.to_vec();
        while high.last() == Some(&0xff) {
            high.pop();
        }
        if let Some(last) = high.last_mut() {
            *last += 1;
        }
        let high = if high.is_empty() { Bound::Unbounded } else { Bound::Excluded(&*high) };
        self.range((Bound::Included(prefix), high))
    }

    /// How many records there were: they are counted.
    ///
    /// # Errors
    /// Damage.
    pub fn len(&self) -> Result<u64> {
        let mut count = 0;
        let mut keys = self.scan(..).keys_only();
        while keys.next()?.is_some() {
            count += 1;
        }
        Ok(count)
    }

    /// Whether there were none.
    ///
    /// # Errors
    /// Damage.
    pub fn is_empty(&self) -> Result<bool> {
        Ok(self.scan(..).keys_only().next()?.is_none())
    }
}

/// What was fetched ahead at one end.
#[derive(Debug, Default)]
struct Side {
    items: VecDeque<Result<(Key, Value)>>,
    fetched: usize,
    over: bool,
}

/// How many records are fetched at once, first and at most.
const FETCH: (usize, usize) = (32, 256);

impl Side {
    fn next_fetch(&mut self) -> usize {
        self.fetched = if self.fetched == 0 { FETCH.0 } else { (self.fetched * 3).min(FETCH.1) };
        self.fetched
    }
}

/// The records of a snapshot in a range of keys, in order, from both ends.
#[derive(Debug)]
pub struct Range<M: Media> {
    snapshot: Snapshot<M>,
    /// What is not fetched lies between these.
    low: Bound<Vec<u8>>,
    high: Bound<Vec<u8>>,
    front: Side,
    back: Side,
}

fn is_above(key: &[u8], low: &Bound<Vec<u8>>) -> bool {
    match low {
        Bound::Unbounded => true,
        Bound::Included(low) => key >= &**low,
        Bound::Excluded(low) => key > &**low,
    }
}

/// Some keys and, at the end, whether there were no more.
struct Keys {
    keys: Vec<Result<Vec<u8>>>,
    over: bool,
}

impl<M: Media> Range<M> {
    /// The next records from the low end, and whether there are no more.
    fn records_forward(&mut self, count: usize) -> (VecDeque<Result<(Key, Value)>>, bool) {
        let Snapshot { tree, number } = &self.snapshot;
        let low = self.low.as_ref().map(|low| &**low);
        let mut scan = Scan::new(tree, number.clone(), low, self.high.clone()).limit(count);
        let mut records: VecDeque<Result<(Key, Value)>> = VecDeque::with_capacity(count);
        // Where damage came last, the next fetch would meet it again.
        while records.len() < count || records.back().is_some_and(Result::is_err) {
            match scan.next() {
                Ok(Some((key, value))) => records.push_back(Ok((key.to_vec(), value.to_vec()))),
                Ok(None) => return (records, true),
                Err(error) => records.push_back(Err(error)),
            }
        }
        if let Some(Ok((last, _))) = records.back() {
            self.low = Bound::Excluded(last.clone());
        }
        (records, false)
    }

    /// The next keys from the high end.
    fn keys_backward(&mut self, count: usize) -> Keys {
        let ordered = &self.snapshot.tree.state().ordered;
        let mut cursor = match &self.high {
            Bound::Unbounded => ordered.cursor_at_end(),
            Bound::Included(high) => ordered.cursor(Bound::Excluded(high)),
            Bound::Excluded(high) => ordered.cursor(Bound::Included(high)),
        };
        let low = self.low.clone();
        let keys = take(&mut cursor, count, |cursor| {
            Ok(cursor.prev()?.map(|(key, _)| key).filter(|key| is_above(key, &low)).map(<[u8]>::to_vec))
        });
        if let Some(last) = keys.keys.iter().rev().find_map(|key| key.as_ref().ok()) {
            self.high = Bound::Excluded(last.clone());
        }
        keys
    }

    /// The records of these keys, as the snapshot sees them.
    fn records(&self, keys: Vec<Result<Vec<u8>>>) -> VecDeque<Result<(Key, Value)>> {
        let tree = &self.snapshot.tree;
        let core = tree.core();
        let _pin = core.env.pin();
        let hashes: Vec<_> = keys.iter().map(|key| hash(core, tree.id(), key)).collect();
        hashes.iter().flatten().for_each(|hash| core.index.prefetch(core.media(), *hash));
        let mut records = VecDeque::with_capacity(keys.len());
        for (n, key) in keys.into_iter().enumerate() {
            if let Some(Some(ahead)) = hashes.get(n + 8) {
                core.index.prefetch_record(core.media(), *ahead);
            }
            let record = key.and_then(|bytes| self.record(bytes));
            records.extend(record.transpose());
        }
        records
    }

    fn record(&self, bytes: Vec<u8>) -> Result<Option<(Key, Value)>> {
        let tree = &self.snapshot.tree;
        let key = tree.core().key(tree.id(), &bytes)?;
        let Some(seen) = tree.core().find_at(&key, self.snapshot.sequence())? else { return Ok(None) };
        let mut value = Vec::new();
        tree.read_value(&key, seen, &mut value)?;
        Ok(Some((bytes, value)))
    }
}

fn hash<M: Media>(core: &Core<M>, tree: TreeId, key: &Result<Vec<u8>>) -> Option<u64> {
    key.as_ref().ok().map(|key| record::hash(core.salt, tree, key))
}

/// Up to `count` keys that `next` gives. Damage is among them, once, and what it hides is passed.
fn take<'o, S: crate::ordered::Space>(
    cursor: &mut Cursor<'o, S>,
    count: usize,
    mut next: impl FnMut(&mut Cursor<'o, S>) -> Result<Option<Vec<u8>>>,
) -> Keys {
    let mut keys = Vec::with_capacity(count);
    while keys.len() < count {
        match next(cursor) {
            Ok(Some(key)) => keys.push(Ok(key)),
            Ok(None) => return Keys { keys, over: true },
            Err(error) => keys.push(Err(error)),
        }
    }
    // Where damage came last, the next fetch would meet it again.
    while keys.last().is_some_and(Result::is_err) {
        match next(cursor) {
            Ok(Some(key)) => keys.push(Ok(key)),
            Ok(None) => return Keys { keys, over: true },
            Err(error) => keys.push(Err(error)),
        }
    }
    Keys { keys, over: false }
}

impl<M: Media> Iterator for Range<M> {
    type Item = Result<(Key, Value)>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(item) = self.front.items.pop_front() {
                return Some(item);
            }
            if self.front.over || self.back.over {
                return self.back.items.pop_back();
            }
            let count = self.front.next_fetch();
            (self.front.items, self.front.over) = self.records_forward(count);
        }
    }
}

impl<M: Media> DoubleEndedIterator for Range<M> {
    fn next_back(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(item) = self.back.items.pop_front() {
                return Some(item);
            }
            if self.front.over || self.back.over {
                return self.front.items.pop_back();
            }
            let count = self.back.next_fetch();
            let Keys { keys, over } = self.keys_backward(count);
            self.back.over = over;
            self.back.items = self.records(keys);
        }
    }
}
