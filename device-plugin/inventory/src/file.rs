//! The file of devices, and what it said last that was good.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use nix::poll::{PollFd, PollFlags};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use pinion_machine::Machine;
use pinion_resources::{MAX_BYTES, Resources, ResourcesError};

/// Why the file is not followed.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It is there and cannot be read.
    #[error("Cannot read {path}; what it said before holds", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// From the operating system.
        source: io::Error,
    },
    /// It is wrong, in at least one place.
    #[error("{path} is not followed, what it said before holds: {}", list(problems), path = path.display())]
    Wrong {
        /// The file.
        path: PathBuf,
        /// All that is wrong.
        problems: Vec<ResourcesError>,
    },
}

fn list(problems: &[ResourcesError]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n  ")
}

/// The file, watched.
#[derive(Debug)]
pub(crate) struct DevicesFile {
    path: PathBuf,
    /// What it said when it was last read, good or not; `None` where it could not be.
    text: Option<String>,
    resources: Resources,
    is_followed: bool,
    watch: Option<Inotify>,
}

impl DevicesFile {
    pub(crate) fn new(path: PathBuf) -> Self {
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let watch = watch(folder).ok();
        Self { path, text: Some(String::new()), resources: Resources::default(), is_followed: true, watch }
    }

    pub(crate) const fn resources(&self) -> &Resources {
        &self.resources
    }

    pub(crate) const fn is_followed(&self) -> bool {
        self.is_followed
    }

    /// Something in its folder that has changed makes this readable.
    pub(crate) fn watched(&self) -> Option<PollFd<'_>> {
        self.watch.as_ref().map(|w| PollFd::new(w.as_fd(), PollFlags::POLLIN))
    }

    /// Takes what has happened in its folder.
    pub(crate) fn heard(&self) -> bool {
        let events = || self.watch.as_ref()?.read_events().ok();
        let mut heard = false;
        while events().is_some_and(|events| !events.is_empty()) {
            heard = true;
        }
        heard
    }

    /// Follows it, if it says something else than before; a name that stands for a device of another name is wrong too.
    ///
    /// # Errors
    /// [`FileError`], once for each text.
    pub(crate) fn read(&mut self, machine: &Machine) -> Result<(), FileError> {
        let text = match text(&self.path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => String::new(),
            Err(_) if self.text.is_none() => return Ok(()),
            Err(source) => {
                self.text = None;
                self.is_followed = false;
                return Err(FileError::Read { path: self.path.clone(), source });
            }
        };
        if self.text.as_ref() == Some(&text) {
            return Ok(());
        }
        let parsed = if text.is_empty() { Ok(Resources::default()) } else { Resources::parse(&text) };
        self.text = Some(text);
        let checked = parsed.and_then(|resources| {
            let conflicts = resources.conflicts(machine);
            if conflicts.is_empty() { Ok(resources) } else { Err(conflicts) }
        });
        self.is_followed = checked.is_ok();
        match checked {
            Ok(resources) => {
                self.resources = resources;
                Ok(())
            }
            Err(problems) => Err(FileError::Wrong { path: self.path.clone(), problems }),
        }
    }
}

fn text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(MAX_BYTES).read_to_string(&mut text)?;
    Ok(text)
}

fn watch(folder: &Path) -> nix::Result<Inotify> {
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
    let what = AddWatchFlags::IN_CLOSE_WRITE
        | AddWatchFlags::IN_CREATE
        | AddWatchFlags::IN_DELETE
        | AddWatchFlags::IN_MOVED_TO
        | AddWatchFlags::IN_MOVED_FROM;
    inotify.add_watch(folder, what)?;
    Ok(inotify)
}
