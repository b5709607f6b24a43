//! Why did a command not do what it was asked, and what can the user do about it?
//!
//! Every refusal has three parts: what was being done, the cause, and what to do.

use daxstore::Error;
use serde::Serialize;
use std::io;
use std::io::Write as _;

/// The result of every step of a command.
pub type Result<T> = std::result::Result<T, Failure>;

/// Why a command ends early.
#[derive(Debug)]
pub enum Failure {
    /// Nobody reads standard output any more.
    PipeClosed,
    /// Refused, with a reason.
    Refused(Box<Refusal>),
}

/// A reason a user can act on.
#[derive(Debug, Serialize)]
pub struct Refusal {
    /// What was being done, and to what.
    pub what: String,
    /// Why it did not work.
    pub cause: String,
    /// What to do.
    pub advice: String,
    /// The errno a system call would have given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub errno: Option<i32>,
    /// Nothing after this can succeed.
    #[serde(skip)]
    pub fatal: bool,
}

/// The document that `--json` prints for a refusal.
#[derive(Serialize)]
struct Document<'a> {
    error: &'a Refusal,
}

impl Refusal {
    /// Says so on standard error.
    pub fn report(&self, json: bool) {
        let text = if json { serde_json::to_string(&Document { error: self }).ok() } else { None };
        let line = text.unwrap_or_else(|| format!("daxstore: {self}"));
        // Standard error is the last resort: where it is closed there is nobody left to tell.
        let _ = writeln!(io::stderr(), "{line}");
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}; {}", self.what, self.cause, self.advice)
    }
}

impl Failure {
    /// A refusal of the tool's own.
    pub fn new(what: impl Into<String>, cause: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::Refused(Box::new(Refusal {
            what: what.into(),
            cause: cause.into(),
            advice: advice.into(),
            errno: None,
            fatal: false,
        }))
    }

    /// The store refused `what`.
    pub fn store(what: impl Into<String>, error: &Error) -> Self {
        let (cause, advice) = split(&cause(error), advice(error));
        let fatal = matches!(error, Error::Poisoned(_));
        Self::Refused(Box::new(Refusal {
            what: what.into(),
            cause,
            advice,
            errno: Some(error.errno()),
            fatal,
        }))
    }

    /// A database refused `what`.
    pub fn kv(what: impl Into<String>, error: &daxstore_kv::Error) -> Self {
        use daxstore_kv::Error as Kv;
        if let Kv::Store(error) = error {
            return Self::store(what, error);
        }
        let otherwise = match error {
            Kv::NotFound => "make one with `put` or `load`",
            Kv::NotADatabase => "name another file; `daxstore ls` tells what is there",
            Kv::Damage(_) | Kv::Record { .. } => "`daxstore kv POOL:PATH verify` tells what else is damaged",
            _ => "see `daxstore kv --help` for what it takes",
        };
        let (cause, advice) = split(&error.to_string(), otherwise);
        Self::new(what, cause, advice)
    }

    /// The host refused `what`.
    pub fn host(what: impl Into<String>, error: &io::Error) -> Self {
        Self::Refused(Box::new(Refusal {
            what: what.into(),
            cause: error.to_string(),
            advice: String::from(host_advice(error.kind())),
            errno: error.raw_os_error(),
            fatal: false,
        }))
    }

    /// Standard output refused a write.
    pub fn stdout(error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::PipeClosed;
        }
        Self::host("write standard output", error)
    }
}

/// Why, without the path that `what` names already.
fn cause(error: &Error) -> String {
    match error {
        Error::Path { what, source, .. } => format!("{what}: {source}"),
        error => error.to_string(),
    }
}

/// Cause and advice of a message that may carry its own advice after a semicolon.
fn split(message: &str, otherwise: &str) -> (String, String) {
    let (cause, advice) = message.rsplit_once("; ").unwrap_or((message, otherwise));
    (String::from(cause), String::from(advice))
}

/// What to do about an error whose message does not say it.
fn advice(error: &Error) -> &'static str {
    match error {
        Error::NotFound => "see what is there with `daxstore ls`",
        Error::Exists => "choose another name or remove it first",
        Error::NotDirectory => "name a directory; `daxstore stat` tells what it is",
        Error::IsDirectory => "name a file, or use the recursive form of the command",
        Error::NotRegular => "name a regular file; `daxstore stat` tells what it is",
        Error::LinkToDirectory => "link what is in it, or use `daxstore ln -s`",
        Error::UnexpectedEnd { .. } => "see its length with `daxstore stat`",
        Error::NotSymlink => "name a symbolic link",
        Error::NotEmpty => "remove what is in it first, or use `daxstore rm -r`",
        Error::NameTooLong { .. } | Error::TargetTooLong { .. } => "choose a shorter one",
        Error::InvalidName => "choose another name",
        Error::InvalidArgument(_) | Error::FileTooLarge { .. } | Error::NoSuchOffset => {
            "see the command's --help for what it takes"
        }
        Error::TooManyLinks => "copy the file instead",
        Error::SymlinkLoop => "follow the links with `daxstore stat` and mend one",
        Error::IntoItself => "choose a destination outside it",
        Error::ReadOnly => "it needs write access to the pool",
        Error::RootDirectory => "name something below `/`",
        Error::PoolSize(_) | Error::CanNotShrink { .. } => "choose another size",
        Error::OutOfPool { .. } => "run `daxstore check`",
        Error::Io { source, .. } | Error::Path { source, .. } => host_advice(source.kind()),
        _ => "see the command's --help",
    }
}

/// What to do about an answer of the operating system.
fn host_advice(kind: io::ErrorKind) -> &'static str {
    match kind {
        io::ErrorKind::NotFound => "check the path",
        io::ErrorKind::PermissionDenied => "check the permissions, or run as another user",
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "free some space on the host",
        io::ErrorKind::ReadOnlyFilesystem => "choose a place that can be written",
        io::ErrorKind::NotADirectory => "name a directory",
        io::ErrorKind::IsADirectory => "name a file",
        io::ErrorKind::AlreadyExists => "choose another name or remove it first",
        _ => "this is the operating system's answer; its log may tell more",
    }
}

/// Puts what was being done in front of an error.
pub trait Context<T> {
    /// `what` is asked for only in case of an error.
    fn context(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T> Context<T> for daxstore::Result<T> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| Failure::store(what(), &error))
    }
}

impl<T> Context<T> for io::Result<T> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| Failure::host(what(), &error))
    }
}

impl<T> Context<T> for rustix::io::Result<T> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| Failure::host(what(), &error.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(failure: &Failure) -> String {
        match failure {
            Failure::Refused(refusal) => refusal.to_string(),
            Failure::PipeClosed => String::new(),
        }
    }

    #[test]
    fn advice_in_the_message_is_not_doubled() {
        let error = Failure::store("open p", &Error::NotAPool);
        assert_eq!(
            text(&error),
            "open p: not a daxstore pool (no superblock found); make one with `daxstore mkfs`"
        );
        let error = Failure::store("remove /a", &Error::NotFound);
        assert_eq!(
            text(&error),
            "remove /a: no such file or directory; see what is there with `daxstore ls`"
        );
    }

    #[test]
    fn a_closed_pipe_is_no_refusal() {
        assert!(matches!(Failure::stdout(&io::ErrorKind::BrokenPipe.into()), Failure::PipeClosed));
        assert!(matches!(Failure::stdout(&io::ErrorKind::StorageFull.into()), Failure::Refused(_)));
    }
}
