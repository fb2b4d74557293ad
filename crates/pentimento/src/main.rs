//! The binary: the only composition root.

fn main() {}
