//! How is a pool's picture made?

use super::extents::extents_of;
use crate::args::Map;
use crate::failure::{Context, Result};
use crate::names::{JsonName, shown};
use crate::output::{Output, Verdict};
use crate::picture::{self, Caption, Cells, FileMark};
use crate::pool::Opener;
use crate::size::human;
use daxstore::{OpenOptions, PoolInfo, Store};
use serde::Serialize;
use std::io::Write;
use std::path::Path;

/// Chunks asked for at once: those of a group of 1 GiB.
const BATCH: usize = 512;

#[derive(Serialize)]
struct Drawn {
    picture: JsonName,
    chunks: u64,
    free_chunks: u64,
    whole_chunks: u64,
    broken_chunks: u64,
    metadata_blocks: u64,
    cells: usize,
    chunks_per_cell: u64,
}

/// `map`.
pub fn map(opener: Opener, args: &Map, output: &mut Output) -> Result<Verdict> {
    let store = opener.read(&args.pool)?;
    let info = store.info().context(|| format!("read {}", shown(&args.pool)))?;
    let mut cells = cells(&store, &info).context(|| format!("read {}", shown(&args.pool)))?;
    let file = args.file.as_deref().map(|path| file_mark(&store, path)).transpose()?;
    if let Some(file) = &file {
        cells.mark(&file.extents);
    }
    let svg = picture::draw(&caption(&args.pool, &info), &cells, file.as_ref());
    write(&args.output, &svg, output)?;
    output.document(&drawn(args, &cells))?;
    Ok(Verdict::Good)
}

fn cells(store: &Store, info: &PoolInfo) -> daxstore::Result<Cells> {
    let mut cells = Cells::new(info.geometry.chunks());
    for first in (0..info.geometry.chunks()).step_by(BATCH) {
        for (chunk, state) in (first..).zip(store.chunk_map(first, BATCH as u64)?) {
            cells.add(chunk, state);
        }
    }
    Ok(cells)
}

fn file_mark(store: &Store, path: &Path) -> Result<FileMark> {
    let what = || format!("read the extents of {}", shown(path));
    let file = store.open(path, &OpenOptions::new().read(true)).context(what)?;
    let extents = extents_of(&file).context(what)?;
    Ok(FileMark { name: shown(path), size: file.metadata().size, extents })
}

fn caption(pool: &Path, info: &PoolInfo) -> Caption {
    let name = pool.file_name().unwrap_or(pool.as_os_str());
    let title =
        if info.label.is_empty() { shown(name) } else { format!("{} ({})", shown(&info.label), shown(name)) };
    let report = &info.space;
    let subtitle = format!(
        "{} in {} chunks of 2 MiB: {} free, {} whole, {} broken. Backend {}, format {}, epoch {}.",
        human(info.geometry.size),
        report.chunks,
        report.free_chunks,
        report.whole_chunks,
        report.broken_chunks,
        info.region.backend,
        info.version,
        info.epoch
    );
    Caption { title, subtitle }
}

fn write(path: &Path, svg: &str, output: &mut Output) -> Result<()> {
    let what = || format!("write {}", shown(path));
    if path != Path::new("-") {
        let mut file = std::fs::File::create(path).context(what)?;
        return file.write_all(svg.as_bytes()).context(what);
    }
    if output.json() { Ok(()) } else { output.bytes(svg.as_bytes()) }
}

fn drawn(args: &Map, cells: &Cells) -> Drawn {
    let total = cells.total();
    Drawn {
        picture: JsonName::new(&args.output),
        chunks: total.chunks,
        free_chunks: total.free_chunks,
        whole_chunks: total.whole_chunks,
        broken_chunks: total.broken_chunks,
        metadata_blocks: total.meta,
        cells: cells.cells.len(),
        chunks_per_cell: cells.per_cell,
    }
}
