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

    /// Adds this machine's QEMU with the firmware of its small machines, to compare with inside the lab:
    /// `qemu-system-x86_64 -L /usr/share/qemu`.
    ///
    /// # Errors
    /// When it is not installed.
    pub fn with_qemu(self) -> Result<Self, LabError> {
        let program = Path::new("/usr/bin/qemu-system-x86_64");
        let mut files = self.with_program(program, program)?;
        let places = ["/usr/share/qemu", "/usr/share/seabios"];
        for name in ["bios-microvm.bin", "qboot.rom", "linuxboot_dma.bin", "kvmvapic.bin", "bios-256k.bin"] {
            let found = places.iter().map(|p| Path::new(p).join(name)).find(|p| p.is_file());
            if let Some(file) = found {
                files = files.with(Path::new("/usr/share/qemu").join(name), file);
            }
        }
        Ok(files)
    }

    /// Place and file of each.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Path, &Path)> {
        self.files.iter().map(|(place, file)| (place.as_path(), file.as_path()))
    }
}
