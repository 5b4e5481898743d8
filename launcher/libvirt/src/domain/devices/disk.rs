//! Disks: their images, their buses, their I/O threads.

use std::collections::BTreeMap;
use std::path::Path;

use pinion_api::{CacheMode, Disk, DiskBus, ErrorPolicy, ImageFormat, InstanceSpec};
use pinion_planner::Placement;

use super::super::Assets;
use super::alias;
use crate::overlay::word;
use crate::xml::Element;

/// How a disk is seen by the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    Disk,
    Lun,
    Cdrom,
}

pub(super) fn disks(spec: &InstanceSpec, placement: &Placement, assets: &Assets) -> Vec<Element> {
    let mut letters: BTreeMap<&'static str, u32> = BTreeMap::new();
    let disks = &spec.domain.devices.disks;
    disks.iter().filter_map(|disk| element(spec, placement, assets, disk, &mut letters)).collect()
}

fn element(
    spec: &InstanceSpec,
    placement: &Placement,
    assets: &Assets,
    disk: &Disk,
    letters: &mut BTreeMap<&'static str, u32>,
) -> Option<Element> {
    let file = assets.disks.get(&disk.name)?;
    let (seen, bus) = seen(disk);
    let next = letters.entry(prefix(bus)).or_default();
    let target =
        Element::new("target").with("dev", format!("{}{}", prefix(bus), letter(*next))).with("bus", bus);
    *next += 1;
    let read_only = file.read_only || seen == Seen::Cdrom;
    let serial = disk.serial.as_ref().map(|serial| Element::text("serial", serial));
    let boot = disk.boot_order.or_else(|| is_first(spec, disk).then_some(1));
    let boot = boot.map(|order| Element::new("boot").with("order", order));
    Some(
        Element::new("disk")
            .with("type", kind(&file.path))
            .with("device", device(seen))
            .and(driver(placement, disk, file.format, bus))
            .and(source(&file.path))
            .and_all(file.base.as_ref().map(|(path, format)| below(path, *format)))
            .and(target)
            .and_all(read_only.then(|| Element::new("readonly")))
            .and_all(serial)
            .and_all(boot.filter(|_| assets.kernel.is_none()))
            .and(alias(&disk.name)),
    )
}

/// Whether QEMU has it as a block device or as a file.
fn kind(path: &Path) -> &'static str {
    if path.starts_with("/dev") { "block" } else { "file" }
}

fn source(path: &Path) -> Element {
    let attribute = if kind(path) == "block" { "dev" } else { "file" };
    Element::new("source").with(attribute, path.display())
}

/// An image that stays as it is, with nothing below it.
fn below(path: &Path, format: ImageFormat) -> Element {
    Element::new("backingStore")
        .with("type", kind(path))
        .and(Element::new("format").with("type", word(format)))
        .and(source(path))
        .and(Element::new("backingStore"))
}

/// Whether it is what boots where no disk has a number.
fn is_first(spec: &InstanceSpec, disk: &Disk) -> bool {
    let ordered = spec.domain.devices.disks.iter().any(|d| d.boot_order.is_some());
    !ordered && spec.boot_disk().is_some_and(|first| first.name == disk.name)
}

fn driver(placement: &Placement, disk: &Disk, format: ImageFormat, bus: &str) -> Element {
    let thread = placement.io_threads.iter().find(|t| t.disks.contains(&disk.name)).map(|t| t.id);
    let cache = match disk.cache {
        Some(CacheMode::None) => "none",
        Some(CacheMode::Writethrough) => "writethrough",
        _ => "writeback",
    };
    let policy = match disk.error_policy {
        Some(ErrorPolicy::Stop) => "stop",
        Some(ErrorPolicy::Ignore) => "ignore",
        Some(ErrorPolicy::Enospace) => "enospace",
        _ => "report",
    };
    Element::new("driver")
        .with("name", "qemu")
        .with("type", word(format))
        .with("cache", cache)
        .with("error_policy", policy)
        .with_some("io", disk.io.as_ref())
        .with("discard", "unmap")
        .with_some("iothread", thread.filter(|_| bus == "virtio"))
}

fn seen(disk: &Disk) -> (Seen, &'static str) {
    let word = |bus: Option<&str>, default: &'static str| match bus {
        Some("virtio") => "virtio",
        Some("sata") => "sata",
        Some("scsi") => "scsi",
        Some("usb") => "usb",
        _ => default,
    };
    if let Some(cdrom) = &disk.cdrom {
        return (Seen::Cdrom, word(cdrom.bus.as_deref(), "sata"));
    }
    if let Some(lun) = &disk.lun {
        return (Seen::Lun, word(lun.bus.as_deref(), "scsi"));
    }
    let bus = disk.disk.as_ref().and_then(|d| d.bus);
    (
        Seen::Disk,
        match bus {
            Some(DiskBus::Sata) => "sata",
            Some(DiskBus::Scsi) => "scsi",
            Some(DiskBus::Usb) => "usb",
            _ => "virtio",
        },
    )
}

fn device(seen: Seen) -> &'static str {
    match seen {
        Seen::Disk => "disk",
        Seen::Lun => "lun",
        Seen::Cdrom => "cdrom",
    }
}

fn prefix(bus: &str) -> &'static str {
    if bus == "virtio" { "vd" } else { "sd" }
}

/// `a` to `z`, then `aa`.
fn letter(number: u32) -> String {
    let one = |n: u32| char::from_u32(u32::from(b'a') + n % 26).unwrap_or('a');
    match number.checked_div(26) {
        Some(0) | None => one(number).to_string(),
        Some(above) => format!("{}{}", one(above - 1), one(number)),
    }
}
