//! The kubelet's folder of sockets: its own, and one of each plugin. The kubelet empties it when it starts.
//!
//! Watched by inotify on a thread of its own, which ends when nobody asks any more; each resource looks for itself what has
//! changed for it.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::sync::watch;

use crate::api::KUBELET_SOCKET;

/// Nothing is missed for longer, milliseconds: inotify does not tell when the folder itself is replaced.
const AT_LATEST: u16 = 5000;

/// Why the folder cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("Cannot watch {path}: is this a node with a kubelet, and is its folder mounted?", path = path.display())]
pub struct FolderError {
    path: PathBuf,
    source: io::Error,
}

/// What a file is, so that one made anew under its name is told from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    inode: (u64, u64),
    changed: (i64, i64),
}

impl Identity {
    /// Of the file at a path; `None` where there is none.
    pub(crate) fn of(path: &Path) -> Option<Self> {
        let meta = fs::symlink_metadata(path).ok()?;
        Some(Self { inode: (meta.dev(), meta.ino()), changed: (meta.ctime(), meta.ctime_nsec()) })
    }
}

/// The folder, watched.
#[derive(Clone, Debug)]
pub struct Folder {
    path: Arc<Path>,
    changed: watch::Receiver<()>,
}

impl Folder {
    /// Watches it for as long as a clone of this is there.
    ///
    /// # Errors
    /// Where there is no such folder.
    pub fn watch(path: &Path) -> Result<Self, FolderError> {
        let error = |source: io::Error| FolderError { path: path.to_owned(), source };
        let inotify = watched(path).map_err(error)?;
        let (to, changed) = watch::channel(());
        let tell = move || {
            while !to.is_closed() {
                let mut fds = [PollFd::new(inotify.as_fd(), PollFlags::POLLIN)];
                let _ = poll(&mut fds, PollTimeout::from(AT_LATEST));
                while inotify.read_events().is_ok_and(|events| !events.is_empty()) {}
                to.send_replace(());
            }
        };
        thread::Builder::new().name("kubelet-folder".into()).spawn(tell).map_err(error)?;
        Ok(Self { path: path.into(), changed })
    }

    /// Something in it may have changed.
    pub(crate) async fn changed(&mut self) {
        if self.changed.changed().await.is_err() {
            // Nobody watches any more: the runtime ends.
            std::future::pending::<()>().await;
        }
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    pub(crate) fn kubelet(&self) -> PathBuf {
        self.join(KUBELET_SOCKET)
    }
}

fn watched(path: &Path) -> io::Result<Inotify> {
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
    let what = AddWatchFlags::IN_CREATE
        | AddWatchFlags::IN_DELETE
        | AddWatchFlags::IN_MOVED_TO
        | AddWatchFlags::IN_MOVED_FROM
        | AddWatchFlags::IN_ONLYDIR;
    inotify.add_watch(path, what)?;
    Ok(inotify)
}
