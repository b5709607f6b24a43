//! What is done with a key-value database?

mod base;
mod bench;
mod dump;
mod encoding;
mod format;
mod records;
mod upkeep;

pub use crate::args::kv::Encoding;
pub use encoding::encode;

use crate::args::kv::{Kv, KvCommand, Target};
use crate::failure::{Failure, Result};
use crate::output::{Output, Verdict};
use crate::pool::Opener;

/// `kv`.
pub fn kv(opener: Opener, kv: &Kv, output: &mut Output) -> Result<Verdict> {
    let target = match (&kv.command, &kv.target) {
        (KvCommand::Bench(bench), None) => return bench::bench(bench, output),
        (KvCommand::Bench(_), Some(_)) => {
            let cause = "it makes databases of its own";
            return Err(Failure::new(
                "measure",
                cause,
                "leave POOL:PATH out; see `daxstore kv bench --help`",
            ));
        }
        (_, None) => {
            let cause = "no database is named";
            return Err(Failure::new("open a database", cause, "put POOL:PATH in front of the command"));
        }
        (_, Some(target)) => target,
    };
    on_target(opener, target, &kv.command, output)
}

fn on_target(opener: Opener, target: &Target, command: &KvCommand, output: &mut Output) -> Result<Verdict> {
    match command {
        KvCommand::Get(get) => records::get(opener, target, get, output),
        KvCommand::Put(put) => records::put(opener, target, put, output),
        KvCommand::Del(del) => records::del(opener, target, del, output),
        KvCommand::Scan(scan) => records::scan(opener, target, scan, output),
        KvCommand::Load(load) => dump::load(opener, target, load, output),
        KvCommand::Dump(dump) => dump::dump(opener, target, dump, output),
        KvCommand::Stats => upkeep::stats(opener, target, output),
        KvCommand::Verify(verify) => upkeep::verify(opener, target, verify, output),
        KvCommand::Compact => upkeep::compact(opener, target, output),
        KvCommand::Backup(backup) => upkeep::backup(opener, target, backup, output),
        KvCommand::Bench(bench) => bench::bench(bench, output),
    }
}
