//! What a PCI function implements.

use std::fmt;

use vmm_bus::{AttachError, Gpa};

use crate::{BarIndex, ConfigSpace, RegisterOffset};

/// A PCI function, emulated or passed through. All calls are made under its lock, on vCPU
/// threads, except [`PciDevice::reset`], which the thread that resets the machine makes.
pub trait PciDevice: Send + fmt::Debug {
    /// Its header, BARs and capabilities.
    fn config(&self) -> &ConfigSpace;

    /// The same, to change.
    fn config_mut(&mut self) -> &mut ConfigSpace;

    /// Reads config space. `data` never crosses a 32-bit register.
    fn config_read(&mut self, offset: RegisterOffset, data: &mut [u8]) {
        self.config().read(offset, data);
    }

    /// Writes config space. A device that overrides this must pass writes to the command
    /// register and the BARs on to its [`ConfigSpace`]: the bus maps BARs by it.
    fn config_write(&mut self, offset: RegisterOffset, data: &[u8]) {
        self.config_mut().write(offset, data);
    }

    /// Reads a BAR.
    fn bar_read(&mut self, bar: BarIndex, offset: u64, data: &mut [u8]);

    /// Writes a BAR.
    fn bar_write(&mut self, bar: BarIndex, offset: u64, data: &[u8]);

    /// A BAR has been mapped: attach doorbells, memory slots and the like.
    ///
    /// # Errors
    /// When the kernel refuses; the BAR goes back to where it was, and what this call
    /// attached must be gone.
    fn bar_mapped(&mut self, bar: BarIndex, at: Gpa) -> Result<(), AttachError> {
        let _ = (bar, at);
        Ok(())
    }

    /// A BAR is about to be unmapped: undo [`PciDevice::bar_mapped`].
    fn bar_unmapped(&mut self, bar: BarIndex, at: Gpa) {
        let _ = (bar, at);
    }

    /// Back to the state before boot. Returns when nothing of the device runs any more. BARs
    /// are unmapped before; the bus resets the config space after.
    fn reset(&mut self);
}
