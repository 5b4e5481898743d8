//! Network interfaces: on a bridge, or on a tap device that is there already.

use pinion_api::{Interface, InterfaceModel, InterfaceState, MacAddress, VirtualMachineInstance};

use super::super::Assets;
use super::alias;
use crate::xml::Element;

pub(super) fn interfaces(instance: &VirtualMachineInstance, assets: &Assets) -> Vec<Element> {
    let own = &instance.spec.domain.devices.interfaces;
    own.iter().filter(|i| i.sriov.is_none()).filter_map(|i| element(instance, i, assets)).collect()
}

fn element(instance: &VirtualMachineInstance, interface: &Interface, assets: &Assets) -> Option<Element> {
    let tap = assets.taps.get(&interface.name).map(String::as_str);
    let network = tap.or_else(|| instance.spec.host_network(&interface.name))?;
    let on_bridge = tap.is_none() && assets.bridges.iter().any(|bridge| bridge == network);
    let given = interface.mac_address.as_deref().and_then(|text| text.parse::<MacAddress>().ok());
    let mac = given.unwrap_or_else(|| MacAddress::for_interface(&instance.full_name(), &interface.name));
    let element = if on_bridge {
        Element::new("interface").with("type", "bridge").and(Element::new("source").with("bridge", network))
    } else {
        let target = Element::new("target").with("dev", network).with("managed", "no");
        Element::new("interface").with("type", "ethernet").and(target)
    };
    let link = if interface.state == Some(InterfaceState::Down) { "down" } else { "up" };
    Some(
        element
            .and(Element::new("mac").with("address", mac))
            .and(Element::new("model").with("type", model(interface.model)))
            // Who has made the tap has planned for no threads of the kernel's.
            .and_all(tap.map(|_| Element::new("driver").with("name", "qemu")))
            .and(Element::new("link").with("state", link))
            .and_all(interface.boot_order.map(|order| Element::new("boot").with("order", order)))
            .and(alias(&interface.name)),
    )
}

fn model(model: Option<InterfaceModel>) -> &'static str {
    match model {
        Some(InterfaceModel::E1000) => "e1000",
        Some(InterfaceModel::E1000e) => "e1000e",
        Some(InterfaceModel::IgbModel) => "igb",
        Some(InterfaceModel::Ne2kPci) => "ne2k_pci",
        Some(InterfaceModel::Pcnet) => "pcnet",
        Some(InterfaceModel::Rtl8139) => "rtl8139",
        _ => "virtio",
    }
}
