//! Threads that are born on their final CPUs.

use std::io;
use std::sync::mpsc;
use std::thread::{Builder, JoinHandle};

use nix::errno::Errno;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::{Pid, gettid};

/// Stack of a thread, bytes. Where memory is locked all of it is resident.
const STACK: usize = 512 << 10;

/// Why a thread was not put on its CPUs.
#[derive(Debug, thiserror::Error)]
pub enum ThreadError {
    /// No CPUs were given, or one that the kernel's sets cannot hold.
    #[error("CPUs {0:?} are no set a thread can be given")]
    Cpus(Vec<u32>),
    /// The kernel refused.
    #[error("Cannot put a thread on CPUs {cpus:?}: are they online, and allowed by this process's cpuset?")]
    Affinity {
        /// CPUs.
        cpus: Vec<u32>,
        /// From the kernel.
        source: io::Error,
    },
    /// No more threads.
    #[error("Cannot start the thread {name:?}")]
    Spawn {
        /// Its name.
        name: String,
        /// From the kernel.
        source: io::Error,
    },
}

/// A thread and its kernel id.
#[derive(Debug)]
pub struct PinnedThread<T> {
    tid: i32,
    handle: JoinHandle<T>,
}

impl<T> PinnedThread<T> {
    /// Its thread id, as in `/proc/PID/task`.
    pub fn tid(&self) -> i32 {
        self.tid
    }

    /// Whether it has ended.
    pub fn is_finished(&self) -> bool {
        self.handle.is_finished()
    }

    /// Waits for it; `None` if it panicked.
    pub fn join(self) -> Option<T> {
        self.handle.join().ok()
    }
}

fn cpu_set(cpus: &[u32]) -> Result<CpuSet, ThreadError> {
    let bad = || ThreadError::Cpus(cpus.to_vec());
    let mut set = CpuSet::new();
    for &cpu in cpus {
        usize::try_from(cpu).ok().and_then(|c| set.set(c).ok()).ok_or_else(bad)?;
    }
    if cpus.is_empty() { Err(bad()) } else { Ok(set) }
}

/// Restricts a thread to CPUs; 0 is the calling thread.
///
/// # Errors
/// [`ThreadError::Cpus`] or [`ThreadError::Affinity`].
pub fn set_affinity(tid: i32, cpus: &[u32]) -> Result<(), ThreadError> {
    sched_setaffinity(Pid::from_raw(tid), &cpu_set(cpus)?)
        .map_err(|e| ThreadError::Affinity { cpus: cpus.to_vec(), source: e.into() })
}

/// Starts a thread on its final CPUs.
///
/// The order matters: there must be no moment at which it runs elsewhere, and the first pages of
/// its stack must come from the node that it will run on.
/// 1. The calling thread moves to the CPUs itself: what it touches for the new thread is local there.
/// 2. The new thread inherits the mask at birth.
/// 3. The calling thread goes back once the new thread has said its id.
///
/// # Errors
/// [`ThreadError`]; the calling thread is where it was then.
pub fn spawn_on<T: Send + 'static>(
    name: &str,
    cpus: &[u32],
    body: impl FnOnce() -> T + Send + 'static,
) -> Result<PinnedThread<T>, ThreadError> {
    let own = sched_getaffinity(Pid::from_raw(0));
    set_affinity(0, cpus)?;
    let (say, hear) = mpsc::sync_channel(1);
    let spawned = Builder::new().name(name.to_owned()).stack_size(STACK).spawn(move || {
        let _ = say.send(gettid().as_raw());
        body()
    });
    let tid = hear.recv();
    let back = own.and_then(|own| sched_setaffinity(Pid::from_raw(0), &own));
    let failed = |source| ThreadError::Spawn { name: name.to_owned(), source };
    let handle = spawned.map_err(failed)?;
    back.map_err(|e: Errno| ThreadError::Affinity { cpus: Vec::new(), source: e.into() })?;
    let tid = tid.map_err(|e| failed(io::Error::other(e)))?;
    Ok(PinnedThread { tid, handle })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed() -> Vec<u32> {
        let set = sched_getaffinity(Pid::from_raw(0)).unwrap();
        (0..1024u32).filter(|c| set.is_set(*c as usize).unwrap()).collect()
    }

    #[test]
    fn a_thread_is_born_on_its_cpus_and_its_parent_stays() {
        let before = allowed();
        let last = *before.last().unwrap();
        let thread = spawn_on("pinned", &[last], allowed).unwrap();
        assert!(thread.tid() > 0);
        assert_eq!(thread.join(), Some(vec![last]));
        assert_eq!(allowed(), before);
    }

    #[test]
    fn cpus_that_cannot_be_are_refused_and_nothing_changes() {
        let before = allowed();
        assert!(matches!(spawn_on("x", &[], || ()), Err(ThreadError::Cpus(_))));
        assert!(matches!(spawn_on("x", &[70_000], || ()), Err(ThreadError::Cpus(_))));
        assert!(matches!(spawn_on("x", &[1023], || ()), Err(ThreadError::Affinity { .. })));
        assert_eq!(allowed(), before);
    }
}
