//! Is everything there that was acknowledged before the power was cut?
//!
//! Each boot opens the pool, checks it, finds for each writer after how many of its operations ([`Model`]) its files are
//! in the state that they are in, tells the host, and goes on from there. The host compares with what was acknowledged.
//! No boot knows anything but the seed.

use crate::Result;
use crate::model::{File, HEAD, Model, Op, Piece};
use daxstore::{Error, Follow, OpenOptions, Store, StoreOptions, XattrMode};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

/// Threads that write, each in a directory of its own.
const WRITERS: usize = 2;
/// The attribute that [`Op::Mark`] sets.
const MARK: &str = "user.mark";
/// How many operations that leave no number behind may follow one another.
const SILENT: u64 = 64;

/// Opens the pool at `pool`, tells what is in it, and writes until the power is cut.
pub fn run(pool: &Path, size: &str, seed: &str, assume: bool) -> Result<()> {
    let (size, seed) = (size.parse::<u64>()? << 20, seed.parse()?);
    let options = StoreOptions::new().assume_persistent(assume);
    let store = open(pool, size, &options)?;
    println!("{} {:?}", store.info()?.region.backend, store.recovery());
    let faults = store.check()?.faults;
    if let Some(fault) = faults.first() {
        return Err(format!("{} faults, the first: {fault}", faults.len()).into());
    }
    let mut models = Vec::new();
    for writer in 0..WRITERS {
        models.push(find(&store, seed, writer)?);
    }
    println!("@@ writing");
    std::thread::scope(|scope| {
        let writers: Vec<_> = models
            .into_iter()
            .enumerate()
            .map(|(writer, model)| {
                let store = &store;
                scope.spawn(move || write(store, writer, model))
            })
            .collect();
        writers
            .into_iter()
            .try_for_each(|writer| writer.join().unwrap_or_else(|_| Err("a writer panicked".into())))
    })
}

fn open(pool: &Path, size: u64, options: &StoreOptions) -> Result<Store> {
    let is_missing = !pool.exists();
    let opened = if is_missing { Err(Error::NotAPool) } else { Store::open(pool, options) };
    let store = match opened {
        // Nothing was acknowledged in it, or else the host misses it.
        Err(Error::NotAPool) => Store::create(pool, size, &options.clone().force(true))?,
        opened => opened?,
    };
    for writer in 0..WRITERS {
        store.create_dir_all(directory(writer), 0o755)?;
    }
    Ok(store)
}

fn directory(writer: usize) -> String {
    format!("/w{writer}")
}

fn path(writer: usize, name: u64) -> String {
    format!("/w{writer}/{name}")
}

/// Finds the state that a writer's files are in: the number of operations that led to it, the last if there are several.
fn find(store: &Store, seed: u64, writer: usize) -> Result<Model> {
    let mut model = Model::new(seed, writer);
    let files = observe(store, writer, &model)?;
    let numbers = files.values().flat_map(|file| file.pieces.iter().map(|piece| piece.by).chain(file.mark));
    let last = numbers.max().unwrap_or(0);
    let mut found = None;
    loop {
        if model.count >= last && model.files == files {
            println!("@@ found {writer} {} {:016x};", model.count, model.hash());
            found = Some(model.clone());
        }
        if model.count > last + SILENT {
            return found.ok_or_else(|| {
                format!("writer {writer}: its files are in no state that its operations lead to: {files:?}")
                    .into()
            });
        }
        model.apply(model.next());
    }
}

/// The files of a writer, every byte of them compared with what was written.
fn observe(store: &Store, writer: usize, model: &Model) -> Result<BTreeMap<u64, File>> {
    let mut files = BTreeMap::new();
    for entry in store.open_dir(directory(writer))?.read_dir() {
        let name: u64 = entry?.name.to_string_lossy().parse()?;
        let path = path(writer, name);
        let content = store.read(&path)?;
        let mark = match store.open_node(&path, Follow::No)?.get_xattr(MARK) {
            Ok(value) => Some(u64::from_le_bytes(value.try_into().map_err(|_| "a mark of another length")?)),
            Err(Error::NoAttribute) => None,
            Err(error) => return Err(error.into()),
        };
        let pieces =
            pieces(&content, model).ok_or_else(|| format!("{path}: other bytes than were written"))?;
        files.insert(name, File { pieces, mark });
    }
    Ok(files)
}

fn pieces(mut content: &[u8], model: &Model) -> Option<Vec<Piece>> {
    let mut pieces = Vec::new();
    while !content.is_empty() {
        let number = |at: usize| content.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes);
        let piece =
            Piece { by: number(0)?, len: usize::try_from(number(8)?).ok().filter(|len| *len >= HEAD)? };
        let (this, rest) = content.split_at_checked(piece.len)?;
        if this != model.content(piece) {
            return None;
        }
        pieces.push(piece);
        content = rest;
    }
    Some(pieces)
}

/// Does one operation after the other, and acknowledges each when it returned.
fn write(store: &Store, writer: usize, mut model: Model) -> Result<()> {
    loop {
        let op = model.next();
        perform(store, writer, &model, op).map_err(|error| format!("writer {writer}: {op:?}: {error}"))?;
        model.apply(op);
        let line = format!("@@ ack {writer} {} {:016x};\n", model.count, model.hash());
        std::io::stdout().lock().write_all(line.as_bytes())?;
    }
}

fn perform(store: &Store, writer: usize, model: &Model, op: Op) -> daxstore::Result<()> {
    let path = |name| path(writer, name);
    let writable = OpenOptions::new().read(true).write(true);
    match op {
        Op::Create(name, piece) => {
            let file = store.open_unnamed(&writable)?;
            file.append(&model.content(piece))?;
            store.link_file(&file, path(name))
        }
        Op::Append(name, piece) => store.open(path(name), &writable)?.append(&model.content(piece)).map(drop),
        Op::Rename(from, to) => store.rename(path(from), path(to)),
        Op::Remove(name) => store.remove_file(path(name)),
        Op::Shorten(name, len) => store.open(path(name), &writable)?.set_len(len),
        Op::Mark(name, by) => {
            store.open_node(path(name), Follow::No)?.set_xattr(MARK, &by.to_le_bytes(), XattrMode::Either)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A store after `count` operations of writer 0.
    fn store(count: u64) -> (tempfile::TempDir, Store, Model) {
        let dir = tempfile::tempdir().unwrap();
        let store =
            open(&dir.path().join("pool"), 32 << 20, &StoreOptions::new().assume_persistent(true)).unwrap();
        let mut model = Model::new(3, 0);
        while model.count < count {
            let op = model.next();
            perform(&store, 0, &model, op).unwrap();
            model.apply(op);
        }
        (dir, store, model)
    }

    #[test]
    fn the_number_of_operations_is_found_again() {
        for count in [0, 1, 2, 57, 300] {
            let (_dir, store, model) = store(count);
            let found = find(&store, 3, 0).unwrap();
            assert_eq!(found.files, model.files);
            assert!(found.count >= count && found.count <= count + SILENT, "{count}: {}", found.count);
        }
    }

    #[test]
    fn a_lost_or_torn_operation_is_found() {
        let (_dir, store, model) = store(300);
        let (&name, file) = model.files.iter().max_by_key(|(_, file)| file.len()).unwrap();
        let writable = OpenOptions::new().read(true).write(true);
        let file_in_store = store.open(path(0, name), &writable).unwrap();
        file_in_store.write_all_at(&[!0], file.len() - 1).unwrap();
        assert!(find(&store, 3, 0).unwrap_err().to_string().contains("other bytes"));
        let (_dir, store, model) = self::store(300);
        let (&name, _) = model.files.iter().find(|(_, file)| file.pieces.len() > 2).unwrap();
        store
            .open(path(0, name), &writable)
            .unwrap()
            .set_len(model.files[&name].pieces[0].len as u64)
            .unwrap();
        assert!(find(&store, 3, 0).unwrap_err().to_string().contains("no state"));
    }
}
