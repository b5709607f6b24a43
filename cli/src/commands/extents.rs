//! Where does a file lie?

use crate::args::OneFile;
use crate::failure::{Context, Result};
use crate::names::{JsonName, shown};
use crate::output::{Output, Verdict};
use crate::pool::Opener;
use daxstore::units::MAX_FILE_BYTES;
use daxstore::{File, FileExtent, FileRange, OpenOptions, State};
use serde::Serialize;

/// Offsets and lengths are bytes. `shared` says that other files may own some of the blocks too. `huge` says that a 2 MiB translation can serve the extent.
#[derive(Serialize)]
struct Extent {
    state: &'static str,
    offset: u64,
    len: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pool_offset: Option<u64>,
    shared: bool,
    huge: bool,
}

#[derive(Serialize)]
struct Extents {
    path: JsonName,
    size: u64,
    extents: Vec<Extent>,
}

impl Extent {
    fn new(extent: &FileExtent) -> Self {
        let state = match extent.state {
            State::Hole => "hole",
            State::Reserved => "reserved",
            State::Unwritten(_) => "unwritten",
            State::Mapped(_) if extent.shared => "shared",
            State::Mapped(_) => "mapped",
        };
        Self {
            state,
            offset: extent.range.offset,
            len: extent.range.len,
            pool_offset: extent.state.address().map(|at| at.0),
            shared: extent.shared,
            huge: extent.huge,
        }
    }
}

/// The extents of a file, those beyond its end too; holes end where the file does.
pub fn extents_of(file: &File) -> daxstore::Result<Vec<FileExtent>> {
    let (mut extents, size) = (file.extents(0, MAX_FILE_BYTES)?, file.len());
    if let Some(last) = extents.pop_if(|last| last.state == State::Hole)
        && last.range.offset < size
    {
        let range = FileRange { offset: last.range.offset, len: size - last.range.offset };
        extents.push(FileExtent { range, ..last });
    }
    Ok(extents)
}

/// `extents`.
pub fn extents(opener: Opener, args: &OneFile, output: &mut Output) -> Result<Verdict> {
    let store = opener.read(&args.pool)?;
    let what = || format!("read the extents of {}", shown(&args.path));
    let file = store.open(&args.path, &OpenOptions::new().read(true)).context(what)?;
    let size = file.metadata().size;
    let found = extents_of(&file).context(what)?;
    let extents: Vec<Extent> = found.iter().map(Extent::new).collect();
    output.line(format_args!(
        "{:<10} {:>16} {:>16} {:>16}  huge",
        "state", "offset", "length", "pool offset"
    ))?;
    for extent in &extents {
        let at = extent.pool_offset.map_or_else(|| String::from("-"), |at| format!("{at:#x}"));
        let huge = if extent.huge { "yes" } else { "no" };
        output.line(format_args!(
            "{:<10} {:>16} {:>16} {at:>16}  {huge}",
            extent.state, extent.offset, extent.len
        ))?;
    }
    output.document(&Extents { path: JsonName::new(&args.path), size, extents })?;
    Ok(Verdict::Good)
}
