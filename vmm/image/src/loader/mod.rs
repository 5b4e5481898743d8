//! Boot loaders: what each would offer, and what it would start.
//!
//! A file per loader. The order in which they are asked is that of what is most exact:
//! 1. GRUB: its generated configuration is on nearly every image; where it says `blscfg`, entries come from there.
//! 2. The Boot Loader Specification (systemd-boot): entries and unified kernel images.
//! 3. Syslinux and extlinux.
//!
//! An image with several has the later ones as leftovers, or beside a loader that this order names first.

mod bls;
mod grub;
mod syslinux;
mod unified;
mod version;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::BootError;
use crate::volume::{VolumeId, Volumes};

pub(crate) use unified::Unified;
#[cfg(any(test, feature = "fake"))]
pub(crate) use version::compare as compare_versions;

/// A boot loader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum LoaderKind {
    /// GRUB 2.
    Grub,
    /// Boot Loader Specification: systemd-boot and others.
    BootLoaderSpecification,
    /// Syslinux, extlinux.
    Syslinux,
}

impl fmt::Display for LoaderKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Grub => "GRUB",
            Self::BootLoaderSpecification => "Boot Loader Specification",
            Self::Syslinux => "Syslinux",
        })
    }
}

/// A file of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileRef {
    pub(crate) volume: VolumeId,
    pub(crate) path: String,
}

/// Where a kernel is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kernel {
    /// A file of its own.
    Plain(FileRef),
    /// In a unified kernel image, with its initrd and its command line.
    Unified(FileRef),
}

impl Kernel {
    pub(crate) fn file(&self) -> &FileRef {
        match self {
            Self::Plain(file) | Self::Unified(file) => file,
        }
    }
}

/// Something that can be booted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// What the configuration calls it.
    pub(crate) id: String,
    /// What people see.
    pub(crate) title: String,
    pub(crate) kernel: Kernel,
    /// In their order; they are put behind one another.
    pub(crate) initrds: Vec<FileRef>,
    pub(crate) command_line: String,
}

/// What a loader offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Menu {
    pub(crate) loader: LoaderKind,
    /// Its configuration.
    pub(crate) path: FileRef,
    pub(crate) entries: Vec<Entry>,
    /// What it would start, by its place among the entries; or why it would not.
    pub(crate) default: Result<usize, String>,
    /// What was seen and not followed.
    pub(crate) notes: Vec<String>,
}

/// Asks one loader after the other.
pub(crate) fn find(volumes: &Volumes) -> Result<Option<Menu>, BootError> {
    if let Some(menu) = grub::read(volumes)? {
        return Ok(Some(menu));
    }
    if let Some(menu) = bls::read(volumes)? {
        return Ok(Some(menu));
    }
    syslinux::read(volumes)
}

/// A path below the root of a volume: without `.`, `..` and double slashes; backslashes are slashes.
pub(crate) fn absolute(folder: &str, path: &str) -> String {
    let path = path.replace('\\', "/");
    let joined = if path.starts_with('/') { path } else { format!("{folder}/{path}") };
    let mut parts: Vec<&str> = Vec::new();
    for part in joined.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// The folder of a file.
pub(crate) fn folder(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}
