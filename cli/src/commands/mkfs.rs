//! How does a pool begin and grow?
//!
//! Both take the same time for any size, so neither asks for the report of `info`, which looks at every group.

use crate::args::{Grow, Mkfs};
use crate::failure::{Context, Result};
use crate::names::{JsonName, shown};
use crate::output::{Output, Verdict};
use crate::pool::{Opener, close};
use crate::size::human;
use daxstore::Store;
use daxstore::units::CHUNK_BYTES;
use serde::Serialize;

#[derive(Serialize)]
struct Made<'a> {
    pool: JsonName,
    size: u64,
    label: &'a str,
}

/// `mkfs`.
pub fn mkfs(opener: Opener, args: &Mkfs, output: &mut Output) -> Result<Verdict> {
    let level = args.durability.named().unwrap_or_default();
    let options = opener.options().label(&args.label).force(args.force).durability(level);
    let store = Store::create(&args.pool, args.size, &options);
    close(store.context(|| format!("make {}", shown(&args.pool)))?, &args.pool)?;
    let size = args.size - args.size % CHUNK_BYTES;
    output.line(format_args!("{}: an empty pool of {}", shown(&args.pool), human(size)))?;
    output.document(&Made { pool: JsonName::new(&args.pool), size, label: &args.label })?;
    Ok(Verdict::Good)
}

#[derive(Serialize)]
struct Grown {
    pool: JsonName,
    size: u64,
}

/// `grow`.
pub fn grow(opener: Opener, args: &Grow, output: &mut Output) -> Result<Verdict> {
    let store = opener.write(&args.pool)?;
    store.grow(args.size).context(|| format!("grow {}", shown(&args.pool)))?;
    close(store, &args.pool)?;
    let size = args.size - args.size % CHUNK_BYTES;
    output.line(format_args!("{}: now {}", shown(&args.pool), human(size)))?;
    output.document(&Grown { pool: JsonName::new(&args.pool), size })?;
    Ok(Verdict::Good)
}
