//! Do mappings keep their rules over a file in plain memory?

#![allow(clippy::unwrap_used, reason = "tests")]

mod calls;
mod model;
mod rules;
mod stress;
mod turns;

use crate::Budget;
use crate::table::Mode;
use crate::toy::{ToyFile, ToyView};
use daxstore::sync::Arc;

const SHARED: (bool, bool) = (true, false);
const READ_ONLY: (bool, bool) = (false, false);
const PRIVATE: (bool, bool) = (true, true);

fn budget() -> Arc<Budget> {
    Budget::new(50_000)
}

/// A view of all of `file`, in mode U.
fn map(file: &Arc<ToyFile>, access: (bool, bool)) -> ToyView {
    map_in(file, access, Mode::Userfault)
}

fn map_in(file: &Arc<ToyFile>, access: (bool, bool), mode: Mode) -> ToyView {
    ToyView::map(file, 0..file.pages(), mode, access, &budget()).unwrap()
}
