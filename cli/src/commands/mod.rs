//! Which code serves which command?

mod check;
mod data;
mod defrag;
mod durability;
mod extents;
mod info;
mod kv;
mod ls;
mod map;
mod mkfs;
mod names;
mod share;
mod stat;
mod transfer;

pub use kv::{Encoding, encode};

use crate::args::{Args, Command};
use crate::failure::Result;
use crate::output::{Output, Verdict};
use crate::pool::Opener;

/// Runs the command.
pub fn run(args: Args, output: &mut Output) -> Result<Verdict> {
    let opener = Opener { assume_persistent: args.assume_persistent };
    match args.command {
        Command::Mkfs(mkfs) => mkfs::mkfs(opener, &mkfs, output),
        Command::Grow(grow) => mkfs::grow(opener, &grow, output),
        Command::Info { pool } => info::info(opener, &pool, output),
        Command::Ls(ls) => ls::ls(opener, &ls, output),
        Command::Mkdir(mkdir) => names::mkdir(opener, &mkdir, output),
        Command::Rm(rm) => names::rm(opener, &rm, output),
        Command::Mv(mv) => names::mv(opener, &mv, output),
        Command::Ln(ln) => names::ln(opener, &ln, output),
        Command::Cp(cp) => share::cp(opener, &cp, output),
        Command::Snapshot(snapshot) => share::snapshot(opener, &snapshot, output),
        Command::Dedupe(dedupe) => share::dedupe(opener, &dedupe, output),
        Command::Stat(file) => stat::stat(opener, &file, output),
        Command::Put(put) => transfer::put(opener, &put, output),
        Command::Get(get) => transfer::get(opener, &get, output),
        Command::Cat(cat) => data::cat(opener, &cat, output),
        Command::Write(write) => data::write(opener, &write, output),
        Command::Create(create) => data::create(opener, &create, output),
        Command::Reset(file) => data::reset(opener, &file, output),
        Command::Truncate(truncate) => data::truncate(opener, &truncate, output),
        Command::Fallocate(fallocate) => data::fallocate(opener, &fallocate, output),
        Command::Extents(file) => extents::extents(opener, &file, output),
        Command::Defrag(defrag) => defrag::defrag(opener, &defrag, output),
        Command::Durability(args) => durability::durability(opener, &args, output),
        Command::Check(check) => check::check(opener, &check, output),
        Command::Map(map) => map::map(opener, &map, output),
        Command::Kv(kv) => kv::kv(opener, &kv, output),
        Command::Demo(demo) => crate::demo::demo(&demo, output),
    }
}
