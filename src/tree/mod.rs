//! How are sorted records kept in fixed-size nodes?

mod nodes;

pub use nodes::{ReadNodes, WriteNodes};
