//! The PCI buses of passed-through devices: an expander for each cell that has some, and a port for each device.

use std::collections::BTreeMap;

use pinion_planner::Placement;

use crate::xml::Element;

/// First bus number of an expander, and how many each has. The lower ones are the board's own.
const FIRST_BUS: u32 = 128;
const BUSES: u32 = 16;
/// Number of the first controller of these: 0 is the root, and libvirt gives its own the numbers behind.
const FIRST_INDEX: u32 = 1;

/// The controllers, and the one that each device is behind, in the order of the placement.
pub(super) fn controllers(placement: &Placement) -> (Vec<Element>, Vec<u32>) {
    let mut controllers = Vec::new();
    let mut expanders: BTreeMap<u32, u32> = BTreeMap::new();
    let mut behind = Vec::new();
    for (device, slot) in placement.devices.iter().zip(0..) {
        let (count, next) = (number(expanders.len()), FIRST_INDEX + number(controllers.len()));
        let expander = *expanders.entry(device.cell).or_insert_with(|| {
            let target = Element::new("target").with("busNr", FIRST_BUS + count * BUSES);
            let target = target.and(Element::text("node", device.cell));
            controllers.push(controller(next, "pcie-expander-bus").and(target));
            next
        });
        let port = FIRST_INDEX + number(controllers.len());
        controllers.push(controller(port, "pcie-root-port").and(address(expander, slot)));
        behind.push(port);
    }
    (controllers, behind)
}

fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn controller(index: u32, model: &str) -> Element {
    Element::new("controller").with("type", "pci").with("index", index).with("model", model)
}

/// A slot of a bus.
pub(super) fn address(bus: u32, slot: u32) -> Element {
    Element::new("address")
        .with("type", "pci")
        .with("domain", "0x0000")
        .with("bus", format!("{bus:#04x}"))
        .with("slot", format!("{slot:#04x}"))
        .with("function", "0x0")
}
