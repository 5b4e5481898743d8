//! What the kubelet gave the container that a process is in.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pinion_discovery::From;
use pinion_machine::{Bdf, CpuSet, Machine, NodeId};
use pinion_pod_resources::{ContainerHolds, POD_RESOURCES, Pods, PodsError, pods};
use pinion_resources::DEFAULT_PATH;

use super::asker::PodPlace;

/// How long the kubelet may take.
const KUBELET_WITHIN: Duration = Duration::from_secs(5);
/// The container with the guest, where a pod has several that share their CPUs: KubeVirt's name.
const CONTAINER: &str = "compute";

/// Where the agent learns of pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodSources {
    /// Where processes are.
    pub proc: PathBuf,
    /// The root of control groups.
    pub cgroups: PathBuf,
    /// The kubelet's folder of logs: one for each pod.
    pub logs: PathBuf,
    /// Where the kubelet tells what containers have.
    pub kubelet: PathBuf,
    /// Names of devices.
    pub resources: PathBuf,
    /// Where the machine is read from.
    pub machine: From,
}

impl Default for PodSources {
    fn default() -> Self {
        Self {
            proc: "/proc".into(),
            cgroups: "/sys/fs/cgroup".into(),
            logs: "/var/log/pods".into(),
            kubelet: POD_RESOURCES.into(),
            resources: DEFAULT_PATH.into(),
            machine: From::Host,
        }
    }
}

/// What the container of a guest has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Given {
    pub(crate) place: PodPlace,
    /// CPUs of its own.
    pub(crate) own: CpuSet,
    /// CPUs that its control group allows.
    pub(crate) allowed: CpuSet,
    /// NUMA nodes that its memory may come from.
    pub(crate) memory: Vec<NodeId>,
    /// Its devices: resource and id.
    pub(crate) devices: Vec<(String, String)>,
    /// CPUs that containers have for themselves, this one's among them.
    pub(crate) exclusive: CpuSet,
    /// CPUs that containers can have for themselves; empty where the kubelet does not say.
    pub(crate) allocatable: CpuSet,
}

/// Why nothing is known of it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GivenError {
    #[error(transparent)]
    Kubelet(#[from] PodsError),
    #[error("no control group from {group:?} up says which {what} it may use")]
    Group { group: PathBuf, what: &'static str },
}

impl GivenError {
    /// A stable code.
    pub(crate) const fn reason(&self) -> &'static str {
        match self {
            Self::Kubelet(e) => e.reason(),
            Self::Group { .. } => "NoControlGroup",
        }
    }
}

/// Asks the kubelet and the container's control group. Takes a while: not for the desk's thread.
///
/// # Errors
/// [`GivenError`].
pub(crate) fn look(sources: &PodSources, place: PodPlace) -> Result<Given, GivenError> {
    let group = |what| {
        let group = place.group.clone();
        move || GivenError::Group { group, what }
    };
    let allowed = effective(sources, &place.group, "cpuset.cpus.effective").ok_or_else(group("CPUs"))?;
    let nodes = effective(sources, &place.group, "cpuset.mems.effective").ok_or_else(group("memory"))?;
    // Both are lists of numbers in the same words.
    let nodes = nodes.iter().map(|n| NodeId(n.0)).collect();
    Ok(Given::of(place, &pods(&sources.kubelet, KUBELET_WITHIN)?, allowed, nodes))
}

/// What a group may use: a group without the controller says nothing, and uses what the one above may.
fn effective(sources: &PodSources, group: &Path, file: &str) -> Option<CpuSet> {
    let read = |path: &Path| fs::read_to_string(sources.cgroups.join(path).join(file)).ok();
    let found = group.ancestors().filter_map(read).find_map(|text| text.trim().parse::<CpuSet>().ok());
    found.filter(|set| !set.is_empty())
}

impl Given {
    pub(crate) fn of(place: PodPlace, pods: &Pods, allowed: CpuSet, nodes: Vec<NodeId>) -> Self {
        let of_pod = |c: &&ContainerHolds| c.namespace == place.namespace && c.pod == place.name;
        let containers: Vec<&ContainerHolds> = pods.containers.iter().filter(of_pod).collect();
        let container = container(&containers, &allowed);
        let given = container.map(|c| (c.cpus.clone(), c.devices.clone(), c.memory.clone()));
        let (own, devices, memory) = given.unwrap_or_default();
        let managed: Vec<NodeId> = memory.into_iter().flat_map(|m| m.nodes).collect();
        let within = |node: &NodeId| managed.is_empty() || managed.contains(node);
        Self {
            place,
            own,
            allowed,
            memory: nodes.into_iter().filter(within).collect(),
            devices: devices.into_iter().map(|d| (d.resource, d.id)).collect(),
            exclusive: pods.exclusive(),
            allocatable: pods.allocatable_cpus.clone(),
        }
    }

    /// Functions that the container has of a resource.
    pub(crate) fn functions(&self, resource: &str) -> Vec<Bdf> {
        let of = self.devices.iter().filter(|(name, _)| name == resource);
        of.filter_map(|(_, id)| id.parse().ok()).collect()
    }

    /// Where threads run that have no CPU to themselves: the CPUs that the kubelet reserves for the system, since it will give
    /// them to no container alone, and of them those that the ledger names, if it names any. Where the kubelet does not say,
    /// those that the ledger names; else whatever is left. Never a CPU that is somebody's.
    pub(crate) fn housekeeping(&self, machine: &Machine, named: &CpuSet, dedicated: &CpuSet) -> CpuSet {
        let online = machine.online().difference(&self.exclusive).difference(dedicated);
        let reserved =
            if self.allocatable.is_empty() { CpuSet::new() } else { online.difference(&self.allocatable) };
        let rest = online.difference(&machine.kernel.isolated);
        let of_reserved = named.intersection(&reserved);
        let choices = [of_reserved, reserved, named.intersection(&online), rest];
        choices.into_iter().find(|cpus| !cpus.is_empty()).unwrap_or_default()
    }
}

/// The container that may use these CPUs: the one whose own CPUs they are, else the only one that shares them with others.
fn container<'a>(of: &[&'a ContainerHolds], allowed: &CpuSet) -> Option<&'a ContainerHolds> {
    let own = of.iter().find(|c| !c.cpus.is_empty() && c.cpus.is_subset(allowed));
    let sharing: Vec<_> = of.iter().filter(|c| c.cpus.is_empty()).collect();
    let only = || match sharing.as_slice() {
        [one] => Some(*one),
        several => several.iter().copied().find(|c| c.name == CONTAINER),
    };
    own.or_else(only).copied()
}
