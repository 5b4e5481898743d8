//! Why a device was not passed through.

use std::io;

use vfio_ioctls::VfioError;

/// Why a device was not passed through. Those that were opened before are closed.
#[derive(Debug, thiserror::Error)]
pub enum PassthroughError {
    /// `/dev/vfio/vfio` or `/dev/iommu` cannot be used.
    #[error("Cannot open VFIO: load it with `modprobe vfio-pci`, and be root or own {path}")]
    Open {
        /// The file.
        path: &'static str,
        /// From the kernel or the library.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A device cannot be opened.
    #[error("Cannot open the device {device} for the guest: {}", hint(source))]
    Device {
        /// The device.
        device: String,
        /// From the kernel or the library.
        #[source]
        source: VfioError,
    },
    /// Some step with an opened device.
    #[error("Cannot {action} of the device {device}")]
    Step {
        /// The device.
        device: String,
        /// What was attempted.
        action: &'static str,
        /// From the kernel.
        #[source]
        source: io::Error,
    },
    /// It could not be reset: whatever the last guest left in it would be this one's.
    #[error(
        "Cannot reset the device {device} before the guest gets it: see `pinion devices -o wide` for its reset methods"
    )]
    Reset {
        /// The device.
        device: String,
        /// From the kernel.
        #[source]
        source: io::Error,
    },
    /// A BAR that the guest cannot have.
    #[error("Cannot give the guest BAR {bar} of the device {device}")]
    Bar {
        /// The device.
        device: String,
        /// Which.
        bar: u8,
        /// Why.
        #[source]
        source: vmm_pci::PciError,
    },
    /// The IOMMU does not take the guest's memory.
    #[error(
        "Cannot let devices reach the guest's memory, {bytes} bytes from {start:#x} on: {}",
        why_unmapped(source)
    )]
    Dma {
        /// First guest-physical address.
        start: u64,
        /// Bytes.
        bytes: u64,
        /// From the kernel.
        #[source]
        source: io::Error,
    },
    /// Less memory may be locked than the guest has.
    #[error(
        "Devices need all {needed} bytes of the guest's memory locked, and this process may lock {limit}: raise \
         RLIMIT_MEMLOCK (`ulimit -l`), or grant CAP_IPC_LOCK"
    )]
    LockedMemory {
        /// Bytes needed.
        needed: u64,
        /// Bytes allowed.
        limit: u64,
    },
    /// Out of descriptors.
    #[error("Cannot make an event descriptor: raise the limit of open files (RLIMIT_NOFILE)")]
    Event(#[source] io::Error),
}

impl PassthroughError {
    /// For a step with the device `name` that the kernel refused.
    pub(crate) fn device<'a>(name: &'a str, action: &'static str) -> impl Fn(io::Error) -> Self + 'a {
        move |source| Self::Step { device: name.to_owned(), action, source }
    }
}

/// What to do about the library's commonest refusals.
fn hint(error: &VfioError) -> &'static str {
    let errno = |e: &io::Error| e.raw_os_error();
    match error {
        VfioError::OpenGroup(e, _) if errno(e) == Some(libc::EBUSY) => "another process has its IOMMU group",
        VfioError::OpenGroup(e, _) if e.kind() == io::ErrorKind::NotFound => {
            "it is not bound to vfio-pci: see `pinion devices bind --help`"
        }
        VfioError::OpenGroup(..) | VfioError::OpenDeviceCdev(_) => {
            "this user may not: be root, or own its file below /dev/vfio"
        }
        VfioError::InvalidVfioDev | VfioError::InvalidPath => {
            "it is not bound to vfio-pci, or is gone: see `pinion devices`"
        }
        VfioError::GroupViable => {
            "another function of its IOMMU group has a driver of the host, or the group is in use: see `pinion devices`"
        }
        VfioError::ContainerSetIOMMU(e) if e.errno() == libc::EPERM => {
            "this host does not remap interrupts, so that a guest could send any: boot with interrupt remapping on"
        }
        VfioError::GroupGetDeviceFD(e) if e.errno() == libc::EBUSY => "another process has it",
        _ => "VFIO refused",
    }
}

fn why_unmapped(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::ENOMEM) => "raise RLIMIT_MEMLOCK (`ulimit -l`) above the guest's memory",
        Some(libc::EINVAL) => "the IOMMU's addresses do not reach that far, or the range is reserved",
        Some(libc::ENOSPC) => {
            "too many mappings: use huge pages, or raise dma_entry_limit of vfio_iommu_type1"
        }
        _ => "the kernel refused",
    }
}
