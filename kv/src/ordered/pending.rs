//! Which changes has the index been told of and not yet taken into its leaves?
//!
//! Changes wait in a few lists, a key always in the same one, so that writers do not meet and the changes of one key
//! stay in order.
//!
//! Invariant: `waiting` is above zero from before [`Pending::push`] returns until the change has been taken.

use super::keys::{common, head};
use super::leaf::Hint;
use daxstore::sync::atomic::{AtomicUsize, Ordering};
use daxstore::sync::{Mutex, MutexGuard};

/// What happens to a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// It is there from now on, or its record lies elsewhere.
    Insert,
    /// It is gone.
    Delete,
}

/// So few changes are put in order by the heads of their whole keys.
const SORTED_AS_THEY_ARE: usize = 16;

#[derive(Clone, Copy, Debug)]
struct Note {
    change: Change,
    len: u16,
    at: u32,
    record: u64,
    sequence: u64,
}

#[derive(Debug, Default)]
struct List {
    keys: Vec<u8>,
    notes: Vec<Note>,
}

impl List {
    #[inline]
    fn push(&mut self, change: Change, key: &[u8], record: u64, sequence: u64) {
        let at = self.keys.len() as u32;
        self.keys.extend_from_slice(key);
        self.notes.push(Note { change, len: key.len() as u16, at, record, sequence });
    }

    /// Moves the first notes out, at most so many, and their keys into `keys`, which is empty: those come in the order of the notes.
    fn take(&mut self, most: usize, keys: &mut Vec<u8>) -> std::vec::Drain<'_, Note> {
        match (self.notes.first(), self.notes.get(most)) {
            (Some(first), Some(rest)) => {
                let (start, end) = (first.at, rest.at);
                keys.extend_from_slice(&self.keys[start as usize..end as usize]);
                self.notes[..most].iter_mut().for_each(|note| note.at -= start);
                self.notes.drain(..most)
            }
            _ => {
                std::mem::swap(&mut self.keys, keys);
                self.notes.drain(..)
            }
        }
    }
}

/// A change that is being taken into the leaves.
#[derive(Clone, Copy, Debug)]
pub(super) struct Taken {
    head: u64,
    list: u16,
    note: Note,
}

impl Taken {
    /// Where the record may lie; `None` for a deleted key.
    pub(super) fn hint(&self) -> Option<Hint> {
        let Note { change, record, sequence, .. } = self.note;
        (change == Change::Insert).then_some(Hint::new(record, sequence))
    }
}

/// The changes that were taken together, each key once, in the order of the keys.
#[derive(Debug, Default)]
pub(super) struct Batch {
    keys: Vec<Vec<u8>>,
    pub changes: Vec<Taken>,
}

impl Batch {
    pub(super) fn key(&self, taken: &Taken) -> &[u8] {
        let at = taken.note.at as usize;
        &self.keys[usize::from(taken.list)][at..at + usize::from(taken.note.len)]
    }

    /// Sorts, and keeps the change with the greatest sequence number of each key.
    fn settle(&mut self) {
        let mut changes = std::mem::take(&mut self.changes);
        // Heads tell keys apart behind what all of them have in common.
        let shared = match changes.split_first() {
            Some((first, rest)) if rest.len() > SORTED_AS_THEY_ARE => {
                let first = self.key(first);
                rest.iter().fold(first.len(), |shared, other| common(&first[..shared], self.key(other)))
            }
            _ => 0,
        };
        if shared > 0 {
            changes.iter_mut().for_each(|change| change.head = head(self.key(change), shared));
        }
        // Stable, as that is fast where much is in order.
        changes.sort_by(|a, b| {
            let keys = a.head.cmp(&b.head).then_with(|| self.key(a).cmp(self.key(b)));
            keys.then(b.note.sequence.cmp(&a.note.sequence)).then(b.note.at.cmp(&a.note.at))
        });
        changes.dedup_by(|older, newer| older.head == newer.head && self.key(older) == self.key(newer));
        self.changes = changes;
    }
}

/// The waiting changes.
#[derive(Debug)]
pub(super) struct Pending {
    lists: Vec<Mutex<List>>,
    waiting: AtomicUsize,
}

impl Pending {
    /// With `lists` lists.
    pub(super) fn new(lists: usize) -> Self {
        Self { lists: (0..lists).map(|_| Mutex::default()).collect(), waiting: AtomicUsize::new(0) }
    }

    /// By all but the last bytes, so that keys that come in order stay in order, most of them.
    #[inline]
    fn list_of(&self, key: &[u8]) -> usize {
        let end = key.len().saturating_sub(2);
        let word = head(&key[..end], end.saturating_sub(8)) ^ key.len() as u64;
        (word.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48) as usize % self.lists.len()
    }

    /// Adds a change. `key` is at most [`super::leaf::MAX_KEY`] bytes.
    pub(super) fn push(&self, change: Change, key: &[u8], record: u64, sequence: u64) {
        self.waiting.fetch_add(1, Ordering::AcqRel);
        self.lists[self.list_of(key)].lock().push(change, key, record, sequence);
    }

    /// Adds new keys, with their records. Each is at most [`super::leaf::MAX_KEY`] bytes.
    pub(super) fn push_all<'k>(&self, keys: impl Iterator<Item = (&'k [u8], u64)>, sequence: u64) {
        // One at a time is held: whoever takes all takes them one by one too.
        let mut held: Option<(usize, MutexGuard<'_, List>)> = None;
        let mut told = 0;
        for (key, record) in keys {
            let number = self.list_of(key);
            if held.as_ref().is_none_or(|(held, _)| *held != number) {
                // What was pushed counts before it can be taken.
                self.waiting.fetch_add(std::mem::take(&mut told), Ordering::AcqRel);
                drop(held.take());
                held = Some((number, self.lists[number].lock()));
            }
            if let Some((_, list)) = &mut held {
                list.push(Change::Insert, key, record, sequence);
                told += 1;
            }
        }
        self.waiting.fetch_add(told, Ordering::AcqRel);
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.load(Ordering::Acquire)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes up to `most` into `batch`, whose memory is used again. They count as waiting until [`Self::settled`].
    pub(super) fn take(&self, batch: &mut Batch, most: usize) -> usize {
        batch.changes.clear();
        batch.keys.resize_with(self.lists.len(), Vec::new);
        for (i, list) in self.lists.iter().enumerate() {
            let keys = &mut batch.keys[i];
            keys.clear();
            let mut list = list.lock();
            let notes = list.take(most - batch.changes.len(), keys);
            batch.changes.extend(notes.map(|note| {
                let start = note.at as usize;
                Taken { head: head(&keys[start..start + usize::from(note.len)], 0), list: i as u16, note }
            }));
            if batch.changes.len() == most {
                break;
            }
        }
        let taken = batch.changes.len();
        batch.settle();
        taken
    }

    /// `taken` changes can be seen in the leaves.
    pub(super) fn settled(&self, taken: usize) {
        self.waiting.fetch_sub(taken, Ordering::AcqRel);
    }

    /// Puts the changes of `batch` from `first` on back, of `taken` that were taken: before those that came since, which may be of the same keys.
    pub(super) fn put_back(&self, batch: &Batch, first: usize, taken: usize) {
        let rest = &batch.changes[first..];
        self.waiting.fetch_add(rest.len(), Ordering::AcqRel);
        for (number, list) in self.lists.iter().enumerate() {
            let mut back = rest.iter().filter(|change| usize::from(change.list) == number).peekable();
            if back.peek().is_none() {
                continue;
            }
            let mut list = list.lock();
            // The memory of a list to which nothing came is used again.
            let since = if list.notes.is_empty() { List::default() } else { std::mem::take(&mut *list) };
            for change in back {
                let Note { change: what, record, sequence, .. } = change.note;
                list.push(what, batch.key(change), record, sequence);
            }
            for note in &since.notes {
                let key = &since.keys[note.at as usize..][..usize::from(note.len)];
                list.push(note.change, key, note.record, note.sequence);
            }
        }
        self.settled(taken);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// What waits, one by one as it is taken: the key and the number.
    fn drain(pending: &Pending, most: usize) -> Vec<(Vec<u8>, u64)> {
        let (mut batch, mut all) = (Batch::default(), Vec::new());
        while !pending.is_empty() {
            let taken = pending.take(&mut batch, most);
            assert!((1..=most).contains(&taken));
            all.extend(batch.changes.iter().map(|change| (batch.key(change).to_vec(), change.note.sequence)));
            pending.settled(taken);
        }
        all
    }

    #[test]
    fn changes_of_a_key_are_taken_in_order_also_when_few_are_taken() {
        let key = |n: u64| format!("key {n}").into_bytes();
        for most in [1, 3, 7, usize::MAX] {
            let pending = Pending::new(4);
            (0..90).for_each(|n| pending.push(Change::Insert, &key(n % 30), 8 * n, n));
            let taken = drain(&pending, most);
            for n in 0..30 {
                let numbers: Vec<_> =
                    taken.iter().filter(|(k, _)| *k == key(n)).map(|(_, number)| *number).collect();
                assert!(numbers.is_sorted() && numbers.last() == Some(&(n + 60)), "{most}: {numbers:?}");
            }
        }
    }

    /// A deletion that found no space would take away the key that was put since.
    #[test]
    fn what_is_put_back_comes_before_what_came_since() {
        let (pending, mut batch) = (Pending::new(2), Batch::default());
        (0..20_u64).for_each(|n| pending.push(Change::Delete, &n.to_be_bytes(), 8, n));
        let taken = pending.take(&mut batch, 15);
        (0..20_u64).for_each(|n| pending.push(Change::Insert, &n.to_be_bytes(), 16, 100 + n));
        pending.put_back(&batch, 4, taken);
        assert_eq!(pending.len(), 36);
        let all = drain(&pending, 1);
        assert_eq!(all.len(), 36);
        for n in 0..20_u64 {
            let numbers: Vec<_> =
                all.iter().filter(|(key, _)| *key == n.to_be_bytes()).map(|(_, number)| *number).collect();
            assert!(numbers == [n, 100 + n] || numbers == [100 + n], "{numbers:?}");
        }
    }
}
