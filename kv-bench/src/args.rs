//! What can be asked for?

use crate::engine::{Kind, Size};
use crate::workload::Workload;
use clap::{Parser, ValueEnum};
use std::path::PathBuf;

/// The most values that may be compared in memory; beyond it a run needs more than a test machine has.
const MOST_RECORDS: u64 = 1 << 32;

/// Measures key-value stores side by side: the same operations on the same keys, each run in a process of its own.
#[derive(Parser, Clone, Debug)]
#[command(name = "kv-bench", version)]
pub struct Args {
    /// What to measure; without it all that this program was built with.
    #[arg(long, value_enum, value_delimiter = ',')]
    pub engine: Vec<Kind>,
    /// What to do; without it everything.
    #[arg(long, value_enum, value_delimiter = ',')]
    pub workload: Vec<Workload>,
    /// All engines, all workloads, 1 and 2 threads, values of 100 and 1024 bytes, each where it is not said otherwise.
    #[arg(long)]
    pub all: bool,
    /// How many records there are.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..=MOST_RECORDS))]
    pub records: u64,
    /// Bytes of each value [default: 100; with --all 100,1024].
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    pub value_size: Vec<u32>,
    /// How many threads [default: 1; with --all 1,2].
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..=512))]
    pub threads: Vec<u16>,
    /// Where random numbers start.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// How many operations at most [default: as many as records].
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub operations: Option<u64>,
    /// How long at most, in seconds; the loads are always done whole.
    #[arg(long, default_value_t = 5.0)]
    pub seconds: f64,
    /// How often; the median counts [default: 1; with --all 3].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub runs: Option<u32>,
    /// Where; without it a tmpfs with 2 MiB pages is mounted (as root), else /dev/shm.
    #[arg(long)]
    pub dir: Option<PathBuf>,
    /// Draw the table into this file, SVG.
    #[arg(long)]
    pub plot: Option<PathBuf>,
    /// Fail unless, after the load, each 2 MiB of the database is translated by one translation, where an engine can tell.
    #[arg(long)]
    pub require_huge: bool,
    /// Print one JSON document instead of text.
    #[arg(long)]
    pub json: bool,
    /// Load and put until killed: the child of `reopen`.
    #[arg(long, hide = true)]
    pub victim: bool,
}

/// One run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Run {
    /// Bytes of each value.
    pub value_size: u32,
    /// How many threads.
    pub threads: u16,
    /// What to do.
    pub workload: Workload,
    /// To what.
    pub engine: Kind,
}

impl Args {
    /// Each run that is asked for, once; those that an engine can not do are left out.
    pub fn runs(&self) -> Vec<Run> {
        let or = |given: &[u16], all: &[u16]| if given.is_empty() { all.to_vec() } else { given.to_vec() };
        let threads = or(&self.threads, if self.all { &[1, 2] } else { &[1] });
        let sizes: &[u32] = match (&self.value_size[..], self.all) {
            ([], true) => &[100, 1024],
            ([], false) => &[100],
            (given, _) => given,
        };
        let engines = if self.engine.is_empty() { Kind::built().collect() } else { self.engine.clone() };
        let workloads = match &self.workload[..] {
            [] => Workload::value_variants(),
            given => given,
        };
        let mut runs = Vec::new();
        for &value_size in sizes {
            for &threads in &threads {
                for &workload in workloads {
                    let able = engines.iter().filter(|kind| kind.is_ordered() || !workload.needs_order());
                    runs.extend(able.map(|&engine| Run { value_size, threads, workload, engine }));
                }
            }
        }
        runs
    }

    /// How often each is run.
    pub fn rounds(&self) -> u32 {
        self.runs.unwrap_or(if self.all { 3 } else { 1 })
    }

    /// Operations of a run at most.
    pub fn operations(&self) -> u64 {
        self.operations.unwrap_or(self.records)
    }

    /// The size of the database of `run`.
    pub fn size(&self, run: Run) -> Size {
        Size { records: self.records, value_bytes: run.value_size as usize }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_declaration_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn what_is_not_said_is_all_or_the_usual() {
        let runs = |args: &[&str]| Args::parse_from([&["kv-bench"], args].concat()).runs();
        let one = runs(&["--engine", "redb", "--workload", "put"]);
        assert_eq!(one, [Run { value_size: 100, threads: 1, workload: Workload::Put, engine: Kind::Redb }]);
        let all = runs(&["--all", "--engine", "redb"]);
        assert_eq!(all.len(), 4 * Workload::value_variants().len());
        assert_eq!(runs(&["--engine", "redb,fjall", "--workload", "get,put", "--threads", "1,2"]).len(), 8);
    }
}
