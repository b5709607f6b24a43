//! Why could something not be measured?

use std::error::Error;
use std::fmt;

/// The result of everything here.
pub type Result<T> = std::result::Result<T, Failure>;

/// What was being done, and what the engine or the system said.
#[derive(Debug)]
pub struct Failure {
    what: String,
    cause: Box<dyn Error + Send + Sync>,
}

impl Failure {
    /// A failure of `what`.
    pub fn new(what: impl Into<String>, cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { what: what.into(), cause: cause.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.cause)
    }
}

impl Error for Failure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.cause)
    }
}

/// Puts what was being done in front of an error.
pub trait Context<T> {
    /// Says `what` was being done.
    fn context(self, what: &'static str) -> Result<T>;
}

impl<T, E: Into<Box<dyn Error + Send + Sync>>> Context<T> for std::result::Result<T, E> {
    fn context(self, what: &'static str) -> Result<T> {
        self.map_err(|error| Failure::new(what, error))
    }
}
