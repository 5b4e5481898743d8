//! Which container has which devices, CPUs and memory for itself, and what the kubelet would give: its pod-resources API, v1.
//!
//! [`pods`] is called once for each answer, on a thread that may wait.
//!
//! Source: Kubernetes, `k8s.io/kubelet/pkg/apis/podresources/v1`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use pinion_machine::{CpuId, CpuSet, NodeId};
use tokio::runtime::Builder;
use tokio::time;
use tonic::transport::Endpoint;

use crate::api::pod_resources_lister_client::PodResourcesListerClient;
use crate::api::{
    AllocatableResourcesRequest, ContainerDevices, ContainerMemory, ContainerResources,
    ListPodResourcesRequest, PodResources, TopologyInfo,
};

/// Where the kubelet tells of pods.
pub const POD_RESOURCES: &str = "/var/lib/kubelet/pod-resources/kubelet.sock";
/// Longest answer, bytes: every device has its id in it, and of `/dev/kvm` there are a thousand.
const LONGEST: usize = 32 << 20;

/// Why nothing is known of pods.
#[derive(Debug, thiserror::Error)]
pub enum PodsError {
    /// There is no kubelet, or it does not answer.
    #[error("Cannot reach the kubelet at {path}: is it running, and are you root?", path = path.display())]
    Unreachable {
        /// Its socket.
        path: PathBuf,
        /// What went wrong.
        source: tonic::transport::Error,
    },
    /// It refuses.
    #[error("The kubelet at {path} refuses to tell of pods: {message}", path = path.display())]
    Refused {
        /// Its socket.
        path: PathBuf,
        /// What it says.
        message: String,
    },
    /// It did not answer in time.
    #[error("The kubelet at {path} has not answered for {} s", limit.as_secs(), path = path.display())]
    Silent {
        /// Its socket.
        path: PathBuf,
        /// How long it was waited for.
        limit: Duration,
    },
    /// No event loop.
    #[error("Cannot ask the kubelet")]
    Start(#[source] std::io::Error),
}

impl PodsError {
    /// A stable code.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => "KubeletUnreachable",
            Self::Refused { .. } => "KubeletRefused",
            Self::Silent { .. } => "KubeletSilent",
            Self::Start(_) => "Failed",
        }
    }
}

/// What the kubelet tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pods {
    /// Containers that have devices or CPUs for themselves, by namespace, pod and name.
    pub containers: Vec<ContainerHolds>,
    /// Ids of devices that the kubelet counts as healthy, by resource.
    pub allocatable: BTreeMap<String, BTreeSet<String>>,
    /// CPUs that containers can have for themselves, taken or not: all but those that the kubelet reserves for the system.
    pub allocatable_cpus: CpuSet,
}

impl Pods {
    /// CPUs that some container has for itself.
    #[must_use]
    pub fn exclusive(&self) -> CpuSet {
        self.containers.iter().fold(CpuSet::new(), |all, container| all.union(&container.cpus))
    }
}

/// What a container has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerHolds {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod.
    pub pod: String,
    /// The container.
    pub name: String,
    /// CPUs that are its own; none where it shares them with others.
    pub cpus: CpuSet,
    /// Its memory, where the kubelet's memory manager gave it some.
    pub memory: Vec<HeldMemory>,
    /// Its devices.
    pub devices: Vec<HeldDevice>,
}

/// Memory that a container was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldMemory {
    /// `memory`, or `hugepages-2Mi` and the like.
    pub kind: String,
    /// Bytes.
    pub bytes: u64,
    /// The NUMA nodes that it comes from, all of them together.
    pub nodes: Vec<NodeId>,
}

/// A device that a container has.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HeldDevice {
    /// Its resource.
    pub resource: String,
    /// Its id.
    pub id: String,
    /// The NUMA nodes that it is near to.
    pub nodes: Vec<NodeId>,
}

/// Asks the kubelet, and waits that long at most.
///
/// # Errors
/// [`PodsError`]
pub fn pods(socket: &Path, limit: Duration) -> Result<Pods, PodsError> {
    let runtime = Builder::new_current_thread().enable_all().build().map_err(PodsError::Start)?;
    runtime.block_on(async {
        let asked = time::timeout(limit, ask(socket)).await;
        asked.unwrap_or_else(|_| Err(PodsError::Silent { path: socket.to_owned(), limit }))
    })
}

async fn ask(socket: &Path) -> Result<Pods, PodsError> {
    let path = || socket.to_owned();
    let unreachable = |source| PodsError::Unreachable { path: path(), source };
    let refused =
        |status: tonic::Status| PodsError::Refused { path: path(), message: status.message().to_owned() };
    let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display())).map_err(unreachable)?;
    let channel = endpoint.connect().await.map_err(unreachable)?;
    let mut client = PodResourcesListerClient::new(channel).max_decoding_message_size(LONGEST);
    let list = client.list(ListPodResourcesRequest {}).await.map_err(refused)?.into_inner();
    let allocatable =
        client.get_allocatable_resources(AllocatableResourcesRequest {}).await.map_err(refused)?.into_inner();
    let mut containers: Vec<ContainerHolds> = list.pod_resources.into_iter().flat_map(containers).collect();
    containers.sort_by(|a, b| (&a.namespace, &a.pod, &a.name).cmp(&(&b.namespace, &b.pod, &b.name)));
    let mut healthy: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for devices in allocatable.devices {
        healthy.entry(devices.resource_name).or_default().extend(devices.device_ids);
    }
    Ok(Pods { containers, allocatable: healthy, allocatable_cpus: cpus(allocatable.cpu_ids) })
}

/// Those of a pod that have something for themselves.
fn containers(pod: PodResources) -> Vec<ContainerHolds> {
    let PodResources { name: pod, namespace, containers } = pod;
    let holds = |container: ContainerResources| {
        let cpus = cpus(container.cpu_ids);
        let memory = container.memory.into_iter().map(memory).collect();
        let mut devices: Vec<HeldDevice> = container.devices.into_iter().flat_map(devices).collect();
        devices.sort();
        let (namespace, pod) = (namespace.clone(), pod.clone());
        ContainerHolds { namespace, pod, name: container.name, cpus, memory, devices }
    };
    let holders = containers.into_iter().map(holds);
    holders.filter(|held| !(held.devices.is_empty() && held.cpus.is_empty())).collect()
}

fn cpus(ids: Vec<i64>) -> CpuSet {
    ids.into_iter().filter_map(|cpu| u32::try_from(cpu).ok()).map(CpuId).collect()
}

fn nodes(of: Option<TopologyInfo>) -> Vec<NodeId> {
    let nodes = of.into_iter().flat_map(|topology| topology.nodes);
    nodes.filter_map(|node| u32::try_from(node.id).ok()).map(NodeId).collect()
}

fn memory(of: ContainerMemory) -> HeldMemory {
    HeldMemory { kind: of.memory_type, bytes: of.size, nodes: nodes(of.topology) }
}

fn devices(of: ContainerDevices) -> impl Iterator<Item = HeldDevice> {
    let nodes = nodes(of.topology);
    let resource = of.resource_name;
    of.device_ids.into_iter().map(move |id| HeldDevice {
        resource: resource.clone(),
        id,
        nodes: nodes.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::NumaNode;

    #[test]
    fn only_containers_that_have_something_for_themselves_are_listed() {
        let device = ContainerDevices {
            resource_name: "a.b/c".into(),
            device_ids: vec!["0000:31:00.0".into()],
            topology: Some(TopologyInfo { nodes: vec![NumaNode { id: 1 }, NumaNode { id: -1 }] }),
        };
        let container = |name: &str, devices: &[ContainerDevices], cpu_ids: &[i64]| ContainerResources {
            name: name.into(),
            devices: devices.to_vec(),
            cpu_ids: cpu_ids.to_vec(),
            memory: vec![ContainerMemory {
                memory_type: "hugepages-2Mi".into(),
                size: 2 << 20,
                topology: Some(TopologyInfo { nodes: vec![NumaNode { id: 1 }] }),
            }],
        };
        let all = vec![
            container("one", &[device], &[]),
            container("two", &[], &[4, 5]),
            container("three", &[], &[]),
        ];
        let held =
            containers(PodResources { name: "pod".into(), namespace: "space".into(), containers: all });
        let names: Vec<&str> = held.iter().map(|h| h.name.as_str()).collect();
        assert_eq!(names, ["one", "two"]);
        assert_eq!(held[0].devices[0].nodes, [NodeId(1)]);
        assert_eq!((held[0].cpus.is_empty(), held[1].cpus.to_string()), (true, "4-5".to_owned()));
        let memory = HeldMemory { kind: "hugepages-2Mi".into(), bytes: 2 << 20, nodes: vec![NodeId(1)] };
        assert_eq!(held[1].memory, [memory]);
    }

    #[test]
    fn a_kubelet_that_is_not_there_is_named() {
        let error = pods(Path::new("/nowhere/kubelet.sock"), Duration::from_secs(5)).unwrap_err().to_string();
        assert_eq!(
            error,
            "Cannot reach the kubelet at /nowhere/kubelet.sock: is it running, and are you root?"
        );
    }
}
