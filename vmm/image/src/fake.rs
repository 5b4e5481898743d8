//! Volumes in memory, for tests and fuzz targets: what loaders make of files, without file systems around them.

use std::collections::BTreeMap;
use std::io::Write;

use crate::filesystem::{FileError, FileSystemKind, Files};
use crate::loader::{self, Unified};
use crate::partition::{PartitionKind, TableKind};
use crate::volume::{Volume, Volumes};
use crate::{Examined, ImageReport};

/// A file system of a map.
#[derive(Clone, Debug, Default)]
pub struct FakeFiles {
    files: BTreeMap<String, Vec<u8>>,
    label: String,
}

impl FakeFiles {
    /// Files by their paths.
    #[must_use]
    pub fn new(files: &[(&str, &[u8])]) -> Self {
        let files = files.iter().map(|(path, bytes)| ((*path).to_owned(), bytes.to_vec())).collect();
        Self { files, label: String::new() }
    }

    /// With a label, whose bytes are its UUID, too.
    #[must_use]
    pub fn labelled(self, label: &str) -> Self {
        Self { label: label.to_owned(), ..self }
    }
}

impl Files for FakeFiles {
    fn uuid(&self) -> String {
        format!("uuid-of-{}", self.label)
    }

    fn label(&self) -> String {
        self.label.clone()
    }

    fn copy(&self, path: &str, most: u64, to: &mut dyn Write) -> Result<u64, FileError> {
        let bytes = self.files.get(path).ok_or(FileError::Absent)?;
        let size = bytes.len() as u64;
        if size > most {
            return Err(FileError::TooLarge { size, most });
        }
        to.write_all(bytes).map_err(|e| FileError::Damaged(e.to_string()))?;
        Ok(size)
    }

    fn names(&self, path: &str) -> Result<Vec<String>, FileError> {
        let folder = format!("{}/", path.trim_end_matches('/'));
        let below = self.files.keys().filter_map(|p| p.strip_prefix(&folder));
        let mut names: Vec<String> = below.filter_map(|p| p.split('/').next()).map(str::to_owned).collect();
        names.dedup();
        if names.is_empty() { Err(FileError::Absent) } else { Ok(names) }
    }

    fn size(&self, path: &str) -> Option<u64> {
        self.files.get(path).map(|bytes| bytes.len() as u64)
    }
}

/// What is found on a disk of such file systems: GPT partitions from 1 on, of these kinds.
#[must_use]
pub fn examine(partitions: Vec<(PartitionKind, FakeFiles)>) -> Examined {
    let volume = |(number, (kind, files)): (u32, (PartitionKind, FakeFiles))| Volume {
        number,
        kind,
        table: TableKind::Gpt,
        length: 1 << 20,
        name: String::new(),
        partition_uuid: String::new(),
        holds: FileSystemKind::Ext4,
        files: Some(Ok(Box::new(files))),
    };
    let volumes = Volumes { table: TableKind::Gpt, all: (1..).zip(partitions).map(volume).collect() };
    Examined::of(volumes, 1 << 30)
}

/// What is found on a root file system with a single file.
#[must_use]
pub fn report(path: &str, content: &[u8]) -> ImageReport {
    let files = FakeFiles::new(&[(path, content), ("/vmlinuz", b"kernel"), ("/initrd.img", b"initrd")]);
    examine(vec![(PartitionKind::Esp, files)]).report()
}

/// Takes a unified kernel image apart; says whether it is one.
#[must_use]
pub fn unified(bytes: &[u8]) -> bool {
    Unified::parse(bytes).is_ok()
}

/// Compares versions.
#[must_use]
pub fn versions(a: &str, b: &str) -> std::cmp::Ordering {
    loader::compare_versions(a, b)
}
