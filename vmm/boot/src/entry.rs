//! How the boot vCPU enters a kernel: registers, and the structures they point to.

use linux_loader::loader::bootparam::{boot_e820_entry, boot_params, setup_header};
use linux_loader::loader::elf::start_info::{hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info};
use vm_memory::{ByteValued, Bytes, GuestAddress, GuestMemoryMmap};
use vmm_bus::Gpa;
use vmm_memory::layout;

use crate::BootError;
use crate::memory_map::{Kind, MapEntry};

const E820_RAM: u32 = 1;
const E820_RESERVED: u32 = 2;
/// `type_of_loader` of boot loaders without a number of their own.
const LOADER_UNDEFINED: u8 = 0xff;
const PVH_MAGIC: u32 = 0x336e_c578;
/// Bytes from the start of a bzImage's protected-mode part to its 64-bit entry.
const ENTRY_64: u64 = 0x200;
const PRESENT_WRITABLE: u64 = 0b11;
const LARGE_PAGE: u64 = 1 << 7;
const PAGE_TABLE_LEN: u64 = 0x1000;
/// Gigabytes mapped one to one for 64-bit entry: all that is below the end of the hole.
const IDENTITY_GIB: u64 = 4;

/// How a kernel is entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// 64-bit mode, paging on, `rsi` at the boot parameters (Documentation/arch/x86/boot.rst).
    Linux64,
    /// 32-bit protected mode, paging off, `ebx` at the start info (xen/docs/misc/pvh.pandoc).
    Pvh,
}

/// Registers of the boot vCPU at its first instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BootEntry {
    /// Mode to enter in.
    pub protocol: Protocol,
    /// Instruction pointer.
    pub rip: Gpa,
    /// Stack pointer.
    pub rsp: Gpa,
    /// Boot parameters, for `Linux64`; else 0.
    pub rsi: Gpa,
    /// Start info, for `Pvh`; else 0.
    pub rbx: Gpa,
    /// Page tables, for `Linux64`; else 0.
    pub cr3: Gpa,
    /// Global descriptor table; its entries are [`SEGMENTS`] of the protocol.
    pub gdt: Gpa,
}

/// A segment descriptor's parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Its selector: the offset in the table.
    pub selector: u16,
    /// Access byte: present, privilege, type.
    pub access: u8,
    /// Flags nibble: granularity, size, long mode.
    pub flags: u8,
}

/// Code and data segments, as both protocols want them: flat, code at selector 0x10, data at 0x18.
pub const SEGMENTS: [(Protocol, Segment, Segment); 2] = [
    (
        Protocol::Linux64,
        Segment { selector: 0x10, access: 0x9b, flags: 0b1010 },
        Segment { selector: 0x18, access: 0x93, flags: 0b1100 },
    ),
    (
        Protocol::Pvh,
        Segment { selector: 0x10, access: 0x9b, flags: 0b1100 },
        Segment { selector: 0x18, access: 0x93, flags: 0b1100 },
    ),
];

/// A range of guest-physical addresses; the end is the first address after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) start: Gpa,
    pub(crate) end: Gpa,
}

/// What the boot structures tell the kernel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup<'a> {
    /// Where the initrd is.
    pub(crate) initrd: Option<Range>,
    /// Length of the command line, its final zero not counted.
    pub(crate) command_line: usize,
    /// The memory map.
    pub(crate) map: &'a [MapEntry],
    /// Where the ACPI tables start.
    pub(crate) rsdp: Gpa,
}

/// A kernel in guest memory.
#[derive(Debug)]
pub(crate) struct Kernel {
    /// What it occupies, unpacked.
    pub(crate) range: Range,
    /// First address that the initrd may not reach.
    pub(crate) initrd_ceiling: Gpa,
    /// Most bytes of a command line, the final zero not counted.
    pub(crate) command_line_max: u64,
    /// Where it starts.
    pub(crate) start: Start,
}

#[derive(Debug)]
pub(crate) enum Start {
    Linux64 { header: Box<setup_header> },
    Pvh { address: Gpa },
}

fn put<T: ByteValued>(
    memory: &GuestMemoryMmap,
    what: &'static str,
    value: T,
    at: Gpa,
) -> Result<(), BootError> {
    memory.write_obj(value, GuestAddress(at.0)).map_err(|source| BootError::Write { what, source })
}

/// Writes boot parameters, page tables and descriptors for 64-bit entry.
pub(crate) fn linux64(
    memory: &GuestMemoryMmap,
    kernel: &Range,
    header: &setup_header,
    setup: &Setup<'_>,
) -> Result<BootEntry, BootError> {
    let Setup { initrd, command_line, map, rsdp } = *setup;
    let mut params = boot_params { hdr: *header, acpi_rsdp_addr: rsdp.0, ..boot_params::default() };
    params.hdr.type_of_loader = LOADER_UNDEFINED;
    params.hdr.cmd_line_ptr = u32::try_from(layout::COMMAND_LINE.0).unwrap_or(0);
    params.hdr.cmdline_size = u32::try_from(command_line).unwrap_or(0);
    if let Some(Range { start, end }) = initrd {
        params.hdr.ramdisk_image = u32::try_from(start.0).unwrap_or(0);
        params.hdr.ramdisk_size = u32::try_from(end.0 - start.0).unwrap_or(0);
    }
    for (slot, entry) in params.e820_table.iter_mut().zip(map) {
        *slot = boot_e820_entry { addr: entry.start.0, size: entry.len, r#type: e820_type(entry.kind) };
    }
    params.e820_entries = u8::try_from(map.len().min(params.e820_table.len())).unwrap_or(u8::MAX);
    put(memory, "boot parameters", params, layout::BOOT_PARAMS)?;
    page_tables(memory)?;
    descriptors(memory, Protocol::Linux64)?;
    Ok(BootEntry {
        protocol: Protocol::Linux64,
        rip: Gpa(kernel.start.0 + ENTRY_64),
        rsp: layout::BOOT_STACK,
        rsi: layout::BOOT_PARAMS,
        rbx: Gpa(0),
        cr3: layout::PAGE_TABLES,
        gdt: layout::GDT,
    })
}

/// Writes start info, memory map and descriptors for PVH entry.
pub(crate) fn pvh(memory: &GuestMemoryMmap, address: Gpa, setup: &Setup<'_>) -> Result<BootEntry, BootError> {
    let Setup { initrd, map, rsdp, .. } = *setup;
    let mut info = hvm_start_info {
        magic: PVH_MAGIC,
        version: 1,
        cmdline_paddr: layout::COMMAND_LINE.0,
        rsdp_paddr: rsdp.0,
        memmap_paddr: layout::BOOT_PARAMS.0,
        memmap_entries: u32::try_from(map.len()).unwrap_or(0),
        ..hvm_start_info::default()
    };
    if let Some(Range { start, end }) = initrd {
        let module =
            hvm_modlist_entry { paddr: start.0, size: end.0 - start.0, ..hvm_modlist_entry::default() };
        put(memory, "PVH module list", module, layout::PVH_MODULES)?;
        (info.nr_modules, info.modlist_paddr) = (1, layout::PVH_MODULES.0);
    }
    let mut at = layout::BOOT_PARAMS;
    for entry in map {
        let entry = hvm_memmap_table_entry {
            addr: entry.start.0,
            size: entry.len,
            type_: e820_type(entry.kind),
            reserved: 0,
        };
        put(memory, "PVH memory map", entry, at)?;
        at = Gpa(at.0 + std::mem::size_of::<hvm_memmap_table_entry>() as u64);
    }
    put(memory, "PVH start info", info, layout::PVH_START_INFO)?;
    descriptors(memory, Protocol::Pvh)?;
    Ok(BootEntry {
        protocol: Protocol::Pvh,
        rip: address,
        rsp: layout::BOOT_STACK,
        rsi: Gpa(0),
        rbx: layout::PVH_START_INFO,
        cr3: Gpa(0),
        gdt: layout::GDT,
    })
}

fn e820_type(kind: Kind) -> u32 {
    match kind {
        Kind::Ram => E820_RAM,
        Kind::Reserved => E820_RESERVED,
    }
}

/// One PML4, one PDPT and a page directory per gigabyte, of 2 MiB pages.
fn page_tables(memory: &GuestMemoryMmap) -> Result<(), BootError> {
    let pml4 = layout::PAGE_TABLES.0;
    let pdpt = pml4 + PAGE_TABLE_LEN;
    put(memory, "page tables", pdpt | PRESENT_WRITABLE, Gpa(pml4))?;
    for gib in 0..IDENTITY_GIB {
        let directory = pdpt + (gib + 1) * PAGE_TABLE_LEN;
        put(memory, "page tables", directory | PRESENT_WRITABLE, Gpa(pdpt + gib * 8))?;
        for slot in 0..512 {
            let page = ((gib << 30) + (slot << 21)) | PRESENT_WRITABLE | LARGE_PAGE;
            put(memory, "page tables", page, Gpa(directory + slot * 8))?;
        }
    }
    Ok(())
}

fn descriptors(memory: &GuestMemoryMmap, protocol: Protocol) -> Result<(), BootError> {
    let segments = SEGMENTS.iter().filter(|(p, ..)| *p == protocol).flat_map(|(_, code, data)| [code, data]);
    for segment in segments {
        // Base 0, limit 0xfffff in pages.
        let descriptor =
            0xffff | u64::from(segment.access) << 40 | 0xf << 48 | u64::from(segment.flags) << 52;
        put(memory, "descriptor table", descriptor, Gpa(layout::GDT.0 + u64::from(segment.selector)))?;
    }
    Ok(())
}
