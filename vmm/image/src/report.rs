//! What was found in an image, as a document: `pinion image inspect` shows it.

use serde::{Deserialize, Serialize};

use crate::{FileSystemKind, LoaderKind, PartitionKind, TableKind};

/// What was found in an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ImageReport {
    /// Bytes of the disk.
    pub size_bytes: u64,
    /// How it is divided.
    pub table: TableKind,
    /// Its partitions; the whole disk has the number 0.
    pub partitions: Vec<PartitionReport>,
    /// Whose configuration was followed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loader: Option<LoaderKind>,
    /// Where it is: partition and path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configuration: Option<String>,
    /// What can be booted.
    #[serde(default)]
    pub entries: Vec<EntryReport>,
    /// What was seen and not followed.
    #[serde(default)]
    pub notes: Vec<String>,
    /// Why it does not boot directly; absent where it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<String>,
    /// A stable word for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PartitionReport {
    /// From 1; 0 for the whole disk.
    pub number: u32,
    /// What it is for.
    pub kind: PartitionKind,
    /// Bytes.
    pub size_bytes: u64,
    /// Name in the table.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// UUID in the table.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub partition_uuid: String,
    /// What it holds.
    pub file_system: FileSystemKind,
    /// UUID of the file system.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uuid: String,
    /// Label of the file system.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub label: String,
    /// Why a file system of a kind that is read was not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// Something that can be booted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EntryReport {
    /// What the configuration calls it.
    pub id: String,
    /// What people see.
    pub title: String,
    /// Whether it is what boots.
    pub is_default: bool,
    /// Partition of the kernel.
    pub partition: u32,
    /// The kernel, or the unified image that holds it.
    pub kernel: String,
    /// Initrds, in their order.
    #[serde(default)]
    pub initrds: Vec<String>,
    /// Kernel command line.
    pub command_line: String,
}
