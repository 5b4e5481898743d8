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

#[cfg(test)]
mod tests {
    use nix::unistd::gettid;

    use super::*;

    fn policy() -> libc::c_int {
        // SAFETY: only reads the class of the calling thread.
        unsafe { libc::sched_getscheduler(0) }
    }

    #[test]
    fn a_thread_becomes_real_time_and_ordinary_again_and_its_children_never_are() {
        let thread = || {
            let tid = gettid().as_raw();
            set_fifo(tid, 1)?;
            let child = std::thread::spawn(policy).join().unwrap();
            let own = policy();
            set_ordinary(tid)?;
            Ok::<_, ScheduleError>((own, child, policy()))
        };
        let fifo = libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK;
        match std::thread::spawn(thread).join().unwrap() {
            Ok(seen) => assert_eq!(seen, (fifo, libc::SCHED_OTHER, libc::SCHED_OTHER)),
            Err(e @ ScheduleError::Fifo { .. }) => println!("skipped: {e}"),
            Err(e) => panic!("{e}"),
        }
    }

    #[test]
    fn priorities_and_threads_that_cannot_be_are_refused_by_name() {
        let tid = gettid().as_raw();
        let error = set_fifo(tid, 100).unwrap_err();
        assert!(error.to_string().contains(&tid.to_string()), "{error}");
        assert!(matches!(set_ordinary(i32::MAX), Err(ScheduleError::Ordinary { tid: i32::MAX, .. })));
    }
}
