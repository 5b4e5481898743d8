//! FAT12, FAT16 and FAT32. Source: Microsoft's FAT specification 1.03 (2000), with long names.
//!
//! Not by the `fatfs` crate: damaged images make its arithmetic overflow. Only reading is needed, and that is this
//! file: where files lie (`Volume`), and what folders hold (`Folder`).

mod folder;

use std::io::Write;

use self::folder::{DirectoryEntry, entries};
use super::{FileError, Files};
use crate::limits;
use crate::media::Window;
use crate::partition::number;

/// Entries that are looked at in a folder: each name takes up to 21.
const MOST_ENTRIES: usize = limits::NAMES * 4;
/// Bytes of an entry.
const ENTRY: usize = 32;

/// Width of the numbers in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Fat12,
    Fat16,
    Fat32,
}

/// Where things are on a volume; every sum of it has been checked.
#[derive(Debug)]
struct Volume {
    window: Window,
    kind: Kind,
    /// Byte of the first table.
    table: u64,
    /// Byte and length of the root folder, with FAT12 and FAT16.
    root: (u64, u64),
    /// First cluster of the root folder, with FAT32.
    root_cluster: u32,
    /// Byte of cluster 2.
    data: u64,
    cluster_bytes: u64,
    /// Clusters; their numbers start with 2.
    clusters: u32,
    serial: u32,
    label: String,
}

pub(super) fn open(partition: &Window) -> Result<Box<dyn Files>, FileError> {
    let sector = partition.bytes::<512>(0).map_err(damaged)?;
    let volume = Volume::read(partition, &sector).ok_or_else(|| {
        FileError::Damaged("its first sector contradicts itself, or the size of its partition".to_owned())
    })?;
    Ok(Box::new(volume))
}

fn damaged(e: impl std::fmt::Display) -> FileError {
    FileError::Damaged(e.to_string())
}

impl Volume {
    /// From the first sector; `None` where its numbers do not fit together.
    fn read(window: &Window, sector: &[u8; 512]) -> Option<Self> {
        let field = |at, length| number(sector, at, length);
        let or = |small: u64, large: u64| if small == 0 { large } else { small };
        let (bytes, per_cluster) = (field(11, 2), field(13, 1));
        if ![512, 1024, 2048, 4096].contains(&bytes) || !per_cluster.is_power_of_two() {
            return None;
        }
        let (reserved, tables, in_root) = (field(14, 2), field(16, 1), field(17, 2));
        let per_table = or(field(22, 2), field(36, 4));
        let sectors = or(field(19, 2), field(32, 4));
        let root_sectors = (in_root * ENTRY as u64).div_ceil(bytes);
        let root = reserved.checked_add(tables.checked_mul(per_table)?)?;
        let data = root.checked_add(root_sectors)?;
        let clusters = u32::try_from(sectors.checked_sub(data)? / per_cluster).ok()?;
        let is_32 = field(22, 2) == 0;
        let kind = match clusters {
            _ if is_32 => Kind::Fat32,
            0..4085 => Kind::Fat12,
            _ => Kind::Fat16,
        };
        let at = if is_32 { 67 } else { 39 };
        let label = sector.get(at + 4..at + 15).unwrap_or_default();
        let label = String::from_utf8_lossy(label).trim_end().to_owned();
        (reserved > 0 && tables > 0 && sectors.checked_mul(bytes)? <= window.length().next_multiple_of(bytes))
            .then(|| Self {
                window: window.clone(),
                kind,
                table: reserved * bytes,
                root: (root * bytes, root_sectors * bytes),
                root_cluster: u32::try_from(field(44, 4)).unwrap_or(0),
                data: data * bytes,
                cluster_bytes: per_cluster * bytes,
                clusters,
                serial: u32::try_from(field(at, 4)).unwrap_or(0),
                label: if label == "NO NAME" { String::new() } else { label },
            })
    }

    /// The cluster that follows; `None` at the end of a file, and where the table is wrong.
    fn next(&self, cluster: u32) -> Option<u32> {
        let at = u64::from(cluster);
        let entry = |offset: u64| {
            self.window.bytes::<2>(self.table.checked_add(offset)?).ok().map(u16::from_le_bytes)
        };
        let (next, end) = match self.kind {
            Kind::Fat12 => {
                let pair = entry(at + at / 2)?;
                (u32::from(if cluster.is_multiple_of(2) { pair & 0xfff } else { pair >> 4 }), 0xff8)
            }
            Kind::Fat16 => (u32::from(entry(at * 2)?), 0xfff8),
            Kind::Fat32 => {
                (u32::from(entry(at * 4)?) | u32::from(entry(at * 4 + 2)? & 0xfff) << 16, 0xfff_fff8)
            }
        };
        (next < end && self.has(next)).then_some(next)
    }

    fn has(&self, cluster: u32) -> bool {
        cluster >= 2 && cluster - 2 < self.clusters
    }

    /// Where a cluster lies.
    fn place(&self, cluster: u32) -> u64 {
        self.data + u64::from(cluster.saturating_sub(2)) * self.cluster_bytes
    }

    /// Clusters of a chain: as many as there are at most, so that one that bites its own tail ends.
    fn chain(&self, first: u32) -> impl Iterator<Item = u32> {
        let first = Some(first).filter(|c| self.has(*c));
        let most = usize::try_from(self.clusters).unwrap_or(usize::MAX);
        std::iter::successors(first, |cluster| self.next(*cluster)).take(most)
    }

    /// The entries of the root folder, or of the one that begins with a cluster.
    fn folder(&self, cluster: Option<u32>) -> Result<Vec<DirectoryEntry>, FileError> {
        let mut raw = Vec::new();
        let most = MOST_ENTRIES * ENTRY;
        let mut take = |start: u64, length: u64| -> Result<(), FileError> {
            let length = usize::try_from(length).unwrap_or(usize::MAX).min(most.saturating_sub(raw.len()));
            let at = raw.len();
            raw.resize(at + length, 0);
            self.window.read_exact_at(raw.get_mut(at..).unwrap_or_default(), start).map_err(damaged)
        };
        match cluster.or((self.kind == Kind::Fat32).then_some(self.root_cluster)) {
            None => take(self.root.0, self.root.1)?,
            Some(first) => {
                let clusters = most.div_ceil(usize::try_from(self.cluster_bytes).unwrap_or(1).max(1));
                for cluster in self.chain(first).take(clusters) {
                    take(self.place(cluster), self.cluster_bytes)?;
                }
            }
        }
        Ok(entries(&raw))
    }

    /// The entry of a path; `None` for the root folder.
    fn find(&self, path: &str) -> Result<Option<DirectoryEntry>, FileError> {
        let mut found: Option<DirectoryEntry> = None;
        for part in path.split('/').filter(|p| !p.is_empty()) {
            let cluster = match &found {
                None => None,
                Some(entry) if entry.is_folder => Some(entry.cluster),
                Some(_) => return Err(FileError::Absent),
            };
            let same = |e: &DirectoryEntry| e.is_called(part);
            found = Some(self.folder(cluster)?.into_iter().find(same).ok_or(FileError::Absent)?);
        }
        Ok(found)
    }
}

impl Files for Volume {
    /// As Linux writes the serial number of a volume: `ABCD-1234`.
    fn uuid(&self) -> String {
        format!("{:04X}-{:04X}", self.serial >> 16, self.serial & 0xffff)
    }

    fn label(&self) -> String {
        self.label.clone()
    }

    fn copy(&self, path: &str, most: u64, to: &mut dyn Write) -> Result<u64, FileError> {
        let entry = self.find(path)?.filter(|e| !e.is_folder).ok_or(FileError::Absent)?;
        let size = u64::from(entry.size);
        if size > most {
            return Err(FileError::TooLarge { size, most });
        }
        let (mut left, mut buffer) = (size, Vec::new());
        for cluster in self.chain(entry.cluster) {
            let now = left.min(self.cluster_bytes);
            buffer.resize(usize::try_from(now).unwrap_or(0), 0);
            self.window.read_exact_at(&mut buffer, self.place(cluster)).map_err(damaged)?;
            to.write_all(&buffer).map_err(damaged)?;
            left -= now;
            if left == 0 {
                break;
            }
        }
        if left > 0 {
            Err(FileError::Damaged("the file ends before its size says".to_owned()))
        } else {
            Ok(size)
        }
    }

    fn names(&self, path: &str) -> Result<Vec<String>, FileError> {
        let cluster = match self.find(path)? {
            None => None,
            Some(entry) if entry.is_folder => Some(entry.cluster),
            Some(_) => return Err(FileError::Absent),
        };
        let mut names: Vec<String> = self.folder(cluster)?.into_iter().map(|e| e.name).collect();
        names.retain(|name| name != "." && name != "..");
        names.truncate(limits::NAMES);
        names.sort();
        Ok(names)
    }

    fn size(&self, path: &str) -> Option<u64> {
        let entry = self.find(path).ok()??;
        (!entry.is_folder).then(|| u64::from(entry.size))
    }
}
