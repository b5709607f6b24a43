//! How are bytes moved, space given and taken, and attributes kept?
//!
//! Bodies over the one iterator of `iomap`, and whatever else happens to a single inode.

mod allocate;
mod attributes;
mod dedupe;
mod defrag;
pub mod fault;
mod handle;
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
pub use attributes::{Metadata, SetAttributes, metadata, set as set_attributes, set_extent_hint};
pub use defrag::{Defragmented, defrag};
pub use handle::Handle;
pub use read::read_vectored;
pub use reflink::{Reflink, reflink};
pub use report::{FileExtent, SeekFor, extents, seek};
pub use resize::set_len;
pub use sequential::reset;
pub use shift::resume_shift;
pub use unshare::make_private;
pub use write::{append_vectored, write_vectored};
pub use xattr::XattrMode;
