//! Files, disks and network cards that a lab host is booted with.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{Card, LabError};

/// Files by their place in the lab host, its disks and its network cards.
#[derive(Clone, Debug, Default)]
pub struct Files {
    files: BTreeMap<PathBuf, PathBuf>,
    disks: Vec<(PathBuf, Attach)>,
    cards: Vec<Card>,
    root: bool,
}

/// How a lab host has a disk of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attach {
    /// What it writes is gone with it.
    Snapshot,
    /// What it writes is written.
    Writable,
}

impl Files {
    /// None.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a file of this machine.
    #[must_use]
    pub fn with(mut self, place: impl Into<PathBuf>, file: impl Into<PathBuf>) -> Self {
        self.files.insert(place.into(), file.into());
        self
    }

    /// Adds a program of this machine, with the libraries that it is linked to.
    ///
    /// # Errors
    /// When `ldd` cannot say which those are.
    pub fn with_program(mut self, place: impl Into<PathBuf>, program: &Path) -> Result<Self, LabError> {
        self.files.extend(libraries(program)?);
        self.files.insert(place.into(), program.to_owned());
        Ok(self)
    }

    /// Adds a disk: an image file of this machine, raw whatever it holds. The lab host has them as `/dev/vda`,
    /// `/dev/vdb` and so on.
    #[must_use]
    pub fn with_disk(mut self, image: impl Into<PathBuf>, attach: Attach) -> Self {
        self.disks.push((image.into(), attach));
        self
    }

    /// Has the first disk, an ext4 file system without partitions, as the root of the lab host: it needs the modules of
    /// the lab's kernel, a shell and `cp`. The files come into it.
    #[must_use]
    pub fn on_first_disk(mut self) -> Self {
        self.root = true;
        self
    }

    /// Adds a network card: `eth0`, `eth1` and so on.
    #[must_use]
    pub fn with_card(mut self, card: Card) -> Self {
        self.cards.push(card);
        self
    }

    /// The network cards, in their order.
    pub(crate) fn cards(&self) -> &[Card] {
        &self.cards
    }

    /// Whether the first disk is the root.
    pub(crate) fn is_on_disk(&self) -> bool {
        self.root
    }

    /// The disks, in their order.
    pub(crate) fn disks(&self) -> &[(PathBuf, Attach)] {
        &self.disks
    }

    /// Place and file of each.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Path, &Path)> {
        self.files.iter().map(|(place, file)| (place.as_path(), file.as_path()))
    }
}

/// The libraries that a program is linked to, by the places where it looks for them. None for a static one.
///
/// # Errors
/// When `ldd` cannot be run, or a library is not there.
pub fn libraries(program: &Path) -> Result<BTreeMap<PathBuf, PathBuf>, LabError> {
    // A static program is no failure to `ldd` of the C library, but its exit code says so.
    let said = Command::new("ldd").arg(program).output().map_err(LabError::file("run ldd on", program))?;
    let said = String::from_utf8_lossy(&said.stdout);
    let places = said.split_whitespace().filter(|w| w.starts_with('/') && !w.ends_with(':')).map(Path::new);
    let real = |place: &Path| place.canonicalize().map_err(LabError::file("find", place));
    places.map(|place| Ok((place.to_owned(), real(place)?))).collect()
}
