//! Work in another network namespace.
//!
//! A thread has one network namespace. The work gets a thread of its own, which enters the namespace and ends
//! afterwards: a thread of a pool would take others' work along.

use std::fs::File;
use std::io;
use std::thread;

use nix::sched::{CloneFlags, setns};

use crate::error::NetworkError;

/// Runs `work` in a network namespace, on a thread with a runtime of its own, and waits for it.
pub(crate) fn inside<T, F>(namespace: &File, work: impl FnOnce() -> F + Send) -> Result<T, NetworkError>
where
    T: Send,
    F: Future<Output = Result<T, NetworkError>>,
{
    let entered = || {
        setns(namespace, CloneFlags::CLONE_NEWNET).map_err(|e| NetworkError::Namespace(e.into()))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.map_err(NetworkError::Thread)?.block_on(work())
    };
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("pod network".to_owned()).spawn_scoped(scope, entered);
        let ended = thread.map_err(NetworkError::Thread)?.join();
        ended.map_err(|_| NetworkError::Thread(io::Error::other("it panicked")))?
    })
}
