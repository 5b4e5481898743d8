//! Rules on devices together, and on those passed through.

use std::collections::BTreeSet;

use crate::InstanceSpec;
use crate::path::FieldPath;
use crate::problem::{Findings, ProblemCode};

/// Devices on the guest's PCI bus: 32, less the host bridge.
const MOST_PCI_DEVICES: usize = 31;

pub(super) fn check(spec: &InstanceSpec, path: &FieldPath, findings: &mut Findings) {
    let devices = &spec.domain.devices;
    passed_through(spec, path, findings);
    let (disks, interfaces) = (devices.disks.len(), devices.interfaces.len());
    let needed = disks + interfaces + usize::from(devices.rng.is_some());
    if needed > MOST_PCI_DEVICES {
        let rng = if devices.rng.is_some() { " and the rng" } else { "" };
        let message = format!(
            "{disks} disks and {interfaces} interfaces{rng} need {needed} places on the PCI bus, which has {MOST_PCI_DEVICES}"
        );
        findings.add(&path.field("domain.devices"), ProblemCode::Invalid, message);
    }
}

/// Each has a name of its own and says what it is.
fn passed_through(spec: &InstanceSpec, path: &FieldPath, findings: &mut Findings) {
    let devices = &spec.domain.devices;
    let gpus = devices.gpus.iter().map(|d| (&d.name, &d.device_name)).enumerate();
    let others = devices.host_devices.iter().map(|d| (&d.name, &d.device_name)).enumerate();
    let all = gpus.map(|d| ("gpus", d)).chain(others.map(|d| ("hostDevices", d)));
    let mut names = BTreeSet::new();
    for (list, (index, (name, device_name))) in all {
        let at = path.field(&format!("domain.devices.{list}")).index(index);
        if !names.insert(name) {
            let message = format!("{name:?} is the name of another GPU or host device");
            findings.add(&at.field("name"), ProblemCode::DuplicateName, message);
        }
        if device_name.as_deref().is_none_or(str::is_empty) {
            let message = "must name a resource of /etc/pinion/devices.yaml".to_owned();
            findings.add(&at.field("deviceName"), ProblemCode::Required, message);
        }
    }
}
