//! Memory of a device, mapped into this process so that the guest can have it as its own.
//!
//! Made by `vmm-vfio` while arming; given to the guest and taken back on vCPU threads, as the guest
//! moves BARs. Nothing in this process ever reads or writes it: a device that is gone would answer
//! with SIGBUS.

use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::Arc;

use vmm_bus::{AttachError, Gpa, Hva};

/// What the guest may do with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceAccess {
    /// Read and write.
    ReadWrite,
    /// Read.
    ReadOnly,
}

/// A shared mapping of a device's file. Unmapped when dropped.
#[derive(Debug)]
pub struct DeviceMemory {
    start: NonNull<libc::c_void>,
    len: usize,
}

// SAFETY: the mapping is an address range that nobody dereferences here; it is only named to the
// kernel, from any thread.
unsafe impl Send for DeviceMemory {}
// SAFETY: as above; no method changes it.
unsafe impl Sync for DeviceMemory {}

impl DeviceMemory {
    /// Maps `len` bytes of `file` from `offset` on. Both are multiples of the page size.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn map(file: BorrowedFd<'_>, offset: u64, len: u64, access: DeviceAccess) -> io::Result<Self> {
        let invalid = |_| io::Error::from(io::ErrorKind::InvalidInput);
        let (offset, len) = (offset.try_into().map_err(invalid)?, usize::try_from(len).map_err(invalid)?);
        let protection = match access {
            DeviceAccess::ReadWrite => libc::PROT_READ | libc::PROT_WRITE,
            DeviceAccess::ReadOnly => libc::PROT_READ,
        };
        let none = std::ptr::null_mut();
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
        let start = unsafe { libc::mmap(none, len, protection, libc::MAP_SHARED, file.as_raw_fd(), offset) };
        match NonNull::new(start) {
            Some(start) if start.as_ptr() != libc::MAP_FAILED => Ok(Self { start, len }),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Its first address.
    #[must_use]
    pub fn start(&self) -> Hva {
        Hva(self.start.as_ptr() as u64)
    }

    /// Its length, bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.len as u64
    }
}

impl Drop for DeviceMemory {
    fn drop(&mut self) {
        // SAFETY: the range is a mapping of this value's own; slots keep the value alive.
        unsafe { libc::munmap(self.start.as_ptr(), self.len) };
    }
}

/// A piece of device memory that the guest has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotId(pub u32);

/// Gives the guest device memory without an exit per access (KVM memory slots).
pub trait MemorySlots: Send + Sync + fmt::Debug {
    /// Shows all of `memory` to the guest at `at`.
    ///
    /// # Errors
    /// When no slot is left or the kernel refuses.
    fn add(&self, at: Gpa, memory: Arc<DeviceMemory>) -> Result<SlotId, AttachError>;

    /// Takes it back.
    ///
    /// # Errors
    /// When there is no such slot or the kernel refuses.
    fn remove(&self, slot: SlotId) -> Result<(), AttachError>;
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_file_is_mapped_where_it_exists_and_refused_where_its_offset_is_no_page() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(8192).unwrap();
        let mapped = DeviceMemory::map(file.as_fd(), 4096, 4096, DeviceAccess::ReadWrite).unwrap();
        assert_eq!((mapped.bytes(), mapped.start().0 % 4096), (4096, 0));
        assert!(DeviceMemory::map(file.as_fd(), 100, 4096, DeviceAccess::ReadOnly).is_err());
        assert!(DeviceMemory::map(file.as_fd(), 0, 0, DeviceAccess::ReadOnly).is_err());
    }
}
