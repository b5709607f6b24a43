//! Where do results go?
//!
//! Invariant: in JSON mode exactly one document is written, in text mode none.

use crate::failure::{Failure, Result};
use serde::Serialize;
use std::io::{self, BufWriter, StdoutLock, Write};
use std::process::ExitCode;

/// How a command that ran to its end went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// All is well.
    Good,
    /// Faults were found, or some of the work was refused.
    Faults,
}

impl Verdict {
    /// `Faults` where `bad`.
    pub fn faults_if(bad: bool) -> Self {
        if bad { Self::Faults } else { Self::Good }
    }

    /// The process's exit code.
    pub fn exit_code(self) -> ExitCode {
        match self {
            Self::Good => ExitCode::SUCCESS,
            Self::Faults => ExitCode::from(1),
        }
    }
}

/// Standard output, buffered.
pub struct Output {
    json: bool,
    stdout: BufWriter<StdoutLock<'static>>,
}

impl Output {
    /// Standard output, for text or for JSON.
    pub fn new(json: bool) -> Self {
        Self { json, stdout: BufWriter::new(io::stdout().lock()) }
    }

    /// Is a JSON document asked for?
    pub fn json(&self) -> bool {
        self.json
    }

    /// Prints a line of text; nothing in JSON mode.
    pub fn line(&mut self, text: impl std::fmt::Display) -> Result<()> {
        if self.json {
            return Ok(());
        }
        writeln!(self.stdout, "{text}").map_err(|error| Failure::stdout(&error))
    }

    /// Prints bytes as they are.
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        self.stdout.write_all(bytes).map_err(|error| Failure::stdout(&error))
    }

    /// Prints as many of `bytes` as go in, as they are: for writers over standard output.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stdout.write(bytes)
    }

    /// Prints the JSON document; nothing in text mode.
    pub fn document(&mut self, document: &impl Serialize) -> Result<()> {
        if !self.json {
            return Ok(());
        }
        serde_json::to_writer_pretty(&mut self.stdout, document)
            .map_err(|error| Failure::stdout(&error.into()))?;
        self.bytes(b"\n")
    }

    /// Hands everything over to the reader.
    pub fn finish(&mut self) -> Result<()> {
        self.stdout.flush().map_err(|error| Failure::stdout(&error))
    }
}
