//! `cargo embodi <command>`.
fn main() {}
