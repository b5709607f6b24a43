//! What runs in the virtual machine beside the command-line tool?
//!
//! `vm-guest COMMAND ARGS...`: trees to transfer and to compare, a holder of a pool, a probe of what the kernel maps,
//! mappings of files, what becomes of lost bytes, and the writers whose power is cut. Called by the scripts in `xtask/guest`.

mod cut;
mod lost;
mod mapping;
mod model;
mod plant;
mod probe;
mod records;
mod stress;
mod toucher;
mod trace;
mod tree;

use std::path::Path;
use std::process::ExitCode;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match args[..] {
        ["make-tree", dir] => tree::make(Path::new(dir)),
        ["compare", one, other] => tree::compare(Path::new(one), Path::new(other)),
        ["hold", pool] => hold(Path::new(pool)),
        ["misaligned", device] => probe::misaligned(Path::new(device)),
        ["mapping", part, pool, unit, mode] => mapping::run(part, Path::new(pool), unit, mode),
        ["records-found", seed] => records::found(seed, std::io::stdin().lock()),
        ["records-lines", seed, count] => records::lines(seed, count, std::io::stdout().lock()),
        ["records-acknowledged", seed, count] => {
            records::narrow().and_then(|keys| records::acknowledged(seed, count, keys))
        }
        ["lost", pool, unit, mode, offset] => lost::run(Path::new(pool), unit, mode, offset),
        ["cut", pool, size, seed] => cut::run(Path::new(pool), size, seed, false),
        ["cut", pool, size, seed, "assume"] => cut::run(Path::new(pool), size, seed, true),
        _ => Err("not understood".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("{error}");
            ExitCode::from(1)
        }
    }
}

/// Keeps a pool open for writing until it is killed.
fn hold(pool: &Path) -> Result<()> {
    let _store = daxstore::Store::open(pool, &daxstore::StoreOptions::new())?;
    println!("held");
    loop {
        std::thread::park();
    }
}
