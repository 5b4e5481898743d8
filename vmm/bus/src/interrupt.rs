//! Interrupts from devices to the guest, and doorbells from the guest to devices.

use std::fmt;

use vmm_sys_util::eventfd::EventFd;

use crate::{Gpa, Gsi, Port};

/// A message-signalled interrupt: what a device writes, and where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MsiMessage {
    /// Message address (0xfee00000 and up on x86; high half in bits 32..63).
    pub address: u64,
    /// Message data.
    pub data: u32,
}

/// Why the kernel refused to attach what a device needs: an interrupt, a doorbell, a piece of memory.
#[derive(Debug, thiserror::Error)]
#[error("Cannot {action} ({object})")]
pub struct AttachError {
    /// What was attempted, as a verb phrase.
    pub action: &'static str,
    /// Which route, doorbell or piece.
    pub object: String,
    /// What the kernel said.
    #[source]
    pub source: std::io::Error,
}

/// Gives devices MSI routes, bound to eventfds, so that raising an interrupt never
/// passes through user space.
///
/// Implemented over KVM's GSI routing and irqfd. Implementations keep this order,
/// the other has crashed hosts: deassign the irqfd, then change routes; set routes,
/// then assign the irqfd.
pub trait MsiRouter: Send + Sync + fmt::Debug {
    /// Takes a free GSI. Call it when a vector is first unmasked, not for every
    /// vector a device advertises: routes are finite.
    ///
    /// # Errors
    /// When no GSI is left.
    fn allocate(&self) -> Result<Gsi, AttachError>;

    /// Gives a GSI back. The vector must be masked.
    fn release(&self, gsi: Gsi);

    /// Routes `gsi` to `message` and lets `event` raise it. An event that was signalled
    /// while masked is delivered now.
    ///
    /// # Errors
    /// When the kernel refuses the route or the irqfd.
    fn unmask(&self, gsi: Gsi, message: MsiMessage, event: &EventFd) -> Result<(), AttachError>;

    /// Detaches `event` from `gsi`; later signals stay pending in the eventfd.
    ///
    /// # Errors
    /// When the kernel refuses.
    fn mask(&self, gsi: Gsi, event: &EventFd) -> Result<(), AttachError>;

    /// Delivers one interrupt at once, without a route (for pins of the IOAPIC).
    ///
    /// # Errors
    /// When the kernel refuses.
    fn send(&self, message: MsiMessage) -> Result<(), AttachError>;
}

/// Where a doorbell listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DoorbellAddress {
    /// Guest physical address.
    Mmio(Gpa),
    /// I/O port.
    Port(Port),
}

/// Lets guest writes signal an eventfd without leaving the kernel (ioeventfd).
pub trait Doorbells: Send + Sync + fmt::Debug {
    /// Signals `event` on each guest write to `address`, of any width; with `value`, only on
    /// a 16-bit write of that value.
    ///
    /// # Errors
    /// When the kernel refuses.
    fn attach(
        &self,
        address: DoorbellAddress,
        value: Option<u16>,
        event: &EventFd,
    ) -> Result<(), AttachError>;

    /// Undoes [`Doorbells::attach`].
    ///
    /// # Errors
    /// When the kernel refuses.
    fn detach(
        &self,
        address: DoorbellAddress,
        value: Option<u16>,
        event: &EventFd,
    ) -> Result<(), AttachError>;
}
