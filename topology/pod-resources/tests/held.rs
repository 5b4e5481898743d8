//! What the kubelet tells of pods, with its side in the same process: what is said over the wire, and what is made of it. The
//! kubelet itself is met in the lab.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::Path;
use std::thread;
use std::time::Duration;

use pinion_machine::NodeId;
use pinion_pod_resources::api::pod_resources_lister_server::{PodResourcesLister, PodResourcesListerServer};
use pinion_pod_resources::api::{
    AllocatableResourcesRequest, AllocatableResourcesResponse, ContainerDevices, ContainerResources,
    ListPodResourcesRequest, ListPodResourcesResponse, NumaNode, PodResources, TopologyInfo,
};
use pinion_pod_resources::{PodsError, pods};
use tokio::net::UnixListener;
use tokio::runtime::Builder;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

const LIMIT: Duration = Duration::from_secs(15);
const KVMS: usize = 100_000;

fn devices(resource: &str, ids: &[&str], node: i64) -> ContainerDevices {
    ContainerDevices {
        resource_name: resource.to_owned(),
        device_ids: ids.iter().map(|&id| id.to_owned()).collect(),
        topology: Some(TopologyInfo { nodes: vec![NumaNode { id: node }] }),
    }
}

/// The kubelet's side, or one that does not tell.
struct Kubelet {
    tells: bool,
}

#[tonic::async_trait]
impl PodResourcesLister for Kubelet {
    async fn list(
        &self,
        _: Request<ListPodResourcesRequest>,
    ) -> Result<Response<ListPodResourcesResponse>, Status> {
        if !self.tells {
            return Err(Status::resource_exhausted("rejected by rate limit"));
        }
        let container = ContainerResources {
            name: "it".to_owned(),
            devices: vec![
                devices("example.com/gpu", &["0000:32:00.0"], 1),
                devices("example.com/gpu", &["0000:31:00.0"], 0),
            ],
            cpu_ids: vec![5, 4],
            memory: vec![],
        };
        let pod = |name: &str, containers: Vec<ContainerResources>| PodResources {
            name: name.to_owned(),
            namespace: "default".to_owned(),
            containers,
        };
        let pod_resources = vec![pod("two", vec![container]), pod("one", vec![])];
        Ok(Response::new(ListPodResourcesResponse { pod_resources }))
    }

    async fn get_allocatable_resources(
        &self,
        _: Request<AllocatableResourcesRequest>,
    ) -> Result<Response<AllocatableResourcesResponse>, Status> {
        let ids: Vec<String> =
            (0..KVMS).map(|n| format!("a-rather-long-name-of-a-device-that-fills-the-answer-{n}")).collect();
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        let devices = vec![devices("devices.kubevirt.io/kvm", &ids, 0)];
        Ok(Response::new(AllocatableResourcesResponse { devices, cpu_ids: vec![7, 4, 5, 6] }))
    }
}

/// Serves until the process ends, from when this returns.
fn serve(socket: &Path, tells: bool) {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let listener = runtime.block_on(async { UnixListener::bind(socket).unwrap() });
    thread::spawn(move || {
        let service = PodResourcesListerServer::new(Kubelet { tells });
        let served =
            Server::builder().add_service(service).serve_with_incoming(UnixListenerStream::new(listener));
        runtime.block_on(served).unwrap();
    });
}

#[test]
fn pods_are_told_with_what_they_have_also_by_a_long_answer() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("kubelet.sock");
    serve(&socket, true);
    let pods = pods(&socket, LIMIT).unwrap();
    let [container] = &pods.containers[..] else { unreachable!("one container has something: {pods:?}") };
    assert_eq!((container.pod.as_str(), container.cpus.to_string()), ("two", "4-5".to_owned()));
    let held: Vec<_> = container.devices.iter().map(|d| (d.id.as_str(), d.nodes.clone())).collect();
    assert_eq!(held, [("0000:31:00.0", vec![NodeId(0)]), ("0000:32:00.0", vec![NodeId(1)])]);
    assert_eq!(
        (pods.allocatable_cpus.to_string(), pods.exclusive().to_string()),
        ("4-7".into(), "4-5".into())
    );
    assert_eq!(pods.allocatable["devices.kubevirt.io/kvm"].len(), KVMS);
}

#[test]
fn a_kubelet_that_does_not_answer_is_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("kubelet.sock");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let error = pods(&socket, Duration::from_millis(50)).unwrap_err();
    assert!(matches!(error, PodsError::Silent { .. }), "{error}");
}

#[test]
fn a_kubelet_that_does_not_tell_is_told_in_its_own_words() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("kubelet.sock");
    serve(&socket, false);
    let error = pods(&socket, LIMIT).unwrap_err();
    assert!(
        matches!(error, PodsError::Refused { .. }) && error.to_string().contains("rejected by rate limit"),
        "{error}"
    );
}
