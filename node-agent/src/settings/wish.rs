//! What guests wish of the host, as the ledger keeps it, and all wishes together. Pure data.

use std::collections::BTreeMap;

use pinion_machine::{Bdf, CpuSet, NodeId};
use pinion_planner::Placement;
use serde::{Deserialize, Serialize};

use crate::ledger::LedgerDocument;

/// What one guest wishes of the host while it runs. Its dedicated CPUs are those it holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HostWishes {
    /// Whether its dedicated CPUs are kept free of the host's interrupts, awake and at full speed.
    #[serde(default)]
    pub quiet_cpus: bool,
    /// Whether its threads are of another process, which stays in control groups of others: they are pinned, and no
    /// partition is made of their CPUs.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pinned_only: bool,
    /// Whether one of its vCPUs is real-time.
    #[serde(default)]
    pub realtime: bool,
    /// CPUs that take the interrupts which may come to no others.
    #[serde(default)]
    pub fallback: CpuSet,
    /// Huge pages that are taken for it beyond those that there were.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub huge_pages: Vec<PagesWish>,
    /// Where the interrupts of its devices come.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<DeviceRoute>,
}

impl HostWishes {
    /// Those of a guest that has its place: quiet CPUs, if it has any to itself, and its devices' interrupts where they were
    /// planned. Huge pages that are made for it come besides.
    #[must_use]
    pub fn of(placement: &Placement) -> Self {
        let dedicated = !placement.dedicated_cpus().is_empty();
        if !dedicated && placement.devices.is_empty() {
            return Self::default();
        }
        let route =
            |d: &pinion_planner::Device| DeviceRoute { address: d.address, cpus: d.interrupt_cpus.clone() };
        Self {
            quiet_cpus: dedicated,
            pinned_only: false,
            realtime: placement.vcpus.iter().any(|v| v.realtime),
            fallback: placement.emulator.cpus.clone(),
            huge_pages: Vec::new(),
            routes: placement.devices.iter().map(route).collect(),
        }
    }

    /// Whether it wishes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Huge pages of one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PagesWish {
    /// The node.
    pub node: NodeId,
    /// Their size, KiB.
    pub size_kib: u64,
    /// How many.
    pub count: u64,
}

/// Where the interrupts of a passed-through device come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRoute {
    /// The device.
    pub address: Bdf,
    /// Vector after vector in turn (`pinion_planner::vector_cpu`).
    pub cpus: CpuSet,
}

/// The wishes of all guests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    /// CPUs that are kept quiet.
    pub(super) quiet: CpuSet,
    /// CPUs that take interrupts which may come to no others.
    pub(super) fallback: CpuSet,
    /// By device, where its interrupts come.
    pub(super) routes: BTreeMap<Bdf, CpuSet>,
    /// Devices that guests have.
    pub(super) devices: Vec<Bdf>,
    /// Whether a vCPU is real-time.
    pub(super) realtime: bool,
    /// Huge pages by node and size (KiB).
    pub(super) huge_pages: BTreeMap<(NodeId, u64), u64>,
}

impl Wanted {
    pub(super) fn of(document: &LedgerDocument) -> Self {
        let mut wanted = Self::default();
        let mut fallback = CpuSet::new();
        for entry in &document.holdings {
            wanted.devices.extend(&entry.holding.devices);
            let wishes = &entry.host;
            let routes = wishes.routes.iter().map(|r| (r.address, r.cpus.clone()));
            wanted.routes.extend(routes);
            wanted.realtime |= wishes.realtime;
            for pages in &wishes.huge_pages {
                let all = wanted.huge_pages.entry((pages.node, pages.size_kib)).or_default();
                *all = all.saturating_add(pages.count);
            }
            if wishes.quiet_cpus {
                wanted.quiet = wanted.quiet.union(&entry.holding.cpus);
                fallback = fallback.union(&wishes.fallback);
            }
        }
        wanted.fallback = fallback.difference(&wanted.quiet);
        wanted
    }

    /// Where an interrupt may come that was allowed on `base` when nobody wished anything.
    pub(super) fn interrupt(&self, base: &CpuSet) -> CpuSet {
        let left = base.difference(&self.quiet);
        if left.is_empty() && !self.fallback.is_empty() { self.fallback.clone() } else { left }
    }
}
