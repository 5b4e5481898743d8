//! What every launcher program does, whichever backend it has: `pinion-launcher` and `pinion-launcher-libvirt`.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use nix::sys::prctl::{set_no_new_privs, set_pdeathsig};
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getppid};
use pinion_api::BackendKind;
use pinion_endpoint::chain;

use crate::backend::Backend;
use crate::event::Events;
use crate::pod::{self, PodOptions};
use crate::session::Session;
use crate::spec::LaunchSpec;

/// Runs one guest. Started by `pinion run`, which hands it the guest's spec and placement, or with `pod` by the kubelet; it is
/// not meant to be typed.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Example:\n  pinion run vm.yaml",
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true
)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Started>,
    /// Descriptor that the launch spec is read from
    #[arg(long, value_name = "FD", required = true)]
    spec_fd: Option<i32>,
    /// Descriptor that events are written to, one JSON object a line
    #[arg(long, value_name = "FD")]
    event_fd: Option<i32>,
    /// Process that keeps this guest: the guest ends in order when it is gone
    #[arg(long, value_name = "PID")]
    keeper: Option<i32>,
}

/// Who starts it otherwise.
#[derive(Debug, Subcommand)]
enum Started {
    /// Runs the guest of a Kubernetes pod: asks the node's agent where it goes
    Pod(PodOptions),
}

/// The guest of a pod. Where it is QEMU's, this process may have to be another's parent first.
fn in_pod(program: &'static str, kind: BackendKind, options: &PodOptions, backend: &dyn Backend) -> ExitCode {
    if kind == BackendKind::Libvirt && pod::is_first() {
        return pod::attend().unwrap_or_else(|e| {
            eprintln!("{program}: Cannot start the launcher beside the first process: {e}");
            ExitCode::FAILURE
        });
    }
    ExitCode::from(pod::run(program, kind, options, backend))
}

/// The whole program.
pub fn run(program: &'static str, kind: BackendKind, backend: &dyn Backend) -> ExitCode {
    let arguments = Arguments::parse();
    let _ = set_no_new_privs();
    let spec_fd = match (arguments.command, arguments.spec_fd) {
        (Some(Started::Pod(options)), _) => return in_pod(program, kind, &options, backend),
        // Either is there.
        (None, fd) => fd.unwrap_or(-1),
    };
    // Asked for first, then looked: a keeper that is gone before the first never sends the signal.
    if arguments.keeper.is_some() {
        let _ = set_pdeathsig(Signal::SIGTERM);
    }
    if arguments.keeper.is_some_and(|keeper| getppid() != Pid::from_raw(keeper)) {
        return ExitCode::from(1);
    }
    let events = match arguments.event_fd.map(Events::to_descriptor).transpose() {
        Ok(events) => events.unwrap_or(Events::to_nobody()),
        Err(e) => {
            eprintln!("{program}: Cannot write events: {e}");
            return ExitCode::from(1);
        }
    };
    let heard = arguments.event_fd.is_some();
    match LaunchSpec::read(spec_fd) {
        Ok(spec) => {
            let end = Session::new(spec, events).run(backend);
            if !heard {
                eprintln!("{program}: {}", end.sentence());
            }
            ExitCode::from(end.code())
        }
        Err(e) => {
            eprintln!("{program}: {}", chain(&e));
            ExitCode::from(1)
        }
    }
}
