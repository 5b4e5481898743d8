//! Devices of the host that the guest has as its own.

use pinion_api::{HostDevice, InstanceSpec};
use pinion_machine::Bdf;

use super::super::Fault;
use super::super::identity::Names;
use super::super::source::{Part, quoted};
use super::{MOST, own_name};

/// Domain of resource names that somebody has yet to choose. Source: RFC 2606.
const DOMAIN: &str = "example.com";

pub(super) fn devices(devices: Part<'_>, names: &mut Names, spec: &mut InstanceSpec) {
    for element in devices.children("hostdev").take(MOST) {
        let kind = element.attribute("type").unwrap_or_default();
        if element.attribute("mode") != Some("subsystem") || kind != "pci" {
            element.leave(format!(
                "not carried over: a device of the type {}; whole PCI functions are passed through, and nothing else",
                quoted(kind)
            ));
            continue;
        }
        // Who binds it is said in devices.yaml.
        element.attribute("managed");
        element.skip("driver");
        let Some(source) = element.child("source") else {
            element.fault(|path| Fault::Missing { path, what: "source" });
            continue;
        };
        let Some(element_of_address) = source.child("address") else {
            source.fault(|path| Fault::Missing { path, what: "address" });
            continue;
        };
        let Some(address) = address(element_of_address) else { continue };
        let made_up = format!("pci-{address}");
        let name = names.take(own_name(element).unwrap_or(&made_up));
        element.gives(format!("spec.domain.devices.hostDevices[{}]", spec.domain.devices.host_devices.len()));
        let device_name = placeholder(element, &address, "hostDevices[].deviceName");
        let device = HostDevice { name, device_name: Some(device_name), ..HostDevice::default() };
        spec.domain.devices.host_devices.push(device);
    }
}

/// The PCI address in an `<address>`.
pub(super) fn address(element: Part<'_>) -> Option<String> {
    element.attribute("type");
    let part = |name| element.hexadecimal(name);
    let (bus, slot, function) = (part("bus")?, part("slot")?, part("function")?);
    let text = format!("{:04x}:{bus:02x}:{slot:02x}.{function:x}", part("domain").unwrap_or(0));
    match text.parse::<Bdf>() {
        Ok(address) => Some(address.to_string()),
        Err(_) => {
            let text = quoted(&text);
            element.fault(|path| Fault::Malformed { path, text, what: "PCI address" });
            None
        }
    }
}

/// A resource name for a device, which somebody has to give a meaning on this host.
pub(super) fn placeholder(element: Part<'_>, address: &str, field: &str) -> String {
    let name = format!("{DOMAIN}/pci-{}", address.replace(':', "-"));
    element.note(format!(
        "it was the device {address} of the host: give {name:?} in {field} a meaning in /etc/pinion/devices.yaml, such as \
         {{name: {name}, select: [{{address: \"{address}\"}}]}}, or write a name that has one"
    ));
    name
}
