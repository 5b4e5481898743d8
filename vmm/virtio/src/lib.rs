//! Virtio 1.x over PCI: the transport, and block, network and entropy devices.
//!
//! `vmm-machine` builds a device, wraps it in a [`VirtioPciDevice`] and puts that on a PCI
//! bus. The transport runs on vCPU threads, under the device's lock. Queues are served by the
//! event loop that a device was given, woken by the kernel (ioeventfd) without an exit to the
//! transport. A guest is hostile: whatever it writes into queues and registers, the worst that
//! happens is that its device asks for a reset.

#![deny(unsafe_code)]

pub mod block;
mod buffers;
mod device;
mod interrupt;
pub mod net;
pub mod rng;

mod queue;
mod service;
mod transport;
mod used_ring;

pub use device::{ActivateError, Activation, ActiveQueue, DeviceType, VirtioDevice};
pub use interrupt::VirtioInterrupt;
pub use queue::{Chain, QueueError, VirtQueue};
pub use transport::{TransportError, VirtioPciDevice};

/// Feature bits and fields that this crate shares with drivers, from the standard.
pub mod features {
    /// Indirect descriptors.
    pub const INDIRECT_DESC: u64 = 1 << 28;
    /// Event index.
    pub const EVENT_IDX: u64 = 1 << 29;
    /// Virtio 1.0 and later.
    pub const VERSION_1: u64 = 1 << 32;
}

#[cfg(any(test, feature = "driver"))]
pub mod driver;
