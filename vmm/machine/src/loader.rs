//! Putting a kernel and the tables into guest memory: before the first boot, and at each reboot.

use std::fs::File;
use std::sync::Arc;

use vmm_acpi::AcpiConfig;
use vmm_boot::{BootEntry, BootSource};
use vmm_memory::GuestRam;

use crate::error::ArmError;

/// Everything that is loaded at each boot.
#[derive(Debug)]
pub(crate) struct Loader {
    pub(crate) ram: Arc<GuestRam>,
    pub(crate) kernel: File,
    pub(crate) initrd: Option<File>,
    pub(crate) command_line: String,
    pub(crate) acpi: AcpiConfig,
}

impl Loader {
    /// Loads all of it and says how to enter the kernel.
    pub(crate) fn load(&mut self) -> Result<BootEntry, ArmError> {
        vmm_acpi::write(self.ram.memory(), &self.acpi)?;
        let source = BootSource {
            kernel: &mut self.kernel,
            initrd: self.initrd.as_mut(),
            command_line: &self.command_line,
        };
        Ok(vmm_boot::load(self.ram.memory(), source, vmm_acpi::RSDP)?)
    }
}
