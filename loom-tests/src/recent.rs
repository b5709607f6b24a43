//! Model 10: the run of a file that was looked for last.
//!
//! Two threads keep runs, of one mapping or of two, while a third looks: it finds one of them whole or none. The words of
//! the runs have nothing in common, so a mixture shows. (With the mapping's number for a sequence, two runs of one
//! mapping were found mixed.)

use crate::{explore, part, pick, together};
use daxstore::inode::Recent;
use daxstore::units::{Block, FileBlock, Run};
use std::sync::Arc;

/// Keeps run `n` of `mapping`: its place and length tell which it is.
fn put(recent: &Recent, mapping: u64, n: u64) {
    recent.put(mapping, FileBlock(n), Run::new(Block(1_000_000 * n), 1000 + n), n.is_multiple_of(2));
}

/// Looks for a block that every run has.
fn look(recent: &Recent, mapping: u64) {
    const BLOCK: u64 = 100;
    if let Some((run, written)) = recent.get(mapping, FileBlock(BLOCK)) {
        let n = run.start.0 / 1_000_000;
        let into = BLOCK - n;
        let expected = (Run::new(Block(1_000_000 * n + into), 1000 + n - into), n.is_multiple_of(2));
        assert_eq!((run, written), expected, "one run, whole");
    }
}

fn model(name: &'static str, other: u64) {
    explore(name, move || {
        let recent = Arc::new(Recent::default());
        put(&recent, 1, 1);
        let (a, b, c) = (recent.clone(), recent.clone(), recent);
        together(vec![
            part(move || (0..pick(1, 2000)).for_each(|_| put(&a, 1, 2))),
            part(move || (0..pick(1, 2000)).for_each(|_| put(&b, other, 3))),
            part(move || (0..pick(1, 2000)).for_each(|_| look(&c, 1))),
        ]);
    });
}

#[test]
fn runs_of_one_mapping_are_found_whole() {
    model("recent run: one mapping", 1);
}

#[test]
fn runs_of_two_mappings_are_found_whole() {
    model("recent run: two mappings", 2);
}
