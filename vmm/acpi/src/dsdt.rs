//! The DSDT: devices that cannot be found by looking.

use acpi_tables::aml::{
    AddressSpace, AddressSpaceCacheable, And, Arg, BufferData, Device, EISAName, Equal, Field,
    FieldAccessType, FieldEntry, FieldLockRule, FieldUpdateRule, IO, If, Interrupt, Local, Memory32Fixed,
    Method, Name, Notify, ONE, OpRegion, OpRegionSpace, Package, Path, ResourceTemplate, Return, Scope,
    Store, Uuid, ZERO,
};
use acpi_tables::sdt::Sdt;
use acpi_tables::{Aml, AmlSink};
use vmm_memory::layout::{self, Stretch};

use crate::tables::{OEM, OEM_TABLE};
use crate::{AcpiConfig, HostBridge, platform};

/// `_DSM` of PCI host bridges (PCI Firmware 3.3, 4.6).
const PCI_DSM: &str = "e5c937d0-3553-4d7a-9117-ea4d19c3434d";
/// `_DSM` function: keep the boot configuration, so that BARs stay where they are.
const PRESERVE_BOOT_CONFIGURATION: u8 = 5;

/// The whole table.
pub(crate) fn bytes(config: &AcpiConfig) -> Vec<u8> {
    let mut dsdt = Sdt::new(*b"DSDT", 36, 6, OEM, OEM_TABLE, 1);
    motherboard(&mut dsdt);
    for (number, bridge) in (0u8..).zip(&config.host_bridges) {
        host_bridge(number, bridge, &mut dsdt);
    }
    serial(&mut dsdt);
    power(&mut dsdt);
    dsdt.update_checksum();
    dsdt.as_slice().to_vec()
}

/// ECAM must be reserved here as well as in the memory map, or Linux refuses it.
fn motherboard(sink: &mut dyn AmlSink) {
    let (start, len) = (narrow(layout::ECAM_START.0), narrow(layout::ECAM_LEN));
    let ecam = Memory32Fixed::new(true, start, len);
    Device::new(
        "_SB_.MBRD".into(),
        vec![
            &Name::new("_HID".into(), &EISAName::new("PNP0C02")),
            &Name::new("_UID".into(), &ZERO),
            &Name::new("_CRS".into(), &ResourceTemplate::new(vec![&ecam])),
        ],
    )
    .to_aml_bytes(sink);
}

fn host_bridge(number: u8, bridge: &HostBridge, sink: &mut dyn AmlSink) {
    let buses = AddressSpace::new_bus_number(u16::from(bridge.first_bus), u16::from(bridge.last_bus));
    let ports = IO::new(0xcf8, 0xcf8, 1, 8);
    let window32 = bridge.window32.map(|Stretch { start, len }| {
        let (first, last) = (narrow(start.0), narrow(start.0 + (len - 1)));
        AddressSpace::new_memory(AddressSpaceCacheable::NotCacheable, true, first, last, None)
    });
    let window64 = bridge.window64.map(|Stretch { start, len }| {
        let (first, last) = (start.0, start.0 + (len - 1));
        // Not marked prefetchable: Linux would keep other BARs out of it.
        AddressSpace::new_memory(AddressSpaceCacheable::NotCacheable, true, first, last, None)
    });
    let mut resources: Vec<&dyn Aml> = vec![&buses];
    if number == 0 {
        resources.push(&ports);
    }
    resources.extend(window32.iter().map(|w| w as &dyn Aml));
    resources.extend(window64.iter().map(|w| w as &dyn Aml));
    let resources = ResourceTemplate::new(resources);

    let uuid = Uuid::new(PCI_DSM);
    let is_preserve = Equal::new(&Arg(2), &PRESERVE_BOOT_CONFIGURATION);
    let is_query = Equal::new(&Arg(2), &ZERO);
    // Functions 0 and 5 exist.
    let functions = BufferData::new(vec![1 | 1 << PRESERVE_BOOT_CONFIGURATION]);
    let none = BufferData::new(vec![0]);
    let (keep, list, nothing) = (Return::new(&ZERO), Return::new(&functions), Return::new(&none));
    let (on_query, on_preserve) = (If::new(&is_query, vec![&list]), If::new(&is_preserve, vec![&keep]));
    let is_pci = Equal::new(&Arg(0), &uuid);
    let on_pci = If::new(&is_pci, vec![&on_query, &on_preserve]);
    let dsm = Method::new("_DSM".into(), 4, false, vec![&on_pci, &nothing]);

    let hid = Name::new("_HID".into(), &EISAName::new("PNP0A08"));
    let cid = Name::new("_CID".into(), &EISAName::new("PNP0A03"));
    let segment = Name::new("_SEG".into(), &ZERO);
    let first = Name::new("_BBN".into(), &bridge.first_bus);
    let uid = Name::new("_UID".into(), &number);
    let coherent = Name::new("_CCA".into(), &ONE);
    let crs = Name::new("_CRS".into(), &resources);
    let proximity = bridge.cell.map(|cell| Name::new("_PXM".into(), &cell));
    let mut children: Vec<&dyn Aml> = vec![&hid, &cid, &segment, &first, &uid, &coherent, &crs, &dsm];
    children.extend(proximity.iter().map(|p| p as &dyn Aml));
    let path = format!("_SB_.PC{number:02X}");
    Device::new(path.as_str().into(), children).to_aml_bytes(sink);
}

fn serial(sink: &mut dyn AmlSink) {
    let ports = IO::new(platform::SERIAL_PORT, platform::SERIAL_PORT, 0, 8);
    let interrupt = Interrupt::new(true, true, false, false, platform::SERIAL_GSI);
    Device::new(
        "_SB_.COM1".into(),
        vec![
            &Name::new("_HID".into(), &EISAName::new("PNP0501")),
            &Name::new("_UID".into(), &ZERO),
            &Name::new("_CRS".into(), &ResourceTemplate::new(vec![&ports, &interrupt])),
        ],
    )
    .to_aml_bytes(sink);
}

/// Soft-off, the power button, and the generic event device that tells of it.
fn power(sink: &mut dyn AmlSink) {
    let s5 = platform::SLEEP_TYPE_S5;
    Name::new("_S5_".into(), &Package::new(vec![&s5, &ZERO, &ZERO, &ZERO])).to_aml_bytes(sink);

    Device::new(
        "_SB_.PWRB".into(),
        vec![&Name::new("_HID".into(), &EISAName::new("PNP0C0C")), &Name::new("_UID".into(), &ZERO)],
    )
    .to_aml_bytes(sink);

    let interrupt = Interrupt::new(true, true, false, false, platform::EVENT_GSI);
    let (port, ports) = (platform::POWER_PORT + platform::EVENTS, 1u8);
    let region = OpRegion::new("EVRG".into(), OpRegionSpace::SystemIO, &port, &ports);
    let field = Field::new(
        "EVRG".into(),
        FieldAccessType::Byte,
        FieldLockRule::NoLock,
        FieldUpdateRule::WriteAsZeroes,
        vec![FieldEntry::Named(*b"EVTS", 8)],
    );
    let events = Path::new("EVTS");
    let button = Path::new("\\_SB_.PWRB");
    let read = Store::new(&Local(0), &events);
    let masked = And::new(&Local(1), &Local(0), &platform::EVENT_POWER_BUTTON);
    let pressed = Equal::new(&Local(1), &platform::EVENT_POWER_BUTTON);
    let notify = Notify::new(&button, &0x80u8);
    let on_pressed = If::new(&pressed, vec![&notify]);
    let handler = Method::new("_EVT".into(), 1, true, vec![&read, &masked, &on_pressed]);
    let hid = Name::new("_HID".into(), &"ACPI0013");
    let uid = Name::new("_UID".into(), &ZERO);
    let crs = Name::new("_CRS".into(), &ResourceTemplate::new(vec![&interrupt]));
    let device = Device::new("GED_".into(), vec![&hid, &uid, &crs, &region, &field, &handler]);
    Scope::new("_SB_".into(), vec![&device]).to_aml_bytes(sink);
}

fn narrow(address: u64) -> u32 {
    u32::try_from(address).unwrap_or(u32::MAX)
}
