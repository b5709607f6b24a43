//! How do many changes become one?
//!
//! The records of a batch are written with one sequence number, their places in a list, and the list's place in the ring's note: one fence
//! makes all of it durable.
//!
//! | byte of a list | bits | what |
//! | ---: | ---: | --- |
//! | 0 | 64 | sequence number |
//! | 8 | 32 | records |
//! | 12 | 32 | checksum of the list |
//! | 16 | | offsets of the records, 64 bits each |
//!
//! Invariant: K10. A batch is replayed when its list is right and every record of it has its sequence number and is right; else nothing of it
//! is. No slot of its records is used again while its note can be replayed (K6), so a batch that returned is always complete.

use crate::chunks::{ChunkKind, Reserve};
use crate::core::{Change, Core, flags_of};
use crate::env::TreeId;
use crate::error::{Error, Result};
use crate::hash::{Found, Full, Place, Room};
use crate::heap::class_of;
use crate::layout::PAGE;
use crate::media::Media;
use crate::pages::PageKind;
use crate::record::{self, BATCH, Head, Key, MAX_VALUE, TOMBSTONE};
use crate::ring::Note;
use crate::session::{Session, Taken};
use crate::stripes;
use crate::trees::TreeState;
use daxstore::sync::Arc;
use daxstore::sync::atomic::Ordering;
use std::ops::Range;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// One change of a batch: bytes are ranges of [`Batch::bytes`].
#[derive(Clone, Debug)]
struct Op {
    /// The tree, and which of those that had its number.
    tree: Option<(TreeId, u64)>,
    key: Range<usize>,
    value: Option<Range<usize>>,
}

/// Changes that are made at once, or not at all. Of several to one key the last counts.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    bytes: Vec<u8>,
    ops: Vec<Op>,
}

impl Batch {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn keep(&mut self, bytes: &[u8]) -> Range<usize> {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        start..self.bytes.len()
    }

    pub(crate) fn push(&mut self, tree: Option<(TreeId, u64)>, key: &[u8], value: Option<&[u8]>) {
        let key = self.keep(key);
        let value = value.map(|value| self.keep(value));
        self.ops.push(Op { tree, key, value });
    }

    /// Gives `key` a value, in the tree that the batch is written to.
    pub fn put(&mut self, key: &[u8], value: &[u8]) {
        self.push(None, key, Some(value));
    }

    /// Deletes `key`, in the tree that the batch is written to.
    pub fn delete(&mut self, key: &[u8]) {
        self.push(None, key, None);
    }

    /// How many changes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ops.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// Takes all changes out.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ops.clear();
    }
}

/// A change of a batch, with its key's hash.
struct Item<'b> {
    key: Key<'b>,
    value: Option<&'b [u8]>,
    tree: usize,
}

/// The trees that a batch changes, and its changes.
type Items<'b, M> = (Vec<Arc<TreeState<M>>>, Vec<Item<'b>>);

/// What an item has before anything is written.
#[derive(Clone, Copy)]
struct Ready {
    item: usize,
    at: u64,
    bytes: u64,
    place: Place,
    found: Option<Found>,
}

/// What was missing.
enum Missing {
    Slots(usize),
    /// In the segments of these hashes.
    Room(Vec<(u64, Full)>),
}

/// Items whose memory is asked for ahead of use.
const AHEAD: usize = 8;

impl<M: Media> Core<M> {
    /// Makes every change of `batch`, or none; those without a tree in `tree`.
    ///
    /// # Errors
    /// As for a change of one key, before anything changed.
    pub(crate) fn write_batch(&self, tree: &Arc<TreeState<M>>, batch: &Batch) -> Result<()> {
        let (trees, mut items) = self.items(tree, batch)?;
        items.sort_by_key(|item| item.key.hash);
        drop_earlier(&mut items);
        let mut locks: Vec<_> = items.iter().map(|item| stripes::of(item.key.hash)).collect();
        locks.dedup();
        let mut taken = self.begin()?;
        self.reserve(&mut taken, &items)?;
        if taken.session.is_idle() {
            self.write_back(&mut taken)?;
        }
        loop {
            match self.attempt_batch(&mut taken, &trees, &items, &locks)? {
                None => return Ok(()),
                Some(Missing::Slots(class)) => self.refill(&mut taken, class, Reserve::Keep)?,
                Some(Missing::Room(all)) => {
                    for (hash, full) in all {
                        self.index.split(&self.env, &self.stripes, hash, full, Room::More)?;
                    }
                    self.env.collect()?;
                }
            }
        }
    }

    fn items<'b>(&self, tree: &Arc<TreeState<M>>, batch: &'b Batch) -> Result<Items<'b, M>> {
        let mut trees = vec![tree.clone()];
        let mut items = Vec::with_capacity(batch.ops.len());
        for op in &batch.ops {
            let (id, birth) = op.tree.unwrap_or((tree.id, tree.birth));
            let number = match trees.iter().position(|tree| tree.birth == birth) {
                Some(number) => number,
                None => {
                    let found = self.trees.by_id(id).filter(|found| found.birth == birth);
                    trees.push(found.ok_or(Error::TreeDropped)?);
                    trees.len() - 1
                }
            };
            let key = self.key(id, &batch.bytes[op.key.clone()])?;
            let value = op.value.clone().map(|value| &batch.bytes[value]);
            if let Some(value) = value.filter(|value| value.len() > MAX_VALUE) {
                return Err(Error::ValueLength(value.len()));
            }
            items.push(Item { key, value, tree: number });
        }
        Ok((trees, items))
    }

    /// Gets the slots that the items may need, so that an attempt rarely has to be given up.
    fn reserve(&self, taken: &mut Taken<'_>, items: &[Item<'_>]) -> Result<()> {
        let mut wanted = [0_usize; crate::heap::CLASSES];
        for item in items {
            let head = Head::new(0, &item.key, item.value.map_or(0, <[u8]>::len), 0);
            if let Some(class) = class_of(head.bytes()) {
                wanted[class] += 1;
            }
        }
        for (class, wanted) in wanted.into_iter().enumerate() {
            while taken.session.kept.len(class) < wanted {
                let before = taken.session.kept.len(class);
                self.refill(taken, class, Reserve::Keep)?;
                if taken.session.kept.len(class) == before {
                    taken.session.kept.take_slab(&self.env, class, Reserve::Keep)?;
                }
            }
        }
        Ok(())
    }

    fn attempt_batch(
        &self,
        taken: &mut Taken<'_>,
        trees: &[Arc<TreeState<M>>],
        items: &[Item<'_>],
        locks: &[usize],
    ) -> Result<Option<Missing>> {
        let _active = self.activate(taken.seen);
        let _pin = self.env.pin();
        let _held = self.stripes.lock_all(locks);
        if trees.iter().any(|tree| tree.dropped.load(Ordering::SeqCst)) {
            return Err(Error::TreeDropped);
        }
        let mut ready = Vec::with_capacity(items.len());
        let prepared = self.prepare(&mut taken.session, items, &mut ready);
        if !matches!(prepared, Ok(None)) {
            self.give_up(&mut taken.session, &ready)?;
            return prepared;
        }
        if ready.is_empty() {
            return Ok(None);
        }
        let sequence =
            match self.list_buffer(&mut taken.session, ready.len()).and_then(|at| Ok((at, self.sequence()?)))
            {
                Ok((list, sequence)) => {
                    self.write_items(&mut taken.session, items, &ready, list, sequence);
                    sequence
                }
                Err(error) => {
                    self.give_up(&mut taken.session, &ready)?;
                    return Err(error);
                }
            };
        self.poison(self.media().fence())?;
        taken.session.fenced(self.media(), taken.seen, sequence, || self.env.epochs.advance());
        let mut published = Ok(());
        for Ready { item, at, bytes, place, found } in ready {
            let Item { key, value, tree } = &items[item];
            let flags = BATCH | flags_of(live(&found), value.is_some());
            let change = Change { key, place, found, at, bytes, sequence, flags };
            // All of it is published, whatever the ordered index says of one key.
            let done = self.publish(&mut taken.session, &trees[*tree], &change);
            published = published.and(done);
        }
        let settled = trees.iter().try_for_each(|tree| self.order_settle(tree));
        published.and(settled).map(|()| None)
    }

    /// Gets everything that the items need.
    fn prepare(
        &self,
        session: &mut Session,
        items: &[Item<'_>],
        ready: &mut Vec<Ready>,
    ) -> Result<Option<Missing>> {
        let media = self.media();
        let mut room = Vec::new();
        for (number, item) in items.iter().enumerate() {
            if let Some(ahead) = items.get(number + 2 * AHEAD) {
                self.index.prefetch(media, ahead.key.hash);
            }
            if let Some(ahead) = items.get(number + AHEAD) {
                self.index.prefetch_record(media, ahead.key.hash);
            }
            let found = self.index.find(media, &item.key)?;
            if item.value.is_none() && found.is_none_or(|found| found.head.is(TOMBSTONE)) {
                continue;
            }
            let bytes = Head::new(0, &item.key, item.value.map_or(0, <[u8]>::len), 0).bytes();
            let Some(at) = self.slot(session, bytes)? else {
                return Ok(Some(Missing::Slots(class_of(bytes).unwrap_or(0))));
            };
            let place = match found {
                Some(found) => found.place,
                None => match self.index.hold(media, item.key.hash)? {
                    Ok(place) => place,
                    Err(full) => {
                        self.put_slot_back(session, at, bytes)?;
                        // Every segment without room is found in one go.
                        room.push((item.key.hash, full));
                        continue;
                    }
                },
            };
            ready.push(Ready { item: number, at, bytes, place, found });
        }
        Ok(if room.is_empty() { None } else { Some(Missing::Room(room)) })
    }

    /// Gives back what the items got.
    fn give_up(&self, session: &mut Session, ready: &[Ready]) -> Result<()> {
        for ready in ready {
            if ready.found.is_none() {
                self.index.clear(self.media(), ready.place);
            }
            self.put_slot_back(session, ready.at, ready.bytes)?;
        }
        Ok(())
    }

    /// Space for a list of so many records.
    fn list_buffer(&self, session: &mut Session, records: usize) -> Result<u64> {
        let bytes = 16 + records as u64 * 8;
        let number = session.lists.next;
        let (at, room) = session.lists.all[number];
        session.lists.next = (number + 1) % session.lists.all.len();
        if room >= bytes {
            return Ok(at);
        }
        let bytes = bytes.next_multiple_of(4 * PAGE);
        let new = self.env.alloc_bytes(bytes, PageKind::List, ChunkKind::List)?;
        if room > 0 {
            self.env.retire(at);
        }
        session.lists.all[number] = (new, bytes);
        Ok(new)
    }

    /// Writes the records, the list and the note: durable, all together, with the fence that follows.
    fn write_items(
        &self,
        session: &mut Session,
        items: &[Item<'_>],
        ready: &[Ready],
        list: u64,
        sequence: u64,
    ) {
        let media = self.media();
        for ready in ready {
            let Item { key, value, .. } = &items[ready.item];
            let flags = BATCH | flags_of(live(&ready.found), value.is_some());
            let value = value.unwrap_or_default();
            let head = Head::new(sequence, key, value.len(), flags);
            let head = head.sealed(self.salt, ready.at, key.hash, value);
            record::write(media, ready.at, &head, key, value, &mut session.buf);
        }
        let places: Vec<u64> = ready.iter().map(|ready| ready.at).collect();
        media.write_through(list, &list_bytes(self.salt, list, sequence, &places));
        session.ring.write(media, session.position, Note { sequence, at: list, list: true });
        session.position += 1;
    }
}

/// What the key of `found` has, tombstones left out.
fn live(found: &Option<Found>) -> Option<&Found> {
    found.as_ref().filter(|found| !found.head.is(TOMBSTONE))
}

/// Of several changes to one key, drops all but the last.
fn drop_earlier(items: &mut Vec<Item<'_>>) {
    let mut keep = vec![true; items.len()];
    for (i, keep) in keep.iter_mut().enumerate() {
        let later = items[i + 1..].iter().take_while(|later| later.key.hash == items[i].key.hash);
        *keep = !later.into_iter().any(|l| l.key.bytes == items[i].key.bytes && l.tree == items[i].tree);
    }
    let mut keep = keep.into_iter();
    items.retain(|_| keep.next().unwrap_or(true));
}

/// A list, byte by byte.
fn list_bytes(salt: u64, at: u64, sequence: u64, places: &[u64]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(16 + places.len() * 8);
    bytes.extend_from_slice(&sequence.to_le_bytes());
    bytes.extend_from_slice(&(places.len() as u64).to_le_bytes());
    places.iter().for_each(|place| bytes.extend_from_slice(&place.to_le_bytes()));
    let check = (xxh3_64_with_seed(&bytes, salt ^ at) >> 32) as u32;
    bytes[12..16].copy_from_slice(&check.to_le_bytes());
    bytes
}

/// The places of a batch's records, if the list at `at` is that of `sequence`.
pub(crate) fn read_list<M: Media>(media: &M, salt: u64, at: u64, sequence: u64) -> Option<Vec<u64>> {
    let len = media.len();
    if at > len - 16 || media.load(at) != sequence {
        return None;
    }
    let count = media.load(at + 8) & 0xffff_ffff;
    if count * 8 > len - at - 16 {
        return None;
    }
    let places: Vec<u64> = (0..count).map(|n| media.load(at + 16 + n * 8)).collect();
    let check = media.load(at + 8) >> 32;
    let right = list_bytes(salt, at, sequence, &places);
    let found = u32::from_le_bytes([right[12], right[13], right[14], right[15]]);
    (u64::from(found) == check).then_some(places)
}
