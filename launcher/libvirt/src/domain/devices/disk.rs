//! Disks: their images, their buses, their I/O threads.

use std::collections::BTreeMap;
use std::path::Path;

use pinion_api::{CacheMode, Disk, DiskBus, ErrorPolicy, ImageFormat, InstanceSpec};
use pinion_planner::Placement;

use super::super::Assets;
use super::alias;
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
    let volume = spec.volume(&disk.name)?;
    let (path, format) = match (&volume.host_disk, assets.seeds.get(&disk.name)) {
        (Some(host), _) => (Path::new(&host.path), host.format()),
        (None, Some(seed)) => (seed.as_path(), ImageFormat::Raw),
        (None, None) => return None,
    };
    let (seen, bus) = seen(disk);
    let next = letters.entry(prefix(bus)).or_default();
    let target =
        Element::new("target").with("dev", format!("{}{}", prefix(bus), letter(*next))).with("bus", bus);
    *next += 1;
    let is_block = path.starts_with("/dev");
    let source = Element::new("source").with(if is_block { "dev" } else { "file" }, path.display());
    let read_only = disk.is_read_only() || volume.host_disk.is_none() || seen == Seen::Cdrom;
    let serial = disk.serial.as_ref().map(|serial| Element::text("serial", serial));
    let boot = disk.boot_order.or_else(|| is_first(spec, disk).then_some(1));
    let boot = boot.map(|order| Element::new("boot").with("order", order));
    Some(
        Element::new("disk")
            .with("type", if is_block { "block" } else { "file" })
            .with("device", device(seen))
            .and(driver(placement, disk, format, bus))
            .and(source)
            .and(target)
            .and_all(read_only.then(|| Element::new("readonly")))
            .and_all(serial)
            .and_all(boot.filter(|_| assets.kernel.is_none()))
            .and(alias(&disk.name)),
    )
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
        .with("type", if format == ImageFormat::Qcow2 { "qcow2" } else { "raw" })
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
