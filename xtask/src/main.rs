//! `cargo xtask`: everything that is done with this repository, and all that continuous integration
//! calls. Links nothing native, so that `cargo xtask setup` can install what the rest needs.

#![forbid(unsafe_code)]

mod cluster;
mod demo;
mod docs;
mod fuzz;
mod image;
mod kept;
mod lab;
mod lint;
mod setup;
mod step;
mod suite;
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
    Setup {
        /// Builds Kubernetes and containerd as well, so that tests run with a kubelet
        #[arg(long)]
        cluster: bool,
    },
    /// Boots a virtual host with NUMA nodes, SMT, an IOMMU, devices and KVM
    Lab(lab::Arguments),
    /// A Kubernetes cluster of virtual hosts: real control plane, kubelets with static managers, devices
    Cluster(cluster::Arguments),
    /// Writes Pinion's container image to an OCI archive, without a container engine
    Image(image::Arguments),
    /// Runs the example VM on a virtual two-socket host: plan, console, certificate, metrics
    Demo,
    /// Everything that continuous integration runs: set-up, lint, tests, tests in the lab, fuzzing
    Test,
    /// Formatting, clippy, and what holds for every file and package of the tree
    Lint,
    /// Runs each fuzz target for a bounded time
    Fuzz {
        /// Seconds for each
        #[arg(long, default_value_t = 60)]
        seconds: u32,
        /// Only this one
        #[arg(long)]
        target: Option<String>,
    },
    /// Runs the benchmarks, or those whose name contains the words given
    Bench {
        /// Passed on to `cargo bench`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
    /// Writes the generated documents, and rustdoc
    Docs,
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
        Task::Setup { cluster } => {
            setup::setup()?;
            if cluster {
                cluster::made()?;
            }
            Ok(ExitCode::SUCCESS)
        }
        Task::Lab(arguments) => lab::lab(&arguments),
        Task::Cluster(arguments) => cluster::cluster(&arguments),
        Task::Image(arguments) => image::image(&arguments).map(|()| ExitCode::SUCCESS),
        Task::Demo => demo::demo().map(|()| ExitCode::SUCCESS),
        Task::Test => Ok(suite::suite()),
        Task::Lint => Ok(all(lint::lint)),
        Task::Fuzz { seconds, target } => Ok(all(|steps| fuzz::fuzz(steps, seconds, target.as_deref()))),
        Task::Bench { words } => {
            let mut command = workspace::cargo(&["bench", "--locked", "-p", "pinion-benches"]);
            let status = command.args(words).status()?;
            Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Task::Docs => docs::docs().map(|()| ExitCode::SUCCESS),
    }
}

/// Runs steps, and tallies them.
fn all(work: impl FnOnce(&mut step::Steps)) -> ExitCode {
    let mut steps = step::Steps::new();
    work(&mut steps);
    steps.end()
}
