//! How do names lead to files?
//!
//! Directories, lookup, links and renames. Every change is one record; locks are taken as
//! `crate::inode::InodeCore` orders them.

mod create;
pub mod entry;
mod link;
mod remove;
mod rename;
pub mod walk;

pub use create::{Made, New, create, create_or_find, create_snapshot, create_unnamed};
pub use link::{link, target};
pub use remove::{What, remove};
pub use rename::{RenameMode, rename};
pub use walk::{Follow, Last, lookup, resolve, root, to_last, to_last_followed};

use crate::error::{Damage, Error, Structure};
use crate::units::Ino;

/// Damage: the directory `ino` is its own ancestor.
pub(crate) fn loops(ino: Ino) -> Error {
    Damage::new(Structure::Entry, ino.offset(), "directory below itself", 0, ino.0).into()
}
