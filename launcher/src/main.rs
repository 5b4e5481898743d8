//! `pinion-launcher`: the process that one guest of our own virtual machine monitor lives in.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use pinion_launcher::{BackendKind, Native, program};

fn main() -> ExitCode {
    program::run("pinion-launcher", BackendKind::Native, &Native)
}
