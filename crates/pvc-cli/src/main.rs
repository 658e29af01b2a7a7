//! The `pvc` command.

fn main() {}
