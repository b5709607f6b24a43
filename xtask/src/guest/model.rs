//! In which state are a writer's files after N operations?
//!
//! An operation is a function of the seed, the writer, its number and the state before it, so that the state after any
//! number of them can be computed again by whoever knows the seed. Each is one call of the store, and so atomic. A
//! file's content consists of pieces that name the operation which wrote them.

use std::collections::BTreeMap;
use xxhash_rust::xxh3::xxh3_64;

/// Names of a writer.
const NAMES: u64 = 16;
/// Files of a writer at least, after its first operations: a state with none, or without a recent number, would come again
/// and again, and tell nothing of how many operations led to it.
const MIN_FILES: usize = 5;
/// Pieces of a file, at most.
const MAX_PIECES: usize = 8;
/// Bytes of a piece's head: the number of its operation and its length.
pub const HEAD: usize = 16;

/// Bytes that one operation wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The operation's number.
    pub by: u64,
    /// Bytes, with the head.
    pub len: usize,
}

/// A file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct File {
    /// Its content.
    pub pieces: Vec<Piece>,
    /// The operation that set its attribute last.
    pub mark: Option<u64>,
}

impl File {
    /// Bytes of its content.
    pub fn len(&self) -> u64 {
        self.pieces.iter().map(|piece| piece.len as u64).sum()
    }
}

/// One call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// A new file appears with one piece.
    Create(u64, Piece),
    /// A piece is appended.
    Append(u64, Piece),
    /// A file is renamed, over another if there is one.
    Rename(u64, u64),
    /// A file is removed.
    Remove(u64),
    /// A file loses its last piece: to this length.
    Shorten(u64, u64),
    /// The attribute is set.
    Mark(u64, u64),
}

/// The state of a writer's files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    seed: u64,
    /// Operations done.
    pub count: u64,
    /// The files by name.
    pub files: BTreeMap<u64, File>,
}

impl Model {
    /// The state before the first operation.
    pub fn new(seed: u64, writer: usize) -> Self {
        Self { seed: mix(seed ^ mix(writer as u64)), count: 0, files: BTreeMap::new() }
    }

    /// The operation that comes next.
    pub fn next(&self) -> Op {
        let number = self.count + 1;
        let mut random = mix(self.seed ^ mix(number));
        let mut draw = |below: u64| {
            random = mix(random);
            random % below
        };
        let dice = draw(100);
        let piece =
            Piece { by: number, len: HEAD + draw(if dice % 8 == 0 { 40_000 } else { 5_000 }) as usize };
        let (name, other) = (draw(NAMES), draw(NAMES));
        let Some(&there) = self.files.range(name..).chain(&self.files).map(|(name, _)| name).next() else {
            return Op::Create(name, piece);
        };
        let file = &self.files[&there];
        if self.files.len() < MIN_FILES {
            return if self.files.contains_key(&name) {
                Op::Mark(there, number)
            } else {
                Op::Create(name, piece)
            };
        }
        match dice {
            0..30 if !self.files.contains_key(&name) => Op::Create(name, piece),
            30..38 if file.pieces.len() > 1 => {
                Op::Shorten(there, file.len() - file.pieces.last().map_or(0, |piece| piece.len as u64))
            }
            38..50 if there != other => Op::Rename(there, other),
            50..60 => Op::Mark(there, number),
            60..100 if file.pieces.len() < MAX_PIECES => Op::Append(there, piece),
            _ => Op::Remove(there),
        }
    }

    /// The state after `op`, the next one.
    pub fn apply(&mut self, op: Op) {
        self.count += 1;
        match op {
            Op::Create(name, piece) => {
                self.files.insert(name, File { pieces: vec![piece], mark: None });
            }
            Op::Rename(from, to) => {
                if let Some(file) = self.files.remove(&from) {
                    self.files.insert(to, file);
                }
            }
            Op::Remove(name) => drop(self.files.remove(&name)),
            Op::Append(name, _) | Op::Shorten(name, _) | Op::Mark(name, _) => {
                let Some(file) = self.files.get_mut(&name) else { return };
                match op {
                    Op::Append(_, piece) => file.pieces.push(piece),
                    Op::Mark(_, by) => file.mark = Some(by),
                    _ => drop(file.pieces.pop()),
                }
            }
        }
    }

    /// The content of a piece.
    pub fn content(&self, piece: Piece) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(piece.len + 8);
        bytes.extend(piece.by.to_le_bytes());
        bytes.extend((piece.len as u64).to_le_bytes());
        let mut random = self.seed ^ mix(piece.by);
        while bytes.len() < piece.len {
            random = mix(random);
            bytes.extend(random.to_le_bytes());
        }
        bytes.truncate(piece.len);
        bytes
    }

    /// The state, hashed.
    pub fn hash(&self) -> u64 {
        let mut bytes = Vec::new();
        for (name, file) in &self.files {
            bytes.extend(
                [*name, file.mark.unwrap_or(0), file.pieces.len() as u64].map(u64::to_le_bytes).concat(),
            );
            for piece in &file.pieces {
                bytes.extend([piece.by, piece.len as u64].map(u64::to_le_bytes).concat());
            }
        }
        xxh3_64(&bytes)
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014).
fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_a_function_of_the_seed_and_of_every_kind() {
        let (mut one, mut other) = (Model::new(7, 0), Model::new(7, 0));
        let mut kinds = [0; 6];
        for _ in 0..2000 {
            let op = one.next();
            assert_eq!(op, other.next());
            one.apply(op);
            other.apply(op);
            kinds[match op {
                Op::Create(..) => 0,
                Op::Append(..) => 1,
                Op::Rename(..) => 2,
                Op::Remove(..) => 3,
                Op::Shorten(..) => 4,
                Op::Mark(..) => 5,
            }] += 1;
        }
        assert!(kinds.iter().all(|count| *count > 50), "{kinds:?}");
        assert!(one.files.len() > 3, "{}", one.files.len());
        assert_eq!(one.hash(), other.hash());
        assert_ne!(one.next(), Model::new(8, 0).next());
    }

    #[test]
    fn every_state_holds_a_recent_number() {
        for (seed, writer) in [(1, 0), (1, 1), (7, 0), (7, 1)] {
            let mut model = Model::new(seed, writer);
            while model.count < 20_000 {
                model.apply(model.next());
                let numbers = |file: &File| file.pieces.iter().map(|piece| piece.by).chain(file.mark).max();
                let last = model.files.values().filter_map(numbers).max().unwrap_or(0);
                assert!(model.count - last < 32, "{} {last}", model.count);
            }
            assert!(model.files.len() >= MIN_FILES - 1);
        }
    }

    #[test]
    fn a_piece_names_its_operation_and_length() {
        let model = Model::new(1, 1);
        let content = model.content(Piece { by: 9, len: 21 });
        assert_eq!((content.len(), &content[..8]), (21, &9_u64.to_le_bytes()[..]));
        assert_ne!(content, Model::new(1, 0).content(Piece { by: 9, len: 21 }));
    }
}
