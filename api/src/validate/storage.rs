//! Rules on disks and volumes, and that they belong to each other.

use std::collections::BTreeSet;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::firmware::is_straight;
use crate::path::FieldPath;
use crate::problem::{Findings, ProblemCode};
use crate::{CloudInit, Disk, HostDisk, HostDiskType, ImageFormat, InstanceSpec, Volume};

use super::{exactly_one, names};

/// Longest serial number, bytes. Source: `VIRTIO_BLK_ID_BYTES`, virtio 1.2 section 5.2.6.
const LONGEST_SERIAL: usize = 20;
/// Most data of one kind for cloud-init, bytes.
const MOST_CLOUD_INIT: usize = 1 << 20;
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
    check_cloud_init_is_one(spec, &volumes, findings);
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
    exactly_one(&kinds, "what does it hold? use hostDisk or cloudInitNoCloud", path, findings);
    if let Some(disk) = &volume.host_disk {
        check_host_disk(disk, &path.field("hostDisk"), findings);
    }
    if let Some(data) = &volume.cloud_init_no_cloud {
        check_cloud_init(data, &path.field("cloudInitNoCloud"), findings);
    }
}

fn check_host_disk(disk: &HostDisk, path: &FieldPath, findings: &mut Findings) {
    let file = Path::new(&disk.path);
    let straight = file.is_absolute() && is_straight(file) && file.file_name().is_some();
    if !disk.path.is_empty() && (!straight || disk.path.len() > LONGEST_PATH) {
        let message = "must be an absolute path of this host, without ..";
        findings.add(&path.field("path"), ProblemCode::Invalid, message);
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

fn check_cloud_init(data: &CloudInit, path: &FieldPath, findings: &mut Findings) {
    let empty = |text: &Option<String>| text.as_deref().unwrap_or_default().is_empty();
    let user = [
        ("userData", !empty(&data.user_data)),
        ("userDataBase64", !empty(&data.user_data_base64)),
        ("secretRef", data.secret_ref.is_some()),
    ];
    let network = [
        ("networkData", !empty(&data.network_data)),
        ("networkDataBase64", !empty(&data.network_data_base64)),
        ("networkDataSecretRef", data.network_data_secret_ref.is_some()),
    ];
    let any = |fields: &[(&str, bool)]| fields.iter().any(|(_, given)| *given);
    if !any(&user) && !any(&network) {
        let message = "required: give userData or networkData";
        findings.add(path, ProblemCode::Required, message);
    }
    for fields in [user, network] {
        if any(&fields) {
            exactly_one(&fields, "", path, findings);
        }
    }
    for (field, text) in [("userData", &data.user_data), ("networkData", &data.network_data)] {
        check_length(text.as_deref().unwrap_or_default().len(), &path.field(field), findings);
    }
    for (field, text) in
        [("userDataBase64", &data.user_data_base64), ("networkDataBase64", &data.network_data_base64)]
    {
        let Some(text) = text else { continue };
        let path = path.field(field);
        match decode(text) {
            Some(bytes) => check_length(bytes.len(), &path, findings),
            None => findings.add(&path, ProblemCode::Invalid, "not base64"),
        }
    }
}

fn check_length(bytes: usize, path: &FieldPath, findings: &mut Findings) {
    if bytes > MOST_CLOUD_INIT {
        let message = format!("{bytes} bytes are more than {MOST_CLOUD_INIT}");
        findings.add(path, ProblemCode::Invalid, message);
    }
}

/// Base64 as people paste it: line breaks and blanks do not count.
fn decode(text: &str) -> Option<Vec<u8>> {
    let text: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    STANDARD.decode(text).ok()
}

impl CloudInit {
    /// The user data, decoded; empty where there is none.
    #[must_use]
    pub fn user_data_bytes(&self) -> Vec<u8> {
        bytes(self.user_data.as_deref(), self.user_data_base64.as_deref())
    }

    /// The network data, decoded; empty where there is none.
    #[must_use]
    pub fn network_data_bytes(&self) -> Vec<u8> {
        bytes(self.network_data.as_deref(), self.network_data_base64.as_deref())
    }
}

fn bytes(plain: Option<&str>, base64: Option<&str>) -> Vec<u8> {
    match plain.filter(|text| !text.is_empty()) {
        Some(text) => text.as_bytes().to_vec(),
        None => base64.and_then(decode).unwrap_or_default(),
    }
}

fn check_cloud_init_is_one(spec: &InstanceSpec, path: &FieldPath, findings: &mut Findings) {
    let indexes: Vec<usize> = (0..)
        .zip(&spec.volumes)
        .filter(|(_, volume)| volume.cloud_init_no_cloud.is_some())
        .map(|(index, _)| index)
        .collect();
    if let [first, second, ..] = indexes.as_slice() {
        let message = format!("cloud-init reads one volume, and {} is one: remove it", path.index(*first));
        findings.add(&path.index(*second).field("cloudInitNoCloud"), ProblemCode::Conflict, message);
    }
}
