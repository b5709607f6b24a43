//! How do files and trees move between the host and a pool?
//!
//! `plan` lists what there is on the host, `put` brings it in, `get` takes it out, `host` keeps every touch of
//! the host's files safe, `report` says how it went.
//!
//! Invariants:
//! 1. In a pool a file appears under its name complete: content, attributes and all. On the host this holds
//!    where it takes the place of another.
//! 2. A directory's own attributes are set after its content.
//! 3. What goes wrong with one file is reported and stops only what lies below it.

pub mod get;
pub mod host;
pub mod plan;
pub mod put;
pub mod report;

use std::path::{Path, PathBuf};

/// Bytes moved by one call.
pub const PIECE_BYTES: usize = 1 << 20;

/// Where `source` lands, after `cp`: inside `dest` where that is a directory, else at `dest` itself. A source
/// without a name of its own (`/`, `.`) lands as `dest`, whose content then is the source's.
pub fn landing(source: &Path, dest: &Path, dest_is_directory: bool) -> PathBuf {
    match source.file_name() {
        Some(name) if dest_is_directory => dest.join(name),
        _ => dest.to_path_buf(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_land_as_with_cp() {
        let land = |source: &str, is_dir| landing(Path::new(source), Path::new("/d"), is_dir);
        assert_eq!(land("a/b", true), Path::new("/d/b"));
        assert_eq!(land("a/b/", true), Path::new("/d/b"));
        assert_eq!(land("a/b", false), Path::new("/d"));
        assert_eq!(land("/", true), Path::new("/d"));
        assert_eq!(land("..", true), Path::new("/d"));
    }
}
