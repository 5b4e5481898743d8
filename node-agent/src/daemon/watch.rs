//! What the kernel tells without being asked: who writes to files that are kept (fanotify), processes that end
//! (pidfd), CPUs and devices that come and go (uevents).
//!
//! Owns a thread that sleeps until then. What it cannot watch is found at the next interval instead. It must never
//! change anything.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::AT_FDCWD;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::fanotify::{EventFFlags, Fanotify, InitFlags, MarkFlags, MaskFlags};
use pinion_discovery::Uevents;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::desk::Command;

/// How long is waited after something was heard: much of the same may follow.
const PAUSE: Duration = Duration::from_millis(100);
/// Subsystems whose changes matter.
static SUBSYSTEMS: [&str; 4] = ["cpu", "pci", "memory", "vfio-dev"];

/// What is to be watched; shared between desk and watcher.
#[derive(Clone, Debug)]
pub(super) struct Watched {
    wanted: Arc<Mutex<(Vec<i32>, Vec<PathBuf>)>>,
    changed: Arc<EventFd>,
}

impl Watched {
    pub(super) fn new() -> io::Result<Self> {
        let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
        Ok(Self { wanted: Arc::default(), changed: Arc::new(EventFd::from_value_and_flags(0, flags)?) })
    }

    /// These processes and files, from now on.
    pub(super) fn set(&self, pids: Vec<i32>, files: Vec<PathBuf>) {
        let mut wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        if *wanted != (pids.clone(), files.clone()) {
            *wanted = (pids, files);
            // A full counter wakes just as well.
            let _ = self.changed.write(1);
        }
    }
}

/// The watcher.
#[derive(Debug)]
pub(super) struct Watcher {
    watched: Watched,
    files: Option<Fanotify>,
    marked: Vec<PathBuf>,
    uevents: Option<Uevents>,
    processes: BTreeMap<i32, OwnedFd>,
    to: Sender<Command>,
}

impl Watcher {
    /// Starts watching, on a thread of its own that lives as long as the process.
    ///
    /// # Errors
    /// Where there is no thread to be had.
    pub(super) fn start(watched: Watched, to: Sender<Command>) -> io::Result<()> {
        let flags = InitFlags::FAN_CLASS_NOTIF | InitFlags::FAN_CLOEXEC | InitFlags::FAN_NONBLOCK;
        let files = Fanotify::init(flags, EventFFlags::O_RDONLY | EventFFlags::O_CLOEXEC).ok();
        let uevents = Uevents::listen(&SUBSYSTEMS).ok();
        let watcher = Self { watched, files, marked: Vec::new(), uevents, processes: BTreeMap::new(), to };
        thread::Builder::new().name("watch".into()).stack_size(256 << 10).spawn(move || watcher.watch())?;
        Ok(())
    }

    fn watch(mut self) {
        loop {
            self.follow();
            let mut heard = Vec::new();
            self.wait();
            heard.extend(self.ended());
            heard.extend(self.machine());
            heard.extend(self.writes());
            let quiet = heard.is_empty();
            for command in heard {
                if self.to.send(command).is_err() {
                    return;
                }
            }
            if !quiet {
                thread::sleep(PAUSE);
            }
        }
    }

    /// Watches what is to be watched now.
    fn follow(&mut self) {
        // Nothing to read is no news.
        let _ = self.watched.changed.read();
        let (pids, files) = self.watched.wanted.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.processes.retain(|pid, _| pids.contains(pid));
        for pid in pids {
            if let (false, Some(id)) = (self.processes.contains_key(&pid), Pid::from_raw(pid)) {
                let opened = pidfd_open(id, PidfdFlags::empty()).ok();
                self.processes.extend(opened.map(|fd| (pid, fd)));
            }
        }
        let Some(fanotify) = &self.files else { return };
        let mask = MaskFlags::FAN_MODIFY;
        for file in self.marked.iter().filter(|f| !files.contains(f)) {
            // It may be gone.
            let _ = fanotify.mark(MarkFlags::FAN_MARK_REMOVE, mask, AT_FDCWD, Some(file));
        }
        for file in files.iter().filter(|f| !self.marked.contains(f)) {
            let _ = fanotify.mark(MarkFlags::FAN_MARK_ADD, mask, AT_FDCWD, Some(file));
        }
        self.marked = files;
    }

    fn wait(&self) {
        let mut fds = vec![PollFd::new(self.watched.changed.as_fd(), PollFlags::POLLIN)];
        fds.extend(self.files.iter().map(|f| PollFd::new(f.as_fd(), PollFlags::POLLIN)));
        fds.extend(self.uevents.iter().map(|f| PollFd::new(f.as_fd(), PollFlags::POLLIN)));
        fds.extend(self.processes.values().map(|f| PollFd::new(f.as_fd(), PollFlags::POLLIN)));
        if poll(&mut fds, PollTimeout::NONE).is_err() {
            // Cannot be waited for: look again soon rather than spin.
            thread::sleep(PAUSE);
        }
    }

    fn ended(&mut self) -> Option<Command> {
        let ended = |fd: &OwnedFd| {
            let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
            poll(&mut fds, PollTimeout::ZERO).is_ok_and(|n| n > 0)
        };
        let gone: Vec<i32> = self.processes.iter().filter(|(_, fd)| ended(fd)).map(|(pid, _)| *pid).collect();
        gone.iter().for_each(|pid| drop(self.processes.remove(pid)));
        (!gone.is_empty()).then_some(Command::Changed("process"))
    }

    fn machine(&self) -> Option<Command> {
        let matters = self.uevents.as_ref().is_some_and(Uevents::heard);
        matters.then_some(Command::Changed("machine"))
    }

    /// Who wrote to which file, each once.
    fn writes(&self) -> Vec<Command> {
        let Some(fanotify) = &self.files else { return Vec::new() };
        let own = i32::try_from(std::process::id()).unwrap_or(0);
        let mut writers = BTreeMap::new();
        let began = Instant::now();
        while let Ok(events) = fanotify.read_events() {
            if events.is_empty() || began.elapsed() > PAUSE {
                break;
            }
            for event in events.iter().filter(|e| e.pid() != own) {
                let Some(fd) = event.fd() else { continue };
                let file = fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()));
                if let Ok(file) = file {
                    writers.insert(file, name(event.pid()));
                }
            }
        }
        writers.into_iter().map(|(file, writer)| Command::Wrote(file, writer)).collect()
    }
}

fn name(pid: i32) -> String {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    match name.trim() {
        "" => format!("process {pid}, which is gone,"),
        name => format!("{name} (process {pid})"),
    }
}
