//! Files that a lab host is booted with.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::LabError;
use crate::debian::output;

/// Files by their place in the lab host.
#[derive(Clone, Debug, Default)]
pub struct Files {
    files: BTreeMap<PathBuf, PathBuf>,
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
        // A static program is no failure to `ldd` of the C library, but its exit code says so.
        let libraries = output(Command::new("ldd").arg(program)).unwrap_or_default();
        for word in libraries.split_whitespace().filter(|w| w.starts_with('/')) {
            let library = Path::new(word);
            let real = library.canonicalize().map_err(LabError::file("find", library))?;
            self.files.insert(library.to_owned(), real);
        }
        self.files.insert(place.into(), program.to_owned());
        Ok(self)
    }

    /// Place and file of each.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Path, &Path)> {
        self.files.iter().map(|(place, file)| (place.as_path(), file.as_path()))
    }
}
