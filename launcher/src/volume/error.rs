//! Why a volume cannot be opened, and what to do about it.

use std::io;
use std::path::PathBuf;

/// Why a volume cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// Its image cannot be opened.
    #[error(transparent)]
    Image(#[from] vmm_block::OpenError),
    /// An image cannot be made.
    #[error("Cannot make the image {path:?}")]
    Create {
        /// The image.
        path: PathBuf,
        /// From the operating system.
        source: io::Error,
    },
    /// The disk that cloud-init reads cannot be made.
    #[error("Cannot make the cloud-init image")]
    Seed(#[source] io::Error),
    /// Nowhere to write to.
    #[error(
        "Cannot make a file in {folder:?} for what the guest writes and does not keep; on one host TMPDIR names another folder"
    )]
    Scratch {
        /// The folder.
        folder: PathBuf,
        /// From the operating system.
        source: io::Error,
    },
    /// An empty disk is too large.
    #[error("Cannot make an empty disk of {bytes} bytes")]
    Empty {
        /// How large it was to be.
        bytes: u64,
        /// From the operating system.
        source: io::Error,
    },
    /// What is of a cluster, outside of one.
    #[error("It is for guests in a pod: on one host use hostDisk, emptyDisk or cloudInitNoCloud")]
    NotInPod,
    /// A kind that nothing here opens.
    #[error("It holds nothing that a disk can hold")]
    Unknown,
    /// A file of the pod's.
    #[error("Cannot open {path:?}: is it in the image, claim or object that the volume names?")]
    Find {
        /// The file or folder.
        path: PathBuf,
        /// From the operating system.
        source: io::Error,
    },
    /// Not one disk in an image.
    #[error("{folder:?} holds {found} files, and one is the disk: name it in containerDisk.path")]
    Which {
        /// The folder in the image.
        folder: PathBuf,
        /// How many there are.
        found: usize,
    },
    /// A claim with nothing on it.
    #[error("{path:?} is not on the claim, and nobody said how large to make it: put a raw image there")]
    NoImage {
        /// The image.
        path: PathBuf,
    },
    /// A secret without the data.
    #[error("The secret has no key {wanted}: that is where the data belongs")]
    NoKey {
        /// The key.
        wanted: &'static str,
    },
    /// Files that are one to FAT.
    #[error(
        "{one:?} and {other:?} are one name on the guest's disk, which knows no upper and lower case: rename one"
    )]
    SameName {
        /// A file.
        one: String,
        /// Another.
        other: String,
    },
    /// Too many files, or too large.
    #[error(
        "{folder:?} holds more than {files} files or {bytes} bytes, the most for a disk that is made of them"
    )]
    TooMuch {
        /// The folder.
        folder: PathBuf,
        /// Most files.
        files: usize,
        /// Most bytes.
        bytes: usize,
    },
    /// The disk of files cannot be made.
    #[error("Cannot make a disk of the files in {folder:?}")]
    Disk {
        /// The folder.
        folder: PathBuf,
        /// What is wrong.
        source: io::Error,
    },
}
