//! Disks and their volumes.

use pinion_api::{
    BlockSize, CacheMode, CdromTarget, CustomBlockSize, Disk, DiskBus, DiskTarget, ErrorPolicy, InstanceSpec,
    Volume,
};

use super::super::identity::Names;
use super::super::source::{Part, quoted};
use super::{MOST, image, own_name};

/// Longest serial number, bytes. Source: `VIRTIO_BLK_ID_BYTES`, virtio 1.2 section 5.2.6.
const LONGEST_SERIAL: usize = 20;

/// Gives the I/O thread of each, too.
pub(super) fn disks(
    devices: Part<'_>,
    vm: &str,
    names: &mut Names,
    spec: &mut InstanceSpec,
) -> Vec<Option<u32>> {
    let mut threads = Vec::new();
    for element in devices.children("disk").take(MOST) {
        let kind = element.attribute("device").unwrap_or("disk");
        if kind == "floppy" {
            element.leave("not carried over: there is no floppy drive; copy what is on it to a disk");
            continue;
        }
        let target = element.child("target");
        let wanted = own_name(element).or_else(|| target?.attribute("dev")).unwrap_or("disk");
        let name = names.take(wanted);
        let Some(host_disk) = image::image(element, vm, &name) else { continue };
        threads.push(element.child("driver").and_then(|driver| driver.number("iothread")));
        element.gives(format!("spec.domain.devices.disks[{}]", spec.domain.devices.disks.len()));
        element.gives(format!("spec.volumes[{}]", spec.volumes.len()));
        spec.domain.devices.disks.push(disk(element, target, kind, name.clone()));
        spec.volumes.push(Volume { name, host_disk: Some(host_disk), ..Volume::default() });
    }
    threads
}

fn disk(element: Part<'_>, target: Option<Part<'_>>, kind: &str, name: String) -> Disk {
    let bus = bus(element, target, kind);
    let readonly = element.has("readonly").then_some(true);
    let mut disk = Disk { name, ..Disk::default() };
    if kind == "cdrom" {
        let tray = target.and_then(|t| t.attribute("tray")).map(str::to_owned);
        disk.cdrom = Some(CdromTarget { bus: Some(word(bus).to_owned()), readonly: None, tray });
    } else {
        if kind == "lun" {
            element
                .note_attribute("device", "\"lun\": SCSI commands are not passed on: the guest sees a disk");
        }
        disk.disk = Some(DiskTarget { bus: Some(bus), readonly, pci_address: None });
    }
    driver(element, &mut disk);
    disk.serial = element.child("serial").and_then(|element| serial(element, bus));
    disk.boot_order = element.child("boot").and_then(|boot| boot.number("order"));
    disk.shareable = element.has("shareable").then_some(true);
    disk.block_size = element.child("blockio").map(block_size);
    disk
}

fn word(bus: DiskBus) -> &'static str {
    match bus {
        DiskBus::Virtio => "virtio",
        DiskBus::Sata => "sata",
        DiskBus::Scsi => "scsi",
        DiskBus::Usb => "usb",
    }
}

fn bus(element: Part<'_>, target: Option<Part<'_>>, kind: &str) -> DiskBus {
    let Some(target) = target else {
        element.note("it has no target: it is a SATA disk");
        return DiskBus::Sata;
    };
    let dev = target.attribute("dev").unwrap_or_default();
    match target.attribute("bus") {
        Some("virtio") => DiskBus::Virtio,
        Some("sata") => DiskBus::Sata,
        Some("scsi") => DiskBus::Scsi,
        Some("usb") => DiskBus::Usb,
        // libvirt goes by the name then.
        None if dev.starts_with("vd") => DiskBus::Virtio,
        None if dev.starts_with("sd") => DiskBus::Scsi,
        other => {
            let other = other.unwrap_or("ide");
            let what = if kind == "cdrom" { "drive" } else { "disk" };
            target.note(format!(
                "{}: the machine has no such bus: it is a SATA {what}, which a system without a driver for AHCI does not \
                 boot from",
                quoted(other)
            ));
            DiskBus::Sata
        }
    }
}

fn driver(element: Part<'_>, disk: &mut Disk) {
    let Some(driver) = element.child("driver") else { return };
    let _ = driver.attribute("name");
    disk.cache = match driver.attribute("cache") {
        None | Some("default") => None,
        Some("none") => Some(CacheMode::None),
        Some("writeback") => Some(CacheMode::Writeback),
        Some("writethrough") => Some(CacheMode::Writethrough),
        Some("directsync") => {
            driver.note_attribute(
                "cache",
                "\"directsync\": the guest's flush reaches the disk; the host caches nothing",
            );
            Some(CacheMode::None)
        }
        Some(other) => {
            driver.note_attribute(
                "cache",
                format!("{}: the guest's flush reaches the disk (writeback)", quoted(other)),
            );
            Some(CacheMode::Writeback)
        }
    };
    disk.error_policy = match driver.attribute("error_policy") {
        None => None,
        Some("stop") => Some(ErrorPolicy::Stop),
        Some("ignore") => Some(ErrorPolicy::Ignore),
        Some("enospace") => Some(ErrorPolicy::Enospace),
        Some("report") => Some(ErrorPolicy::Report),
        Some(other) => {
            driver.note_attribute("error_policy", format!("{}: no such policy", quoted(other)));
            None
        }
    };
    disk.io = driver.attribute("io").map(str::to_owned);
    if driver.attribute("discard") == Some("ignore") {
        driver.note_attribute("discard", "\"ignore\": what the guest discards is given back to the host");
    }
}

/// QEMU cuts the serial number of a virtio disk, and so the guest has never seen more.
fn serial(element: Part<'_>, bus: DiskBus) -> Option<String> {
    let text = element.text();
    if text.is_empty() {
        return None;
    }
    if !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte)) {
        element.note(format!(
            "{}: not carried over: a serial number has letters, digits, and _ . -",
            quoted(text)
        ));
        return None;
    }
    let cut = text.get(..LONGEST_SERIAL).unwrap_or(text);
    if cut != text {
        let seen = if bus == DiskBus::Virtio { "has always seen" } else { "sees now" };
        element.note(format!(
            "{}: a serial number has at most {LONGEST_SERIAL} characters, and the guest {seen} {cut:?}",
            quoted(text)
        ));
    }
    Some(cut.to_owned())
}

fn block_size(element: Part<'_>) -> BlockSize {
    let custom = CustomBlockSize {
        logical: element.number("logical_block_size"),
        physical: element.number("physical_block_size"),
        discard_granularity: element.number("discard_granularity"),
    };
    BlockSize { custom: Some(custom), ..BlockSize::default() }
}

/// The order of kinds of devices, where no device has a number.
pub(super) fn boot_order(domain: Part<'_>, spec: &mut InstanceSpec) {
    let Some(os) = domain.child("os") else { return };
    let disks = &mut spec.domain.devices.disks;
    let numbered = disks.iter().any(|disk| disk.boot_order.is_some());
    let mut next = 1;
    for boot in os.children("boot").take(MOST) {
        let dev = boot.attribute("dev").unwrap_or_default();
        let is_wanted = |disk: &&mut Disk| match dev {
            "hd" => disk.cdrom.is_none() && disk.boot_order.is_none(),
            "cdrom" => disk.cdrom.is_some() && disk.boot_order.is_none(),
            _ => false,
        };
        match dev {
            "hd" | "cdrom" if numbered => {}
            "hd" | "cdrom" => {
                if let Some(disk) = disks.iter_mut().find(is_wanted) {
                    disk.boot_order = Some(next);
                    next += 1;
                }
            }
            other => {
                boot.note(format!("{}: not carried over: the guest boots from disks only", quoted(other)))
            }
        }
    }
    for (name, what) in [("bootmenu", "enable"), ("bios", "rebootTimeout")] {
        if let Some(menu) = os.child(name)
            && menu.attribute(what).is_some_and(|value| value != "no")
        {
            menu.leave("not carried over: the firmware has its defaults");
        }
    }
}
