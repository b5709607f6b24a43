//! Does a database do what the model does, step by step?
//!
//! [`Pair`] has both, over any memory. What is atomic changes the model at once; of what is many changes each is an effect of its own, and
//! a power cut between any two events of the trace leaves what was before, or what was after, the change under way.

use super::memory::Host;
use super::steps::{Effect, End, Map, State, Step, TREES, Val, key};
use daxstore_kv::media::Media;
use daxstore_kv::{Batch, Db, Error, Scan, Snapshot, Tree};
use std::collections::BTreeMap;
use std::ops::Bound;

/// A tree and its name, if the model has it.
type Named<M> = Option<(&'static str, Tree<M>)>;

/// A snapshot, the trees that it is looked at through, and what it sees.
type Moment<M> = (Snapshot<M>, BTreeMap<&'static str, Tree<M>>, State);

pub struct Pair<H: Host> {
    host: H,
    db: Option<Db<H::Media>>,
    /// As the database was opened, and what was done since.
    base: State,
    since: Vec<Effect>,
    state: State,
    snapshots: Vec<Moment<H::Media>>,
    /// Changes that there was no space for.
    pub refused: u64,
}

fn said<T>(what: &str, done: Result<T, Error>) -> Result<T, String> {
    done.map_err(|error| format!("{what}: {error}"))
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, found: T, expected: T) -> Result<(), String> {
    if found == expected { Ok(()) } else { Err(format!("{what}: found {found:?}, expected {expected:?}")) }
}

fn bound(end: &End) -> Bound<Vec<u8>> {
    match end {
        None => Bound::Unbounded,
        Some((n, true)) => Bound::Excluded(key(*n)),
        Some((n, false)) => Bound::Included(key(*n)),
    }
}

fn slice(bound: &Bound<Vec<u8>>) -> Bound<&[u8]> {
    bound.as_ref().map(|key| &**key)
}

/// The part of `map` in a range; nothing where its ends are the wrong way round.
fn part(map: &Map, low: &Bound<Vec<u8>>, high: &Bound<Vec<u8>>) -> Vec<(Vec<u8>, Val)> {
    let is_above = |key: &Vec<u8>| match low {
        Bound::Unbounded => true,
        Bound::Included(low) => key >= low,
        Bound::Excluded(low) => key > low,
    };
    let is_below = |key: &Vec<u8>| match high {
        Bound::Unbounded => true,
        Bound::Included(high) => key <= high,
        Bound::Excluded(high) => key < high,
    };
    map.iter()
        .filter(|(key, _)| is_above(key) && is_below(key))
        .map(|(key, val)| (key.clone(), *val))
        .collect()
}

/// Whether these are the records, without a print of megabytes where they are not.
fn records(what: &str, found: &[(Vec<u8>, Vec<u8>)], expected: &[(Vec<u8>, Val)]) -> Result<(), String> {
    let name = |key: Option<&Vec<u8>>| key.map(|key| key[..key.len().min(20)].escape_ascii().to_string());
    for n in 0..found.len().max(expected.len()) {
        let (found, expected) = (found.get(n), expected.get(n));
        let is_same = match (found, expected) {
            (Some((key, value)), Some((wanted, val))) => key == wanted && *value == val.bytes(),
            _ => false,
        };
        if !is_same {
            let (key, wanted) = (name(found.map(|f| &f.0)), name(expected.map(|e| &e.0)));
            let len = found.map(|(_, value)| value.len());
            let val = expected.map(|(_, val)| val);
            return Err(format!(
                "{what}, record {n}: found {key:?} of {len:?} bytes, expected {wanted:?} {val:?}"
            ));
        }
    }
    Ok(())
}

impl<H: Host> Pair<H> {
    pub fn new(host: H) -> Result<Self, String> {
        let state: State = [("", Map::new())].into();
        let (base, since) = (state.clone(), Vec::new());
        let mut pair = Self { host, db: None, base, since, state, snapshots: Vec::new(), refused: 0 };
        pair.open()?;
        Ok(pair)
    }

    fn db(&self) -> &Db<H::Media> {
        self.db.as_ref().expect("an open database")
    }

    fn open(&mut self) -> Result<(), String> {
        self.db = Some(said("open", self.host.open())?);
        self.base = self.state.clone();
        self.since.clear();
        Ok(())
    }

    /// The tree with this number, if the model has it.
    fn tree(&self, number: u8) -> Result<Named<H::Media>, String> {
        let name = TREES[usize::from(number)];
        if !self.state.contains_key(name) {
            return Ok(None);
        }
        let tree = if name.is_empty() { (**self.db()).clone() } else { said("tree", self.db().tree(name))? };
        Ok(Some((name, tree)))
    }

    /// Makes a change, whose effect on the model is known. No space is an answer, and changes nothing.
    fn change<T>(
        &mut self,
        effect: Effect,
        change: impl FnOnce(&Db<H::Media>) -> Result<T, Error>,
    ) -> Result<Option<T>, String> {
        let number = self.since.len() as u64;
        self.host.begin(number);
        let done = change(self.db());
        self.host.end(number);
        let (effect, done) = match done {
            Ok(done) => (effect, Some(done)),
            Err(Error::NoSpace { .. }) => (Effect::Nothing, None),
            Err(error) => return Err(format!("a change: {error}")),
        };
        self.refused += u64::from(done.is_none());
        effect.apply(&mut self.state);
        self.since.push(effect);
        Ok(done)
    }

    fn put(
        &mut self,
        name: &'static str,
        tree: &Tree<H::Media>,
        key: Vec<u8>,
        new: Option<Val>,
    ) -> Result<(), String> {
        let had = self.state[name].contains_key(&key);
        let effect = Effect::Changes(vec![(name, key.clone(), new)]);
        let found = self.change(effect, |_| match new {
            Some(val) => tree.put(&key, &val.bytes()).map(|()| had),
            None => tree.delete(&key),
        })?;
        found.map_or(Ok(()), |found| same("whether there was a value", found, had))
    }

    fn batch(&mut self, to: u8, all: &[(u8, u16, Option<Val>)]) -> Result<(), String> {
        let Some((_, tree)) = self.tree(to)? else { return Ok(()) };
        let (mut batch, mut changes) = (Batch::new(), Vec::new());
        for (number, n, val) in all {
            let Some((name, other)) = self.tree(*number)? else { continue };
            match val {
                Some(val) if *number == to => batch.put(&key(*n), &val.bytes()),
                Some(val) => other.put_in(&mut batch, &key(*n), &val.bytes()),
                None if *number == to => batch.delete(&key(*n)),
                None => other.delete_in(&mut batch, &key(*n)),
            }
            changes.push((name, key(*n), *val));
        }
        self.change(Effect::Changes(changes), |_| tree.write(&batch)).map(drop)
    }

    /// Many keys of a tree, one by one or together.
    fn many(&mut self, number: u8, keys: (u16, u16), val: Option<Val>, batch: bool) -> Result<(), String> {
        let (first, count) = keys;
        let val = |n: u16| val.map(|val| Val { len: (val.len + usize::from(n) * 7) % 200, ..val });
        let all: Vec<_> = (0..count).map(|i| first.wrapping_add(i)).map(|n| (number, n, val(n))).collect();
        if batch {
            return self.batch(number, &all);
        }
        let Some((name, tree)) = self.tree(number)? else { return Ok(()) };
        all.into_iter().try_for_each(|(_, n, val)| self.put(name, &tree, key(n), val))
    }

    pub fn take(&mut self, step: &Step) -> Result<(), String> {
        match step {
            Step::Put(tree, n, val) => {
                let Some((name, tree)) = self.tree(*tree)? else { return Ok(()) };
                self.put(name, &tree, key(*n), Some(*val))
            }
            Step::Delete(tree, n) => {
                let Some((name, tree)) = self.tree(*tree)? else { return Ok(()) };
                self.put(name, &tree, key(*n), None)
            }
            Step::Update(tree, n, seed) => self.update(*tree, *n, *seed),
            Step::Swap { tree, key, right, new } => self.swap(*tree, *key, *right, *new),
            Step::Batch(to, all) => self.batch(*to, all),
            Step::Fill { tree, first, count, val, batch } => {
                self.many(*tree, (*first, *count), Some(*val), *batch)
            }
            Step::Empty { tree, first, count, batch } => self.many(*tree, (*first, *count), None, *batch),
            Step::Make(tree) => {
                let name = TREES[usize::from(*tree)];
                if self.state.contains_key(name) {
                    Ok(())
                } else {
                    self.change(Effect::Make(name), |db| db.tree(name)).map(drop)
                }
            }
            Step::Drop(tree) => {
                let name = TREES[usize::from(*tree)];
                if name.is_empty() {
                    return Ok(());
                }
                let had = self.state.contains_key(name);
                let found = self.change(Effect::Drop(name), |db| db.drop_tree(name))?;
                same("whether there was a tree", found, Some(had))
            }
            Step::Compact => self.change(Effect::Nothing, Db::compact).map(drop),
            Step::Close | Step::Die | Step::Cut(_) => self.end(step),
            _ => self.look(step),
        }
    }

    fn update(&mut self, number: u8, n: u16, seed: u8) -> Result<(), String> {
        let Some((name, tree)) = self.tree(number)? else { return Ok(()) };
        let key = key(n);
        let old = self.state[name].get(&key).copied();
        let new = Val::updated(old, seed);
        let effect = Effect::Changes(vec![(name, key.clone(), new)]);
        let mut seen = None;
        let found = self.change(effect, |_| {
            tree.update(&key, |old| {
                seen = Some(old.map(<[u8]>::to_vec));
                new.map(Val::bytes)
            })
        })?;
        let Some(found) = found else { return Ok(()) };
        same("whether an update found a value", found, old.is_some())?;
        if seen == Some(old.map(Val::bytes)) {
            Ok(())
        } else {
            Err("an update was given another value".to_owned())
        }
    }

    fn swap(&mut self, number: u8, n: u16, right: bool, new: Option<Val>) -> Result<(), String> {
        let Some((name, tree)) = self.tree(number)? else { return Ok(()) };
        let key = key(n);
        let old = self.state[name].get(&key).map(|val| val.bytes());
        let expected = match (right, &old) {
            (true, old) => old.clone(),
            (false, Some(_)) => None,
            (false, None) => Some(b"another".to_vec()),
        };
        let changes = if right { vec![(name, key.clone(), new)] } else { Vec::new() };
        let new = new.map(Val::bytes);
        let done = self.change(Effect::Changes(changes), |_| {
            tree.compare_and_swap(&key, expected.as_deref(), new.as_deref())
        })?;
        done.map_or(Ok(()), |done| same("whether it was swapped", done, right))
    }

    fn look(&mut self, step: &Step) -> Result<(), String> {
        match step {
            Step::Get(tree, n) => {
                let Some((name, tree)) = self.tree(*tree)? else { return Ok(()) };
                let expected = self.state[name].get(&key(*n));
                let found = said("get", tree.get(&key(*n)))?;
                same("contains", said("contains", tree.contains(&key(*n)))?, expected.is_some())?;
                if found == expected.map(|val| val.bytes()) {
                    Ok(())
                } else {
                    Err(format!("get of {n}: expected {expected:?}"))
                }
            }
            Step::Range(tree, low, high, ends) => self.range(*tree, low, high, *ends),
            Step::Prefix(tree, n, len) => {
                let Some((name, tree)) = self.tree(*tree)? else { return Ok(()) };
                let key = key(*n);
                let prefix = &key[..usize::from(*len).min(key.len())];
                let expected = self.state[name].iter().filter(|(key, _)| key.starts_with(prefix));
                let expected: Vec<_> = expected.map(|(key, val)| (key.clone(), *val)).collect();
                let found: Result<Vec<_>, _> = said("prefix", tree.prefix(prefix))?.collect();
                records("prefix", &said("prefix", found)?, &expected)?;
                let mut found = said(
                    "prefix",
                    said("prefix", tree.prefix(prefix))?.rev().collect::<Result<Vec<_>, _>>(),
                )?;
                found.reverse();
                records("prefix, downward", &found, &expected)
            }
            Step::Scan(tree, low, high) => {
                let Some((name, tree)) = self.tree(*tree)? else { return Ok(()) };
                let (low, high) = (bound(low), bound(high));
                scans(name, &part(&self.state[name], &low, &high), || tree.scan((slice(&low), slice(&high))))
            }
            Step::Ends(tree) => {
                let Some((name, tree)) = self.tree(*tree)? else { return Ok(()) };
                let map = &self.state[name];
                same("len", said("len", tree.len())?, map.len() as u64)?;
                same("is_empty", said("is_empty", tree.is_empty())?, map.is_empty())?;
                let pairs =
                    |pair: Option<(&Vec<u8>, &Val)>| pair.map(|(key, val)| (key.clone(), val.bytes()));
                let is_first = said("first", tree.first())? == pairs(map.first_key_value());
                let is_last = said("last", tree.last())? == pairs(map.last_key_value());
                same("first and last", (is_first, is_last), (true, true))
            }
            Step::Verify => self.compare(),
            _ => self.look_back(step),
        }
    }

    fn look_back(&mut self, step: &Step) -> Result<(), String> {
        match step {
            Step::Snapshot => {
                let trees = (0..TREES.len() as u8).map(|n| self.tree(n)).collect::<Result<Vec<_>, _>>()?;
                let moment =
                    (self.db().snapshot(), trees.into_iter().flatten().collect(), self.state.clone());
                if self.snapshots.len() < 3 {
                    self.snapshots.push(moment);
                }
                Ok(())
            }
            Step::CompareSnapshot(n) if !self.snapshots.is_empty() => {
                let (snapshot, trees, state) = &self.snapshots[usize::from(*n) % self.snapshots.len()];
                trees
                    .iter()
                    .try_for_each(|(name, tree)| compare_snapshot(name, &snapshot.of(tree), &state[name]))
            }
            Step::DropSnapshot(n) if !self.snapshots.is_empty() => {
                let n = usize::from(*n) % self.snapshots.len();
                drop(self.snapshots.swap_remove(n));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn range(&mut self, tree: u8, low: &End, high: &End, ends: u64) -> Result<(), String> {
        let Some((name, tree)) = self.tree(tree)? else { return Ok(()) };
        let (low, high) = (bound(low), bound(high));
        let mut range = said("range", tree.range((slice(&low), slice(&high))))?;
        let (mut front, mut back) = (Vec::new(), Vec::new());
        for n in 0.. {
            let from_front = ends >> (n % 64) & 1 == 0;
            let Some(record) = (if from_front { range.next() } else { range.next_back() }) else { break };
            let record = said("range", record)?;
            if from_front { front.push(record) } else { back.push(record) }
        }
        front.extend(back.into_iter().rev());
        records("range", &front, &part(&self.state[name], &low, &high))
    }

    /// Ends the database as the step says, and opens it again.
    fn end(&mut self, step: &Step) -> Result<(), String> {
        self.compare_snapshots()?;
        self.snapshots.clear();
        let db = self.db.take().expect("an open database");
        match step {
            Step::Close => said("close", db.close())?,
            Step::Cut(seed) => {
                if let Some((returned, in_flight)) = self.host.cut(*seed, db)? {
                    return self.cut(returned, in_flight);
                }
            }
            _ => self.host.die(db),
        }
        self.open()?;
        self.compare()
    }

    /// After a power cut: what is there is the state after the first `before` effects, or after one more.
    fn cut(&mut self, before: usize, in_flight: bool) -> Result<(), String> {
        let mut state = self.base.clone();
        self.since[..before].iter().for_each(|effect| effect.apply(&mut state));
        self.state = state.clone();
        let since = std::mem::take(&mut self.since);
        self.open()?;
        let first = match self.compare() {
            Err(first) if in_flight => first,
            compared => return compared,
        };
        since[before].apply(&mut state);
        self.state = state.clone();
        self.base = state;
        let what =
            |second| format!("after a power cut, neither {first}\n  nor {second}\n  of {:?}", since[before]);
        self.compare().map_err(what)
    }

    fn compare_snapshots(&mut self) -> Result<(), String> {
        (0..self.snapshots.len() as u8).try_for_each(|n| self.look(&Step::CompareSnapshot(n)))
    }

    /// Everything that can be seen.
    pub fn compare(&mut self) -> Result<(), String> {
        let mut names = said("trees", self.db().trees())?;
        names.sort();
        let mut expected: Vec<_> = self.state.keys().filter(|name| !name.is_empty()).collect();
        expected.sort();
        same(
            "trees",
            names.iter().map(String::as_str).collect::<Vec<_>>(),
            expected.into_iter().copied().collect(),
        )?;
        for number in 0..TREES.len() as u8 {
            let Some((name, tree)) = self.tree(number)? else { continue };
            let found = said("range", said("range", tree.range(..))?.collect::<Result<Vec<_>, _>>())?;
            records(name, &found, &part(&self.state[name], &Bound::Unbounded, &Bound::Unbounded))?;
            for (key, val) in &self.state[name] {
                if said("get", tree.get(key))?.as_ref() != Some(&val.bytes()) {
                    return Err(format!("{name}: get of {} is another value", key.escape_ascii()));
                }
            }
            self.look(&Step::Ends(number))?;
            scans(name, &part(&self.state[name], &Bound::Unbounded, &Bound::Unbounded), || tree.scan(..))?;
        }
        let report = said("verify", self.db().verify())?;
        same("faults", report.faults.iter().map(ToString::to_string).collect::<Vec<_>>(), Vec::new())?;
        let count = self.state.values().map(|map| map.len() as u64).sum();
        same("records", report.records, count)
    }

    /// Deletes everything: what space that leaves in use, in bytes.
    pub fn end_empty(mut self) -> Result<u64, String> {
        self.end(&Step::Close)?;
        for number in 0..TREES.len() as u8 {
            let Some((name, tree)) = self.tree(number)? else { continue };
            let keys: Vec<_> = self.state[name].keys().cloned().collect();
            keys.into_iter().try_for_each(|key| self.put(name, &tree, key, None))?;
        }
        said("compact", self.db().compact())?;
        self.compare()?;
        Ok(said("stats", self.db().stats())?.media_bytes)
    }
}

/// Scans three times: leaves that were scanned before are read from copies, and those that were scanned once are copied. A scan that is to end early
/// lends as many as it is to.
fn scans<'t, M: Media + 't>(
    name: &str,
    expected: &[(Vec<u8>, Val)],
    scan: impl Fn() -> Scan<'t, M>,
) -> Result<(), String> {
    for (round, most) in
        [("", usize::MAX), (", again", expected.len() / 2), (", for the third time", usize::MAX)]
    {
        let (mut scan, mut found) = (scan().limit(most), Vec::new());
        match round.is_empty() {
            true => {
                while let Some((key, value)) = said("scan", scan.next())? {
                    found.push((key.to_vec(), value.to_vec()));
                }
            }
            false => said(
                "scan",
                scan.for_each_while(|key, value| {
                    found.push((key.to_vec(), value.to_vec()));
                    true
                }),
            )?,
        }
        let expected = &expected[..most.min(expected.len())];
        records(&format!("scan of {name}{round}"), &found, expected)?;
    }
    Ok(())
}

fn compare_snapshot<M: Media>(name: &str, snapshot: &Snapshot<M>, map: &Map) -> Result<(), String> {
    let found = said("range of a snapshot", snapshot.range(..).collect::<Result<Vec<_>, _>>())?;
    let expected = part(map, &Bound::Unbounded, &Bound::Unbounded);
    records(&format!("{name} of a snapshot"), &found, &expected)?;
    let found = said("range of a snapshot", snapshot.range(..).rev().collect::<Result<Vec<_>, _>>())?;
    let found: Vec<_> = found.into_iter().rev().collect();
    records(&format!("{name} of a snapshot, downward"), &found, &expected)?;
    scans(&format!("{name} of a snapshot"), &expected, || snapshot.scan(..))?;
    same("len of a snapshot", said("len", snapshot.len())?, map.len() as u64)?;
    for (key, val) in map.iter().take(50) {
        if said("get", snapshot.get(key))?.as_ref() != Some(&val.bytes()) {
            return Err(format!("{name} of a snapshot: get of {} is another value", key.escape_ascii()));
        }
    }
    Ok(())
}
