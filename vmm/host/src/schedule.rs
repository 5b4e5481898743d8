//! Scheduling classes and locked memory.

use std::io;

use nix::sys::mman::{MlockAllFlags, mlockall};

/// Why a scheduling request was refused.
#[derive(Debug, thiserror::Error)]
pub enum ScheduleError {
    /// The real-time class was refused.
    #[error(
        "Cannot run thread {tid} as SCHED_FIFO {priority}: run as root, or raise RLIMIT_RTPRIO (`ulimit -r`)"
    )]
    Fifo {
        /// The thread.
        tid: i32,
        /// Priority.
        priority: i32,
        /// From the kernel.
        source: io::Error,
    },
    /// The ordinary class was refused.
    #[error("Cannot run thread {tid} as SCHED_OTHER: run as the user whose thread it is")]
    Ordinary {
        /// The thread.
        tid: i32,
        /// From the kernel.
        source: io::Error,
    },
    /// Memory cannot be locked.
    #[error("Cannot lock the guest's memory: run as root, or raise RLIMIT_MEMLOCK (`ulimit -l`) above it")]
    Lock(#[source] io::Error),
}

/// Runs a thread in the `SCHED_FIFO` class; its children do not inherit that.
///
/// # Errors
/// [`ScheduleError::Fifo`].
pub fn set_fifo(tid: i32, priority: i32) -> Result<(), ScheduleError> {
    let parameters = libc::sched_param { sched_priority: priority };
    let policy = libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK;
    // SAFETY: the parameters outlive the call, which only reads them.
    let result = unsafe { libc::sched_setscheduler(tid, policy, &raw const parameters) };
    if result == 0 {
        return Ok(());
    }
    Err(ScheduleError::Fifo { tid, priority, source: io::Error::last_os_error() })
}

/// Runs a thread in the class of every thread that asks for none.
///
/// # Errors
/// [`ScheduleError::Ordinary`].
pub fn set_ordinary(tid: i32) -> Result<(), ScheduleError> {
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: the parameters outlive the call, which only reads them.
    let result = unsafe { libc::sched_setscheduler(tid, libc::SCHED_OTHER, &raw const parameters) };
    if result == 0 {
        return Ok(());
    }
    Err(ScheduleError::Ordinary { tid, source: io::Error::last_os_error() })
}

/// Keeps all memory of this process, now and later, from being swapped out.
///
/// # Errors
/// [`ScheduleError::Lock`].
pub fn lock_memory() -> Result<(), ScheduleError> {
    mlockall(MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE)
        .map_err(|e| ScheduleError::Lock(e.into()))
}
