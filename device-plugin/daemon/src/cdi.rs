//! The document by which container runtimes know the devices, in the folder where they look for such.
//!
//! Held by the daemon: written on its first thread before anything is offered, and on the inventory's before each change is told to
//! the kubelet. It stays when the daemon ends, since containers that have devices may be started again.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use pinion_device_plugin::{Catalogue, cdi_document};

const NAME: &str = "pinion.dev-vfio.json";

/// Why it is not there, or is an old one.
#[derive(Debug, thiserror::Error)]
#[error("Cannot write {path}, by which container runtimes know devices", path = path.display())]
pub struct CdiError {
    path: PathBuf,
    source: io::Error,
}

/// The document's place.
#[derive(Clone, Debug)]
pub(crate) struct CdiFile(PathBuf);

impl CdiFile {
    pub(crate) fn below(folder: &Path) -> Self {
        Self(folder.join(NAME))
    }

    /// Writes it whole: a runtime may be reading.
    pub(crate) fn write(&self, catalogue: &Catalogue) -> Result<(), CdiError> {
        let failed = |source| CdiError { path: self.0.clone(), source };
        let draft = self.0.with_extension("draft");
        if let Some(folder) = self.0.parent() {
            fs::create_dir_all(folder).map_err(failed)?;
        }
        fs::write(&draft, format!("{:#}\n", cdi_document(catalogue))).map_err(failed)?;
        fs::rename(&draft, &self.0).map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_there_whole_or_told_not_to_be() {
        let folder = tempfile::tempdir().unwrap();
        let file = CdiFile::below(&folder.path().join("cdi"));
        file.write(&Catalogue::default()).unwrap();
        file.write(&Catalogue::default()).unwrap();
        let names: Vec<_> =
            fs::read_dir(folder.path().join("cdi")).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, [NAME]);
        fs::write(folder.path().join("file"), "").unwrap();
        let error = CdiFile::below(&folder.path().join("file")).write(&Catalogue::default()).unwrap_err();
        assert!(error.to_string().contains("file/pinion.dev-vfio.json"), "{error}");
    }
}
