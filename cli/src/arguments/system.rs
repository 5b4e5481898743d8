//! What is asked of a guest that runs, and of the system inside it.

use clap::{Args, Subcommand};

use super::{GuestOptions, NameOptions, ReportFormat};

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  pinion pause my-vm
  pinion unpause my-vm other-vm

A paused guest keeps its CPUs, its memory and its devices.")]
pub(crate) struct ActOptions {
    /// Guests, as `pinion ps` shows them
    #[arg(required = true, value_name = "NAME")]
    pub(crate) names: Vec<String>,
    #[command(flatten)]
    pub(crate) guests: GuestOptions,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  pinion guest os my-vm
  pinion guest interfaces my-vm -o json
  pinion guest freeze my-vm && lvcreate --snapshot … ; pinion guest thaw my-vm
  pinion guest exec my-vm -- systemctl is-system-running

QEMU's guest agent (qemu-guest-agent) answers, inside the guest. Guests that run on QEMU, through
libvirt, have a channel to it.")]
pub(crate) struct SystemOptions {
    #[command(subcommand)]
    pub(crate) command: SystemCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SystemCommand {
    /// What system runs inside
    Os(ShownOptions),
    /// Its network interfaces and their addresses
    Interfaces(ShownOptions),
    /// Its mounted file systems
    Filesystems(ShownOptions),
    /// Who is logged in
    Users(ShownOptions),
    /// Whether the agent answers
    Ping(NameOptions),
    /// Flush its file systems and hold writes back, for a snapshot
    Freeze(NameOptions),
    /// Let it write again
    Thaw(NameOptions),
    /// Run a program inside, with its output and its exit code
    Exec(ExecOptions),
}

#[derive(Debug, Args)]
pub(crate) struct ShownOptions {
    #[command(flatten)]
    pub(crate) of: NameOptions,
    /// Output format
    #[arg(short, long, value_enum, default_value_t = ReportFormat::Text)]
    pub(crate) output: ReportFormat,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  pinion guest exec my-vm -- uname -a
  pinion guest exec my-vm --timeout 300 -- sh -c 'apt-get -q update'

Exit codes: that of the program; 1 where it could not be run, a signal ended it, or it still runs.")]
pub(crate) struct ExecOptions {
    #[command(flatten)]
    pub(crate) of: NameOptions,
    /// Seconds that the program may take
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub(crate) timeout: u64,
    /// Program and arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
}
