//! Putting a kernel and the tables into guest memory: before the first boot, and at each reboot.

use std::sync::Arc;

use vm_memory::{Bytes, GuestAddress};
use vmm_acpi::{AcpiConfig, platform};
use vmm_boot::{BootEntry, BootSource};
use vmm_memory::{GuestRam, layout};

use crate::config::Kernel;
use crate::error::ArmError;

/// What stands at the reset vector instead of firmware: it writes the reset register.
///
/// `mov dx, port; mov al, value; out dx, al; hlt; jmp -1`
const RESET_CODE: [u8; 9] = {
    let [low, high] = (platform::POWER_PORT + platform::RESET).to_le_bytes();
    [0xba, low, high, 0xb0, platform::RESET_VALUE, 0xee, 0xf4, 0xeb, 0xfd]
};

/// Everything that is loaded at each boot.
#[derive(Debug)]
pub(crate) struct Loader {
    pub(crate) ram: Arc<GuestRam>,
    pub(crate) kernel: Kernel,
    pub(crate) acpi: AcpiConfig,
}

impl Loader {
    /// Loads all of it and says how to enter the kernel.
    pub(crate) fn load(&mut self) -> Result<BootEntry, ArmError> {
        vmm_acpi::write(self.ram.memory(), &self.acpi)?;
        self.ram
            .memory()
            .write_slice(&RESET_CODE, GuestAddress(layout::RESET_VECTOR.0))
            .map_err(|source| vmm_boot::BootError::Write { what: "reset code", source })?;
        let mut read;
        let files = match &mut self.kernel {
            Kernel::Files(files) => files,
            // What was read is let go of once it is in the guest's memory.
            Kernel::Read(reader) => {
                read = reader.read().map_err(ArmError::ReadKernel)?;
                &mut read
            }
        };
        let source = BootSource {
            kernel: &mut files.kernel,
            initrd: files.initrd.as_mut(),
            command_line: &files.command_line,
        };
        Ok(vmm_boot::load(self.ram.memory(), source, vmm_acpi::RSDP)?)
    }
}
