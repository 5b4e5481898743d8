//! Rules on devices together. Those on passed-through devices (rules 33 to 44) have nothing to
//! say yet: GPUs, host devices and claims are refused as a whole.

use crate::InstanceSpec;
use crate::path::FieldPath;
use crate::problem::{Findings, ProblemCode};

/// Devices on the guest's PCI bus: 32, less the host bridge.
const MOST_PCI_DEVICES: usize = 31;

pub(super) fn check(spec: &InstanceSpec, path: &FieldPath, findings: &mut Findings) {
    let devices = &spec.domain.devices;
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
