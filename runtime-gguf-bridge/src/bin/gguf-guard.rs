//! The guard as a program of its own, for this crate's tests; the node calls it behind a hidden argument. It must not
//! know anything.

use std::{env, process::ExitCode};

fn main() -> ExitCode {
    runtime_gguf_bridge::guard_main(env::args_os().skip(1))
}
