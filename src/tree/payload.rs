//! What is handed out of a tree?
//!
//! A copy of a record's bytes: a node is a copy too, and gone when the call returns.

use super::records::RECORD_BYTES;
use crate::layout::NODE_AREA_BYTES;
use std::ops::Deref;

/// The longest payload of a record, in bytes: one record fills a node.
pub const MAX_PAYLOAD: usize = NODE_AREA_BYTES - RECORD_BYTES;

/// A copy of a record's payload; dereferences to its bytes.
#[derive(Clone)]
pub struct Payload(Box<[u8]>);

impl Payload {
    /// A copy of `from`, of which no more than [`MAX_PAYLOAD`] bytes are taken.
    #[must_use]
    pub fn new(from: &[u8]) -> Self {
        Self(from[..from.len().min(MAX_PAYLOAD)].into())
    }
}

impl Deref for Payload {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for Payload {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl PartialEq for Payload {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Payload {}

impl std::fmt::Debug for Payload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        (**self).fmt(f)
    }
}
