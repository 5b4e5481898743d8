//! Why a machine was not built.

use std::io;

/// Why a machine was not built; nothing is left of it.
#[derive(Debug, thiserror::Error)]
pub enum ArmError {
    /// The configuration contradicts itself.
    #[error("The machine's configuration is wrong: {0}")]
    Config(&'static str),
    /// KVM.
    #[error("Cannot create the virtual machine")]
    Kvm(#[from] vmm_kvm::KvmError),
    /// Memory.
    #[error("Cannot give the guest its memory")]
    Memory(#[from] vmm_memory::RamError),
    /// Kernel.
    #[error("Cannot load the guest's kernel")]
    Boot(#[from] vmm_boot::BootError),
    /// The guest's disk does not boot.
    #[error("Cannot boot the guest from its disk")]
    ReadKernel(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// ACPI.
    #[error("Cannot describe the machine to the guest")]
    Acpi(#[from] vmm_acpi::AcpiError),
    /// PCI.
    #[error("Cannot add {device} to the PCI bus")]
    Pci {
        /// The device.
        device: String,
        /// Why.
        #[source]
        source: vmm_pci::PciError,
    },
    /// A virtio device.
    #[error("Cannot make {device}")]
    Device {
        /// The device.
        device: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A device of the host.
    #[error("Cannot pass a device through")]
    Passthrough(#[from] vmm_vfio::PassthroughError),
    /// Too few addresses.
    #[error(
        "The devices' BARs do not fit beside the guest's memory: this host's processor gives a guest too few physical addresses"
    )]
    Windows,
    /// Two platform devices overlap: a mistake of ours.
    #[error("Cannot put a platform device on its bus")]
    Bus(#[from] vmm_bus::BusError),
    /// A thread.
    #[error("Cannot start the thread {name:?}")]
    Thread {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: vmm_host::ThreadError,
    },
    /// A scheduling class, or locked memory.
    #[error("Cannot make the guest real-time")]
    Schedule(#[from] vmm_host::ScheduleError),
    /// The threads' system call filters.
    #[error("Cannot confine the guest's threads")]
    Sandbox(#[from] crate::SandboxError),
    /// An event loop.
    #[error("Cannot serve the guest's devices")]
    EventLoop(#[from] vmm_event_loop::EventLoopError),
    /// A descriptor of our own.
    #[error("Cannot make an event descriptor: raise the limit of open files (RLIMIT_NOFILE)")]
    Event(#[source] io::Error),
}
