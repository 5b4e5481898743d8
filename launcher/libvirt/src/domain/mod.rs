//! From a VM spec and its placement to libvirt's domain XML. Pure.
//!
//! A file per part of the document. Nothing here decides where anything goes: pins, nodes and cells are those of the
//! placement. Source: libvirt's "Domain XML format", version 9.0.

mod cpu;
mod devices;
mod firmware;
mod memory;
mod platform;
mod topology;
mod tune;

use std::collections::BTreeMap;
use std::path::PathBuf;

use pinion_api::VirtualMachineInstance;
use pinion_launcher::{DiskFile, guest_uuid};
use pinion_planner::Placement;

use crate::xml::Element;

/// What is made for a guest, and is in no spec.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assets {
    /// Images of disks, by their volumes.
    pub disks: BTreeMap<String, DiskFile>,
    /// Kernel, initrd and command line, where the spec names a kernel.
    pub kernel: Option<(PathBuf, Option<PathBuf>, String)>,
    /// Folder of the guest's sockets.
    pub sockets: PathBuf,
    /// CPU features that the guest's topology needs on this host.
    pub cpu_features: Vec<&'static str>,
    /// Interfaces whose network is a bridge; the others are tap devices.
    pub bridges: Vec<String>,
    /// Tap devices that somebody else has made, by their interfaces.
    pub taps: BTreeMap<String, String>,
}

/// The document for a guest.
#[must_use]
pub fn domain(instance: &VirtualMachineInstance, placement: &Placement, assets: &Assets) -> String {
    let spec = &instance.spec;
    let bytes: u64 = placement.cells.iter().map(|c| c.memory_bytes).sum();
    Element::new("domain")
        .with("type", "kvm")
        .and(Element::text("name", name(instance)))
        .and(Element::text("uuid", guest_uuid(instance)))
        .and(Element::text("memory", bytes).with("unit", "bytes"))
        .and(memory::backing(placement))
        .and(Element::text("vcpu", placement.vcpus.len()).with("placement", "static"))
        .and_all(tune::io_threads(placement))
        .and(tune::cputune(placement))
        .and(memory::numatune(placement))
        .and_all(firmware::sysinfo(spec))
        .and(firmware::os(spec, assets))
        .and(platform::features(spec))
        .and(cpu::cpu(spec, placement, assets))
        .and(platform::clock(spec))
        .and(Element::text("on_poweroff", "destroy"))
        .and(Element::text("on_reboot", platform::on_reboot(spec)))
        .and(Element::text("on_crash", "destroy"))
        .and(devices::devices(instance, placement, assets))
        .document()
}

/// What libvirt calls a guest: as KubeVirt does, since a slash is a folder to it.
#[must_use]
pub fn name(instance: &VirtualMachineInstance) -> String {
    format!("{}_{}", instance.namespace(), instance.name())
}

/// libvirt's words for a switch.
fn on_off(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}

/// libvirt's other words for one.
fn yes_no(yes: bool) -> &'static str {
    if yes { "yes" } else { "no" }
}
