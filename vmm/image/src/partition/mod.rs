//! Partition tables: GPT (UEFI 2.10, section 5.3) and MBR (section 5.2).

mod gpt;
mod mbr;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::BootError;
use crate::media::Window;

/// Bytes of a sector, in which tables of disk images count.
pub(crate) const SECTOR: u64 = 512;

/// How a disk is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TableKind {
    /// A GUID partition table.
    Gpt,
    /// A master boot record.
    Mbr,
    /// It is not: a file system from its first byte, or nothing that is known.
    None,
}

impl fmt::Display for TableKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gpt => "GPT",
            Self::Mbr => "MBR",
            Self::None => "none",
        })
    }
}

/// What a partition is for, by its type in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PartitionKind {
    /// EFI system partition.
    Esp,
    /// Extended boot loader partition of the Boot Loader Specification.
    ExtendedBoot,
    /// GRUB's core image.
    BiosBoot,
    /// Anything else.
    Data,
}

/// A partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Partition {
    /// From 1, as Linux and GRUB count.
    pub(crate) number: u32,
    /// First byte.
    pub(crate) start: u64,
    /// Bytes.
    pub(crate) length: u64,
    /// By its type.
    pub(crate) kind: PartitionKind,
    /// `PARTUUID`, as Linux writes it.
    pub(crate) uuid: String,
    /// Name in the table; empty with an MBR.
    pub(crate) name: String,
}

/// The partitions of a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Table {
    pub(crate) kind: TableKind,
    pub(crate) partitions: Vec<Partition>,
}

/// Reads the table of a disk.
pub(crate) fn read(disk: &Window) -> Result<Table, BootError> {
    if let Some(partitions) = gpt::read(disk)? {
        return Ok(Table { kind: TableKind::Gpt, partitions });
    }
    if let Some(partitions) = mbr::read(disk)? {
        return Ok(Table { kind: TableKind::Mbr, partitions });
    }
    Ok(Table { kind: TableKind::None, partitions: Vec::new() })
}

/// A little-endian number inside bytes; 0 where they end before it.
pub(crate) fn number(bytes: &[u8], at: usize, length: usize) -> u64 {
    let field = at.checked_add(length).and_then(|end| bytes.get(at..end)).unwrap_or_default();
    field.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b))
}
