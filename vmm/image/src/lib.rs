//! How a disk image boots: its partitions, its file systems, its boot loader's configuration.
//!
//! Called by the process that reads images for the launcher and for `pinion image`, on its only thread. Reads
//! through [`Media`] and nothing else; never writes, never mounts, never asks the host. Everything in an image is
//! the guest's, so it may be wrong on purpose: sizes, counts and depths are bounded, and what is wrong is an
//! error that names the partition and the file.

#![forbid(unsafe_code)]

mod error;
mod examine;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
mod filesystem;
mod limits;
mod loader;
mod media;
mod partition;
mod report;
mod volume;

pub use error::{BootError, MediaError};
pub use examine::{Examined, examine};
pub use filesystem::FileSystemKind;
pub use loader::LoaderKind;
pub use media::Media;
pub use partition::{PartitionKind, TableKind};
pub use report::{EntryReport, ImageReport, PartitionReport};

#[cfg(test)]
mod tests;
