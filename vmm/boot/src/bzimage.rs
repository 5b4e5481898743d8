//! A bzImage: loaded whole, entered at its 64-bit entry; it unpacks itself.

use std::fs::File;
use std::io::{Seek, SeekFrom};

use linux_loader::loader::bootparam::setup_header;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use vmm_bus::Gpa;
use vmm_memory::layout;

use crate::BootError;
use crate::entry::{Kernel, Range, Start};

/// Boot protocol 2.12 brought `xloadflags`.
const OLDEST_PROTOCOL: u16 = 0x020c;
const XLF_KERNEL_64: u16 = 1;
const LOADED_HIGH: u8 = 1;
const SECTOR: u64 = 512;
/// Unit of the header's `syssize`. Signed kernels are longer than it says, none is shorter.
const PARAGRAPH: u64 = 16;
/// Where initrds end for kernels that do not say (2.02 and older).
const INITRD_CEILING: u32 = 0x37ff_ffff;

/// Loads the protected-mode part of the file, which is all of it past the setup sectors.
pub(crate) fn load(
    memory: &GuestMemoryMmap,
    file: &mut File,
    header: &setup_header,
    low_end: Gpa,
) -> Result<Kernel, BootError> {
    let mut header = *header;
    supported(&header).map_err(BootError::Unsupported)?;
    let sectors = if header.setup_sects == 0 { 4 } else { u64::from(header.setup_sects) };
    let setup = (sectors + 1) * SECTOR;
    let read = |source| BootError::Read { what: "kernel", source };
    let size = file.seek(SeekFrom::End(0)).map_err(read)?;
    let Some(size) = size.checked_sub(setup).filter(|s| *s > 0) else {
        return Err(BootError::Unsupported("the file ends inside its setup sectors"));
    };
    let promised = u64::from(header.syssize) * PARAGRAPH;
    if size < promised {
        return Err(BootError::KernelTruncated { has: setup + size, needed: setup + promised });
    }
    let needed = u64::from(header.init_size).max(size);
    let at = place(&header, needed, low_end)?;
    file.seek(SeekFrom::Start(setup)).map_err(read)?;
    let count = usize::try_from(size).map_err(|_| BootError::KernelTooLarge { at, needed, end: low_end })?;
    memory
        .read_exact_volatile_from(GuestAddress(at.0), file, count)
        .map_err(|source| BootError::Write { what: "kernel", source })?;
    header.code32_start = u32::try_from(at.0).unwrap_or(0);
    let ceiling = if header.initrd_addr_max == 0 { INITRD_CEILING } else { header.initrd_addr_max };
    Ok(Kernel {
        range: Range { start: at, end: Gpa(at.0 + needed) },
        initrd_ceiling: Gpa(u64::from(ceiling).saturating_add(1)),
        command_line_max: u64::from(header.cmdline_size),
        start: Start::Linux64 { header: Box::new(header) },
    })
}

fn supported(header: &setup_header) -> Result<(), &'static str> {
    if header.version < OLDEST_PROTOCOL {
        return Err("its boot protocol is older than 2.12 (Linux 3.8)");
    }
    if header.xloadflags & XLF_KERNEL_64 == 0 {
        return Err("it has no 64-bit entry: it is built for 32-bit x86");
    }
    if header.loadflags & LOADED_HIGH == 0 {
        return Err("it wants to be loaded below 1 MiB (a zImage)");
    }
    Ok(())
}

/// Where it prefers to be, if there is room; else, if it can be moved, as low as possible.
fn place(header: &setup_header, needed: u64, low_end: Gpa) -> Result<Gpa, BootError> {
    let fits =
        |at: u64| at >= layout::HIGH_RAM.0 && at.checked_add(needed).is_some_and(|end| end <= low_end.0);
    let preferred = header.pref_address;
    if fits(preferred) {
        return Ok(Gpa(preferred));
    }
    let alignment = u64::from(header.kernel_alignment).max(0x1000);
    let lowest = layout::HIGH_RAM.0.checked_next_multiple_of(alignment).unwrap_or(u64::MAX);
    if header.relocatable_kernel != 0 && alignment.is_power_of_two() && fits(lowest) {
        return Ok(Gpa(lowest));
    }
    Err(BootError::KernelTooLarge { at: Gpa(lowest.min(preferred)), needed, end: low_end })
}
