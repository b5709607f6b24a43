//! What can be asked for of a key-value database?

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Subcommand, ValueEnum};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

/// `kv POOL:PATH COMMAND` and `kv bench`.
#[derive(clap::Args, Debug)]
pub struct Kv {
    /// The pool, and the database's file in it: `pool:/records`.
    #[arg(value_name = "POOL:PATH", value_parser = OsStringValueParser::new().try_map(parse_target))]
    pub target: Option<Target>,
    /// What to do.
    #[command(subcommand)]
    pub command: KvCommand,
}

/// A database: its pool, and its file in the pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The pool.
    pub pool: PathBuf,
    /// The file.
    pub path: PathBuf,
}

/// Every command about a database.
#[derive(Subcommand, Debug)]
pub enum KvCommand {
    /// Print values.
    Get(Get),
    /// Store values: one, or all that standard input has.
    Put(Put),
    /// Delete records.
    Del(Del),
    /// List records in the order of their keys.
    Scan(Scan),
    /// Store the records of a dump.
    Load(Load),
    /// Write all records to a file.
    Dump(Dump),
    /// Tell how many records there are, what they take, and how they are mapped.
    Stats,
    /// Check every record and every page.
    Verify(Verify),
    /// Give space back that is not needed.
    Compact,
    /// Copy the database, which may be in use by nobody else.
    Backup(Backup),
    /// Measure it beside other stores; see `kv-bench --help`.
    #[command(disable_help_flag = true)]
    Bench(Bench),
}

/// How keys and values stand on the command line and in text.
#[derive(ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encoding {
    /// As they are; in lists what can not be printed is escaped (`\xff`).
    #[default]
    Text,
    /// Two digits a byte.
    Hex,
    /// Base64 (RFC 4648, with padding).
    Base64,
}

/// The tree, and the form of keys and values.
#[derive(clap::Args, Debug)]
pub struct Form {
    /// The tree by this name instead of the one without a name.
    #[arg(short, long)]
    pub tree: Option<String>,
    /// How keys and values stand on the command line and in text.
    #[arg(short, long, value_enum, default_value_t = Encoding::Text)]
    pub encoding: Encoding,
}

/// `get KEY...`.
#[derive(clap::Args, Debug)]
pub struct Get {
    /// The keys.
    #[arg(required = true)]
    pub keys: Vec<OsString>,
    #[command(flatten)]
    pub form: Form,
}

/// `put KEY VALUE`, `put KEY --file F`, `put --stdin`.
#[derive(clap::Args, Debug)]
pub struct Put {
    /// The key.
    #[arg(required_unless_present = "stdin")]
    pub key: Option<OsString>,
    /// Its value.
    #[arg(required_unless_present_any = ["stdin", "file"])]
    pub value: Option<OsString>,
    /// Take the value, as it is, from this file of the host; `-` is standard input.
    #[arg(short, long, conflicts_with_all = ["value", "stdin"])]
    pub file: Option<PathBuf>,
    /// Put the lines of standard input, each a key, a tab and a value.
    #[arg(long, conflicts_with_all = ["key", "value"])]
    pub stdin: bool,
    /// Print each key of standard input on a line of its own as soon as its record is durable.
    #[arg(long, requires = "stdin", conflicts_with = "json")]
    pub ack: bool,
    #[command(flatten)]
    pub form: Form,
}

/// `del KEY...`.
#[derive(clap::Args, Debug)]
pub struct Del {
    /// The keys.
    #[arg(required = true)]
    pub keys: Vec<OsString>,
    #[command(flatten)]
    pub form: Form,
}

/// `scan [--from K] [--to K] [--prefix P]`.
#[derive(clap::Args, Debug)]
pub struct Scan {
    /// From this key on.
    #[arg(long)]
    pub from: Option<OsString>,
    /// Up to this key, and not it.
    #[arg(long)]
    pub to: Option<OsString>,
    /// Only keys that begin so.
    #[arg(long, conflicts_with_all = ["from", "to"])]
    pub prefix: Option<OsString>,
    /// From the last to the first.
    #[arg(short, long)]
    pub reverse: bool,
    /// At most this many.
    #[arg(short = 'n', long)]
    pub limit: Option<usize>,
    /// Keys alone.
    #[arg(short, long)]
    pub keys: bool,
    #[command(flatten)]
    pub form: Form,
}

/// The form of a dump.
#[derive(ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// A line of JSON for each record: `key` and `value`, or `key_hex` and `value_hex` where they are not text.
    #[default]
    Jsonl,
    /// Lengths and bytes, with a checksum at the end.
    Binary,
}

/// `load [FILE]`.
#[derive(clap::Args, Debug)]
pub struct Load {
    /// The dump; `-` is standard input.
    #[arg(default_value = "-")]
    pub file: PathBuf,
    /// Its form.
    #[arg(short, long, value_enum, default_value_t = Format::Jsonl)]
    pub format: Format,
    /// Store into this tree what the dump names no tree for.
    #[arg(short, long)]
    pub tree: Option<String>,
    /// Records that are stored together, all or none.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub batch: u32,
}

/// `verify [--repair]`.
#[derive(clap::Args, Debug)]
pub struct Verify {
    /// Before that, build the order of each tree in which keys are missing or can not be read anew from the records.
    #[arg(long)]
    pub repair: bool,
}

/// `dump [FILE]`.
#[derive(clap::Args, Debug)]
pub struct Dump {
    /// Where to; `-` is standard output.
    #[arg(default_value = "-")]
    pub file: PathBuf,
    /// The form.
    #[arg(short, long, value_enum, default_value_t = Format::Jsonl)]
    pub format: Format,
    /// Only the tree by this name, without naming it in the dump.
    #[arg(short, long)]
    pub tree: Option<String>,
}

/// `backup POOL:PATH`.
#[derive(clap::Args, Debug)]
pub struct Backup {
    /// Where to: a file that does not exist, of this pool or of another.
    #[arg(value_name = "POOL:PATH", value_parser = OsStringValueParser::new().try_map(parse_target))]
    pub to: Target,
}

/// `bench ARGUMENT...`.
#[derive(clap::Args, Debug)]
pub struct Bench {
    /// What `kv-bench` is told.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub arguments: Vec<OsString>,
}

/// The pool and the path in it, which begins at the last `:/`.
fn parse_target(text: OsString) -> Result<Target, String> {
    let bytes = text.as_bytes();
    let at = bytes.windows(2).rposition(|pair| pair == b":/").filter(|at| *at > 0);
    let at = at.ok_or("name a pool and a file in it, such as pool:/records")?;
    let part = |bytes: &[u8]| PathBuf::from(OsStr::from_bytes(bytes));
    Ok(Target { pool: part(&bytes[..at]), path: PathBuf::from(OsString::from_vec(bytes[at + 1..].to_vec())) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_pool_and_a_path() {
        let target = |pool: &str, path: &str| Ok(Target { pool: pool.into(), path: path.into() });
        assert_eq!(parse_target("pool:/db".into()), target("pool", "/db"));
        assert_eq!(parse_target("/dev/dax0.0:/d/db".into()), target("/dev/dax0.0", "/d/db"));
        assert_eq!(parse_target("a:/b:/c".into()), target("a:/b", "/c"));
        for wrong in ["pool", "pool:db", ":/db", ""] {
            assert!(parse_target(wrong.into()).is_err(), "{wrong}");
        }
    }
}
