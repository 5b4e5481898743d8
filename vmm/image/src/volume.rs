//! The volumes of a disk: each partition with what it holds, and finding them by name.

use std::io::Write;

use crate::filesystem::{self, FileError, FileSystemKind, Files};
use crate::media::Window;
use crate::partition::{self, Partition, PartitionKind, TableKind};
use crate::{BootError, MediaError, limits};

/// A partition, or a whole disk without any, and what it holds.
pub(crate) struct Volume {
    /// Number of the partition; 0 for the whole disk.
    pub(crate) number: u32,
    pub(crate) kind: PartitionKind,
    pub(crate) table: TableKind,
    pub(crate) length: u64,
    pub(crate) name: String,
    pub(crate) partition_uuid: String,
    pub(crate) holds: FileSystemKind,
    /// What is read; or why it cannot be.
    pub(crate) files: Option<Result<Box<dyn Files>, FileError>>,
}

/// All volumes of a disk.
pub(crate) struct Volumes {
    pub(crate) table: TableKind,
    pub(crate) all: Vec<Volume>,
}

/// A volume, by its place in [`Volumes::all`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct VolumeId(pub(crate) usize);

impl Volumes {
    /// Reads the partition table, and what each partition holds.
    pub(crate) fn read(disk: &Window) -> Result<Self, BootError> {
        if disk.length() < partition::SECTOR {
            return Err(
                MediaError::Outside { offset: 0, length: partition::SECTOR, size: disk.length() }.into()
            );
        }
        let found = partition::read(disk)?;
        let mut all: Vec<Volume> = found
            .partitions
            .iter()
            .take(limits::PARTITIONS)
            .map(|p| Volume::of_partition(disk, p, found.kind))
            .collect();
        if found.kind == TableKind::None {
            all.push(Volume::of_disk(disk));
        }
        Ok(Self { table: found.kind, all })
    }

    /// Those that can be read.
    pub(crate) fn readable(&self) -> impl Iterator<Item = (VolumeId, &Volume, &dyn Files)> {
        self.all.iter().enumerate().filter_map(|(at, v)| Some((VolumeId(at), v, v.files()?)))
    }

    pub(crate) fn get(&self, id: VolumeId) -> Option<&Volume> {
        self.all.get(id.0)
    }

    /// The files of a volume.
    pub(crate) fn files(&self, id: VolumeId) -> Option<&dyn Files> {
        self.get(id)?.files()
    }

    /// A volume by the UUID of its file system; case does not matter.
    pub(crate) fn by_uuid(&self, uuid: &str) -> Option<VolumeId> {
        self.readable().find(|(_, _, files)| files.uuid().eq_ignore_ascii_case(uuid)).map(|(id, ..)| id)
    }

    /// A volume by its label.
    pub(crate) fn by_label(&self, label: &str) -> Option<VolumeId> {
        self.readable().find(|(_, _, files)| files.label() == label).map(|(id, ..)| id)
    }

    /// The first volume that has a file.
    pub(crate) fn by_file(&self, path: &str) -> Option<VolumeId> {
        self.readable().find(|(_, _, files)| files.size(path).is_some()).map(|(id, ..)| id)
    }

    /// Reads a file.
    pub(crate) fn read_file(&self, id: VolumeId, path: &str, most: u64) -> Result<Vec<u8>, BootError> {
        let mut bytes = Vec::new();
        self.copy_file(id, path, most, &mut bytes)?;
        Ok(bytes)
    }

    /// Copies a file; says how many bytes it has.
    pub(crate) fn copy_file(
        &self,
        id: VolumeId,
        path: &str,
        most: u64,
        to: &mut dyn Write,
    ) -> Result<u64, BootError> {
        let partition = self.get(id).map_or(0, |v| v.number);
        let copied = self.files(id).ok_or(FileError::Absent).and_then(|files| files.copy(path, most, to));
        copied.map_err(|e| BootError::File { partition, path: path.to_owned(), reason: e.to_string() })
    }
}

impl Volume {
    fn of_partition(disk: &Window, partition: &Partition, table: TableKind) -> Self {
        let window = disk.part(partition.start, partition.length);
        let holds = FileSystemKind::of(&window);
        Self {
            number: partition.number,
            kind: partition.kind,
            table,
            length: partition.length,
            name: partition.name.clone(),
            partition_uuid: partition.uuid.clone(),
            holds,
            files: filesystem::open(holds, &window),
        }
    }

    fn of_disk(disk: &Window) -> Self {
        let holds = FileSystemKind::of(disk);
        Self {
            number: 0,
            kind: PartitionKind::Data,
            table: TableKind::None,
            length: disk.length(),
            name: String::new(),
            partition_uuid: String::new(),
            holds,
            files: filesystem::open(holds, disk),
        }
    }

    pub(crate) fn files(&self) -> Option<&dyn Files> {
        self.files.as_ref().and_then(|files| files.as_ref().ok()).map(|files| &**files)
    }
}
