//! Why an image does not boot as it is.

use std::sync::Arc;

use crate::{FileSystemKind, LoaderKind};

/// Why a stretch of the image was not read.
#[derive(Clone, Debug, thiserror::Error)]
pub enum MediaError {
    /// It is not there.
    #[error("the image ends at byte {size}: {length} bytes at {offset} lie outside")]
    Outside {
        /// Where.
        offset: u64,
        /// How many.
        length: u64,
        /// Bytes of the image.
        size: u64,
    },
    /// It was not read.
    #[error("the image cannot be read")]
    Read(#[source] Arc<std::io::Error>),
}

/// Why an image does not boot directly.
#[derive(Clone, Debug, thiserror::Error)]
pub enum BootError {
    /// The image was not read.
    #[error(transparent)]
    Media(#[from] MediaError),
    /// The partition table is wrong.
    #[error("the partition table is damaged: {0}")]
    Table(String),
    /// Nothing to boot.
    #[error("it has no boot configuration that can be read{}", not_looked_into(.unread))]
    NoLoader {
        /// Partitions that were not looked into: number (0 for the whole disk), and what they hold.
        unread: Vec<(u32, FileSystemKind)>,
    },
    /// A file was not read.
    #[error("partition {partition}: {path}: {reason}")]
    File {
        /// Number of the partition; 0 for the whole disk.
        partition: u32,
        /// The file.
        path: String,
        /// Why.
        reason: String,
    },
    /// The configuration says nothing that can be booted.
    #[error("{loader}: {path}: {reason}")]
    Configuration {
        /// Whose configuration.
        loader: LoaderKind,
        /// The file.
        path: String,
        /// Why.
        reason: String,
    },
}

fn not_looked_into(partitions: &[(u32, FileSystemKind)]) -> String {
    if partitions.is_empty() {
        return String::new();
    }
    let name = |(number, kind): &(u32, FileSystemKind)| match number {
        0 => format!("the disk holds {kind}"),
        number => format!("partition {number} holds {kind}"),
    };
    format!("; not looked into: {}", partitions.iter().map(name).collect::<Vec<_>>().join(", "))
}

impl BootError {
    /// A stable word for the kind of failure: reason of conditions, label of metrics.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Media(_) => "ImageUnreadable",
            Self::Table(_) => "PartitionTableDamaged",
            Self::NoLoader { unread } if unread.is_empty() => "NoBootConfiguration",
            Self::NoLoader { .. } => "UnsupportedFileSystem",
            Self::File { .. } => "BootFileUnreadable",
            Self::Configuration { .. } => "BootConfigurationInvalid",
        }
    }
}
