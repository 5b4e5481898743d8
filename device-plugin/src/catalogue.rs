//! Everything that the kubelet is offered, as it asks for it: by the name of a resource.
//!
//! Made anew whenever the machine or the names of devices have changed, and answered from until then. Pure.

use pinion_machine::{Distances, NodeId};

use crate::{Allocation, AllocationError, Offer, Shared, Unit, UnitId, VfioNodes, allocation, preferred};

/// What the kubelet is offered.
#[derive(Clone, Debug, Default)]
pub struct Catalogue {
    /// Devices that each go to one container.
    pub offer: Offer,
    /// What any number of containers may have.
    pub shared: Vec<Shared>,
    /// How far the NUMA nodes are from each other.
    pub distances: Distances,
    /// Nodes of single functions.
    pub own_nodes: VfioNodes,
}

/// A device as the kubelet counts it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Unique among the devices of its resource, 63 characters at most.
    pub id: String,
    /// Whether it may be given to a container.
    pub healthy: bool,
    /// NUMA nodes that it hangs off, ascending; none where that is not known or means nothing.
    pub nodes: Vec<NodeId>,
}

impl Listed {
    fn of(unit: &Unit) -> Self {
        Self { id: unit.id.to_string(), healthy: unit.health.is_healthy(), nodes: unit.nodes.clone() }
    }
}

impl Catalogue {
    /// All resources, each once.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let devices = self.offer.resources.iter().map(|o| o.name.as_str());
        self.shared.iter().map(|s| s.name).chain(devices)
    }

    /// The devices of a resource; none where there is no such resource any more.
    #[must_use]
    pub fn list(&self, name: &str) -> Vec<Listed> {
        match self.shared(name) {
            Some(shared) => shared.list(),
            None => self.offer.units(name).unwrap_or_default().iter().map(Listed::of).collect(),
        }
    }

    /// What a container gets that was given these.
    ///
    /// # Errors
    /// [`AllocationError`]
    pub fn allocate<'a>(
        &self,
        name: &str,
        given: impl IntoIterator<Item = &'a str>,
    ) -> Result<Allocation, AllocationError> {
        match self.shared(name) {
            Some(shared) => shared.allocate(given),
            None => allocation(name, self.offer.units(name).unwrap_or_default(), given, &self.own_nodes),
        }
    }

    /// Which of the available devices are best given together, those that must be among them first. What has no such name is
    /// left out.
    #[must_use]
    pub fn prefer(&self, name: &str, available: &[String], must: &[String], count: usize) -> Vec<String> {
        if self.shared(name).is_some() {
            let others = available.iter().filter(|id| !must.contains(id));
            return must.iter().chain(others).take(count).cloned().collect();
        }
        let ids = |of: &[String]| -> Vec<UnitId> { of.iter().filter_map(|id| id.parse().ok()).collect() };
        let units = self.offer.units(name).unwrap_or_default();
        let chosen = preferred(units, &ids(available), &ids(must), count, &self.distances);
        chosen.iter().map(ToString::to_string).collect()
    }

    fn shared(&self, name: &str) -> Option<&Shared> {
        self.shared.iter().find(|s| s.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn catalogue() -> Catalogue {
        let shared = vec![Shared { is_there: true, ..Shared::of_kubevirt()[0] }, Shared::agent()];
        let unit = |number: u8, node: u32| {
            let address = pinion_machine::Bdf::new(0, number, 0, 0).unwrap();
            let health = crate::Health::Healthy;
            Unit {
                id: UnitId::Function(address),
                functions: vec![address],
                parent: None,
                group: Some(7),
                nodes: vec![NodeId(node)],
                health,
            }
        };
        let units = vec![unit(1, 0), unit(2, 1), unit(3, 0)];
        let offer =
            Offer { resources: vec![crate::Offered { name: "a.b/c".into(), units }], problems: vec![] };
        let distances = Distances::new(vec![NodeId(0), NodeId(1)], vec![vec![10, 20], vec![20, 10]]).unwrap();
        Catalogue { offer, shared, distances, own_nodes: VfioNodes::new() }
    }

    #[test]
    fn resources_of_both_kinds_are_asked_for_by_name() {
        let catalogue = catalogue();
        let names = ["devices.kubevirt.io/kvm", "pinion.dev/agent", "a.b/c"];
        assert_eq!(catalogue.names().collect::<Vec<_>>(), names);
        assert!(catalogue.allocate("pinion.dev/agent", ["agent7"]).is_err(), "no agent was there yet");
        assert_eq!(catalogue.list("devices.kubevirt.io/kvm").len(), 1000);
        let listed = Listed { id: "0000:02:00.0".into(), healthy: true, nodes: vec![NodeId(1)] };
        assert_eq!(catalogue.list("a.b/c")[1], listed);
        assert!(catalogue.list("a.b/gone").is_empty());
        assert!(catalogue.allocate("a.b/gone", ["0000:02:00.0"]).is_err());
        assert_eq!(catalogue.allocate("a.b/c", ["0000:02:00.0"]).unwrap().nodes.len(), 2);
    }

    #[test]
    fn those_nearest_to_each_other_are_preferred_and_nonsense_is_left_out() {
        let catalogue = catalogue();
        let ids = |ids: &[&str]| -> Vec<String> { ids.iter().map(ToString::to_string).collect() };
        let all = ids(&["0000:01:00.0", "0000:02:00.0", "0000:03:00.0", "nonsense"]);
        assert_eq!(catalogue.prefer("a.b/c", &all, &[], 2), ["0000:01:00.0", "0000:03:00.0"]);
        assert_eq!(catalogue.prefer("a.b/c", &all, &ids(&["0000:02:00.0"]), 1), ["0000:02:00.0"]);
        let kvm = catalogue.prefer("devices.kubevirt.io/kvm", &ids(&["kvm1", "kvm2"]), &ids(&["kvm2"]), 2);
        assert_eq!(kvm, ["kvm2", "kvm1"]);
    }
}
