//! Where threads run: pins and scheduling classes.

use pinion_planner::Placement;

use crate::xml::Element;

/// How many I/O threads there are, and their numbers.
pub(super) fn io_threads(placement: &Placement) -> Vec<Element> {
    if placement.io_threads.is_empty() {
        return Vec::new();
    }
    let ids = placement.io_threads.iter().map(|t| Element::new("iothread").with("id", t.id));
    vec![Element::text("iothreads", placement.io_threads.len()), Element::new("iothreadids").and_all(ids)]
}

/// A pin for each vCPU and I/O thread. The emulator's threads are pinned once QEMU is there: a pin in the document
/// would keep QEMU from populating memory by threads on the memory's own node (libvirt 9.0, QEMU 7.2: "Setting CPU
/// affinity failed").
pub(super) fn cputune(placement: &Placement) -> Element {
    let vcpus = placement
        .vcpus
        .iter()
        .map(|v| Element::new("vcpupin").with("vcpu", v.id).with("cpuset", v.allowed()));
    let io = placement
        .io_threads
        .iter()
        .map(|t| Element::new("iothreadpin").with("iothread", t.id).with("cpuset", &t.cpus));
    let realtime =
        placement.vcpus.iter().filter(|v| v.realtime).map(|v| {
            Element::new("vcpusched").with("vcpus", v.id).with("scheduler", "fifo").with("priority", 1)
        });
    Element::new("cputune").and_all(vcpus).and_all(io).and_all(realtime)
}
