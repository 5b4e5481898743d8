//! Where the VMM crates meet: addresses, the port and MMIO buses, and the traits
//! through which devices ask for interrupts and doorbells.
//!
//! Called by every device and by vCPU threads on exits. It knows nothing of KVM:
//! `vmm-kvm` implements [`MsiRouter`] and [`Doorbells`], tests implement them as mocks.
//! A device must never block in [`BusDevice`] calls: they run on vCPU threads.

#![forbid(unsafe_code)]

mod address;
mod bus;
mod interrupt;

pub use address::{Gpa, Gsi, Hva, MemSlot, Port};
pub use bus::{Bus, BusDevice, BusError, BusRange, SharedBusDevice};
pub use interrupt::{AttachError, DoorbellAddress, Doorbells, MsiMessage, MsiRouter};
