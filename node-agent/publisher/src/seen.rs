//! What was seen of a node, and what its ledger says of it. Pure.

use std::collections::{BTreeMap, BTreeSet};

use pinion_machine::{Bdf, CpuSet, Machine, Outline, obstacles};
use pinion_node_agent::LedgerDocument;
use pinion_nodes::{GuestReport, LedgerStatus};
use pinion_planner::Occupancy;
use pinion_pod_resources::Pods;

use crate::pods::{PodKey, holdings};

/// Memory that is available changes all the time; less than this is no news.
const MEMORY_GRAIN: u64 = 64 << 20;

/// What was seen of a node.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// The machine; none where it cannot be read.
    pub(crate) machine: Option<Machine>,
    /// The agent's ledger.
    pub(crate) document: LedgerDocument,
    /// What the kubelet says.
    pub(crate) pods: Pods,
    /// Why no guest can be started.
    pub(crate) obstacles: Vec<String>,
}

impl Seen {
    /// What the node's ledger says then, but for when that was.
    pub(crate) fn status(&self, guests: Vec<GuestReport>, ended: &BTreeSet<PodKey>) -> LedgerStatus {
        let resources = self.resources();
        let entries = self.document.holdings.iter();
        let held: BTreeSet<Bdf> = entries.clone().flat_map(|e| e.holding.devices.clone()).collect();
        let offered =
            |f: Bdf| held.contains(&f) || resources.values().any(|functions| functions.contains(&f));
        let mut machine = self.machine.as_ref().map(|m| Outline::of(m, offered)).unwrap_or_default();
        for node in &mut machine.nodes {
            node.available_bytes -= node.available_bytes % MEMORY_GRAIN;
        }
        let mut all: Vec<_> = entries.map(|entry| entry.holding.clone()).collect();
        all.extend(holdings(&self.pods, &self.document, ended));
        LedgerStatus {
            machine,
            housekeeping: self.housekeeping(),
            resources,
            generation: self.document.generation,
            holdings: all,
            guests,
            obstacles: self.obstacles.clone(),
            heard: None,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    /// CPUs that no guest gets: those that the ledger names, and those that the kubelet gives to no container alone.
    fn housekeeping(&self) -> CpuSet {
        let Some(machine) = &self.machine else { return self.document.housekeeping.clone() };
        let (online, allocatable) = (machine.online(), &self.pods.allocatable_cpus);
        let reserved = if allocatable.is_empty() { CpuSet::new() } else { online.difference(allocatable) };
        let named = self.document.housekeeping.intersection(&online).union(&reserved);
        if named.is_empty() { Occupancy::default_housekeeping(machine) } else { named }
    }

    /// What resource names stand for: devices that the kubelet counts as healthy and that can be passed through. The name of
    /// such a device is its address, whichever plugin offers it; a launcher looks for no other.
    fn resources(&self) -> BTreeMap<String, Vec<Bdf>> {
        let Some(machine) = &self.machine else { return BTreeMap::new() };
        let is_given =
            |f: &Bdf| machine.pci.iter().any(|p| p.address == *f) && obstacles(machine, *f).is_empty();
        let functions = |ids: &BTreeSet<String>| {
            let mut found: Vec<Bdf> = ids.iter().filter_map(|id| id.parse().ok()).filter(is_given).collect();
            found.sort_unstable();
            found
        };
        let all = self.pods.allocatable.iter();
        let of_functions = |ids: &BTreeSet<String>| ids.iter().any(|id| id.parse::<Bdf>().is_ok());
        all.filter(|(_, ids)| of_functions(ids)).map(|(name, ids)| (name.clone(), functions(ids))).collect()
    }
}

#[cfg(test)]
mod tests {
    use pinion_machine::{KernelFacts, PciFunction};
    use pinion_nodes::{Books, LedgerSpec};
    use pinion_planner::Shape;

    use super::*;

    fn seen() -> Seen {
        let mut machine = Shape::new(2, 4).threads(2).memory((8 << 30) + 5).build();
        machine.kernel = KernelFacts { iommu: Some(true), interrupt_remapping: Some(true), ..machine.kernel };
        let function = |address: &str| PciFunction {
            address: address.parse().unwrap(),
            class: 0x02_0000,
            iommu_group: Some(7),
            reset_methods: vec!["flr".into()],
            ..PciFunction::default()
        };
        machine.pci = vec![function("0000:31:00.0"), function("0000:31:00.1")];
        Seen { machine: Some(machine), ..Seen::default() }
    }

    #[test]
    fn a_planner_finds_the_same_machine() {
        let seen = seen();
        let status = seen.status(Vec::new(), &BTreeSet::new());
        let machine = seen.machine.unwrap();
        let planned = status.machine.machine().unwrap();
        assert_eq!((planned.cores, planned.nodes.len()), (machine.cores, 2));
        assert!(status.machine.nodes.iter().all(|n| n.available_bytes % MEMORY_GRAIN == 0));
        assert_eq!(status.housekeeping, Occupancy::default_housekeeping(&seen_machine()));
        assert!(Books::of(&LedgerSpec::default(), &status).is_ok());
    }

    fn seen_machine() -> Machine {
        seen().machine.unwrap()
    }

    #[test]
    fn what_the_kubelet_keeps_for_the_system_is_housekeeping() {
        let mut seen = seen();
        let online = seen_machine().online();
        let reserved: CpuSet = "0-1".parse().unwrap();
        seen.pods.allocatable_cpus = online.difference(&reserved);
        assert_eq!(seen.status(Vec::new(), &BTreeSet::new()).housekeeping, reserved);
        seen.document.housekeeping = "3".parse().unwrap();
        assert_eq!(seen.status(Vec::new(), &BTreeSet::new()).housekeeping.to_string(), "0-1,3");
    }

    #[test]
    fn resources_are_functions_that_the_kubelet_gives_and_nothing_stands_in_the_way_of() {
        let mut seen = seen();
        let ids = |ids: &[&str]| ids.iter().map(ToString::to_string).collect::<BTreeSet<_>>();
        seen.pods.allocatable.insert("a.b/nic".into(), ids(&["0000:31:00.0", "0000:99:00.0"]));
        seen.pods.allocatable.insert("devices.kubevirt.io/kvm".into(), ids(&["kvm0"]));
        let status = seen.status(Vec::new(), &BTreeSet::new());
        assert_eq!(status.resources.keys().collect::<Vec<_>>(), ["a.b/nic"]);
        let address: Bdf = "0000:31:00.0".parse().unwrap();
        assert_eq!(status.resources["a.b/nic"], [address]);
        assert_eq!(status.machine.devices.iter().map(|d| d.address).collect::<Vec<_>>(), [address]);
        // The host takes it back.
        seen.machine.as_mut().unwrap().kernel.iommu = Some(false);
        let status = seen.status(Vec::new(), &BTreeSet::new());
        assert_eq!((status.resources["a.b/nic"].len(), status.machine.devices.len()), (0, 0));
    }
}
