//! The guest's devices.

mod desktop;
mod disk;
mod host;
mod image;
mod interface;
mod io_threads;
mod small;

use pinion_api::InstanceSpec;

use super::Fault;
use super::identity::Names;
use super::source::{Part, quoted};

/// Most devices of a kind that are read: twice what a guest can have.
const MOST: usize = 64;
/// How user-given names of devices begin. Source: libvirt's "Domain XML format", `alias`.
const OWN_ALIAS: &str = "ua-";
/// Programs that are QEMU under its usual names.
const QEMU: [&str; 4] = ["qemu-system-x86_64", "qemu-kvm", "kvm", "qemu-system-i386"];

pub(super) fn devices(domain: Part<'_>, vm: &str, spec: &mut InstanceSpec) {
    let Some(devices) = domain.child("devices") else {
        domain.fault(|path| Fault::Missing { path, what: "devices" });
        return;
    };
    devices.gives("spec.domain.devices");
    let mut names = Names::default();
    buses(devices);
    let threads = disk::disks(devices, vm, &mut names, spec);
    io_threads::io_threads(domain, &threads, spec);
    disk::boot_order(domain, spec);
    interface::interfaces(devices, &mut names, spec);
    host::devices(devices, &mut names, spec);
    desktop::desktop(devices, &mut names, spec);
    small::small(devices, &mut names, spec);
}

/// Controllers come with the devices that need them, and so do places on them.
fn buses(devices: Part<'_>) {
    let mut controllers = devices.children("controller").inspect(controller);
    if let Some(first) = controllers.next() {
        let count = 1 + controllers.count();
        first.note(format!(
            "controllers ({count}) are made anew for the devices, each of which gets a new place on the buses; a guest that \
             names its interfaces by their places (enp1s0) calls them differently then"
        ));
    }
    let emulator = devices.child("emulator").filter(|emulator| {
        let name = emulator.text().rsplit('/').next().unwrap_or_default();
        !QEMU.contains(&name)
    });
    if let Some(emulator) = emulator {
        emulator.note(format!("{}: the QEMU of this host is used", quoted(emulator.text())));
    }
}

/// What of a controller makes a difference to the guest, or to who serves it.
fn controller(element: &Part<'_>) {
    element.whole();
    let model = element.attribute("model").unwrap_or("virtio");
    if element.attribute("type") == Some("scsi") && !model.starts_with("virtio") {
        element.note(format!(
            "{}: SCSI disks are on a virtio controller, which the guest must have a driver for",
            quoted(model)
        ));
    }
    if let Some(driver) = element.child("driver") {
        driver.note(
            "not carried over: a controller has the usual queues, and is served by no I/O thread of its own",
        );
    }
}

/// Name and place: the name is kept where it was given by somebody, the place is not.
fn own_name<'a>(device: Part<'a>) -> Option<&'a str> {
    device.skip("address");
    device.below("alias", "name")?.strip_prefix(OWN_ALIAS)
}
