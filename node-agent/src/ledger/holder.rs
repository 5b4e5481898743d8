//! The process that a holding lives in, and whether it still lives.
//!
//! Owns the identity of a process across pid reuse and reboots. Reads `/proc`
//! only; it must never signal a process.

use std::io;

use procfs::ProcError;
use procfs::process::Process;
use serde::{Deserialize, Serialize};

/// A process, told apart from a later one with the same pid, in this boot or another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Holder {
    /// Its process id.
    pub pid: i32,
    /// When it started, in clock ticks since boot (`/proc/PID/stat`, field 22).
    pub start_ticks: u64,
    /// The boot it started in (`/proc/sys/kernel/random/boot_id`).
    pub boot_id: String,
}

impl Holder {
    /// The calling process.
    ///
    /// # Errors
    /// Where `/proc` cannot be read.
    pub fn current() -> io::Result<Self> {
        Self::from_process(&Process::myself().map_err(io_error)?)
    }

    /// A process by its id.
    ///
    /// # Errors
    /// Where there is no such process, or `/proc` cannot be read.
    pub fn of(pid: i32) -> io::Result<Self> {
        Self::from_process(&Process::new(pid).map_err(io_error)?)
    }

    /// Whether it still lives. A process that cannot be looked at counts as alive:
    /// what it holds must not be given away on a guess.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        if boot_id().is_ok_and(|now| now != self.boot_id) {
            return false;
        }
        match Process::new(self.pid).and_then(|p| p.stat()) {
            Ok(stat) if stat.starttime != self.start_ticks => false,
            // A zombie leader whose other threads are still on their way out holds memory until
            // the last of them is gone.
            Ok(stat) => !(matches!(stat.state, 'Z' | 'X') && stat.num_threads <= 1),
            Err(ProcError::NotFound(_)) => false,
            Err(_) => true,
        }
    }

    /// Whether it was started by a process, and not left to another since.
    #[must_use]
    pub fn is_child_of(&self, pid: i32) -> bool {
        let stat = Process::new(self.pid).and_then(|p| p.stat());
        stat.is_ok_and(|stat| stat.starttime == self.start_ticks && stat.ppid == pid)
    }

    fn from_process(process: &Process) -> io::Result<Self> {
        let stat = process.stat().map_err(io_error)?;
        Ok(Self { pid: stat.pid, start_ticks: stat.starttime, boot_id: boot_id()? })
    }
}

/// Tells one boot of this host from another.
pub(super) const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

pub(super) fn boot_id() -> io::Result<String> {
    std::fs::read_to_string(BOOT_ID).map(|id| id.trim().to_owned())
}

fn io_error(error: ProcError) -> io::Error {
    match error {
        ProcError::NotFound(_) => io::Error::from(io::ErrorKind::NotFound),
        ProcError::PermissionDenied(_) => io::Error::from(io::ErrorKind::PermissionDenied),
        ProcError::Io(source, _) => source,
        other => io::Error::other(other),
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn this_process_lives() {
        assert!(Holder::current().unwrap().is_alive());
    }

    #[test]
    fn a_process_that_ended_is_dead_even_as_a_zombie() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let holder = Holder::of(i32::try_from(child.id()).unwrap()).unwrap();
        assert!(holder.is_alive());
        child.kill().unwrap();
        // Not reaped yet: wait for it to become a zombie without reaping it.
        while Process::new(holder.pid).unwrap().stat().unwrap().state != 'Z' {
            std::thread::yield_now();
        }
        assert!(!holder.is_alive());
        child.wait().unwrap();
        assert!(!holder.is_alive());
    }

    #[test]
    fn a_reused_pid_and_another_boot_are_dead() {
        let me = Holder::current().unwrap();
        assert!(!Holder { start_ticks: me.start_ticks + 1, ..me.clone() }.is_alive());
        assert!(!Holder { boot_id: "another".into(), ..me }.is_alive());
    }
}
