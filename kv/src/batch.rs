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
use crate::core::{Became, Change, Core, flags_of};
use crate::env::TreeId;
use crate::error::{Error, Result};
use crate::hash::{Found, Full, Look, Place, Room};
use crate::heap::class_of;
use crate::layout::PAGE;
use crate::media::Media;
use crate::mutation::{self, Mutation};
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

impl Item<'_> {
    /// Bytes of its record.
    fn bytes(&self) -> u64 {
        Head::new(0, &self.key, self.value.map_or(0, <[u8]>::len), 0).bytes()
    }
}

/// The trees that a batch changes, and its changes.
type Items<'b, M> = (Vec<Arc<TreeState<M>>>, Vec<Item<'b>>);

/// What an item has in the index before anything is written.
#[derive(Clone, Copy)]
struct Spot {
    item: u32,
    place: Place,
    found: Option<Found>,
}

/// What is written of an item.
#[derive(Clone, Copy, Default)]
struct Record {
    /// Its flags; 0: nothing is written.
    flags: u64,
    /// Where; 0: it has no slot yet.
    at: u64,
}

/// A batch on its way: spots in the order of hashes, in which the index is looked at; records in the order of the batch, so that keys that come in
/// order lie side by side.
#[derive(Default)]
struct Ready {
    spots: Vec<Spot>,
    records: Vec<Record>,
}

/// What was missing.
enum Missing {
    Slots(usize),
    /// In the segments of these hashes.
    Room(Vec<(u64, Full)>),
}

/// Items whose memory is asked for ahead of use.
const AHEAD: usize = 8;
/// Bytes of records side by side that are written together.
const TOGETHER: usize = 8 << 10;

impl<M: Media> Core<M> {
    /// Makes every change of `batch`, or none; those without a tree in `tree`.
    ///
    /// # Errors
    /// As for a change of one key, before anything changed.
    pub(crate) fn write_batch(&self, tree: &Arc<TreeState<M>>, batch: &Batch) -> Result<()> {
        let (trees, items) = self.items(tree, batch)?;
        let order = in_order(&items);
        let mut locks: Vec<_> = order.iter().map(|(hash, _)| stripes::of(*hash)).collect();
        locks.dedup();
        let mut taken = self.begin()?;
        self.reserve(&mut taken, &items)?;
        if taken.session.is_idle() {
            self.write_back(&mut taken)?;
        }
        loop {
            match self.attempt_batch(&mut taken, &trees, &items, &order, &locks)? {
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
            let (id, number) = match op.tree {
                None => (tree.id, 0),
                Some((id, birth)) => (id, self.number_of(&mut trees, id, birth)?),
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

    /// The place in `trees` of the tree `id` of this birth, added if it is not there.
    fn number_of(&self, trees: &mut Vec<Arc<TreeState<M>>>, id: TreeId, birth: u64) -> Result<usize> {
        if let Some(number) = trees.iter().position(|tree| tree.birth == birth) {
            return Ok(number);
        }
        let found = self.trees.by_id(id).filter(|found| found.birth == birth);
        trees.push(found.ok_or(Error::TreeDropped)?);
        Ok(trees.len() - 1)
    }

    /// Gets the slots that the items may need, so that an attempt rarely has to be given up.
    fn reserve(&self, taken: &mut Taken<'_>, items: &[Item<'_>]) -> Result<()> {
        let mut wanted = [0_usize; crate::heap::CLASSES];
        for item in items {
            if let Some(class) = class_of(item.bytes()) {
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
        order: &[(u64, u32)],
        locks: &[usize],
    ) -> Result<Option<Missing>> {
        let _active = self.activate(taken.seen);
        let _pin = self.env.pin();
        let _held = self.stripes.lock_all(locks);
        if trees.iter().any(|tree| tree.dropped.load(Ordering::SeqCst)) {
            return Err(Error::TreeDropped);
        }
        let mut ready = Ready::default();
        let prepared = self.prepare(&mut taken.session, items, order, locks, &mut ready);
        if !matches!(prepared, Ok(None)) {
            self.give_up(&mut taken.session, items, &ready)?;
            return prepared;
        }
        if ready.spots.is_empty() {
            return Ok(None);
        }
        let list = self.list_buffer(&mut taken.session, ready.spots.len());
        let sequence = match list.and_then(|at| Ok((at, self.sequence()?))) {
            Ok((list, sequence)) => {
                self.write_items(&mut taken.session, items, &ready, list, sequence);
                sequence
            }
            Err(error) => {
                self.give_up(&mut taken.session, items, &ready)?;
                return Err(error);
            }
        };
        self.poison(self.media().fence())?;
        taken.session.fenced(self.media(), taken.seen, sequence, || self.env.epochs.advance());
        self.publish_all(&mut taken.session, trees, items, &mut ready, sequence);
        trees.iter().try_for_each(|tree| self.order_settle(&taken.session, tree)).map(|()| None)
    }

    /// Lets everybody see a durable batch, and tells the ordered indexes of its new keys.
    fn publish_all(
        &self,
        session: &mut Session,
        trees: &[Arc<TreeState<M>>],
        items: &[Item<'_>],
        ready: &mut Ready,
        sequence: u64,
    ) {
        let mut gained = vec![0; trees.len()];
        for Spot { item, place, found } in &ready.spots {
            let (item, record) = (&items[*item as usize], &mut ready.records[*item as usize]);
            let Record { at, flags } = *record;
            let (key, place, found, bytes) = (&item.key, *place, *found, item.bytes());
            match self.publish(session, &Change { key, place, found, at, bytes, sequence, flags }) {
                Became::New => {
                    gained[item.tree] += 1;
                    continue;
                }
                Became::Gone => gained[item.tree] -= 1,
                Became::Other => {}
            }
            // What is left with flags is new.
            record.flags = 0;
        }
        for (number, tree) in trees.iter().enumerate() {
            tree.gained.fetch_add(gained[number], Ordering::Relaxed);
            let new = items.iter().zip(&ready.records);
            let new = new.filter(|(item, record)| record.flags != 0 && item.tree == number);
            self.order_insert_all(
                session,
                tree,
                new.map(|(item, record)| (item.key.bytes, record.at)),
                sequence,
            );
        }
    }

    /// Gets everything that the items need.
    fn prepare(
        &self,
        session: &mut Session,
        items: &[Item<'_>],
        order: &[(u64, u32)],
        locks: &[usize],
        ready: &mut Ready,
    ) -> Result<Option<Missing>> {
        let media = self.media();
        let mut room = Vec::new();
        ready.spots.reserve(order.len());
        ready.records.resize(items.len(), Record::default());
        let mut free = Vec::with_capacity(order.len());
        let mut number = 0;
        while let Some((hash, item)) = order.get(number) {
            while free.len() < order.len().min(number + AHEAD) {
                if let Some((ahead, _)) = order.get(free.len() + 3 * AHEAD) {
                    self.index.prefetch(media, *ahead);
                }
                free.push(self.index.free_at_once(media, order[free.len()].0));
            }
            let Item { key, value, .. } = &items[*item as usize];
            let look = match free[number] {
                Some(free) => Look::Free(free),
                None => self.index.look(media, key)?,
            };
            number += 1;
            let found = match look {
                Look::Found(found) => Some(found),
                Look::Free(_) | Look::Full(_) => None,
            };
            let live = found.as_ref().filter(|found| !found.head.is(TOMBSTONE));
            if value.is_none() && live.is_none() {
                continue;
            }
            match self.place(key, look)? {
                Ok(place) => {
                    ready.records[*item as usize].flags = BATCH | flags_of(live, value.is_some());
                    ready.spots.push(Spot { item: *item, place, found });
                }
                Err(full) if self.index.try_split(&self.env, &self.stripes, locks, (*hash, full))? => {
                    // What was found in that segment lies elsewhere now.
                    let rule = mutation::is(Mutation::KeepSpots);
                    let first = if rule { *hash } else { full.first(*hash) };
                    number = order.partition_point(|(other, _)| *other < first);
                    free.truncate(number);
                    let is_gone = |spot: &mut Spot| items[spot.item as usize].key.hash >= first;
                    while let Some(spot) = ready.spots.pop_if(is_gone) {
                        ready.records[spot.item as usize] = Record::default();
                    }
                }
                // Every segment without room is found in one go.
                Err(full) => room.push((*hash, full)),
            }
        }
        if !room.is_empty() {
            return Ok(Some(Missing::Room(room)));
        }
        for (item, record) in items.iter().zip(&mut ready.records).filter(|(_, record)| record.flags != 0) {
            let Some(at) = self.slot(session, item.bytes())? else {
                return Ok(Some(Missing::Slots(class_of(item.bytes()).unwrap_or(0))));
            };
            record.at = at;
        }
        Ok(None)
    }

    /// Gives back what the items got.
    fn give_up(&self, session: &mut Session, items: &[Item<'_>], ready: &Ready) -> Result<()> {
        for spot in ready.spots.iter().filter(|spot| spot.found.is_none()) {
            self.index.clear(self.media(), spot.place);
        }
        let taken = items.iter().zip(&ready.records).filter(|(_, record)| record.at != 0);
        taken.rev().try_for_each(|(item, record)| self.put_slot_back(session, record.at, item.bytes()))
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
        ready: &Ready,
        list: u64,
        sequence: u64,
    ) {
        let media = self.media();
        // In the order in which entries were taken: a replay that takes them in another finds keys behind lines that are not full yet.
        let places: Vec<_> = ready.spots.iter().map(|spot| ready.records[spot.item as usize].at).collect();
        let (mut buf, mut from) = (std::mem::take(&mut session.buf), 0);
        buf.clear();
        for (item, record) in items.iter().zip(&ready.records).filter(|(_, record)| record.flags != 0) {
            let Item { key, value, .. } = item;
            let value = value.unwrap_or_default();
            let head = Head::new(sequence, key, value.len(), record.flags);
            let head = head.sealed(self.salt, record.at, key.hash, value);
            let is_long = value.len() > TOGETHER;
            if is_long || record.at != from + buf.len() as u64 || buf.len() >= TOGETHER {
                write_run(media, from, &mut buf);
                from = record.at;
            }
            if is_long {
                record::write(media, record.at, &head, key, value, &mut buf);
                buf.clear();
            } else {
                head.append(key, &mut buf);
                buf.extend_from_slice(value);
                buf.resize(buf.len().next_multiple_of(8), 0);
            }
        }
        write_run(media, from, &mut buf);
        session.buf = buf;
        media.write_through(list, &list_bytes(self.salt, list, sequence, &places));
        session.ring.write(media, session.position, Note { sequence, at: list, list: true });
        session.position += 1;
    }
}

/// Writes records that lie side by side from `at` on, and empties `buf`.
fn write_run<M: Media>(media: &M, at: u64, buf: &mut Vec<u8>) {
    if !buf.is_empty() {
        media.write_through(at, buf);
        buf.clear();
    }
}

/// The items in the order of their keys' hashes, with these; of several changes to one key only the last.
fn in_order(items: &[Item<'_>]) -> Vec<(u64, u32)> {
    let mut order: Vec<_> = (0..).zip(items).map(|(number, item)| (item.key.hash, number)).collect();
    order.sort_unstable();
    let is_same = |a: u32, b: u32| {
        let (a, b) = (&items[a as usize], &items[b as usize]);
        a.key.bytes == b.key.bytes && a.tree == b.tree
    };
    for i in 0..order.len() {
        let (hash, number) = order[i];
        let mut later = order[i + 1..].iter().take_while(|later| later.0 == hash);
        if later.any(|later| is_same(number, later.1)) {
            order[i].1 = u32::MAX;
        }
    }
    order.retain(|(_, number)| *number != u32::MAX);
    order
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
