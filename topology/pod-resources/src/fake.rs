//! A kubelet that tells of pods what it was given, for tests.
//!
//! Serves on a thread of its own until the process ends.

use std::io;
use std::path::Path;
use std::thread;

use tokio::net::UnixListener;
use tokio::runtime::Builder;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use crate::api::pod_resources_lister_server::{PodResourcesLister, PodResourcesListerServer};
use crate::api::{
    AllocatableResourcesRequest, AllocatableResourcesResponse, ContainerDevices, ContainerResources,
    ListPodResourcesRequest, ListPodResourcesResponse, PodResources,
};

/// What a kubelet tells.
#[derive(Clone, Debug, Default)]
pub struct FakeKubelet {
    pods: Vec<PodResources>,
    allocatable: Vec<i64>,
}

impl FakeKubelet {
    /// One that lets containers have these CPUs for themselves.
    #[must_use]
    pub fn new(allocatable: &[i64]) -> Self {
        Self { pods: Vec::new(), allocatable: allocatable.to_vec() }
    }

    /// With a pod of one container, `compute`, that has these CPUs, and devices by resource and id.
    #[must_use]
    pub fn pod(mut self, namespace: &str, name: &str, cpus: &[i64], devices: &[(&str, &str)]) -> Self {
        let device = |(resource, id): &(&str, &str)| ContainerDevices {
            resource_name: (*resource).to_owned(),
            device_ids: vec![(*id).to_owned()],
            topology: None,
        };
        let container = ContainerResources {
            name: "compute".to_owned(),
            devices: devices.iter().map(device).collect(),
            cpu_ids: cpus.to_vec(),
            memory: Vec::new(),
        };
        let (name, namespace) = (name.to_owned(), namespace.to_owned());
        self.pods.push(PodResources { name, namespace, containers: vec![container] });
        self
    }

    /// Serves from when this returns.
    ///
    /// # Errors
    /// Where the socket cannot be made.
    pub fn serve(self, socket: &Path) -> io::Result<()> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let listener = runtime.block_on(async { UnixListener::bind(socket) })?;
        let serve = move || {
            let served = Server::builder()
                .add_service(PodResourcesListerServer::new(self))
                .serve_with_incoming(UnixListenerStream::new(listener));
            // Whoever asks then is told that nobody answers.
            let _ = runtime.block_on(served);
        };
        thread::Builder::new().name("kubelet".into()).spawn(serve).map(drop)
    }
}

#[tonic::async_trait]
impl PodResourcesLister for FakeKubelet {
    async fn list(
        &self,
        _: Request<ListPodResourcesRequest>,
    ) -> Result<Response<ListPodResourcesResponse>, Status> {
        Ok(Response::new(ListPodResourcesResponse { pod_resources: self.pods.clone() }))
    }

    async fn get_allocatable_resources(
        &self,
        _: Request<AllocatableResourcesRequest>,
    ) -> Result<Response<AllocatableResourcesResponse>, Status> {
        let cpu_ids = self.allocatable.clone();
        Ok(Response::new(AllocatableResourcesResponse { devices: Vec::new(), cpu_ids }))
    }
}
