//! The pelago program.
fn main() {}
