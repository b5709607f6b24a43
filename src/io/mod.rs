//! How are bytes moved, space given and taken, and attributes kept?
//!
//! Bodies over the one iterator of `iomap`, and whatever else happens to a single inode.

mod allocate;
mod attributes;
mod defrag;
mod end_io;
pub mod fault;
mod flags;
mod handle;
pub mod queue;
mod read;
pub mod remove;
mod report;
mod resize;
mod turn;
mod window;
mod write;
pub mod xattr;

pub use allocate::{AllocateMode, allocate, resume};
pub use attributes::{Metadata, SetAttributes, metadata, set as set_attributes};
pub use defrag::{Defragmented, defrag};
pub use flags::WriteFlags;
pub use handle::Handle;
pub use read::read_vectored;
pub use report::{FileExtent, SeekFor, extents, seek};
pub use resize::set_len;
pub use write::{append_vectored, drain, write_vectored};
pub use xattr::XattrMode;
