//! The static tables, and how all tables lie one after another.

use acpi_tables::Aml;
use acpi_tables::fadt::{FADTBuilder, Flags};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::mcfg::MCFG;
use acpi_tables::rsdp::Rsdp;
use acpi_tables::sdt::Sdt;
use acpi_tables::slit::SLIT;
use acpi_tables::xsdt::XSDT;
use vmm_bus::Gpa;
use vmm_memory::layout::{self, Stretch};

use crate::{AcpiConfig, dsdt, platform};

pub(crate) const OEM: [u8; 6] = *b"PINION";
pub(crate) const OEM_TABLE: [u8; 8] = *b"PINIONVM";
/// Length of the header that all tables share.
const HEADER: u32 = 36;
/// `IAPC_BOOT_ARCH`: no VGA and no CMOS clock to probe for; an 8042 is not announced.
const BOOT_ARCH: u16 = 1 << 2 | 1 << 5;
/// Highest APIC id that a processor local APIC entry can hold; 255 is the broadcast.
const HIGHEST_XAPIC_ID: u32 = 254;

/// All tables, as they lie from `base` up: RSDP, then each table 16-byte aligned.
pub(crate) fn image(config: &AcpiConfig, base: Gpa) -> Vec<u8> {
    let mut image = vec![0; Rsdp::len().next_multiple_of(16)];
    let mut put = |bytes: Vec<u8>| {
        let at = base.0 + image.len() as u64;
        image.extend(bytes);
        image.resize(image.len().next_multiple_of(16), 0);
        at
    };
    let dsdt = put(dsdt::bytes(config));
    let mut tables = vec![put(fadt(dsdt)), put(madt(config)), put(mcfg(config))];
    if config.cells.len() > 1 {
        tables.extend([put(srat(config)), put(slit(config))]);
    }
    let mut xsdt = XSDT::new(OEM, OEM_TABLE, 1);
    tables.into_iter().for_each(|t| xsdt.add_entry(t));
    let xsdt = put(bytes(&xsdt));
    let rsdp = bytes(&Rsdp::new(OEM, xsdt));
    for (slot, byte) in image.iter_mut().zip(rsdp) {
        *slot = byte;
    }
    image
}

fn bytes(table: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    table.to_aml_bytes(&mut bytes);
    bytes
}

fn finished(mut table: Sdt) -> Vec<u8> {
    table.update_checksum();
    table.as_slice().to_vec()
}

fn fadt(dsdt: u64) -> Vec<u8> {
    let port = |offset| {
        let address = u64::from(platform::POWER_PORT + offset);
        GAS::new(AddressSpace::SystemIo, 8, 0, AccessSize::ByteAccess, address)
    };
    let mut fadt = FADTBuilder::new(OEM, OEM_TABLE, 1)
        .dsdt_64(dsdt)
        .flag(Flags::HwReducedAcpi)
        .flag(Flags::ResetRegSup)
        .flag(Flags::PwrButton)
        .flag(Flags::SlpButton);
    fadt.reset_reg = port(platform::RESET);
    fadt.reset_value = platform::RESET_VALUE;
    fadt.sleep_control_reg = port(platform::SLEEP_CONTROL);
    fadt.sleep_status_reg = port(platform::SLEEP_STATUS);
    fadt.iapc_boot_arch = BOOT_ARCH.into();
    bytes(&fadt.finalize())
}

/// ACPI 6.5, 5.2.12. CPUs with ids that fit get legacy entries, as every kernel reads them.
fn madt(config: &AcpiConfig) -> Vec<u8> {
    let mut madt = Sdt::new(*b"APIC", HEADER, 5, OEM, OEM_TABLE, 1);
    madt.append(u32::try_from(layout::LOCAL_APIC.0).unwrap_or(0));
    madt.append(0u32);
    for (uid, cpu) in (0u32..).zip(&config.cpus) {
        const ENABLED: u32 = 1;
        match (u8::try_from(uid), u8::try_from(cpu.apic_id)) {
            (Ok(uid), Ok(id)) if cpu.apic_id <= HIGHEST_XAPIC_ID => {
                madt.append_slice(&[0, 8, uid, id]);
                madt.append(ENABLED);
            }
            _ => {
                madt.append_slice(&[9, 16, 0, 0]);
                madt.append(cpu.apic_id);
                madt.append(ENABLED);
                madt.append(uid);
            }
        }
    }
    madt.append_slice(&[1, 12, platform::IOAPIC_ID, 0]);
    madt.append(u32::try_from(layout::IOAPIC.0).unwrap_or(0));
    madt.append(0u32);
    finished(madt)
}

fn mcfg(config: &AcpiConfig) -> Vec<u8> {
    let mut mcfg = MCFG::new(OEM, OEM_TABLE, 1);
    let last = config.host_bridges.iter().map(|b| b.last_bus).max().unwrap_or(0);
    mcfg.add_ecam(layout::ECAM_START.0, 0, 0, last);
    bytes(&mcfg)
}

/// ACPI 6.5, 5.2.16: which CPUs and which memory belong together.
fn srat(config: &AcpiConfig) -> Vec<u8> {
    const ENABLED: u32 = 1;
    let mut srat = Sdt::new(*b"SRAT", HEADER, 3, OEM, OEM_TABLE, 1);
    srat.append(1u32);
    srat.append(0u64);
    for cpu in &config.cpus {
        srat.append_slice(&[2, 24, 0, 0]);
        srat.append(cpu.cell);
        srat.append(cpu.apic_id);
        srat.append(ENABLED);
        srat.append(0u64);
    }
    for (number, cell) in (0u32..).zip(&config.cells) {
        for &Stretch { start, len } in &cell.memory {
            srat.append_slice(&[1, 40]);
            srat.append(number);
            srat.append(0u16);
            srat.append(start.0);
            srat.append(len);
            srat.append(0u32);
            srat.append(ENABLED);
            srat.append(0u64);
        }
    }
    finished(srat)
}

fn slit(config: &AcpiConfig) -> Vec<u8> {
    let count = u32::try_from(config.cells.len()).unwrap_or(u32::MAX);
    let mut slit = SLIT::new(OEM, OEM_TABLE, 1, count);
    for (from, cell) in config.cells.iter().enumerate() {
        for (to, distance) in cell.distances.iter().enumerate().take(config.cells.len()) {
            slit.set_distance(from, to, u8::try_from(*distance).unwrap_or(u8::MAX));
        }
    }
    bytes(&slit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Cell, Cpu, HostBridge};

    fn config(cpus: u32, cells: u32) -> AcpiConfig {
        let memory = |c: u32| vec![Stretch { start: Gpa(u64::from(c) << 30), len: 1 << 30 }];
        let distances = |c: u32| (0..cells).map(|o| if o == c { 10 } else { 21 }).collect();
        AcpiConfig {
            cpus: (0..cpus).map(|i| Cpu { apic_id: i, cell: i % cells }).collect(),
            cells: (0..cells).map(|c| Cell { memory: memory(c), distances: distances(c) }).collect(),
            host_bridges: vec![HostBridge {
                first_bus: 0,
                last_bus: 0,
                window32: Some(Stretch { start: layout::PCI32_START, len: layout::PCI32_LEN }),
                window64: Some(Stretch { start: Gpa(1 << 33), len: 1 << 33 }),
                cell: None,
            }],
        }
    }

    fn number(bytes: &[u8], at: usize, len: usize) -> u64 {
        bytes[at..at + len].iter().rev().fold(0, |n, b| n << 8 | u64::from(*b))
    }

    /// The tables by signature, found as a kernel finds them; checks every checksum.
    fn walk(image: &[u8]) -> Vec<(String, Vec<u8>)> {
        let sum = |bytes: &[u8]| bytes.iter().fold(0u8, |s, b| s.wrapping_add(*b));
        assert_eq!(&image[..8], b"RSD PTR ");
        assert_eq!(sum(&image[..20]), 0);
        let at = |address: u64| usize::try_from(address - crate::RSDP.0).unwrap();
        let table = |address: u64| {
            let start = at(address);
            let len = usize::try_from(number(image, start + 4, 4)).unwrap();
            let bytes = image[start..start + len].to_vec();
            assert_eq!(sum(&bytes), 0, "{:?}", &bytes[..4]);
            (String::from_utf8(bytes[..4].to_vec()).unwrap(), bytes)
        };
        let (_, xsdt) = table(number(image, 24, 8));
        let mut tables: Vec<_> = (36..xsdt.len()).step_by(8).map(|o| table(number(&xsdt, o, 8))).collect();
        let dsdt = number(&tables[0].1, 140, 8);
        tables.push(table(dsdt));
        tables
    }

    fn names(image: &[u8]) -> Vec<String> {
        walk(image).into_iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn tables_are_found_from_the_root_and_add_up() {
        assert_eq!(names(&image(&config(2, 1), crate::RSDP)), ["FACP", "APIC", "MCFG", "DSDT"]);
        assert_eq!(
            names(&image(&config(8, 2), crate::RSDP)),
            ["FACP", "APIC", "MCFG", "SRAT", "SLIT", "DSDT"]
        );
    }

    #[test]
    fn slit_holds_the_distances() {
        let tables = walk(&image(&config(4, 2), crate::RSDP));
        let (_, slit) = tables.iter().find(|(n, _)| n == "SLIT").unwrap();
        assert_eq!(&slit[44..], [10, 21, 21, 10]);
    }

    fn table(config: &AcpiConfig, name: &str) -> Vec<u8> {
        walk(&image(config, crate::RSDP)).into_iter().find(|(n, _)| n == name).unwrap().1
    }

    #[test]
    fn asymmetric_distances_become_symmetric_and_those_too_large_are_unreachable() {
        let mut config = config(2, 2);
        config.cells[0].distances = vec![10, 300];
        config.cells[1].distances = vec![32, 10];
        assert_eq!(&table(&config, "SLIT")[44..], [10, 32, 32, 10]);
        config.cells[1].distances = vec![300, 10];
        assert_eq!(&table(&config, "SLIT")[44..], [10, 255, 255, 10]);
    }

    #[test]
    fn srat_says_whose_each_cpu_and_each_stretch_is() {
        let mut config = config(2, 2);
        let above = Stretch { start: layout::HOLE_END, len: 1 << 31 };
        config.cells[1].memory.push(above);
        let srat = table(&config, "SRAT");
        let (cpus, memory) = srat[48..].split_at(2 * 24);
        for (index, cpu) in (0u64..).zip(cpus.chunks(24)) {
            assert_eq!(cpu[..2], [2, 24]);
            assert_eq!([4, 8, 12].map(|at| number(cpu, at, 4)), [index, index, 1]);
        }
        let wanted = [(0, 0, 1 << 30), (1, 1 << 30, 1 << 30), (1, above.start.0, above.len)];
        assert_eq!(memory.len(), wanted.len() * 40);
        for (entry, (cell, start, len)) in memory.chunks(40).zip(wanted) {
            assert_eq!(entry[..2], [1, 40]);
            assert_eq!(
                [(2, 4), (8, 8), (16, 8), (28, 4)].map(|(at, n)| number(entry, at, n)),
                [cell, start, len, 1]
            );
        }
    }

    #[test]
    fn the_reduced_hardware_is_reset_and_put_to_sleep_by_its_ports() {
        let fadt = table(&config(1, 1), "FACP");
        let flags = number(&fadt, 112, 4);
        assert_eq!(flags >> 20 & 1, 1, "hardware-reduced");
        assert_eq!(flags >> 10 & 1, 1, "reset register");
        for (at, offset) in
            [(116, platform::RESET), (244, platform::SLEEP_CONTROL), (256, platform::SLEEP_STATUS)]
        {
            assert_eq!(fadt[at..at + 2], [1, 8], "an 8-bit port");
            assert_eq!(number(&fadt, at + 4, 8), u64::from(platform::POWER_PORT + offset));
        }
        assert_eq!(fadt[128], platform::RESET_VALUE);
    }

    #[test]
    fn madt_tells_of_one_ioapic_and_mcfg_of_the_buses_in_use() {
        let mut config = config(3, 1);
        let madt = table(&config, "APIC");
        assert_eq!(madt.len(), 44 + 3 * 8 + 12);
        let ioapic = &madt[44 + 3 * 8..];
        assert_eq!(ioapic[..3], [1, 12, platform::IOAPIC_ID]);
        assert_eq!((number(ioapic, 4, 4), number(ioapic, 8, 4)), (layout::IOAPIC.0, 0));

        config.host_bridges.push(HostBridge {
            first_bus: 16,
            last_bus: 31,
            ..config.host_bridges[0].clone()
        });
        let mcfg = table(&config, "MCFG");
        assert_eq!((number(&mcfg, 44, 8), number(&mcfg, 52, 2)), (layout::ECAM_START.0, 0));
        assert_eq!(mcfg[54..56], [0, 31]);
    }

    #[test]
    fn host_bridges_have_the_windows_they_were_given_and_no_more() {
        let mut two = config(1, 1);
        two.host_bridges.push(HostBridge {
            first_bus: 16,
            last_bus: 31,
            window32: None,
            window64: Some(Stretch { start: Gpa(1 << 34), len: 1 << 33 }),
            cell: Some(1),
        });
        let dsdt = table(&two, "DSDT");
        let count = |wanted: &[u8]| dsdt.windows(wanted.len()).filter(|w| *w == wanted).count();
        // Minimum, maximum, no translation, length: as all address descriptors have them.
        let window = |first: u64, last: u64, width: usize| -> Vec<u8> {
            [first, last, 0, last - first + 1]
                .iter()
                .flat_map(|n| n.to_le_bytes()[..width].to_vec())
                .collect()
        };
        let pci32 = layout::PCI32_START.0;
        assert_eq!(count(&window(pci32, pci32 + layout::PCI32_LEN - 1, 4)), 1);
        assert_eq!(count(&window(1 << 33, (1 << 34) - 1, 8)), 1);
        assert_eq!(count(&window(1 << 34, (3 << 33) - 1, 8)), 1);
        assert_eq!(count(&window(0, 0, 2)), 1);
        assert_eq!(count(&window(16, 31, 2)), 1);
        assert_eq!((count(b"PC00"), count(b"PC01"), count(b"_PXM")), (1, 1, 1));
    }

    #[test]
    fn cpus_beyond_the_legacy_ids_get_x2apic_entries() {
        let mut many = config(1, 1);
        many.cpus.push(Cpu { apic_id: 300, cell: 0 });
        let tables = walk(&image(&many, crate::RSDP));
        let madt = &tables[1].1;
        assert_eq!(madt[44..46], [0, 8]);
        assert_eq!(madt[52..54], [9, 16]);
        assert_eq!(number(madt, 56, 4), 300);
    }

    #[test]
    fn a_machine_of_512_cpus_and_16_cells_fits() {
        assert!((image(&config(512, 16), crate::RSDP).len() as u64) < layout::ACPI_LEN);
    }
}
