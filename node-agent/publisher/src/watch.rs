//! What the kernel tells without being asked: that the ledger's file is another (inotify), and that a guest's process has
//! ended (pidfd).
//!
//! Owns a thread that sleeps until then, and ends when the watch is dropped. What it cannot watch is found at the next look.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use pinion_node_agent::Holder;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::sync::Notify;

/// A watch, until it is dropped.
#[derive(Debug)]
pub(crate) struct Watch {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    wanted: Mutex<Vec<Holder>>,
    is_over: AtomicBool,
    wake: EventFd,
    news: Arc<Notify>,
}

impl Watch {
    /// Watches a file, which need not exist, in a folder that does; `news` is told.
    ///
    /// # Errors
    /// Where the kernel does not let it be watched, or there is no thread to be had.
    pub(crate) fn start(file: &Path, news: Arc<Notify>) -> io::Result<Self> {
        let files = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        let what = AddWatchFlags::IN_MOVED_TO | AddWatchFlags::IN_CLOSE_WRITE | AddWatchFlags::IN_ONLYDIR;
        let _ = files.add_watch(file.parent().unwrap_or(Path::new("/")), what)?;
        let name = file.file_name().unwrap_or_default().to_owned();
        let wake = EventFd::from_value_and_flags(0, EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?;
        let shared =
            Arc::new(Shared { wanted: Mutex::default(), is_over: AtomicBool::new(false), wake, news });
        let watcher = Watcher { shared: Arc::clone(&shared), files, name, processes: BTreeMap::new() };
        let _ = thread::Builder::new()
            .name("publisher-watch".into())
            .stack_size(128 << 10)
            .spawn(move || watcher.work())?;
        Ok(Self { shared })
    }

    /// These processes, from now on. One that has ended already is told too.
    pub(crate) fn processes(&self, of: Vec<Holder>) {
        let mut wanted = self.shared.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        if *wanted != of {
            *wanted = of;
            // A full counter wakes just as well.
            let _ = self.shared.wake.write(1);
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Release);
        let _ = self.shared.wake.write(1);
    }
}

struct Watcher {
    shared: Arc<Shared>,
    files: Inotify,
    name: OsString,
    /// By process id and start; without a descriptor once its end was told.
    processes: BTreeMap<(i32, u64), Option<OwnedFd>>,
}

impl Watcher {
    fn work(mut self) {
        while !self.shared.is_over.load(Ordering::Acquire) {
            let has_ended = self.take_processes();
            if has_ended || self.wait() {
                self.shared.news.notify_one();
            }
        }
    }

    /// Whether one of those that are new has ended already.
    fn take_processes(&mut self) -> bool {
        let _ = self.shared.wake.read();
        let wanted = self.shared.wanted.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let key = |holder: &Holder| (holder.pid, holder.start_ticks);
        self.processes.retain(|known, _| wanted.iter().any(|holder| key(holder) == *known));
        let mut has_ended = false;
        for holder in &wanted {
            if self.processes.contains_key(&key(holder)) {
                continue;
            }
            let opened = Pid::from_raw(holder.pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
            // Looked at once it is open: from then on its id cannot become another's unseen.
            let opened = opened.filter(|_| holder.is_alive());
            has_ended |= opened.is_none();
            let _ = self.processes.insert(key(holder), opened);
        }
        has_ended
    }

    /// Sleeps until something is to be told, or looked at.
    fn wait(&mut self) -> bool {
        let open: Vec<(&(i32, u64), &OwnedFd)> =
            self.processes.iter().filter_map(|(key, fd)| Some((key, fd.as_ref()?))).collect();
        let mut fds = vec![
            PollFd::new(self.shared.wake.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.files.as_fd(), PollFlags::POLLIN),
        ];
        fds.extend(open.iter().map(|(_, fd)| PollFd::new(fd.as_fd(), PollFlags::POLLIN)));
        let _ = poll(&mut fds, PollTimeout::NONE);
        let is_ready = |fd: &PollFd<'_>| fd.any().unwrap_or(false);
        let ended: Vec<(i32, u64)> = open
            .iter()
            .zip(fds.iter().skip(2))
            .filter(|(_, fd)| is_ready(fd))
            .map(|((key, _), _)| **key)
            .collect();
        let mut is_news = !ended.is_empty();
        for key in ended {
            let _ = self.processes.insert(key, None);
        }
        while let Ok(events) = self.files.read_events() {
            is_news |= events.iter().any(|event| event.name.as_ref() == Some(&self.name));
            if events.is_empty() {
                break;
            }
        }
        is_news
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::{Command, Stdio};
    use std::time::Duration;

    use tokio::runtime::Builder;
    use tokio::time::timeout;

    use super::*;

    const SOON: Duration = Duration::from_secs(30);
    const NEVER: Duration = Duration::from_millis(100);

    #[test]
    fn the_ledgers_file_and_ends_of_processes_are_told_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ledger.json");
        Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
            let news = Arc::new(Notify::new());
            let watch = Watch::start(&file, Arc::clone(&news)).unwrap();
            fs::write(folder.path().join("other"), "1").unwrap();
            assert!(timeout(NEVER, news.notified()).await.is_err());
            fs::rename(folder.path().join("other"), &file).unwrap();
            timeout(SOON, news.notified()).await.unwrap();
            let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
            let holder = Holder::of(i32::try_from(child.id()).unwrap()).unwrap();
            watch.processes(vec![holder.clone()]);
            assert!(timeout(NEVER, news.notified()).await.is_err(), "it lives");
            child.kill().unwrap();
            timeout(SOON, news.notified()).await.unwrap();
            assert!(timeout(NEVER, news.notified()).await.is_err(), "told once");
            let _ = child.wait().unwrap();
            let later = Watch::start(&file, Arc::clone(&news)).unwrap();
            later.processes(vec![holder]);
            timeout(SOON, news.notified()).await.unwrap();
        });
    }
}
