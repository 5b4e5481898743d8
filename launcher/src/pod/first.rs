//! The first process of a container whose guest is another program's: whatever has lost its parent becomes its child, and it
//! takes in what has ended.
//!
//! Called by the program before anything else, on its only thread. The launcher itself is its child: libvirt waits for some
//! of its own children, and for others until they are gone, which QEMU would never be. What is asked of the container is
//! passed on; when the launcher ends, so does everything else in the container.

use std::env;
use std::io;
use std::process::{Command, ExitCode};

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getpid};

/// This program, as it runs.
const SELF: &str = "/proc/self/exe";
/// What is passed on.
const PASSED_ON: [Signal; 3] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP];

/// Whether this process is the first of its container.
pub(crate) fn is_first() -> bool {
    getpid() == FIRST
}

/// The first process of a container.
pub(super) const FIRST: Pid = Pid::from_raw(1);

/// Runs this program once more, with the same words, and ends as that does.
///
/// 1. Signals are blocked before there is a child: none is lost, and none ends this process.
/// 2. Whoever has ended is taken in, until it is the launcher.
///
/// # Errors
/// When there cannot be another process.
pub(crate) fn attend() -> io::Result<ExitCode> {
    let mut signals = SigSet::empty();
    for signal in PASSED_ON.into_iter().chain([Signal::SIGCHLD]) {
        signals.add(signal);
    }
    signals.thread_block()?;
    let child = Command::new(SELF).args(env::args_os().skip(1)).spawn()?;
    let launcher = Pid::from_raw(i32::try_from(child.id()).map_err(io::Error::other)?);
    loop {
        match signals.wait()? {
            Signal::SIGCHLD => {
                if let Some(code) = take_in(launcher)? {
                    return Ok(ExitCode::from(code));
                }
            }
            // It may have ended.
            signal => drop(kill(launcher, signal)),
        }
    }
}

/// Takes in all that have ended; how the launcher did, if it is among them.
fn take_in(launcher: Pid) -> io::Result<Option<u8>> {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) if pid == launcher => {
                return Ok(Some(u8::try_from(code).unwrap_or(1)));
            }
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == launcher => {
                return Ok(Some(u8::try_from(128 + signal as i32).unwrap_or(1)));
            }
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return Ok(None),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}
