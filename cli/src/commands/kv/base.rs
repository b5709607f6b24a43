//! Which database does a command work on, and how is it opened?
//!
//! Invariant: a command that changes nothing opens pool and database read-only; only one that was not closed cleanly is
//! recovered first.

use crate::args::kv::Target;
use crate::failure::{Failure, Result};
use crate::names::shown;
use crate::pool::{Opener, close};
use daxstore::Store;
use daxstore_kv::{Db, Error, Options, Tree};
use std::path::Path;

/// An open database in its open pool.
pub struct Base<'t> {
    /// The pool.
    pub store: Store,
    /// The database.
    pub db: Db,
    target: &'t Target,
    create: bool,
}

impl<'t> Base<'t> {
    /// Opens `target` for looking.
    pub fn read(opener: Opener, target: &'t Target) -> Result<Self> {
        let store = opener.read(&target.pool)?;
        match Db::open(&store, &target.path, Options::new().read_only(true)) {
            Err(Error::NeedsRecovery) => drop(store),
            opened => {
                return Ok(Self {
                    db: opened.map_err(|e| refused(target, &e))?,
                    store,
                    target,
                    create: false,
                });
            }
        }
        Self::write(opener, target, false)
    }

    /// Opens `target` for changes, and makes the database where that is asked for.
    pub fn write(opener: Opener, target: &'t Target, create: bool) -> Result<Self> {
        Self::with(opener, target, create, Options::new().create(create))
    }

    /// Opens `target`, and builds the order of damaged trees anew.
    pub fn repaired(opener: Opener, target: &'t Target) -> Result<Self> {
        Self::with(opener, target, false, Options::new().repair(true))
    }

    fn with(opener: Opener, target: &'t Target, create: bool, options: Options) -> Result<Self> {
        let store = opener.write(&target.pool)?;
        let opened = Db::open(&store, &target.path, options);
        Ok(Self { db: opened.map_err(|error| refused(target, &error))?, store, target, create })
    }

    /// The tree by the name, or the one without. Where databases are made, trees are.
    pub fn tree(&self, name: Option<&str>) -> Result<Tree> {
        let Some(name) = name else { return Ok((*self.db).clone()) };
        let what = || format!("open the tree {}", shown(name));
        if !self.create && !self.db.trees().kv(what)?.iter().any(|known| known == name) {
            return Err(Failure::new(what(), "there is no such tree", "`put` and `load` make it"));
        }
        self.db.tree(name).kv(what)
    }

    /// Closes database and pool: what closing can not do is the command's failure.
    pub fn close(self) -> Result<()> {
        let Self { store, db, target, .. } = self;
        db.close().kv(|| format!("close {}", shown(&target.path)))?;
        close(store, &target.pool)
    }
}

fn refused(target: &Target, error: &Error) -> Failure {
    Failure::kv(format!("open {}", both(&target.pool, &target.path)), error)
}

/// A pool and a path in it, as one text.
pub fn both(pool: &Path, path: &Path) -> String {
    format!("{}:{}", shown(pool), shown(path))
}

/// Puts what was being done in front of an error of a database.
pub trait KvContext<T> {
    /// `what` is asked for only in case of an error.
    fn kv(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T> KvContext<T> for daxstore_kv::Result<T> {
    fn kv(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| Failure::kv(what(), &error))
    }
}
