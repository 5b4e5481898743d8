//! The guest-physical map: fixed addresses, and where RAM goes around the 32-bit hole.
//!
//! RAM fills 0 to 3 GiB, then goes on from 4 GiB. The hole holds the 32-bit PCI window, ECAM,
//! IOAPIC, local APIC and KVM's own pages. The 64-bit PCI window follows RAM.

use vmm_bus::Gpa;

/// Global descriptor table for the boot vCPU.
pub const GDT: Gpa = Gpa(0x500);
/// PVH start info structure.
pub const PVH_START_INFO: Gpa = Gpa(0x6000);
/// PVH module list.
pub const PVH_MODULES: Gpa = Gpa(0x6040);
/// Linux boot parameters ("zero page"), and the PVH memory map in their place.
pub const BOOT_PARAMS: Gpa = Gpa(0x7000);
/// Initial stack pointer of the boot vCPU.
pub const BOOT_STACK: Gpa = Gpa(0x8ff0);
/// Page tables for 64-bit entry: one PML4, one PDPT, then page directories.
pub const PAGE_TABLES: Gpa = Gpa(0x9000);
/// Kernel command line.
pub const COMMAND_LINE: Gpa = Gpa(0x2_0000);
/// Most bytes of a command line, its final zero included.
pub const COMMAND_LINE_MAX: u64 = 0x1_0000;
/// End of conventional memory.
pub const LOW_RAM_END: Gpa = Gpa(0x9_fc00);
/// ACPI tables, RSDP first.
pub const ACPI: Gpa = Gpa(0xe_0000);
/// Room for ACPI tables, bytes.
pub const ACPI_LEN: u64 = 0x1_f000;
/// Where a processor of old starts after reset, and where real-mode code jumps to reset the machine.
pub const RESET_VECTOR: Gpa = Gpa(0xf_fff0);
/// Where memory above the legacy area starts: kernels go from here up.
pub const HIGH_RAM: Gpa = Gpa(0x10_0000);

/// First address of the hole below 4 GiB.
pub const HOLE_START: Gpa = Gpa(0xc000_0000);
/// First address after the hole.
pub const HOLE_END: Gpa = Gpa(0x1_0000_0000);
/// 32-bit PCI window.
pub const PCI32_START: Gpa = Gpa(0xc000_0000);
/// Length of the 32-bit PCI window.
pub const PCI32_LEN: u64 = 0x2800_0000;
/// PCI Express configuration space (ECAM): 256 buses of 1 MiB.
pub const ECAM_START: Gpa = Gpa(0xe800_0000);
/// Length of ECAM.
pub const ECAM_LEN: u64 = 0x1000_0000;
/// IOAPIC registers.
pub const IOAPIC: Gpa = Gpa(0xfec0_0000);
/// Length of the IOAPIC's registers.
pub const IOAPIC_LEN: u64 = 0x20;
/// Local APIC registers.
pub const LOCAL_APIC: Gpa = Gpa(0xfee0_0000);
/// KVM's identity-map page.
pub const KVM_IDENTITY_MAP: Gpa = Gpa(0xfffb_c000);
/// KVM's task-state pages (three).
pub const KVM_TSS: Gpa = Gpa(0xfffb_d000);

/// A stretch of guest-physical addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// First address.
    pub start: Gpa,
    /// Length, bytes.
    pub len: u64,
}

/// Splits `cells` bytes of RAM, cell after cell, into stretches around the hole: for each cell one
/// or two. `None` when the sum overflows the address space.
#[must_use]
pub fn ram_stretches(cells: &[u64]) -> Option<Vec<(usize, Stretch)>> {
    let mut next = 0u64;
    let mut stretches = Vec::new();
    for (cell, &bytes) in cells.iter().enumerate() {
        let mut left = bytes;
        while left > 0 {
            if next == HOLE_START.0 {
                next = HOLE_END.0;
            }
            let room = if next < HOLE_START.0 { HOLE_START.0 - next } else { u64::MAX - next };
            let len = left.min(room);
            if len == 0 {
                return None;
            }
            stretches.push((cell, Stretch { start: Gpa(next), len }));
            next = next.checked_add(len)?;
            left -= len;
        }
    }
    Some(stretches)
}

/// The 64-bit PCI window: from the end of RAM, 1 GiB aligned and never below 4 GiB, to the end
/// of the guest's physical addresses less the last 64 KiB, which Linux cannot use for devices.
/// `None` when no room is left.
#[must_use]
pub fn pci64(ram_end: Gpa, physical_bits: u8) -> Option<Stretch> {
    let start = ram_end.0.max(HOLE_END.0).checked_next_multiple_of(1 << 30)?;
    let end = 1u64.checked_shl(u32::from(physical_bits)).unwrap_or(u64::MAX) - 0x1_0000;
    let len = end.checked_sub(start).filter(|l| *l > 0)?;
    Some(Stretch { start: Gpa(start), len })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn stretch(start: u64, len: u64) -> Stretch {
        Stretch { start: Gpa(start), len }
    }

    #[test]
    fn ram_below_the_hole_is_one_stretch_a_cell() {
        let stretches = ram_stretches(&[GIB, GIB]).unwrap();
        assert_eq!(stretches, [(0, stretch(0, GIB)), (1, stretch(GIB, GIB))]);
    }

    #[test]
    fn a_cell_across_the_hole_is_two_stretches() {
        let stretches = ram_stretches(&[2 * GIB, 2 * GIB, GIB]).unwrap();
        assert_eq!(
            stretches,
            [
                (0, stretch(0, 2 * GIB)),
                (1, stretch(2 * GIB, GIB)),
                (1, stretch(4 * GIB, GIB)),
                (2, stretch(5 * GIB, GIB)),
            ]
        );
    }

    #[test]
    fn a_cell_that_ends_at_the_hole_is_followed_by_one_above_it() {
        assert_eq!(ram_stretches(&[3 * GIB, GIB]).unwrap().get(1), Some(&(1, stretch(4 * GIB, GIB))));
    }

    #[test]
    fn absurd_sizes_are_refused() {
        assert_eq!(ram_stretches(&[u64::MAX, GIB]), None);
    }

    #[test]
    fn the_64_bit_window_follows_ram() {
        assert_eq!(pci64(Gpa(GIB), 36), Some(stretch(4 * GIB, 60 * GIB - 0x1_0000)));
        assert_eq!(pci64(Gpa(5 * GIB + 1), 40).unwrap().start, Gpa(6 * GIB));
        assert_eq!(pci64(Gpa(64 * GIB), 36), None);
    }

    #[test]
    fn fixed_stretches_do_not_overlap() {
        let mut fixed = [
            stretch(GDT.0, 0x40),
            stretch(PVH_START_INFO.0, 0x1000),
            stretch(BOOT_PARAMS.0, 0x1000),
            stretch(PAGE_TABLES.0, 0x6000),
            stretch(COMMAND_LINE.0, COMMAND_LINE_MAX),
            stretch(ACPI.0, ACPI_LEN),
            stretch(RESET_VECTOR.0, 16),
            stretch(PCI32_START.0, PCI32_LEN),
            stretch(ECAM_START.0, ECAM_LEN),
            stretch(IOAPIC.0, IOAPIC_LEN),
            stretch(LOCAL_APIC.0, 0x1000),
            stretch(KVM_IDENTITY_MAP.0, 0x1000),
            stretch(KVM_TSS.0, 0x3000),
        ];
        fixed.sort_by_key(|s| s.start);
        assert!(fixed.windows(2).all(|w| w[0].start.0 + w[0].len <= w[1].start.0));
    }
}
