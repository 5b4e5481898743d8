//! An ELF image with a PVH entry: segments go where they say, entry is in 32-bit mode.

use std::fs::File;

use linux_loader::loader::{Elf, KernelLoader, PvhBootCapability};
use vm_memory::GuestMemoryMmap;
use vmm_bus::Gpa;
use vmm_memory::layout;

use crate::BootError;
use crate::entry::{Kernel, Range, Start};

/// Linux takes command lines of 2 KiB on x86 (`COMMAND_LINE_SIZE`).
const COMMAND_LINE_MAX: u64 = 2047;

/// Loads the segments and finds the entry.
pub(crate) fn load(memory: &GuestMemoryMmap, file: &mut File, low_end: Gpa) -> Result<Kernel, BootError> {
    let loaded =
        Elf::load(memory, None, file, Some(vm_memory::GuestAddress(layout::HIGH_RAM.0))).map_err(|_| {
            BootError::Unsupported(
                "its ELF segments are damaged, overlap low memory, or do not fit in the guest's",
            )
        })?;
    let PvhBootCapability::PvhEntryPresent(entry) = loaded.pvh_boot_cap else {
        return Err(BootError::Unsupported(
            "it has no PVH entry: build it with CONFIG_PVH, or give its bzImage",
        ));
    };
    let range = Range { start: Gpa(loaded.kernel_load.0), end: Gpa(loaded.kernel_end) };
    if range.end > low_end {
        let needed = range.end.0.saturating_sub(range.start.0);
        return Err(BootError::KernelTooLarge { at: range.start, needed, end: low_end });
    }
    Ok(Kernel {
        range,
        initrd_ceiling: low_end,
        command_line_max: COMMAND_LINE_MAX,
        start: Start::Pvh { address: Gpa(entry.0) },
    })
}
