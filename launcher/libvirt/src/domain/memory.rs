//! Memory: what backs it, and the nodes it is on.

use std::collections::BTreeMap;

use pinion_planner::Placement;

use crate::xml::Element;

/// What backs memory: populated before the guest runs, locked where a vCPU is real-time, never merged with that
/// of others. As files in memory, so that the kernel names their mappings.
pub(super) fn backing(placement: &Placement) -> Element {
    let mut sizes: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    for cell in placement.cells.iter().filter(|c| c.page_size_bytes.is_huge()) {
        sizes.entry(cell.page_size_bytes.bytes()).or_default().push(cell.id.to_string());
    }
    let mut backing = Element::new("memoryBacking");
    if !sizes.is_empty() {
        let page = |(bytes, cells): (u64, Vec<String>)| {
            Element::new("page")
                .with("size", bytes >> 10)
                .with("unit", "KiB")
                .with("nodeset", cells.join(","))
        };
        backing = backing.and(Element::new("hugepages").and_all(sizes.into_iter().map(page)));
    }
    backing = backing.and(Element::new("nosharepages"));
    if placement.vcpus.iter().any(|v| v.realtime) {
        backing = backing.and(Element::new("locked"));
    }
    backing
        .and(Element::new("source").with("type", "memfd"))
        .and(Element::new("access").with("mode", "shared"))
        .and(Element::new("allocation").with("mode", "immediate"))
}

/// Each cell strictly on its node.
pub(super) fn numatune(placement: &Placement) -> Element {
    let cell = |cell: &pinion_planner::Cell| {
        Element::new("memnode")
            .with("cellid", cell.id)
            .with("mode", "strict")
            .with("nodeset", cell.host_node.0)
    };
    Element::new("numatune").and_all(placement.cells.iter().map(cell))
}
