//! Which level of durability do writes have, and how is it set?

use crate::args::{Durability as Args, Level};
use crate::failure::{Context, Result};
use crate::names::{JsonName, shown};
use crate::output::{Output, Verdict};
use crate::pool::{Opener, close};
use daxstore::{Durability, Follow, Store};
use serde::Serialize;
use std::path::Path;

#[derive(Serialize)]
struct Report {
    /// The file or directory; absent for the pool.
    #[serde(flatten)]
    path: Option<JsonName>,
    /// What it names itself; `null` where it is the pool's.
    named: Option<&'static str>,
    /// What its writes have.
    level: &'static str,
}

/// `durability`.
pub fn durability(opener: Opener, args: &Args, output: &mut Output) -> Result<Verdict> {
    let store = if args.set.is_some() { opener.write(&args.pool)? } else { opener.read(&args.pool)? };
    let what = || match &args.path {
        Some(path) => format!("level of durability of {}", shown(path)),
        None => format!("level of durability of {}", shown(&args.pool)),
    };
    let named = match &args.path {
        Some(path) => of_path(&store, path, args.set).context(what)?,
        None => Some(of_pool(&store, args.set).context(what)?),
    };
    let level = named.unwrap_or_else(|| store.durability());
    if args.set.is_some() {
        close(store, &args.pool)?;
    }
    let whose = if named.is_none() { " (the pool's)" } else { "" };
    output.line(format_args!("{level}{whose}"))?;
    let path = args.path.as_ref().map(JsonName::new);
    output.document(&Report { path, named: named.map(Durability::name), level: level.name() })?;
    Ok(Verdict::Good)
}

fn of_path(store: &Store, path: &Path, set: Option<Level>) -> daxstore::Result<Option<Durability>> {
    let node = store.open_node(path, Follow::Yes)?;
    if let Some(level) = set {
        node.set_durability(level.named())?;
    }
    Ok(node.named_durability())
}

fn of_pool(store: &Store, set: Option<Level>) -> daxstore::Result<Durability> {
    if let Some(level) = set {
        store.set_durability(level.named().unwrap_or_default())?;
    }
    Ok(store.durability())
}
