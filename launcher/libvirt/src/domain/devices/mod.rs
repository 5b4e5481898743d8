//! The guest's devices.

mod desktop;
mod disk;
mod interface;

use pinion_api::{Devices, VirtualMachineInstance};
use pinion_machine::Bdf;
use pinion_planner::{Device, Placement};

use super::topology::{address, controllers};
use super::{Assets, yes_no};
use crate::xml::Element;

/// Name of the guest agent's channel. Source: QEMU's documentation of the guest agent.
const AGENT: &str = "org.qemu.guest_agent.0";

pub(super) fn devices(instance: &VirtualMachineInstance, placement: &Placement, assets: &Assets) -> Element {
    let spec = &instance.spec;
    let own = &spec.domain.devices;
    let (buses, behind) = controllers(placement);
    let passed = placement.devices.iter().zip(behind).map(|(device, bus)| host_device(device, bus));
    Element::new("devices")
        .and_all(buses)
        .and_all(disk::disks(spec, placement, assets))
        .and_all(interface::interfaces(instance, assets))
        .and_all(passed)
        .and_all(console(own))
        .and(agent())
        .and_all(desktop::desktop(own, assets))
        .and_all(small(own))
}

/// Devices of which there is one or none, and that have little to say.
fn small(own: &Devices) -> Vec<Element> {
    let mut devices = Vec::new();
    if own.rng.is_some() {
        let backend = Element::text("backend", "/dev/urandom").with("model", "random");
        devices.push(Element::new("rng").with("model", "virtio").and(backend));
    }
    if let Some(tpm) = own.tpm.as_ref().filter(|t| t.enabled != Some(false)) {
        let keep = tpm.persistent.map(yes_no);
        let backend = Element::new("backend").with("type", "emulator").with("version", "2.0");
        devices.push(
            Element::new("tpm").with("model", "tpm-crb").and(backend.with_some("persistent_state", keep)),
        );
    }
    if let Some(watchdog) = own.watchdog.as_ref().and_then(|w| w.i6300esb.as_ref()) {
        let action = watchdog.action.as_deref().unwrap_or("reset");
        devices.push(Element::new("watchdog").with("model", "i6300esb").with("action", action));
    }
    // Ballooning would take pages from where they were placed.
    let balloon = if own.autoattach_mem_balloon == Some(true) { "virtio" } else { "none" };
    devices.push(Element::new("memballoon").with("model", balloon));
    devices.extend(
        own.panic_devices
            .iter()
            .map(|panic| Element::new("panic").with("model", panic.model.as_deref().unwrap_or("isa"))),
    );
    if own.autoattach_vsock == Some(true) {
        let cid = Element::new("cid").with("auto", "yes");
        devices.push(Element::new("vsock").with("model", "virtio").and(cid));
    }
    devices
}

/// A device of the host, behind its cell's bridge. It is bound already, and stays so.
fn host_device(device: &Device, bus: u32) -> Element {
    Element::new("hostdev")
        .with("mode", "subsystem")
        .with("type", "pci")
        .with("managed", "no")
        .and(Element::new("driver").with("name", "vfio"))
        .and(Element::new("source").and(host_address(device.address)))
        .and(alias(&device.name))
        .and(address(bus, 0))
}

fn host_address(address: Bdf) -> Element {
    let text = address.to_string();
    let mut parts = text.split([':', '.']);
    let mut next = || format!("0x{}", parts.next().unwrap_or("0"));
    let (domain, bus, slot, function) = (next(), next(), next(), next());
    Element::new("address")
        .with("domain", domain)
        .with("bus", bus)
        .with("slot", slot)
        .with("function", function)
}

/// What a device is called in events and statistics: libvirt keeps names that begin so.
fn alias(name: &str) -> Element {
    Element::new("alias").with("name", format!("ua-{name}"))
}

fn console(own: &Devices) -> Vec<Element> {
    if own.autoattach_serial_console == Some(false) {
        return Vec::new();
    }
    let target = |kind: Option<&str>| Element::new("target").with_some("type", kind).with("port", 0);
    vec![
        Element::new("serial").with("type", "pty").and(target(None)),
        Element::new("console").with("type", "pty").and(target(Some("serial"))),
    ]
}

fn agent() -> Element {
    let target = Element::new("target").with("type", "virtio").with("name", AGENT);
    Element::new("channel").with("type", "unix").and(target)
}
