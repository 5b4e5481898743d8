//! How the guest boots, and what its firmware says of the machine.

use pinion_api::{Firmware, InstanceSpec};

use super::{Assets, yes_no};
use crate::xml::Element;

/// File of the EFI variables.
const VARIABLES: &str = "efi-variables.fd";
/// The machine, where the spec names none.
const MACHINE: &str = "q35";

pub(super) fn os(spec: &InstanceSpec, assets: &Assets) -> Element {
    let machine = spec.domain.machine.as_ref().and_then(|m| m.kind.as_deref()).filter(|m| !m.is_empty());
    let kind =
        Element::text("type", "hvm").with("arch", "x86_64").with("machine", machine.unwrap_or(MACHINE));
    let firmware = spec.domain.firmware.as_ref();
    let loader = firmware.and_then(|f| f.bootloader.as_ref());
    let mut os = Element::new("os");
    if let Some(efi) = loader.and_then(|l| l.efi.as_ref()) {
        // libvirt finds a firmware of this host that has what is asked for.
        let secure = efi.secure_boot.unwrap_or(true);
        let feature = |name| Element::new("feature").with("enabled", yes_no(secure)).with("name", name);
        os = os.with("firmware", "efi").and(kind);
        os = os.and(Element::new("firmware").and(feature("enrolled-keys")).and(feature("secure-boot")));
        // Its variables go with the guest.
        os = os.and(Element::text("nvram", assets.sockets.join(VARIABLES).display()));
    } else {
        os = os.and(kind);
    }
    if let Some((kernel, initrd, arguments)) = &assets.kernel {
        os = os.and(Element::text("kernel", kernel.display()));
        os = os.and_all(initrd.as_ref().map(|initrd| Element::text("initrd", initrd.display())));
        os = os.and(Element::text("cmdline", arguments));
    }
    if loader.and_then(|l| l.bios.as_ref()).is_some_and(|b| b.use_serial == Some(true)) {
        os = os.and(Element::new("bios").with("useserial", "yes"));
    }
    os.and_all(has_sysinfo(spec).then(|| Element::new("smbios").with("mode", "sysinfo")))
}

fn has_sysinfo(spec: &InstanceSpec) -> bool {
    let serial = spec.domain.firmware.as_ref().is_some_and(|f: &Firmware| f.serial.is_some());
    serial || spec.domain.chassis.is_some()
}

/// The SMBIOS tables, where the spec says something of them.
pub(super) fn sysinfo(spec: &InstanceSpec) -> Option<Element> {
    if !has_sysinfo(spec) {
        return None;
    }
    let entry = |name: &str, value: &Option<String>| {
        value.as_ref().map(|value| Element::text("entry", value).with("name", name))
    };
    let serial = spec.domain.firmware.as_ref().and_then(|f| entry("serial", &f.serial));
    let mut sysinfo = Element::new("sysinfo").with("type", "smbios");
    if let Some(serial) = serial {
        sysinfo = sysinfo.and(Element::new("system").and(serial));
    }
    if let Some(chassis) = &spec.domain.chassis {
        let entries = [
            entry("manufacturer", &chassis.manufacturer),
            entry("version", &chassis.version),
            entry("serial", &chassis.serial),
            entry("asset", &chassis.asset),
            entry("sku", &chassis.sku),
        ];
        sysinfo = sysinfo.and(Element::new("chassis").and_all(entries.into_iter().flatten()));
    }
    Some(sysinfo)
}
