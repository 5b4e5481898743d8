//! The CPU that the guest sees: model, features, topology, cells.

use pinion_api::{Cpu, InstanceSpec};
use pinion_planner::{Cell, Placement};

use super::Assets;
use crate::xml::Element;

/// What KubeVirt takes where a feature has no policy.
const POLICY: &str = "require";

pub(super) fn cpu(spec: &InstanceSpec, placement: &Placement, assets: &Assets) -> Element {
    let own = spec.domain.cpu.as_ref();
    let shape = spec.topology();
    let topology = Element::new("topology")
        .with("sockets", shape.sockets)
        .with("dies", 1)
        .with("cores", shape.cores)
        .with("threads", shape.threads);
    let features = own.map(|c| c.features.as_slice()).unwrap_or_default().iter().map(|f| {
        let policy = f.policy.as_deref().filter(|p| !p.is_empty()).unwrap_or(POLICY);
        Element::new("feature").with("policy", policy).with("name", &f.name)
    });
    let asked = |name: &str| own.is_some_and(|c| c.features.iter().any(|f| f.name == name));
    let needed = assets.cpu_features.iter().filter(|name| !asked(name));
    let needed = needed.map(|name| Element::new("feature").with("policy", POLICY).with("name", name));
    model(own.and_then(|c: &Cpu| c.model.as_deref()), spec.dedicated_cpus())
        .and(topology)
        .and_all(features)
        .and_all(needed)
        .and(Element::new("numa").and_all(placement.cells.iter().map(|c| cell(c, placement))))
}

/// A guest with dedicated CPUs never moves to another host's: it may have all of this one's.
fn model(name: Option<&str>, dedicated: bool) -> Element {
    let cpu = Element::new("cpu");
    match name.filter(|n| !n.is_empty()) {
        Some("host-model") => cpu.with("mode", "host-model"),
        None | Some("host-passthrough") => cpu
            .with("mode", "host-passthrough")
            .with("check", "none")
            .with("migratable", super::on_off(!dedicated)),
        Some(name) => cpu
            .with("mode", "custom")
            .with("match", "exact")
            .with("check", "partial")
            .and(Element::text("model", name).with("fallback", "forbid")),
    }
}

fn cell(cell: &Cell, placement: &Placement) -> Element {
    let vcpus: Vec<String> = cell.vcpus.iter().map(ToString::to_string).collect();
    let element = Element::new("cell")
        .with("id", cell.id)
        .with("cpus", vcpus.join(","))
        .with("memory", cell.memory_bytes >> 10)
        .with("unit", "KiB");
    if placement.cells.len() < 2 {
        return element;
    }
    let siblings = (0..)
        .zip(&cell.distances)
        .map(|(id, distance): (u32, _)| Element::new("sibling").with("id", id).with("value", distance));
    element.and(Element::new("distances").and_all(siblings))
}
