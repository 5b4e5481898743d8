//! The guest's socket: its state, its console and its end, for whoever may ask.
//!
//! Owns a thread on housekeeping CPUs, with no privilege left, and the serial console's far end: what the guest
//! prints goes to standard output, into a bounded memory, and to everybody who follows. Requests for a check
//! or the end reach the session as signals, so that they are carried out where all else is; those to the guest itself
//! go straight to it, on a thread that may wait. It must never wait for a
//! reader.

mod answer;
mod hub;

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::thread;
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::unistd::pipe2;
use pinion_endpoint::SocketError;
use serde_json::Value;
use tokio::runtime::Builder;
use tokio::sync::oneshot;

use crate::monitor::Monitor;
use hub::{Hub, Outlet};

/// How long the console's last words may take to reach standard output.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The socket.
    #[error("The guest's socket cannot be made")]
    Socket(#[from] SocketError),
    /// The thread, or the console's pipe.
    #[error("Cannot make the thread of the guest's socket")]
    Thread(#[source] io::Error),
}

/// What the socket is made of.
#[derive(Debug)]
pub(crate) struct Parts {
    /// The guest's state.
    pub(crate) monitor: Monitor,
    /// Spec and placement, for `inspect`.
    pub(crate) spec: Value,
    /// Types to the guest.
    pub(crate) keys: File,
    /// Where the console's output is printed, if anywhere.
    pub(crate) print: Option<OwnedFd>,
}

/// The guest's socket; dropping it prints the console's last words and takes the socket away. The guest must be gone
/// by then.
#[derive(Debug)]
pub(crate) struct Control {
    /// Taken away in the end, where this process made it.
    path: Option<PathBuf>,
    ended: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Control {
    /// Opens the socket of this process in a folder, and gives the descriptor that the guest prints to.
    ///
    /// # Errors
    /// [`ControlError`].
    pub(crate) fn open(folder: &Path, parts: Parts) -> Result<(Self, OwnedFd), ControlError> {
        let path = folder.join(format!("{}.sock", std::process::id()));
        let listener = pinion_endpoint::bind(&path, 0o600)?;
        Self::serve(listener, Some(path), parts)
    }

    /// The same, on a socket that somebody else has made.
    ///
    /// # Errors
    /// [`ControlError`].
    pub(crate) fn on(listener: UnixListener, parts: Parts) -> Result<(Self, OwnedFd), ControlError> {
        listener.set_nonblocking(true).map_err(ControlError::Thread)?;
        Self::serve(listener, None, parts)
    }

    fn serve(
        listener: UnixListener,
        path: Option<PathBuf>,
        parts: Parts,
    ) -> Result<(Self, OwnedFd), ControlError> {
        let (reader, writer) =
            pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).map_err(|e| ControlError::Thread(e.into()))?;
        let runtime = Builder::new_current_thread().enable_all().build().map_err(ControlError::Thread)?;
        let (ended, told) = oneshot::channel();
        let serve = move || {
            // Where the kernel refuses, it serves with the privileges that it was born with.
            let _ = crate::sandbox::give_up_all_privileges();
            let hub = Rc::new(Hub::default());
            let Parts { monitor, spec, keys, print } = parts;
            let desk = Rc::new(answer::Desk { monitor, spec, keys, hub: Rc::clone(&hub) });
            tokio::task::LocalSet::new().block_on(&runtime, async move {
                let serving = tokio::task::spawn_local(pinion_endpoint::serve(listener, move |caller| {
                    answer::answer(Rc::clone(&desk), caller)
                }));
                let carrying = tokio::task::spawn_local(hub::carry(reader, hub, print.map(Outlet::new)));
                // Ends with an error once the guest is gone.
                let _ = told.await;
                let _ = tokio::time::timeout(LAST_WORDS, carrying).await;
                serving.abort();
            });
        };
        let thread = thread::Builder::new()
            .name("control".into())
            .stack_size(512 << 10)
            .spawn(serve)
            .map_err(ControlError::Thread)?;
        Ok((Self { path, ended: Some(ended), thread: Some(thread) }, writer))
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        drop(self.ended.take());
        if let Some(thread) = self.thread.take() {
            // It cannot be helped that it panicked, and it holds nothing of the guest.
            let _ = thread.join();
        }
        if let Some(path) = &self.path {
            let _ = std::fs::remove_file(path);
        }
    }
}
