//! The gRPC of the plugin with a kubelet's side of it in the same process: what is said over the wire, and that nothing of it is
//! lost when either side starts anew. The kubelet itself is met in the lab.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pinion_device_plugin::{Catalogue, Cause, Health, Offer, Offered, Shared, Unit, UnitId};
use pinion_kubelet::api::device_plugin_client::DevicePluginClient;
use pinion_kubelet::api::registration_server::{Registration, RegistrationServer};
use pinion_kubelet::api::{
    AllocateRequest, ContainerAllocateRequest, ContainerPreferredAllocationRequest, Device, Empty,
    ListAndWatchResponse, PreferredAllocationRequest, RegisterRequest,
};
use pinion_kubelet::{Event, Folder, serve};
use pinion_machine::{Bdf, Distances, NodeId};
use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Code, Request, Response, Status, Streaming};

/// Far longer than anything here takes.
const WITHIN: Duration = Duration::from_secs(30);
const GPU: &str = "example.com/gpu-a.b";

/// The kubelet's side: says who has registered.
struct Kubelet {
    registered: mpsc::UnboundedSender<RegisterRequest>,
    /// So many are refused first.
    refuses: Mutex<u32>,
}

#[tonic::async_trait]
impl Registration for Kubelet {
    async fn register(&self, request: Request<RegisterRequest>) -> Result<Response<Empty>, Status> {
        let mut left = self.refuses.lock().unwrap();
        if *left > 0 {
            *left -= 1;
            return Err(Status::unavailable("not yet"));
        }
        self.registered.send(request.into_inner()).unwrap();
        Ok(Response::new(Empty {}))
    }
}

/// A plugin with a kubelet.
struct Both {
    folder: TempDir,
    catalogue: watch::Sender<Arc<Catalogue>>,
    registered: mpsc::UnboundedReceiver<RegisterRequest>,
    to: mpsc::UnboundedSender<RegisterRequest>,
    kubelet: JoinHandle<()>,
    plugin: JoinHandle<()>,
    told: Arc<Mutex<Vec<String>>>,
}

impl Both {
    fn new(catalogue: Catalogue, refuses: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (catalogue, receiver) = watch::channel(Arc::new(catalogue));
        let (to, registered) = mpsc::unbounded_channel();
        let kubelet = kubelet(folder.path(), to.clone(), refuses);
        let told: Arc<Mutex<Vec<String>>> = Arc::default();
        let tell = {
            let told = Arc::clone(&told);
            Arc::new(move |event: &Event| told.lock().unwrap().push(format!("{event:?}")))
        };
        let plugin = tokio::spawn(serve(Folder::watch(folder.path()).unwrap(), receiver, tell, false));
        Self { folder, catalogue, registered, to, kubelet, plugin, told }
    }

    /// The next registration.
    async fn registered(&mut self) -> RegisterRequest {
        let next = timeout(WITHIN, self.registered.recv()).await;
        next.unwrap_or_else(|_| panic!("{:?}", self.told.lock().unwrap())).unwrap()
    }

    async fn client(&self, endpoint: &str) -> DevicePluginClient<Channel> {
        let path = self.folder.path().join(endpoint);
        let endpoint = Endpoint::from_shared(format!("unix://{}", path.display())).unwrap();
        DevicePluginClient::new(endpoint.connect().await.unwrap())
    }

    /// As a kubelet that starts does: it empties its folder, its own old socket included.
    fn restart_kubelet(&mut self) {
        self.kubelet.abort();
        for entry in fs::read_dir(self.folder.path()).unwrap() {
            fs::remove_file(entry.unwrap().path()).unwrap();
        }
        self.kubelet = kubelet(self.folder.path(), self.to.clone(), 0);
    }
}

fn kubelet(
    folder: &Path,
    registered: mpsc::UnboundedSender<RegisterRequest>,
    refuses: u32,
) -> JoinHandle<()> {
    let listener = UnixListener::bind(folder.join("kubelet.sock")).unwrap();
    let kubelet = Kubelet { registered, refuses: Mutex::new(refuses) };
    tokio::spawn(async move {
        let server = Server::builder().add_service(RegistrationServer::new(kubelet));
        server.serve_with_incoming(UnixListenerStream::new(listener)).await.unwrap();
    })
}

fn unit(number: u8, node: Option<u32>) -> Unit {
    let address = Bdf::new(0, number, 0, 0).unwrap();
    let nodes = node.map(NodeId).into_iter().collect();
    Unit {
        id: UnitId::Function(address),
        parent: None,
        functions: vec![address],
        group: Some(u32::from(number)),
        nodes,
        health: Health::Healthy,
    }
}

fn catalogue(units: Vec<Unit>) -> Catalogue {
    let offer = Offer { resources: vec![Offered { name: GPU.to_owned(), units }], problems: vec![] };
    let distances = Distances::new(vec![NodeId(0), NodeId(1)], vec![vec![10, 20], vec![20, 10]]).unwrap();
    Catalogue { offer, distances, ..Catalogue::default() }
}

fn gone(unit: Unit) -> Unit {
    Unit { health: Health::Unhealthy(vec![Cause::Gone(unit.id)]), ..unit }
}

async fn next(list: &mut Streaming<ListAndWatchResponse>) -> Vec<Device> {
    timeout(WITHIN, list.message()).await.unwrap().unwrap().unwrap().devices
}

#[tokio::test]
async fn a_resource_is_registered_listed_preferred_and_allocated() {
    let mut both =
        Both::new(catalogue(vec![unit(1, Some(0)), unit(2, Some(1)), unit(3, None), unit(4, Some(1))]), 0);
    let request = both.registered().await;
    assert_eq!((request.version.as_str(), request.resource_name.as_str()), ("v1beta1", GPU));
    assert_eq!(request.endpoint, "pinion-example.com@gpu-a.b.sock");
    assert!(request.options.unwrap().get_preferred_allocation_available);
    let mut client = both.client(&request.endpoint).await;
    assert!(!client.get_device_plugin_options(Empty {}).await.unwrap().into_inner().pre_start_required);
    let mut list = client.list_and_watch(Empty {}).await.unwrap().into_inner();
    let devices = next(&mut list).await;
    assert_eq!(devices.len(), 4);
    assert_eq!((devices[1].id.as_str(), devices[1].health.as_str()), ("0000:02:00.0", "Healthy"));
    assert_eq!(devices[1].topology.as_ref().unwrap().nodes[0].id, 1);
    assert!(devices[2].topology.is_none(), "a topology without nodes would forbid all of them");
    let asked = ContainerPreferredAllocationRequest {
        available_device_i_ds: devices.iter().map(|d| d.id.clone()).collect(),
        must_include_device_i_ds: vec![],
        allocation_size: 2,
    };
    let asked = PreferredAllocationRequest { container_requests: vec![asked] };
    let preferred = client.get_preferred_allocation(asked).await.unwrap().into_inner();
    assert_eq!(preferred.container_responses[0].device_i_ds, ["0000:02:00.0", "0000:04:00.0"]);
    let asked = |ids: &[&str]| AllocateRequest {
        container_requests: vec![ContainerAllocateRequest {
            devices_ids: ids.iter().map(ToString::to_string).collect(),
        }],
    };
    let given = client.allocate(asked(&["0000:02:00.0", "0000:04:00.0"])).await.unwrap().into_inner();
    let given = &given.container_responses[0];
    assert_eq!(given.envs["PCI_RESOURCE_EXAMPLE_COM_GPU-A_B"], "0000:02:00.0,0000:04:00.0");
    let nodes: Vec<&str> = given.devices.iter().map(|d| d.host_path.as_str()).collect();
    assert_eq!(nodes, ["/dev/vfio/vfio", "/dev/vfio/2", "/dev/vfio/4"]);
    assert!(given.devices.iter().all(|d| d.permissions == "mrw" && d.container_path == d.host_path));
    let refused = client.allocate(asked(&["0000:09:00.0"])).await.unwrap_err();
    assert_eq!(
        (refused.code(), refused.message()),
        (Code::FailedPrecondition, "example.com/gpu-a.b has no device 0000:09:00.0")
    );
}

#[tokio::test]
async fn the_way_to_the_agent_is_a_folder_that_is_mounted() {
    let agent = Shared { is_there: true, ..Shared::agent() };
    let offered = |agent| Catalogue { shared: vec![agent], ..Catalogue::default() };
    let mut both = Both::new(offered(agent), 0);
    let request = both.registered().await;
    assert_eq!(request.resource_name, "pinion.dev/agent");
    assert_eq!(request.endpoint, "pinion-pinion.dev@agent.sock");
    let mut client = both.client(&request.endpoint).await;
    let mut list = client.list_and_watch(Empty {}).await.unwrap().into_inner();
    let devices = next(&mut list).await;
    assert!(devices.len() == 1000 && devices.iter().all(|d| d.health == "Healthy" && d.topology.is_none()));
    let asked = || AllocateRequest {
        container_requests: vec![ContainerAllocateRequest { devices_ids: vec!["agent5".to_owned()] }],
    };
    let given = client.allocate(asked()).await.unwrap().into_inner();
    let [given] = &given.container_responses[..] else { panic!("{given:?}") };
    let [mount] = &given.mounts[..] else { panic!("{given:?}") };
    assert_eq!((mount.host_path.as_str(), mount.read_only), ("/run/pinion/pods", true));
    assert_eq!(mount.container_path, "/run/pinion/agent");
    assert!(given.devices.is_empty() && given.cdi_devices.is_empty());
    both.catalogue.send_replace(Arc::new(offered(Shared::agent())));
    assert!(next(&mut list).await.iter().all(|d| d.health == "Unhealthy"));
    let refused = client.allocate(asked()).await.unwrap_err();
    assert!(refused.message().contains("start the node agent"), "{refused}");
    both.plugin.abort();
}

#[tokio::test]
async fn what_changes_is_told_at_once_and_what_does_not_is_not() {
    let mut both = Both::new(catalogue(vec![unit(1, Some(0))]), 0);
    let request = both.registered().await;
    let mut client = both.client(&request.endpoint).await;
    let mut list = client.list_and_watch(Empty {}).await.unwrap().into_inner();
    assert_eq!(next(&mut list).await.len(), 1);
    // The same once more says nothing; the next list is the one after it.
    both.catalogue.send_replace(Arc::new(catalogue(vec![unit(1, Some(0))])));
    both.catalogue.send_replace(Arc::new(catalogue((1..=200).map(|n| unit(n, Some(0))).collect())));
    assert_eq!(next(&mut list).await.len(), 200);
    both.catalogue.send_replace(Arc::new(catalogue(vec![gone(unit(1, Some(0)))])));
    assert_eq!(next(&mut list).await[0].health, "Unhealthy");
    let asked = ContainerAllocateRequest { devices_ids: vec!["0000:01:00.0".to_owned()] };
    let refused = client.allocate(AllocateRequest { container_requests: vec![asked] }).await.unwrap_err();
    assert!(refused.message().contains("is gone from the machine"), "{refused}");
}

#[tokio::test]
async fn names_that_come_and_go_are_registered_and_given_up() {
    let mut both = Both::new(catalogue(vec![]), 0);
    let request = both.registered().await;
    let socket: PathBuf = both.folder.path().join(&request.endpoint);
    let mut client = both.client(&request.endpoint).await;
    let mut list = client.list_and_watch(Empty {}).await.unwrap().into_inner();
    assert!(next(&mut list).await.is_empty());
    let [kvm, ..] = Shared::of_kubevirt();
    both.catalogue.send_replace(Arc::new(Catalogue { shared: vec![kvm], ..Catalogue::default() }));
    assert_eq!(both.registered().await.resource_name, "devices.kubevirt.io/kvm");
    let ended = timeout(WITHIN, list.message()).await.unwrap();
    assert!(ended.is_err() || ended.unwrap().is_none(), "who watched is told of the end");
    for _ in 0..300 {
        if !socket.exists() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(!socket.exists());
    both.plugin.abort();
}

#[tokio::test]
async fn a_kubelet_that_starts_anew_or_refuses_and_a_socket_that_is_deleted_lose_nothing() {
    let mut both = Both::new(catalogue(vec![unit(1, Some(0))]), 2);
    let first = both.registered().await;
    assert!(both.told.lock().unwrap().iter().filter(|t| t.contains("not yet")).count() == 2);
    for _ in 0..3 {
        both.restart_kubelet();
        let again = both.registered().await;
        assert_eq!(again, first);
        let mut client = both.client(&again.endpoint).await;
        let mut list = client.list_and_watch(Empty {}).await.unwrap().into_inner();
        assert_eq!(next(&mut list).await.len(), 1);
    }
    fs::remove_file(both.folder.path().join(&first.endpoint)).unwrap();
    assert_eq!(both.registered().await, first);
    // What a plugin that was killed has left behind is in nobody's way.
    both.plugin.abort();
    let _ = (&mut both.plugin).await;
    fs::write(both.folder.path().join(&first.endpoint), "").unwrap();
    let receiver = both.catalogue.subscribe();
    let folder = Folder::watch(both.folder.path()).unwrap();
    let again = tokio::spawn(serve(folder, receiver, Arc::new(|_: &Event| ()), false));
    assert_eq!(both.registered().await, first);
    again.abort();
}

#[test]
fn a_folder_that_is_not_there_is_named() {
    let error = Folder::watch(Path::new("/nonexistent")).unwrap_err();
    assert!(
        error.to_string().starts_with("Cannot watch /nonexistent: is this a node with a kubelet"),
        "{error}"
    );
}
