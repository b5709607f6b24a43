//! What can be asked for on the command line?

pub mod kv;

use crate::size::parse_size;
use clap::{Parser, Subcommand, ValueEnum};
use std::ffi::OsString;
use std::path::PathBuf;

/// Files and directories on persistent memory, in a pool: a plain file, a file on a DAX file system, or a
/// device /dev/daxX.Y.
#[derive(Parser, Debug)]
#[command(name = "daxstore", version, arg_required_else_help = true)]
#[command(
    after_help = "Sizes take K, M, G, T, P, E (powers of 1024). Exit codes: 0 done, 1 refused or faults found, 2 usage."
)]
pub struct Args {
    /// Print one JSON document instead of text (errors too, on standard error).
    #[arg(long, global = true)]
    pub json: bool,

    /// Treat a plain file as persistent memory: flush cache lines and call no msync. For tmpfs and tests; after a
    /// power loss a disk file used so is lost.
    #[arg(long, global = true)]
    pub assume_persistent: bool,

    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Every command.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Make an empty pool.
    Mkfs(Mkfs),
    /// Tell what a pool is: backend, durability, geometry, space, fragmentation, recovery.
    Info {
        /// The pool.
        pool: PathBuf,
    },
    /// List a directory.
    Ls(Ls),
    /// Make directories.
    Mkdir(Mkdir),
    /// Remove files, and with -r directories.
    Rm(Rm),
    /// Rename or move.
    Mv(Mv),
    /// Make another name of a file, or with -s a symbolic link.
    Ln(Ln),
    /// Copy files within the pool; with --reflink the copies share their blocks.
    Cp(Cp),
    /// Copy a directory with all it holds by sharing blocks: in time of names and extents, not of bytes.
    Snapshot(Snapshot),
    /// Let files of the same content share their blocks.
    Dedupe(Dedupe),
    /// Tell what is known of a file.
    Stat(OneFile),
    /// Copy files and trees of the host into the pool, keeping modes, owners, times, links, attributes and holes.
    Put(Transfer),
    /// Copy files and trees of the pool to the host, keeping modes, owners (for root), times, links, attributes
    /// and holes.
    Get(Transfer),
    /// Print files.
    Cat(Cat),
    /// Write standard input into a file.
    Write(Write),
    /// Make an empty file; with --sequential one that is written at its end alone.
    Create(Create),
    /// Take everything out of a sequential file.
    Reset(OneFile),
    /// Set the length of a file.
    Truncate(Truncate),
    /// Allocate or free space of a file.
    Fallocate(Fallocate),
    /// Show where a file lies: state, file offset, length, pool offset, huge-mappable.
    Extents(OneFile),
    /// Move what is not mappable in 2 MiB pieces into whole chunks; contents, sizes and times stay.
    Defrag(Defrag),
    /// Tell or set what of writes survives a crash: of the pool, a file, or the files to be made in a directory.
    Durability(Durability),
    /// Verify every invariant of the media; the pool must not be in use.
    Check(Check),
    /// Make a pool larger.
    Grow(Grow),
    /// Draw the pool: chunks free, whole and broken, and the extents of a file.
    Map(Map),
    /// Work with a key-value database in a pool.
    Kv(kv::Kv),
    /// Import a tree, kill a second import, recover, check, export and compare: the whole store on real input.
    Demo(Demo),
}

/// `mkfs POOL --size S`.
#[derive(clap::Args, Debug)]
pub struct Mkfs {
    /// The file to make, or the device /dev/daxX.Y.
    pub pool: PathBuf,
    /// Bytes, 8M to 16T.
    #[arg(long, value_parser = parse_size)]
    pub size: u64,
    /// A name for the pool, up to 64 bytes.
    #[arg(long, default_value = "")]
    pub label: String,
    /// What of writes survives a crash, of files that name no level themselves.
    #[arg(long, value_enum, default_value = "strict")]
    pub durability: Level,
    /// Destroy a pool that is there already.
    #[arg(long)]
    pub force: bool,
}

/// `ls [-lR] POOL [PATH]`.
#[derive(clap::Args, Debug)]
pub struct Ls {
    /// Tell mode, links, owner, size and time too.
    #[arg(short, long)]
    pub long: bool,
    /// Go down into directories.
    #[arg(short = 'R', long)]
    pub recursive: bool,
    /// The pool.
    pub pool: PathBuf,
    /// A directory or file in it.
    #[arg(default_value = "/")]
    pub path: PathBuf,
}

/// `mkdir [-p] POOL PATH...`.
#[derive(clap::Args, Debug)]
pub struct Mkdir {
    /// Make missing parents, and be content with what exists.
    #[arg(short, long)]
    pub parents: bool,
    /// Permission bits, octal.
    #[arg(short, long, value_parser = parse_mode, default_value = "755")]
    pub mode: u32,
    /// The pool.
    pub pool: PathBuf,
    /// Directories to make.
    #[arg(required = true)]
    pub paths: Vec<PathBuf>,
}

/// `rm [-r] POOL PATH...`.
#[derive(clap::Args, Debug)]
pub struct Rm {
    /// Remove directories with all they hold.
    #[arg(short, long)]
    pub recursive: bool,
    /// The pool.
    pub pool: PathBuf,
    /// What to remove.
    #[arg(required = true)]
    pub paths: Vec<PathBuf>,
}

/// `mv POOL SRC... DEST`.
#[derive(clap::Args, Debug)]
pub struct Mv {
    /// Refuse to replace what exists.
    #[arg(short, long, conflicts_with = "exchange")]
    pub no_replace: bool,
    /// Let the two names change places, in one step.
    #[arg(long)]
    pub exchange: bool,
    /// The pool.
    pub pool: PathBuf,
    /// What to move, then where to: a directory, or (for one source) a new name.
    #[arg(required = true, num_args = 2..)]
    pub paths: Vec<PathBuf>,
}

/// `ln [-s] POOL TARGET LINK`.
#[derive(clap::Args, Debug)]
pub struct Ln {
    /// Make a symbolic link.
    #[arg(short, long)]
    pub symbolic: bool,
    /// The pool.
    pub pool: PathBuf,
    /// The file (with -s: any text) the link names.
    pub target: PathBuf,
    /// The new name.
    pub link: PathBuf,
}

/// `cp [--reflink] POOL SRC... DEST`.
#[derive(clap::Args, Debug)]
pub struct Cp {
    /// Share the blocks, whatever the length; without it every byte is copied.
    #[arg(long)]
    pub reflink: bool,
    /// The pool.
    pub pool: PathBuf,
    /// Files to copy, then where to: a directory, or (for one source) a new name.
    #[arg(required = true, num_args = 2..)]
    pub paths: Vec<PathBuf>,
}

/// `snapshot POOL DIR NEW`.
#[derive(clap::Args, Debug)]
pub struct Snapshot {
    /// The pool.
    pub pool: PathBuf,
    /// The directory.
    pub dir: PathBuf,
    /// The name of the copy, which must not exist.
    pub copy: PathBuf,
}

/// `dedupe POOL FILE FILE...`.
#[derive(clap::Args, Debug)]
pub struct Dedupe {
    /// The pool.
    pub pool: PathBuf,
    /// A file, and those that shall share its blocks where they hold the same.
    #[arg(required = true, num_args = 2..)]
    pub paths: Vec<PathBuf>,
}

/// A command about one file.
#[derive(clap::Args, Debug)]
pub struct OneFile {
    /// The pool.
    pub pool: PathBuf,
    /// The file in it.
    pub path: PathBuf,
}

/// `put` and `get`.
#[derive(clap::Args, Debug)]
pub struct Transfer {
    /// The pool.
    pub pool: PathBuf,
    /// What to copy, then where to: an existing directory, or (for one source) a new name.
    #[arg(required = true, num_args = 2..)]
    pub paths: Vec<PathBuf>,
    /// Name each file on standard output as soon as it is complete (for put: and durable).
    #[arg(short, long, conflicts_with = "json")]
    pub verbose: bool,
    /// End the names that -v prints with NUL instead of newline, and print them unescaped.
    #[arg(short = '0', long, requires = "verbose")]
    pub null: bool,
    /// Stop a put's walk after this many files.
    #[arg(long, hide = true)]
    pub max_files: Option<u64>,
    /// Stop a put's walk after this many bytes.
    #[arg(long, hide = true, value_parser = parse_size)]
    pub max_bytes: Option<u64>,
}

/// `cat POOL PATH...`.
#[derive(clap::Args, Debug)]
pub struct Cat {
    /// The pool.
    pub pool: PathBuf,
    /// The files.
    #[arg(required = true)]
    pub paths: Vec<PathBuf>,
}

/// `write POOL PATH [--offset N]`.
#[derive(clap::Args, Debug)]
pub struct Write {
    /// The pool.
    pub pool: PathBuf,
    /// The file; it is made if it does not exist.
    pub path: PathBuf,
    /// Write from this byte on and keep the rest; without it the file is replaced.
    #[arg(long, value_parser = parse_size)]
    pub offset: Option<u64>,
    /// Write at the end of the file.
    #[arg(long, conflicts_with = "offset")]
    pub append: bool,
}

/// `create POOL PATH [--sequential] [--capacity S] [--extent-hint S]`.
#[derive(clap::Args, Debug)]
pub struct Create {
    /// The pool.
    pub pool: PathBuf,
    /// The file; there must be none.
    pub path: PathBuf,
    /// Bytes are added at its end, in order, and nothing else changes it but `reset`.
    #[arg(long)]
    pub sequential: bool,
    /// How many bytes a sequential file can hold: any number, unless said.
    #[arg(long, value_parser = parse_size, requires = "sequential")]
    pub capacity: Option<u64>,
    /// In which pieces space is best given to it: a multiple of 4K, up to 1G.
    #[arg(long, value_parser = parse_size)]
    pub extent_hint: Option<u64>,
}

/// `truncate POOL PATH --size S`.
#[derive(clap::Args, Debug)]
pub struct Truncate {
    /// The pool.
    pub pool: PathBuf,
    /// The file; it is made if it does not exist.
    pub path: PathBuf,
    /// Its new length in bytes.
    #[arg(short, long, value_parser = parse_size)]
    pub size: u64,
}

/// `fallocate POOL PATH --mode M --offset N --length N`.
#[derive(clap::Args, Debug)]
pub struct Fallocate {
    /// The pool.
    pub pool: PathBuf,
    /// The file; with the modes allocate and keep-size it is made if it does not exist.
    pub path: PathBuf,
    /// What to do with the range.
    #[arg(short, long, value_enum, default_value_t = Mode::Allocate)]
    pub mode: Mode,
    /// The range's first byte.
    #[arg(short, long, value_parser = parse_size, default_value = "0")]
    pub offset: u64,
    /// How many bytes.
    #[arg(short, long, value_parser = parse_size)]
    pub length: u64,
}

/// The modes of `fallocate`.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Give space to holes; a range past the end makes the file longer.
    Allocate,
    /// Give space to holes and leave the length alone.
    KeepSize,
    /// Free the space; the range reads as zeros.
    Punch,
    /// Make the range read as zeros and keep its space.
    Zero,
    /// Take the range, whole blocks of 4 KiB, out of the file; what follows moves down, without being copied.
    Collapse,
    /// Put a hole of the range's length, whole blocks of 4 KiB, in before what is there, without copying it.
    Insert,
    /// Copy what other files own too to blocks of the file's own.
    Unshare,
}

/// `defrag POOL [PATH...]`.
#[derive(clap::Args, Debug)]
pub struct Defrag {
    /// The pool.
    pub pool: PathBuf,
    /// Files, and directories with all they hold.
    #[arg(default_value = "/")]
    pub paths: Vec<PathBuf>,
}

/// Levels of durability.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Durable when a call returns; overwritten bytes are old or new word by word.
    Strict,
    /// Durable when a call returns, and old or new as a whole.
    AtomicData,
    /// In order and as a whole, durable at the next sync: a crash leaves a prefix of the calls.
    Ordered,
    /// The pool's (of a pool: strict).
    Pool,
}

impl Level {
    /// The level, unless it is the pool's.
    pub fn named(self) -> Option<daxstore::Durability> {
        match self {
            Self::Strict => Some(daxstore::Durability::Strict),
            Self::AtomicData => Some(daxstore::Durability::AtomicData),
            Self::Ordered => Some(daxstore::Durability::Ordered),
            Self::Pool => None,
        }
    }
}

/// `durability POOL [PATH] [--set LEVEL]`.
#[derive(clap::Args, Debug)]
pub struct Durability {
    /// The pool.
    pub pool: PathBuf,
    /// A file, or a directory whose new files get the level; without it, the pool.
    pub path: Option<PathBuf>,
    /// The level to set.
    #[arg(long, value_enum)]
    pub set: Option<Level>,
}

/// `check POOL [--repair]`.
#[derive(clap::Args, Debug)]
pub struct Check {
    /// The pool.
    pub pool: PathBuf,
    /// Fix what can be fixed without guessing, and say what was lost.
    #[arg(long)]
    pub repair: bool,
}

/// `grow POOL --size S`.
#[derive(clap::Args, Debug)]
pub struct Grow {
    /// The pool.
    pub pool: PathBuf,
    /// Its new size in bytes.
    #[arg(long, value_parser = parse_size)]
    pub size: u64,
}

/// `map POOL -o FILE.svg`.
#[derive(clap::Args, Debug)]
pub struct Map {
    /// The pool.
    pub pool: PathBuf,
    /// The picture to write, SVG; `-` is standard output.
    #[arg(short, long, value_name = "FILE.svg")]
    pub output: PathBuf,
    /// Mark the extents of this file of the pool.
    #[arg(long, value_name = "PATH")]
    pub file: Option<PathBuf>,
}

/// `demo [DIR]`.
#[derive(clap::Args, Debug)]
pub struct Demo {
    /// The tree to import; without it the machine's Rust source registry, else /usr/share.
    pub dir: Option<OsString>,
    /// Take no more than this many files of the tree.
    #[arg(long, default_value_t = 60_000)]
    pub max_files: u64,
    /// Take no more than this many bytes of the tree.
    #[arg(long, value_parser = parse_size, default_value = "1536M")]
    pub max_bytes: u64,
    /// Put this many records into a key-value database; 0 leaves that out.
    #[arg(long, default_value_t = 1_000_000)]
    pub records: u64,
}

/// Octal permission bits.
fn parse_mode(text: &str) -> Result<u32, String> {
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode <= 0o7777 => Ok(mode),
        _ => Err(String::from("not octal permission bits such as 755")),
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
    fn modes_are_octal() {
        assert_eq!(parse_mode("0755"), Ok(0o755));
        assert!(parse_mode("9").is_err());
        assert!(parse_mode("10000").is_err());
    }
}
