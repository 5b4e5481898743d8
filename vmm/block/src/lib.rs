//! Disk images: raw files, block devices and qcow2, and what a guest writes on top of one.
//!
//! `vmm-machine` opens them while it builds a guest; the thread that serves a disk then calls
//! [`Disk`], which blocks until the kernel has the data. Guest memory is read and written in
//! place. An image is locked for as long as it is open: one writer, or any number of readers.
//! Nothing here trusts the content of an image, nor decides by it what a writable image is.

#![deny(unsafe_code)]

mod error;
mod format;
mod lock;
mod open;
mod overlay;
mod qcow2;
mod raw;
mod refcounts;
mod vectored;

pub use error::{DiskError, FaultKind, OpenError};
pub use format::ImageFormat;
pub use open::{Access, DiskOptions, open, open_file};
pub use overlay::overlay;

use std::fmt;
use std::sync::{Arc, Mutex};

use vm_memory::VolatileSlice;

/// Bytes of a sector, the unit in which virtio counts.
pub const SECTOR: u64 = 512;

/// What happens to the space of blocks that are zeroed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// The host may take it back.
    Free,
    /// It stays allocated.
    Keep,
}

/// An open disk image. Offsets and lengths are bytes; what crosses the end is an error.
pub trait Disk: Send + fmt::Debug {
    /// What to call it in messages: its path, or the name it was given.
    fn name(&self) -> &str;

    /// Size, a multiple of [`SECTOR`].
    fn capacity(&self) -> u64;

    /// Whether writes are possible.
    fn access(&self) -> Access;

    /// Fills `to` from `offset`.
    ///
    /// # Errors
    /// [`DiskError`]; `to` may be partly filled.
    fn read(&mut self, to: &[VolatileSlice<'_>], offset: u64) -> Result<(), DiskError>;

    /// Writes `from` at `offset`. On stable storage only after [`Disk::flush`].
    ///
    /// # Errors
    /// [`DiskError`]; part of the data may be written.
    fn write(&mut self, from: &[VolatileSlice<'_>], offset: u64) -> Result<(), DiskError>;

    /// Brings all finished writes to stable storage.
    ///
    /// # Errors
    /// [`DiskError`]; then nothing is known of the writes since the last flush.
    fn flush(&mut self) -> Result<(), DiskError>;

    /// The range is not needed any more; it reads as anything afterwards.
    ///
    /// # Errors
    /// [`DiskError`]. An image that cannot give space back reports success.
    fn discard(&mut self, offset: u64, len: u64) -> Result<(), DiskError>;

    /// The range reads as zeroes afterwards.
    ///
    /// # Errors
    /// [`DiskError`].
    fn write_zeroes(&mut self, offset: u64, len: u64, space: Space) -> Result<(), DiskError>;
}

/// A disk that its device, and whoever reads the guest's kernel from it while the guest stands still, have in common.
pub type SharedDisk = Arc<Mutex<Box<dyn Disk>>>;

/// Fills `to` from `offset`, for callers that have no guest memory.
///
/// # Errors
/// As [`Disk::read`].
pub fn read_bytes(disk: &mut dyn Disk, to: &mut [u8], offset: u64) -> Result<(), DiskError> {
    disk.read(&[VolatileSlice::from(to)], offset)
}

#[cfg(test)]
mod tests;
