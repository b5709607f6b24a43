//! How does a pool begin and grow?

use crate::args::{Grow, Mkfs};
use crate::failure::{Context, Failure, Result};
use crate::names::{JsonName, shown};
use crate::output::{Output, Verdict};
use crate::pool::{Opener, close};
use crate::size::human;
use daxstore::Store;
use daxstore::layout::LABEL_BYTES;
use serde::Serialize;

#[derive(Serialize)]
struct Made {
    pool: JsonName,
    size: u64,
    uuid: String,
    label: String,
    backend: String,
    durability: String,
}

/// `mkfs`.
pub fn mkfs(opener: Opener, args: &Mkfs, output: &mut Output) -> Result<Verdict> {
    let what = || format!("make {}", shown(&args.pool));
    if args.label.len() > LABEL_BYTES {
        let cause = format!("the label has {} bytes; a label has at most {LABEL_BYTES}", args.label.len());
        return Err(Failure::new(what(), cause, "choose a shorter label"));
    }
    let options = opener.options().label(&args.label).force(args.force);
    let store = Store::create(&args.pool, args.size, &options).context(what)?;
    let info = store.info().context(what)?;
    let made = Made {
        pool: JsonName::new(&args.pool),
        size: info.geometry.size,
        uuid: info.uuid.to_string(),
        label: info.label.clone(),
        backend: String::from(info.region.backend),
        durability: info.region.durability.to_string(),
    };
    close(store, &args.pool)?;
    output.line(format_args!(
        "{}: a pool of {}, {} ({})",
        shown(&args.pool),
        human(made.size),
        made.backend,
        made.durability
    ))?;
    output.document(&made)?;
    Ok(Verdict::Good)
}

#[derive(Serialize)]
struct Grown {
    pool: JsonName,
    size_before: u64,
    size: u64,
}

/// `grow`.
pub fn grow(opener: Opener, args: &Grow, output: &mut Output) -> Result<Verdict> {
    let what = || format!("grow {}", shown(&args.pool));
    let store = opener.write(&args.pool)?;
    let size_before = store.info().context(what)?.geometry.size;
    store.grow(args.size).context(what)?;
    let size = store.info().context(what)?.geometry.size;
    close(store, &args.pool)?;
    output.line(format_args!("{}: {} before, {} now", shown(&args.pool), human(size_before), human(size)))?;
    output.document(&Grown { pool: JsonName::new(&args.pool), size_before, size })?;
    Ok(Verdict::Good)
}
