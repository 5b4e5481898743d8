//! Network interfaces, and what they are connected to.

use pinion_api::{
    BridgeBinding, InstanceSpec, Interface, InterfaceModel, InterfaceState, MultusNetwork, Network,
    SriovBinding,
};

use super::super::identity::Names;
use super::super::source::{Part, quoted};
use super::host::{address, placeholder};
use super::{MOST, own_name};

/// The network that libvirt comes with, and its bridge.
const DEFAULT_NETWORK: (&str, &str) = ("default", "virbr0");
/// Longest name of a host's interface. Source: `IFNAMSIZ` of Linux, less the NUL.
const LONGEST_HOST_NAME: usize = 15;
/// How names begin that libvirt makes up for taps.
const MADE_UP_TAPS: [&str; 2] = ["vnet", "macvtap"];

/// What an interface is connected to.
enum Wire {
    /// A bridge or tap of the host.
    Host(String),
    /// A device of the host's, by its resource name.
    Device(String),
}

pub(super) fn interfaces(devices: Part<'_>, names: &mut Names, spec: &mut InstanceSpec) {
    for (element, number) in devices.children("interface").take(MOST).zip(0_u32..) {
        let Some(wire) = wire(element) else { continue };
        let made_up = format!("net{number}");
        let name = names.take(own_name(element).unwrap_or(&made_up));
        element.gives(format!("spec.domain.devices.interfaces[{}]", spec.domain.devices.interfaces.len()));
        element.gives(format!("spec.networks[{}]", spec.networks.len()));
        let (interface, network_name) = match wire {
            Wire::Host(network) => (on_host(element, name.clone()), network),
            Wire::Device(resource) => (of_device(element, name.clone()), resource),
        };
        spec.domain.devices.interfaces.push(interface);
        let multus = MultusNetwork { network_name, ..MultusNetwork::default() };
        spec.networks.push(Network { name, multus: Some(multus), ..Network::default() });
    }
    if spec.domain.devices.interfaces.is_empty() {
        // KubeVirt would add one.
        spec.domain.devices.autoattach_pod_interface = Some(false);
    }
}

/// Where it is connected to; `None`, and noted, where there is no such connection here.
fn wire(element: Part<'_>) -> Option<Wire> {
    let kind = element.attribute("type").unwrap_or_default();
    let source = element.child("source");
    let given = |name| source.and_then(|source| source.attribute(name)).filter(|text| !text.is_empty());
    match kind {
        "bridge" => {
            given("bridge").map(|bridge| Wire::Host(bridge.to_owned())).or_else(|| lost(element, kind))
        }
        "network" => {
            // A number that libvirt gives while a guest runs.
            given("portid");
            let name = given("network").unwrap_or_default();
            Some(Wire::Host(of_network(element, name, given("bridge"))))
        }
        "ethernet" => {
            let tap = element.child("target").and_then(|target| {
                if target.attribute("managed") != Some("no") {
                    target.note("the tap device has to be there before the guest starts");
                }
                target.attribute("dev")
            });
            tap.map(|tap| Wire::Host(tap.to_owned())).or_else(|| lost(element, kind))
        }
        "hostdev" => {
            element.attribute("managed");
            let address = source.and_then(|s| s.child("address")).and_then(address);
            address
                .map(|address| Wire::Device(placeholder(element, &address, "networks[].multus.networkName")))
        }
        _ => lost(element, kind),
    }
}

/// The bridge of one of libvirt's networks.
fn of_network(element: Part<'_>, name: &str, bridge: Option<&str>) -> String {
    let (network, own) = DEFAULT_NETWORK;
    if let Some(bridge) = bridge.or((name == network).then_some(own)) {
        element.note(format!(
            "it was on libvirt's network {}: the guest is on its bridge {bridge:?}, which has to be there before it starts \
             (virsh net-start)",
            quoted(name)
        ));
        return bridge.to_owned();
    }
    let fits = |c: &char| c.is_ascii_alphanumeric() || "-_.".contains(*c);
    let bridge: String = name.chars().filter(fits).take(LONGEST_HOST_NAME).collect();
    let bridge = if bridge.trim_matches('.').is_empty() { own.to_owned() } else { bridge };
    element.note(format!(
        "it was on libvirt's network {}, and the document does not say which bridge that is: put it into networks instead \
         of {bridge:?} (virsh net-dumpxml)",
        quoted(name)
    ));
    bridge
}

fn lost(element: Part<'_>, kind: &str) -> Option<Wire> {
    let mac = element.below("mac", "address").unwrap_or_default();
    element.leave(format!(
        "not carried over: an interface of the type {} with the address {}; the guest's interfaces are on bridges and taps \
         of the host: make one, and add an interface to the spec",
        quoted(kind),
        quoted(mac)
    ));
    None
}

fn on_host(element: Part<'_>, name: String) -> Interface {
    if let Some(target) = element.child("target") {
        let dev = target
            .attribute("dev")
            .filter(|dev| !MADE_UP_TAPS.iter().any(|made_up| dev.starts_with(made_up)));
        let is_own = element.attribute("type") == Some("ethernet");
        if let Some(dev) = dev.filter(|_| !is_own) {
            target.note_attribute("dev", format!("{}: taps of guests are named by the host", quoted(dev)));
        }
    }
    if let Some(port) = element.child("virtualport") {
        port.leave(format!(
            "not carried over: a port of the kind {}; the guest's interfaces are on Linux bridges, or on a tap device that \
             you connect yourself",
            quoted(port.attribute("type").unwrap_or_default())
        ));
    }
    let state = element.below("link", "state").map(|state| match state {
        "down" => InterfaceState::Down,
        _ => InterfaceState::Up,
    });
    Interface {
        name,
        bridge: Some(BridgeBinding {}),
        mac_address: element.below("mac", "address").map(str::to_owned),
        model: model(element),
        state: state.filter(|state| *state == InterfaceState::Down),
        boot_order: boot_order(element),
        ..Interface::default()
    }
}

fn boot_order(element: Part<'_>) -> Option<u32> {
    element.child("boot").and_then(|boot| boot.number("order"))
}

/// Of a device with functions of its own.
fn of_device(element: Part<'_>, name: String) -> Interface {
    if let Some(mac) = element.below("mac", "address") {
        element.note(format!(
            "the address {} is the device's own now: set it on its parent (ip link set dev PARENT vf N mac ADDRESS)",
            quoted(mac)
        ));
    }
    // The device is bound before the guest starts, and is what it is.
    for part in ["driver", "model", "target"] {
        element.skip(part);
    }
    Interface { name, sriov: Some(SriovBinding {}), boot_order: boot_order(element), ..Interface::default() }
}

fn model(element: Part<'_>) -> Option<InterfaceModel> {
    let Some(model) = element.child("model") else {
        element.note("it has no model, for which libvirt takes rtl8139");
        return Some(InterfaceModel::Rtl8139);
    };
    Some(match model.attribute("type").unwrap_or_default() {
        "virtio" => InterfaceModel::Virtio,
        "e1000" => InterfaceModel::E1000,
        "e1000e" => InterfaceModel::E1000e,
        "igb" => InterfaceModel::IgbModel,
        "ne2k_pci" => InterfaceModel::Ne2kPci,
        "pcnet" => InterfaceModel::Pcnet,
        "rtl8139" => InterfaceModel::Rtl8139,
        other => {
            model.note(format!(
                "{}: it is a virtio interface, which the guest must have a driver for",
                quoted(other)
            ));
            InterfaceModel::Virtio
        }
    })
}
