//! `cargo xtask`: everything that is done with this repository, and all that continuous integration
//! calls. Links nothing native, so that `cargo xtask setup` can install what the rest needs.

#![forbid(unsafe_code)]

mod lab;
mod setup;
mod step;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Everything that is done with this repository.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Installs what is missing: Debian packages, and a guest kernel and busybox in the cache
    Setup,
    /// Boots a virtual host with NUMA nodes, SMT, an IOMMU, devices and KVM
    Lab(lab::Arguments),
}

fn main() -> ExitCode {
    match carry_out(Arguments::parse().task) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn carry_out(task: Task) -> anyhow::Result<ExitCode> {
    match task {
        Task::Setup => setup::setup().map(|()| ExitCode::SUCCESS),
        Task::Lab(arguments) => lab::lab(&arguments),
    }
}
