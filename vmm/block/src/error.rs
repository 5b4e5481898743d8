//! What can go wrong with an image, and what to do about it.

use std::io;

use crate::Access;

/// Why an image was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// No such file, no permission, and the like.
    #[error("Cannot open disk image {name} ({access}); check that the path exists and may be opened so")]
    Open {
        /// The image.
        name: String,
        /// How.
        access: Access,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Somebody has it.
    #[error(
        "Disk image {name} is locked by another process: stop the guest that uses it, or make the disk \
         read-only in all of them"
    )]
    Locked {
        /// The image.
        name: String,
    },
    /// The file system cannot lock.
    #[error("Cannot lock disk image {name}; its file system must support locks")]
    Lock {
        /// The image.
        name: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A directory, pipe or socket.
    #[error("Disk image {name} is neither a file nor a block device")]
    NotADisk {
        /// The image.
        name: String,
    },
    /// Nothing in it.
    #[error("Disk image {name} is empty; give it a size first, as in `truncate -s 10G {name}`")]
    Empty {
        /// The image.
        name: String,
    },
    /// Looks like qcow2, but a guest can write that.
    #[error(
        "Disk image {name} begins like qcow2, but its name does not say so, and a guest can write such a \
         beginning: rename it to .qcow2 if it is one, or to .raw if it is not"
    )]
    Ambiguous {
        /// The image.
        name: String,
    },
    /// Not a qcow2 image, damaged, or with features nobody implements.
    #[error("Cannot open {name} as qcow2; check it with `qemu-img check {name}`")]
    Qcow2 {
        /// The image.
        name: String,
        /// What was found.
        #[source]
        source: io::Error,
    },
    /// More than can be kept in mind of it.
    #[error(
        "Disk image {name} is larger than {most} bytes, and is to stay as it is: give the guest a smaller one, or let it write it"
    )]
    TooLarge {
        /// The image.
        name: String,
        /// Bytes that are possible.
        most: u64,
    },
    /// No file for what the guest writes.
    #[error("Cannot make a file as large as {name}, for what the guest writes to it")]
    Scratch {
        /// The image.
        name: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Refused references to other files.
    #[error("Disk image {name} refers to {refers_to}: {why}")]
    Reference {
        /// The image.
        name: String,
        /// The other file, as the image names it.
        refers_to: String,
        /// What is wrong with it.
        why: &'static str,
    },
}

/// What kind of failure a running disk had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FaultKind {
    /// The host's file system, quota or thin pool is full.
    Full,
    /// The file was truncated, or the device is gone.
    Vanished,
    /// Past the end of the disk.
    OutOfRange,
    /// The image or its file system cannot do it.
    Unsupported,
    /// The image's own tables are damaged.
    Corrupt,
    /// Anything else the host's storage reports.
    Io,
}

impl FaultKind {
    /// What a person can do.
    #[must_use]
    pub const fn remedy(self) -> &'static str {
        match self {
            Self::Full => "free space on the host's file system",
            Self::Vanished => {
                "the file was truncated or the device went away: restore it and restart the guest"
            }
            Self::OutOfRange => "the guest asked for what is past the end of the disk",
            Self::Unsupported => "the image's file system cannot do this",
            Self::Corrupt => "the image is damaged: stop the guest and check it with `qemu-img check`",
            Self::Io => "look for storage errors in the host's kernel log",
        }
    }

    /// A short word for labels of metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Vanished => "vanished",
            Self::OutOfRange => "out_of_range",
            Self::Unsupported => "unsupported",
            Self::Corrupt => "corrupt",
            Self::Io => "io",
        }
    }

    pub(crate) fn of(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => return Self::Full,
            io::ErrorKind::Unsupported => return Self::Unsupported,
            io::ErrorKind::InvalidData => return Self::Corrupt,
            io::ErrorKind::UnexpectedEof => return Self::Vanished,
            io::ErrorKind::FileTooLarge => return Self::Full,
            _ => {}
        }
        match error.raw_os_error() {
            Some(libc::ENXIO | libc::ENODEV | libc::ENOMEDIUM | libc::ESTALE) => Self::Vanished,
            Some(libc::EOPNOTSUPP | libc::ENOSYS) => Self::Unsupported,
            _ => Self::Io,
        }
    }
}

/// Why a running disk could not do what the guest asked.
#[derive(Debug, thiserror::Error)]
#[error("Cannot {action} disk image {name}: {}", kind.remedy())]
pub struct DiskError {
    /// What was attempted: "read", "write to", "flush", …
    pub action: &'static str,
    /// The image.
    pub name: String,
    /// What kind of failure.
    pub kind: FaultKind,
    /// What the kernel or the format said.
    #[source]
    pub source: io::Error,
}

impl DiskError {
    /// Classifies `source`.
    #[must_use]
    pub fn new(action: &'static str, name: &str, source: io::Error) -> Self {
        Self { action, name: name.to_owned(), kind: FaultKind::of(&source), source }
    }

    pub(crate) fn out_of_range(action: &'static str, name: &str) -> Self {
        let source = io::ErrorKind::InvalidInput.into();
        Self { action, name: name.to_owned(), kind: FaultKind::OutOfRange, source }
    }
}
