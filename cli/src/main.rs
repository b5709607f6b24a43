//! The command-line tool of daxstore.
fn main() {}
