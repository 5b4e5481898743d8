//! The folder where the node's agent listens for pods: heard of when it comes or goes.
//!
//! The agent may be started after the plugin, and be the first to make the folders above it. So each folder on the way that there
//! is is watched for the next one. What else is written there, such as the ledger, is nobody's business here.

use std::ffi::OsString;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use nix::poll::{PollFd, PollFlags};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

/// The folder, watched.
#[derive(Debug)]
pub(crate) struct AgentFolder {
    path: PathBuf,
    /// Names of the folder and of those above it.
    names: Vec<OsString>,
    watch: Option<Inotify>,
}

impl AgentFolder {
    pub(crate) fn new(path: &Path) -> Self {
        let names = path.iter().map(ToOwned::to_owned).collect();
        Self { path: path.to_owned(), names, watch: watch(path) }
    }

    /// Something that happens in a folder above it makes this readable.
    pub(crate) fn watched(&self) -> Option<PollFd<'_>> {
        self.watch.as_ref().map(|w| PollFd::new(w.as_fd(), PollFlags::POLLIN))
    }

    /// Takes what has happened, and says whether it may have come or gone. Then the way to it is watched anew, before anybody
    /// looks at it: what happens after that is heard again.
    pub(crate) fn heard(&mut self) -> bool {
        let mut heard = false;
        while let Some(events) = self.watch.as_ref().and_then(|w| w.read_events().ok()) {
            if events.is_empty() {
                break;
            }
            heard |= events.iter().any(|event| {
                let on_the_way = event.name.as_ref().is_some_and(|name| self.names.contains(name));
                on_the_way || event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW)
            });
        }
        if heard {
            self.watch = watch(&self.path);
        }
        heard
    }
}

/// Watches what there is of the way to a folder.
fn watch(folder: &Path) -> Option<Inotify> {
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).ok()?;
    let what = AddWatchFlags::IN_CREATE
        | AddWatchFlags::IN_DELETE
        | AddWatchFlags::IN_MOVED_TO
        | AddWatchFlags::IN_MOVED_FROM
        | AddWatchFlags::IN_ONLYDIR;
    // From above: what is made meanwhile is heard of by the folder that it is made in.
    let above: Vec<&Path> = folder.ancestors().skip(1).collect();
    let watched = above.into_iter().rev().filter(|above| inotify.add_watch(*above, what).is_ok());
    (watched.count() > 0).then_some(inotify)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_folder_is_heard_of_with_all_above_it_and_what_else_is_written_there_is_not() {
        let root = tempfile::tempdir().unwrap();
        let run = root.path().join("run-of-agent");
        let path = run.join("pods-of-agent");
        let mut folder = AgentFolder::new(&path);
        assert!(folder.watched().is_some() && !folder.heard());
        fs::create_dir(&run).unwrap();
        assert!(folder.heard() && !folder.heard());
        fs::write(run.join("ledger.json"), "").unwrap();
        fs::rename(run.join("ledger.json"), run.join("other")).unwrap();
        assert!(!folder.heard(), "the ledger changes often");
        fs::create_dir(&path).unwrap();
        assert!(folder.heard());
        fs::write(path.join("agent.sock"), "").unwrap();
        assert!(!folder.heard(), "the folder is what is given");
        fs::remove_dir_all(&run).unwrap();
        assert!(folder.heard());
        fs::create_dir_all(&path).unwrap();
        assert!(folder.heard());
        fs::remove_dir_all(&path).unwrap();
        assert!(folder.heard());
    }
}
