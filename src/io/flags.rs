//! How durable is one write to be when its call returns?

/// What is asked of one write beyond what the file's durability level gives, as the flags of `pwritev2(2)`. They only
/// ever ask for more.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[must_use]
pub struct WriteFlags {
    data: bool,
}

impl WriteFlags {
    /// Nothing more than the level gives.
    pub const NONE: Self = Self { data: false };
    /// Write-through (`RWF_DSYNC`): the bytes, and all it takes to find them again (extents, the size), are durable when
    /// the call returns, and no cache line of them is dirty. In `strict` every write is so.
    pub const DSYNC: Self = Self { data: true };

    /// What either asks for.
    pub const fn or(self, other: Self) -> Self {
        Self { data: self.data || other.data }
    }

    /// Whether the call is to be durable when it returns, at any level.
    #[must_use]
    pub const fn writes_through(self) -> bool {
        self.data
    }
}
