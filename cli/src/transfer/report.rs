//! How did a transfer go?

use crate::failure::{Failure, Refusal, Result};
use crate::names::shown;
use crate::output::Output;
use crate::progress::Progress;
use serde::Serialize;
use std::collections::HashSet;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// What was done.
#[derive(Debug, Default, Clone, Serialize)]
pub struct Tally {
    /// Regular files copied.
    pub files: u64,
    /// Directories made or found.
    pub directories: u64,
    /// Symbolic links made.
    pub symlinks: u64,
    /// Further names of files copied before.
    pub hard_links: u64,
    /// Extended attributes copied.
    pub xattrs: u64,
    /// Bytes of data copied; holes do not count.
    pub bytes: u64,
    /// Calls that changed the destination.
    pub operations: u64,
    /// Fifos, sockets and devices left out.
    pub special_skipped: u64,
    /// Extended attributes the destination does not take.
    pub xattrs_skipped: u64,
}

/// How finished files are named on standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Naming {
    /// Not at all.
    Silent,
    /// Escaped, one on a line.
    Lines,
    /// As they are, each ended by NUL.
    Nul,
}

/// What went wrong, for people and for JSON.
#[derive(Debug, Default, Serialize)]
pub struct Trouble {
    /// What was refused.
    pub errors: Vec<Refusal>,
    /// What was left out on purpose.
    pub warnings: Vec<String>,
}

/// Collects how a transfer goes, and tells those who wait.
pub struct Reporter<'o> {
    output: &'o mut Output,
    naming: Naming,
    /// The bar.
    pub progress: Progress,
    /// What was done.
    pub tally: Tally,
    /// What went wrong.
    pub trouble: Trouble,
    warned: HashSet<String>,
}

impl<'o> Reporter<'o> {
    /// A report to `output`.
    pub fn new(output: &'o mut Output, naming: Naming, progress: Progress) -> Self {
        Self {
            output,
            naming,
            progress,
            tally: Tally::default(),
            trouble: Trouble::default(),
            warned: HashSet::new(),
        }
    }

    /// Is JSON asked for?
    pub fn json(&self) -> bool {
        self.output.json()
    }

    /// The file at `path` of the destination is complete: say so at once, since somebody may act on it.
    pub fn complete(&mut self, path: &Path) -> Result<()> {
        match self.naming {
            Naming::Silent => return Ok(()),
            Naming::Lines => self.output.line(shown(path))?,
            Naming::Nul => {
                self.output.bytes(path.as_os_str().as_bytes())?;
                self.output.bytes(b"\0")?;
            }
        }
        self.output.finish()
    }

    /// Something could not be done; the rest goes on unless nobody reads, or nothing can be written any more.
    pub fn failed(&mut self, failure: Failure) -> Result<()> {
        let refusal = match failure {
            Failure::Refused(refusal) if !refusal.fatal => refusal,
            other => return Err(other),
        };
        if !self.json() {
            self.progress.note(|| refusal.report(false));
        }
        self.trouble.errors.push(*refusal);
        Ok(())
    }

    /// Something is left out on purpose. The same words are said once.
    pub fn warn(&mut self, text: String) {
        if !self.warned.insert(text.clone()) {
            return;
        }
        if !self.json() {
            // Where standard error is closed there is nobody to warn.
            self.progress.note(|| drop(writeln!(std::io::stderr(), "daxstore: warning: {text}")));
        }
        self.trouble.warnings.push(text);
    }
}
