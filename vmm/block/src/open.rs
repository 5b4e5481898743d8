//! Opening: from a path or a descriptor to a locked [`Disk`].

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use crate::format::{Verdict, first_bytes, judge};
use crate::lock::lock;
use crate::qcow2::{Backing, Qcow2Disk};
use crate::raw::RawDisk;
use crate::{Disk, ImageFormat, OpenError};

/// What the guest may do with a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// Read; many guests may share the image.
    ReadOnly,
    /// Read and write, alone.
    ReadWrite,
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ReadOnly => "read-only",
            Self::ReadWrite => "for writing",
        })
    }
}

/// How to open an image.
#[derive(Clone, Copy, Debug)]
pub struct DiskOptions {
    /// What the guest may do.
    pub access: Access,
    /// The format if it is known; otherwise the file's name decides.
    pub format: Option<ImageFormat>,
}

/// Opens and locks the image at `path`.
///
/// # Errors
/// [`OpenError`].
pub fn open(path: &Path, options: DiskOptions) -> Result<Box<dyn Disk>, OpenError> {
    let name = path.display().to_string();
    // Non-blocking: a pipe put in the image's place must not hang us.
    let file = OpenOptions::new()
        .read(true)
        .write(options.access == Access::ReadWrite)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(path)
        .map_err(|source| OpenError::Open { name: name.clone(), access: options.access, source })?;
    build(file, path, name, options)
}

/// Opens and locks an image by a descriptor that is open as `options.access` says. Without a
/// directory to look in, qcow2 images with a backing file are refused.
///
/// # Errors
/// [`OpenError`].
pub fn open_file(file: File, name: &str, options: DiskOptions) -> Result<Box<dyn Disk>, OpenError> {
    build(file, Path::new(""), name.to_owned(), options)
}

fn build(file: File, path: &Path, name: String, options: DiskOptions) -> Result<Box<dyn Disk>, OpenError> {
    let DiskOptions { access, format } = options;
    check_type(&file, &name, access)?;
    lock(&file, access, &name)?;
    let verdict = match format {
        Some(format) => Verdict::Is(format),
        None => judge(path, &first_bytes(&file), access),
    };
    Ok(match verdict {
        Verdict::Is(ImageFormat::Raw) => Box::new(RawDisk::new(file, name, access)?),
        Verdict::Is(ImageFormat::Qcow2) => {
            Box::new(Qcow2Disk::new(file, name, access, Backing::within(path.parent()))?)
        }
        Verdict::LooksLikeQcow2 => Box::new(Qcow2Disk::new(file, name, access, Backing::Refused)?),
        Verdict::Ambiguous => return Err(OpenError::Ambiguous { name }),
    })
}

fn check_type(file: &File, name: &str, access: Access) -> Result<(), OpenError> {
    let kind = file
        .metadata()
        .map_err(|source| OpenError::Open { name: name.to_owned(), access, source })?
        .file_type();
    if kind.is_file() || kind.is_block_device() {
        Ok(())
    } else {
        Err(OpenError::NotADisk { name: name.to_owned() })
    }
}

/// Opens a backing file: read-only, with a shared lock.
pub(crate) fn open_backing(path: &Path, name: &str) -> Result<File, OpenError> {
    let access = Access::ReadOnly;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC | libc::O_NOFOLLOW)
        .open(path)
        .map_err(|source: io::Error| OpenError::Open { name: name.to_owned(), access, source })?;
    check_type(&file, name, access)?;
    lock(&file, access, name)?;
    Ok(file)
}
