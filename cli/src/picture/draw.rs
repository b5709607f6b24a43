//! Where does everything stand in the picture, and in which colour?

use super::Caption;
use super::cells::{Cell, Cells, FileMark};
use super::svg::{Rect, Svg, Type};
use crate::size::{grouped, human};
use daxstore::State;
use daxstore::units::{BLOCK_BYTES, CHUNK_BLOCKS, CHUNK_BYTES};

const BACKGROUND: &str = "#fbfcfd";
const INK: &str = "#1c2733";
const PALE_INK: &str = "#66727f";
const FREE: &str = "#e4e9ee";
const WHOLE: &str = "#2b6cb0";
const META: &str = "#6b46c1";
const DAMAGED: &str = "#d92d20";
const MARK: &str = "#0f9d58";
const UNWRITTEN: &str = "#a8dcc0";
/// Red, green and blue of a broken chunk that is nearly empty, and of one that is nearly full.
const BROKEN: [[f64; 3]; 2] = [[253.0, 231.0, 200.0], [205.0, 92.0, 12.0]];

const MARGIN: f64 = 32.0;
/// Room left of the grid for pool offsets.
const SCALE: f64 = 76.0;
const GRID_WIDTH: f64 = 1024.0;
const WIDTH: f64 = MARGIN * 2.0 + SCALE + GRID_WIDTH;

const TITLE: Type = Type { size: 22.0, fill: INK, anchor: "start", weight: "bold" };
const BODY: Type = Type { size: 13.0, fill: PALE_INK, anchor: "start", weight: "normal" };
const HEADING: Type = Type { size: 13.0, fill: INK, anchor: "start", weight: "bold" };
const TICK: Type = Type { size: 11.0, fill: PALE_INK, anchor: "end", weight: "normal" };

/// The picture while it grows downwards.
pub struct Drawing<'a> {
    caption: &'a Caption,
    cells: &'a Cells,
    file: Option<&'a FileMark>,
    svg: Svg,
    /// Where the next part starts.
    y: f64,
}

impl<'a> Drawing<'a> {
    /// Nothing drawn yet.
    pub fn new(caption: &'a Caption, cells: &'a Cells, file: Option<&'a FileMark>) -> Self {
        Self { caption, cells, file, svg: Svg::new(), y: MARGIN }
    }

    /// Everything drawn.
    pub fn document(mut self) -> String {
        self.head();
        self.grid();
        self.totals();
        self.file_bar();
        self.legend();
        self.svg.document(WIDTH, self.y + MARGIN - 8.0, &self.caption.title, BACKGROUND)
    }

    fn head(&mut self) {
        self.svg.text(MARGIN, self.y + 16.0, TITLE, &self.caption.title);
        self.svg.text(MARGIN, self.y + 40.0, BODY, &self.caption.subtitle);
        self.y += 64.0;
    }

    /// Columns of the grid: about twice as many as rows, at most 64.
    fn columns(&self) -> usize {
        let square = (self.cells.cells.len() as f64 * 2.0).sqrt().ceil() as usize;
        square.next_power_of_two().clamp(8, 64)
    }

    fn grid(&mut self) {
        let columns = self.columns();
        let pitch = (GRID_WIDTH / columns as f64).min(64.0);
        let rows = self.cells.cells.len().div_ceil(columns);
        let tick_every = (rows / 16).max(1).next_power_of_two();
        for (row, cells) in self.cells.cells.chunks(columns).enumerate() {
            if row.is_multiple_of(tick_every) {
                let offset = (row * columns) as u64 * self.cells.per_cell * CHUNK_BYTES;
                let y = self.y + pitch / 2.0 + 4.0;
                self.svg.text(MARGIN + SCALE - 12.0, y, TICK, &tick(offset));
            }
            for (column, cell) in cells.iter().enumerate() {
                let number = (row * columns + column) as u64;
                let x = MARGIN + SCALE + column as f64 * pitch;
                self.cell(Rect { x, y: self.y, w: pitch, h: pitch }, cell, number);
            }
            self.y += pitch;
        }
        self.y += 28.0;
    }

    /// A cell: bands of whole, broken and free from the bottom, metadata as a stripe on the left, the marked file
    /// as a frame and a bar.
    fn cell(&mut self, place: Rect, cell: &Cell, number: u64) {
        let gap = (place.w * 0.1).max(1.0);
        let at = Rect { x: place.x, y: place.y, w: place.w - gap, h: place.h - gap };
        let radius = (at.w * 0.12).min(4.0);
        self.svg.open(&self.cell_title(cell, number));
        self.svg.rect(at, radius, FREE);
        let part = |chunks: u64| at.h * chunks as f64 / cell.chunks.max(1) as f64;
        let (whole, broken) = (part(cell.whole_chunks), part(cell.broken_chunks));
        let band = |up: f64, h: f64| Rect { y: at.y + at.h - up - h, h, ..at };
        if whole > 0.0 {
            self.svg.rect(band(0.0, whole), radius, WHOLE);
        }
        if broken > 0.0 {
            self.svg.rect(band(whole, broken), radius, &shade(cell.fill()));
        }
        let damaged = part(cell.damaged_chunks);
        if damaged > 0.0 {
            self.svg.rect(band(whole + broken, damaged.max(2.0)), radius, DAMAGED);
        }
        self.metadata(at, cell, radius);
        self.mark(at, cell, radius);
        self.svg.close();
    }

    fn metadata(&mut self, at: Rect, cell: &Cell, radius: f64) {
        if cell.meta > 0 {
            let share = cell.meta as f64 / (cell.chunks.max(1) * CHUNK_BLOCKS) as f64;
            let h = (at.h * share).max(at.h * 0.18);
            self.svg.rect(Rect { w: (at.w * 0.22).max(2.0), h, ..at }, radius.min(1.5), META);
        }
    }

    fn mark(&mut self, at: Rect, cell: &Cell, radius: f64) {
        if cell.file == 0 {
            return;
        }
        let share = cell.file as f64 / (cell.chunks.max(1) * CHUNK_BLOCKS) as f64;
        let h = (at.h * 0.24).max(2.0);
        let bar = Rect { y: at.y + at.h - h, h, w: (at.w * share.min(1.0)).max(2.0), ..at };
        self.svg.rect(bar, 0.0, MARK);
        let width = (at.w * 0.1).clamp(1.0, 2.5);
        let inset = width / 2.0;
        let frame = Rect { x: at.x + inset, y: at.y + inset, w: at.w - width, h: at.h - width };
        self.svg.outline(frame, radius, MARK, width);
    }

    fn cell_title(&self, cell: &Cell, number: u64) -> String {
        let offset = number * self.cells.per_cell * CHUNK_BYTES;
        let mut title = format!(
            "at {}: {} free, {} whole, {} broken chunks ({:.0} % full)",
            human(offset),
            cell.free_chunks,
            cell.whole_chunks,
            cell.broken_chunks,
            cell.fill() * 100.0
        );
        if cell.meta > 0 {
            title.push_str(&format!(", {} of metadata", human(cell.meta * BLOCK_BYTES)));
        }
        if cell.file > 0 {
            title.push_str(&format!(", {} of the file", human(cell.file * BLOCK_BYTES)));
        }
        title
    }

    /// A bar of all blocks by what they are.
    fn totals(&mut self) {
        let total = self.cells.total();
        let data_in_broken = total.used_in_broken.saturating_sub(total.meta);
        let free_in_broken = (total.broken_chunks * CHUNK_BLOCKS).saturating_sub(total.used_in_broken);
        let parts = [
            (total.whole_chunks * CHUNK_BLOCKS, "in whole chunks", String::from(WHOLE)),
            (data_in_broken, "in broken chunks", shade(0.85)),
            (total.meta, "metadata", String::from(META)),
            (free_in_broken, "free in broken chunks", shade(0.1)),
            (total.free_chunks * CHUNK_BLOCKS, "free whole chunks", String::from(FREE)),
        ];
        self.svg.text(MARGIN + SCALE, self.y, HEADING, "Space");
        self.y += 10.0;
        let all = (total.chunks * CHUNK_BLOCKS).max(1);
        self.bar(parts.iter().map(|(blocks, _, colour)| (*blocks as f64 / all as f64, colour.as_str())));
        self.key(parts.iter().map(|(blocks, name, colour)| {
            (colour.clone(), format!("{name}: {}", human(blocks * BLOCK_BYTES)))
        }));
    }

    fn bar<'c>(&mut self, parts: impl Iterator<Item = (f64, &'c str)>) {
        let mut x = MARGIN + SCALE;
        for (share, colour) in parts {
            let w = GRID_WIDTH * share;
            if w > 0.0 {
                self.svg.rect(Rect { x, y: self.y, w: w.max(0.5), h: 18.0 }, 0.0, colour);
            }
            x += w;
        }
        self.y += 36.0;
    }

    /// Coloured squares with their meaning, in a row that breaks where it must.
    fn key(&mut self, parts: impl Iterator<Item = (String, String)>) {
        let mut x = MARGIN + SCALE;
        for (colour, text) in parts {
            let width = 32.0 + text.chars().count() as f64 * 7.3;
            if x + width > WIDTH - MARGIN {
                x = MARGIN + SCALE;
                self.y += 22.0;
            }
            self.svg.rect(Rect { x, y: self.y - 11.0, w: 13.0, h: 13.0 }, 3.0, &colour);
            self.svg.text(x + 19.0, self.y, BODY, &text);
            x += width;
        }
        self.y += 34.0;
    }

    /// The marked file from its first byte to its last.
    fn file_bar(&mut self) {
        let Some(file) = self.file else { return };
        let (mapped, unwritten, huge) = file.bytes();
        let heading = format!("{} ({}, {} extents)", file.name, human(file.size), grouped(count(file)));
        self.svg.text(MARGIN + SCALE, self.y, HEADING, &heading);
        self.y += 10.0;
        let end = file.extents.iter().map(|e| e.range.end()).max().unwrap_or(0).max(file.size).max(1);
        self.svg.rect(Rect { x: MARGIN + SCALE, y: self.y, w: GRID_WIDTH, h: 18.0 }, 0.0, FREE);
        for extent in &file.extents {
            let colour = match extent.state {
                State::Mapped(_) => MARK,
                State::Unwritten(_) => UNWRITTEN,
                State::Hole | State::Reserved => continue,
            };
            let scale = |bytes: u64| GRID_WIDTH * bytes as f64 / end as f64;
            let x = MARGIN + SCALE + scale(extent.range.offset);
            let w = scale(extent.range.len).max(0.6);
            self.svg.rect(Rect { x, y: self.y, w, h: 18.0 }, 0.0, colour);
            if extent.huge {
                self.svg.rect(Rect { x, y: self.y + 18.0, w, h: 3.0 }, 0.0, INK);
            }
        }
        self.y += 40.0;
        self.key(
            [
                (MARK, format!("data: {}", human(mapped))),
                (UNWRITTEN, format!("allocated, unwritten: {}", human(unwritten))),
                (FREE, String::from("hole")),
                (INK, format!("huge-mappable: {}", human(huge))),
            ]
            .map(|(colour, text)| (String::from(colour), text))
            .into_iter(),
        );
    }

    fn legend(&mut self) {
        self.svg.text(MARGIN + SCALE, self.y, HEADING, &self.legend_title());
        self.y += 24.0;
        let mut parts = vec![
            (String::from(FREE), String::from("free")),
            (String::from(WHOLE), String::from("whole")),
            (shade(0.0), String::from("broken, nearly empty")),
            (shade(0.5), String::from("half full")),
            (shade(1.0), String::from("full")),
            (String::from(META), String::from("metadata arenas")),
        ];
        if self.cells.total().damaged_chunks > 0 {
            parts.push((String::from(DAMAGED), String::from("damaged")));
        }
        if self.file.is_some() {
            parts.push((String::from(MARK), String::from("the marked file")));
        }
        self.key(parts.into_iter());
        self.y -= 20.0;
    }

    fn legend_title(&self) -> String {
        match self.cells.per_cell {
            1 => String::from("One cell is one chunk of 2 MiB"),
            n => format!(
                "One cell is {} chunks of 2 MiB ({}); its bands show how many are whole, broken and free",
                grouped(n),
                human(n * CHUNK_BYTES)
            ),
        }
    }
}

fn count(file: &FileMark) -> u64 {
    file.extents.iter().filter(|e| e.state.address().is_some()).count() as u64
}

/// A pool offset beside the grid, in the largest unit that tells it in two decimals.
fn tick(offset: u64) -> String {
    let (unit, name): (u64, &str) = match offset {
        0 => return String::from("0"),
        1..0x4000_0000 => (1 << 20, "MiB"),
        0x4000_0000..0x100_0000_0000 => (1 << 30, "GiB"),
        _ => (1 << 40, "TiB"),
    };
    let value = format!("{:.2}", offset as f64 / unit as f64);
    format!("{} {name}", value.trim_end_matches('0').trim_end_matches('.'))
}

/// The colour of broken chunks, by the part of their blocks that is in use.
fn shade(fill: f64) -> String {
    let [empty, full] = BROKEN;
    let mix = |a: f64, b: f64| (a + (b - a) * fill.clamp(0.0, 1.0)).round() as u8;
    let [r, g, b] = [0, 1, 2].map(|i: usize| mix(empty[i], full[i]));
    format!("#{r:02x}{g:02x}{b:02x}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use daxstore::alloc::ChunkUse;

    fn caption() -> Caption {
        Caption { title: String::from("a <pool> & more"), subtitle: String::new() }
    }

    #[test]
    fn every_cell_is_drawn() {
        let mut cells = Cells::new(100);
        for chunk in 0..100 {
            cells.add(chunk, ChunkUse::Broken { used: chunk, arena_blocks: chunk % 2, class: None });
        }
        let svg = super::super::draw(&caption(), &cells, None);
        assert_eq!(svg.matches("<g>").count(), 100);
        assert_eq!(svg.matches("</g>").count(), 100);
        assert!(svg.contains("a &lt;pool&gt; &amp; more"));
        assert!(svg.contains("One cell is one chunk"));
    }

    #[test]
    fn ticks_are_exact() {
        let ticks = [0, 192 << 20, 3 << 29, 5 << 38].map(tick);
        assert_eq!(ticks, ["0", "192 MiB", "1.5 GiB", "1.25 TiB"]);
    }

    #[test]
    fn shades_run_from_empty_to_full() {
        assert_eq!(shade(0.0), "#fde7c8");
        assert_eq!(shade(1.0), "#cd5c0c");
        assert_eq!(shade(7.0), shade(1.0));
    }
}
