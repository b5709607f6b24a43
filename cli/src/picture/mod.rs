//! What does a pool look like?
//!
//! A grid of cells, each one chunk or, in a large pool, a run of chunks; below it a bar of the totals, the marked
//! file's own bar, and the legend. `cells` counts, `draw` draws, `svg` writes the elements.

pub mod cells;
mod draw;
mod svg;

pub use cells::{Cells, FileMark};

/// What the picture says beside the grid.
pub struct Caption {
    /// The pool's name and label.
    pub title: String,
    /// A line about backend, size and format.
    pub subtitle: String,
}

/// The picture as an SVG document.
pub fn draw(caption: &Caption, cells: &Cells, file: Option<&FileMark>) -> String {
    draw::Drawing::new(caption, cells, file).document()
}
