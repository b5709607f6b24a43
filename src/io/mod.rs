//! How are bytes moved, space given and taken, and attributes kept?
//!
//! Bodies over the one iterator of `iomap`, and whatever else happens to a single inode.

mod allocate;
mod atomic;
mod attributes;
mod dedupe;
mod defrag;
mod end_io;
pub mod fault;
mod few;
mod flags;
mod group;
mod handle;
mod ordered;
pub mod queue;
mod read;
mod reflink;
pub mod remove;
mod report;
mod resize;
mod sequential;
mod shift;
mod turn;
mod unshare;
mod window;
mod write;
pub mod xattr;

pub use allocate::{AllocateMode, allocate, resume};
pub use atomic::write_atomic;
pub use attributes::{
    Metadata, SetAttributes, metadata, set as set_attributes, set_durability, set_extent_hint,
    set_pool_durability,
};
pub use defrag::{Defragmented, defrag};
pub use flags::WriteFlags;
pub use group::{set_bounds, settle, settle_when_due};
pub use handle::Handle;
pub use read::read_vectored;
pub use reflink::{Reflink, reflink};
pub use report::{FileExtent, SeekFor, extents, seek};
pub use resize::set_len;
pub use sequential::reset;
pub use shift::resume_shift;
pub use unshare::make_private;
pub use write::{append_vectored, drain, write_vectored};
pub use xattr::XattrMode;
