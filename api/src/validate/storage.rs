//! Rules on disks and volumes, and that they belong to each other.

use std::collections::BTreeSet;
use std::path::Path;

use crate::firmware::is_straight;
use crate::path::FieldPath;
use crate::problem::{Findings, ProblemCode};
use crate::{Disk, HostDisk, HostDiskType, ImageFormat, InstanceSpec, Volume};

use super::{cloud_init, exactly_one, names, volume};

/// Longest serial number, bytes. Source: `VIRTIO_BLK_ID_BYTES`, virtio 1.2 section 5.2.6.
const LONGEST_SERIAL: usize = 20;
/// Longest path. Source: `PATH_MAX` of Linux, less the NUL.
const LONGEST_PATH: usize = 4095;

pub(super) fn check(spec: &InstanceSpec, path: &FieldPath, findings: &mut Findings) {
    let disks = path.field("domain.devices.disks");
    let volumes = path.field("volumes");
    names::unique(spec.domain.devices.disks.iter().map(|disk| disk.name.as_str()), &disks, findings);
    names::unique(spec.volumes.iter().map(|volume| volume.name.as_str()), &volumes, findings);
    let volume_names = names::set(spec.volumes.iter().map(|volume| volume.name.as_str()));
    for (index, disk) in spec.domain.devices.disks.iter().enumerate() {
        let path = disks.index(index);
        check_disk(disk, &path, findings);
        names::resolve(&disk.name, &volume_names, ("volume", "volumes"), &path, findings);
    }
    check_boot_order(spec, &disks, findings);
    let devices = &spec.domain.devices;
    let disk_names = devices.disks.iter().map(|disk| disk.name.as_str());
    let users = names::set(disk_names.chain(devices.filesystems.iter().map(|shared| shared.name.as_str())));
    for (index, volume) in spec.volumes.iter().enumerate() {
        let path = volumes.index(index);
        check_volume(volume, &path, findings);
        names::resolve(&volume.name, &users, ("disk", "domain.devices.disks"), &path, findings);
    }
    cloud_init::check_is_one(spec, &volumes, findings);
    volume::check_claims(spec, &volumes, findings);
}

/// No two disks are tried at once.
fn check_boot_order(spec: &InstanceSpec, disks: &FieldPath, findings: &mut Findings) {
    let mut seen = BTreeSet::new();
    for (index, order) in spec.domain.devices.disks.iter().map(|disk| disk.boot_order).enumerate() {
        if order.is_some_and(|order| !seen.insert(order)) {
            let message = "another disk has this number: give each its own";
            findings.add(&disks.index(index).field("bootOrder"), ProblemCode::Conflict, message);
        }
    }
}

fn check_disk(disk: &Disk, path: &FieldPath, findings: &mut Findings) {
    let targets =
        [("disk", disk.disk.is_some()), ("lun", disk.lun.is_some()), ("cdrom", disk.cdrom.is_some())];
    if targets.iter().any(|(_, given)| *given) {
        exactly_one(&targets, "use disk", path, findings);
    }
    if let Some(serial) = &disk.serial {
        let path = path.field("serial");
        if serial.len() > LONGEST_SERIAL {
            let message = format!("{} bytes are more than the {LONGEST_SERIAL} of virtio-blk", serial.len());
            findings.add(&path, ProblemCode::Invalid, message);
        } else if !serial.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte)) {
            let message = "must be letters, digits, underscores, dots and hyphens";
            findings.add(&path, ProblemCode::Invalid, message);
        }
    }
    if disk.boot_order == Some(0) {
        let message = "0 is out of bounds: the first is 1";
        findings.add(&path.field("bootOrder"), ProblemCode::Invalid, message);
    }
    // Rule 32 (an I/O thread needs a virtio disk) always holds: other buses are refused.
}

fn check_volume(volume: &Volume, path: &FieldPath, findings: &mut Findings) {
    let kinds = [
        ("hostDisk", volume.host_disk.is_some()),
        ("cloudInitNoCloud", volume.cloud_init_no_cloud.is_some()),
        ("cloudInitConfigDrive", volume.cloud_init_config_drive.is_some()),
        ("persistentVolumeClaim", volume.persistent_volume_claim.is_some()),
        ("dataVolume", volume.data_volume.is_some()),
        ("containerDisk", volume.container_disk.is_some()),
        ("ephemeral", volume.ephemeral.is_some()),
        ("emptyDisk", volume.empty_disk.is_some()),
        ("sysprep", volume.sysprep.is_some()),
        ("configMap", volume.config_map.is_some()),
        ("secret", volume.secret.is_some()),
        ("downwardAPI", volume.downward_api.is_some()),
        ("serviceAccount", volume.service_account.is_some()),
        ("downwardMetrics", volume.downward_metrics.is_some()),
        ("memoryDump", volume.memory_dump.is_some()),
        ("containerPath", volume.container_path.is_some()),
    ];
    let suggestion = if findings.in_cluster() {
        "what does it hold? use containerDisk, persistentVolumeClaim or cloudInitNoCloud"
    } else {
        "what does it hold? use hostDisk or cloudInitNoCloud"
    };
    exactly_one(&kinds, suggestion, path, findings);
    if let Some(disk) = &volume.host_disk {
        check_host_disk(disk, &path.field("hostDisk"), findings);
    }
    for (field, data) in [
        ("cloudInitNoCloud", &volume.cloud_init_no_cloud),
        ("cloudInitConfigDrive", &volume.cloud_init_config_drive),
    ] {
        if let Some(data) = data {
            cloud_init::check(data, &path.field(field), findings);
        }
    }
    volume::check(volume, path, findings);
}

fn check_host_disk(disk: &HostDisk, path: &FieldPath, findings: &mut Findings) {
    let file = Path::new(&disk.path);
    let straight = file.is_absolute() && is_straight(file) && file.file_name().is_some();
    if !disk.path.is_empty() && (!straight || disk.path.len() > LONGEST_PATH) {
        let message = "must be an absolute path of this host, without ..";
        findings.add(&path.field("path"), ProblemCode::Invalid, message);
    } else if findings.in_cluster() && file.starts_with("/dev") {
        let message = "a pod may not open devices of its node: use a claim with volumeMode: Block";
        findings.add(&path.field("path"), ProblemCode::HostOnly, message);
    }
    if disk.kind == HostDiskType::DiskOrCreate && disk.format() == ImageFormat::Qcow2 {
        let message = "DiskOrCreate makes raw images: make the qcow2 image yourself and use Disk";
        findings.add(&path.field("type"), ProblemCode::Conflict, message);
    }
    let below = path.field("capacity");
    match (disk.kind, &disk.capacity) {
        (HostDiskType::DiskOrCreate, None) => {
            let message = "required by the type DiskOrCreate: how large is it to be made?";
            findings.add(&below, ProblemCode::Required, message);
        }
        (HostDiskType::DiskOrCreate, Some(capacity)) if capacity.whole().is_none_or(|bytes| bytes == 0) => {
            findings.add(&below, ProblemCode::Invalid, format!("{capacity} is no size of a disk"));
        }
        (HostDiskType::Disk, Some(_)) => {
            let message =
                "has no effect with the type Disk, whose size is its own: remove it, or use DiskOrCreate";
            findings.add(&below, ProblemCode::Conflict, message);
        }
        _ => {}
    }
}
