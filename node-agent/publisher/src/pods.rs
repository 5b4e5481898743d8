//! What pods have that are no guests: CPUs, huge pages and devices that the kubelet gave them.
//!
//! Pure. A guest's pod counts with what it has beyond its guest's entry in the ledger. One that starts is left out: its
//! booking stands for it until its guest has its entry.

use std::collections::{BTreeMap, BTreeSet};

use pinion_machine::{Bdf, CpuSet, PageSize};
use pinion_node_agent::{LedgerDocument, LedgerEntry};
use pinion_planner::{HeldMemory, Holding, HoldingState};
use pinion_pod_resources::{ContainerHolds, HeldMemory as GivenMemory, Pods};

/// The resource by which the container of a guest's launcher is known.
const LAUNCHER: &str = "pinion.dev/agent";

/// A pod: its namespace and name.
pub(crate) type PodKey = (String, String);

/// What pods hold besides what is in the ledger. `ended` are pods whose guests are gone, and which are not gone yet.
pub(crate) fn holdings(pods: &Pods, document: &LedgerDocument, ended: &BTreeSet<PodKey>) -> Vec<Holding> {
    let entries = &document.holdings;
    let held_cpus = entries.iter().fold(CpuSet::new(), |all, e| all.union(&e.holding.cpus));
    let held_devices: BTreeSet<Bdf> = entries.iter().flat_map(|e| e.holding.devices.clone()).collect();
    let mut by_pod: BTreeMap<PodKey, Vec<&ContainerHolds>> = BTreeMap::new();
    for container in &pods.containers {
        by_pod.entry((container.namespace.clone(), container.pod.clone())).or_default().push(container);
    }
    let holding = |(key, containers): (PodKey, Vec<&ContainerHolds>)| {
        let has_guest = entries.iter().filter_map(key_of).any(|of| of == key);
        let of_guest =
            has_guest || containers.iter().any(|c| c.devices.iter().any(|d| d.resource == LAUNCHER));
        if of_guest && !has_guest && !ended.contains(&key) {
            return None;
        }
        let cpus = containers.iter().fold(CpuSet::new(), |all, c| all.union(&c.cpus));
        let given = containers.iter().flat_map(|c| &c.devices).filter_map(|d| d.id.parse().ok());
        let devices: BTreeSet<Bdf> = given.filter(|d| !held_devices.contains(d)).collect();
        let memory = containers.iter().filter(|_| !of_guest).flat_map(|c| &c.memory).flat_map(huge_pages);
        let holding = Holding {
            owner: format!("pod/{}/{}", key.0, key.1),
            // What is free of huge pages is what the kernel says, and never more than what is given to nobody.
            state: HoldingState::Committed,
            cpus: cpus.difference(&held_cpus),
            floating: Vec::new(),
            memory: memory.collect(),
            devices: devices.into_iter().collect(),
        };
        let has_something =
            !(holding.cpus.is_empty() && holding.devices.is_empty() && holding.memory.is_empty());
        has_something.then_some(holding)
    };
    by_pod.into_iter().filter_map(holding).collect()
}

/// The pod of a guest.
pub(crate) fn key_of(entry: &LedgerEntry) -> Option<PodKey> {
    entry.pod.as_ref().map(|pod| (pod.namespace.clone(), pod.name.clone()))
}

/// Huge pages that were given. The kubelet does not say how they are shared out among several nodes: each counts its part.
fn huge_pages(given: &GivenMemory) -> Vec<HeldMemory> {
    let size = match given.kind.as_str() {
        "hugepages-2Mi" => PageSize::MIB2,
        "hugepages-1Gi" => PageSize::GIB1,
        _ => return Vec::new(),
    };
    let count = u64::try_from(given.nodes.len()).unwrap_or(u64::MAX).max(1);
    let bytes = given.bytes.div_ceil(count).div_ceil(size.bytes()).saturating_mul(size.bytes());
    given.nodes.iter().map(|node| HeldMemory { node: *node, page_size: size, bytes }).collect()
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use pinion_machine::NodeId;
    use pinion_node_agent::{Holder, HostWishes, PodPlace};
    use pinion_pod_resources::HeldDevice;

    use super::*;

    fn container(pod: &str, cpus: &str, resource: &str, id: &str) -> ContainerHolds {
        let device = HeldDevice { resource: resource.into(), id: id.into(), nodes: Vec::new() };
        ContainerHolds {
            namespace: "lab".into(),
            pod: pod.into(),
            name: "compute".into(),
            cpus: cpus.parse().unwrap(),
            memory: vec![GivenMemory {
                kind: "hugepages-2Mi".into(),
                bytes: 3 << 20,
                nodes: vec![NodeId(0), NodeId(1)],
            }],
            devices: if resource.is_empty() { Vec::new() } else { vec![device] },
        }
    }

    fn document(pod: &str, cpus: &str) -> LedgerDocument {
        let holding = Holding {
            owner: "lab/a".into(),
            state: HoldingState::Committed,
            cpus: cpus.parse().unwrap(),
            floating: Vec::new(),
            memory: Vec::new(),
            devices: Vec::new(),
        };
        let pod = PodPlace {
            namespace: "lab".into(),
            name: pod.into(),
            uid: "u".into(),
            pod_group: "p".into(),
            group: "p/c".into(),
            housekeeping: CpuSet::new(),
        };
        let entry = LedgerEntry {
            holding,
            host: HostWishes::default(),
            pod: Some(pod),
            process: Holder::current().unwrap(),
            since: Timestamp::now(),
        };
        LedgerDocument { holdings: vec![entry], ..LedgerDocument::default() }
    }

    #[test]
    fn pods_count_with_what_no_guest_holds() {
        let pods = Pods {
            containers: vec![
                container("guest", "2-4", LAUNCHER, "agent-1"),
                container("other", "6-7", "a.b/nic", "0000:31:00.0"),
                container("starts", "8-9", LAUNCHER, "agent-2"),
                container("gone", "10", LAUNCHER, "agent-3"),
                container("plain", "", "devices.kubevirt.io/kvm", "kvm-1"),
            ],
            ..Pods::default()
        };
        let ended = BTreeSet::from([("lab".to_owned(), "gone".to_owned())]);
        let mut found = holdings(&pods, &document("guest", "2-3"), &ended);
        found.retain(|h| h.owner != "pod/lab/plain");
        let said: Vec<(&str, String)> =
            found.iter().map(|h| (h.owner.as_str(), h.cpus.to_string())).collect();
        let wanted = [("pod/lab/gone", "10"), ("pod/lab/guest", "4"), ("pod/lab/other", "6-7")];
        assert_eq!(said, wanted.map(|(owner, cpus)| (owner, cpus.to_owned())));
        let other = found.last().unwrap();
        assert_eq!(other.devices, ["0000:31:00.0".parse().unwrap()]);
        let memory: Vec<(NodeId, u64)> = other.memory.iter().map(|m| (m.node, m.bytes)).collect();
        assert_eq!(memory, [(NodeId(0), 2 << 20), (NodeId(1), 2 << 20)], "whole pages of each");
        assert!(found[0].memory.is_empty(), "the guest's pages are its entry's");
    }
}
