//! The service of one resource: what the kubelet asks, answered from the catalogue as it is now.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use pinion_device_plugin::{Allocation, AllocationError, Catalogue, FolderMount, Listed};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use crate::api::device_plugin_server::DevicePlugin;
use crate::api::{
    AllocateRequest, AllocateResponse, CdiDevice, ContainerAllocateResponse,
    ContainerPreferredAllocationResponse, Device, DevicePluginOptions, DeviceSpec, Empty, HEALTHY,
    ListAndWatchResponse, Mount, NumaNode, PreStartContainerRequest, PreStartContainerResponse,
    PreferredAllocationRequest, PreferredAllocationResponse, TopologyInfo, UNHEALTHY,
};
use crate::{Call, Event, Tell};

/// What a container may do with a node: read and write; KubeVirt's launcher makes nodes of its own from those of VFIO.
const PERMISSIONS: &str = "mrw";

/// One resource.
pub(crate) struct Plugin {
    pub(crate) resource: String,
    pub(crate) catalogue: watch::Receiver<Arc<Catalogue>>,
    /// Its sender goes when the socket is given up: that ends what is being watched.
    pub(crate) stop: watch::Receiver<()>,
    pub(crate) tell: Tell,
    /// Whether the container runtime knows devices by a CDI document.
    pub(crate) by_cdi: bool,
}

impl fmt::Debug for Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plugin").field("resource", &self.resource).finish_non_exhaustive()
    }
}

impl Plugin {
    /// Answers from the catalogue as it is now, and tells of it.
    fn answer<T>(
        &self,
        call: Call,
        of: impl FnOnce(&Catalogue) -> Result<T, AllocationError>,
    ) -> Result<Response<T>, Status> {
        let began = Instant::now();
        let catalogue = Arc::clone(&self.catalogue.borrow());
        let answer = of(&catalogue).map_err(|e| e.to_string());
        (self.tell)(&Event::Answered {
            resource: self.resource.clone(),
            call,
            took: began.elapsed(),
            refused: answer.as_ref().err().cloned(),
        });
        answer.map(Response::new).map_err(Status::failed_precondition)
    }
}

/// What the kubelet may ask for.
pub(crate) const fn options() -> DevicePluginOptions {
    DevicePluginOptions { pre_start_required: false, get_preferred_allocation_available: true }
}

#[tonic::async_trait]
impl DevicePlugin for Plugin {
    type ListAndWatchStream = ReceiverStream<Result<ListAndWatchResponse, Status>>;

    async fn get_device_plugin_options(
        &self,
        _: Request<Empty>,
    ) -> Result<Response<DevicePluginOptions>, Status> {
        Ok(Response::new(options()))
    }

    /// The list now, and again whenever it has changed.
    async fn list_and_watch(&self, _: Request<Empty>) -> Result<Response<Self::ListAndWatchStream>, Status> {
        let (to, list) = mpsc::channel(1);
        let (resource, mut catalogue, mut stop) =
            (self.resource.clone(), self.catalogue.clone(), self.stop.clone());
        tokio::spawn(async move {
            let mut told: Option<Vec<Listed>> = None;
            loop {
                let now = catalogue.borrow_and_update().list(&resource);
                if told.as_ref() != Some(&now) {
                    let devices = now.iter().map(device).collect();
                    if to.send(Ok(ListAndWatchResponse { devices })).await.is_err() {
                        return;
                    }
                    told = Some(now);
                }
                tokio::select! {
                    changed = catalogue.changed() => if changed.is_err() { return },
                    _ = stop.changed() => return,
                    () = to.closed() => return,
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(list)))
    }

    async fn get_preferred_allocation(
        &self,
        request: Request<PreferredAllocationRequest>,
    ) -> Result<Response<PreferredAllocationResponse>, Status> {
        let asked = request.into_inner().container_requests;
        self.answer(Call::GetPreferredAllocation, |catalogue| {
            let of_each = asked.iter().map(|asked| {
                let count = usize::try_from(asked.allocation_size).unwrap_or(0);
                let (available, must) = (&asked.available_device_i_ds, &asked.must_include_device_i_ds);
                let device_i_ds = catalogue.prefer(&self.resource, available, must, count);
                ContainerPreferredAllocationResponse { device_i_ds }
            });
            Ok(PreferredAllocationResponse { container_responses: of_each.collect() })
        })
    }

    /// All containers of a pod, or none.
    async fn allocate(
        &self,
        request: Request<AllocateRequest>,
    ) -> Result<Response<AllocateResponse>, Status> {
        let asked = request.into_inner().container_requests;
        self.answer(Call::Allocate, |catalogue| {
            let of_each = asked.iter().map(|asked| {
                let given = asked.devices_ids.iter().map(String::as_str);
                catalogue.allocate(&self.resource, given).map(|given| container(given, self.by_cdi))
            });
            Ok(AllocateResponse { container_responses: of_each.collect::<Result<_, _>>()? })
        })
    }

    async fn pre_start_container(
        &self,
        _: Request<PreStartContainerRequest>,
    ) -> Result<Response<PreStartContainerResponse>, Status> {
        Ok(Response::new(PreStartContainerResponse {}))
    }
}

fn device(listed: &Listed) -> Device {
    let nodes: Vec<NumaNode> = listed.nodes.iter().map(|node| NumaNode { id: i64::from(node.0) }).collect();
    Device {
        id: listed.id.clone(),
        health: if listed.healthy { HEALTHY } else { UNHEALTHY }.to_owned(),
        // A topology without nodes would forbid every node.
        topology: (!nodes.is_empty()).then_some(TopologyInfo { nodes }),
    }
}

/// Folders are in the answer also where devices are in a CDI document: they are nobody's device.
fn container(allocation: Allocation, by_cdi: bool) -> ContainerAllocateResponse {
    let Allocation { environment, nodes, cdi_names, mounts } = allocation;
    let by_cdi = by_cdi && !cdi_names.is_empty();
    let spec = |path: &Path| {
        let path = path.display().to_string();
        DeviceSpec { container_path: path.clone(), host_path: path, permissions: PERMISSIONS.to_owned() }
    };
    let mount = |FolderMount { host, inside }: FolderMount| Mount {
        container_path: inside.display().to_string(),
        host_path: host.display().to_string(),
        read_only: true,
    };
    ContainerAllocateResponse {
        mounts: mounts.into_iter().map(mount).collect(),
        envs: environment.into_iter().collect::<HashMap<_, _>>(),
        devices: if by_cdi { Vec::new() } else { nodes.iter().map(|path| spec(path)).collect() },
        cdi_devices: if by_cdi {
            cdi_names.into_iter().map(|name| CdiDevice { name }).collect()
        } else {
            Vec::new()
        },
        ..ContainerAllocateResponse::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_a_name_of_cdi_is_given_by_it_where_the_runtime_knows() {
        let allocation = Allocation {
            nodes: vec!["/dev/vfio/vfio".into(), "/dev/vfio/16".into()],
            cdi_names: vec!["pinion.dev/vfio=0000:31:00.0".to_owned()],
            ..Allocation::default()
        };
        let [by_nodes, by_cdi] = [false, true].map(|by_cdi| container(allocation.clone(), by_cdi));
        assert_eq!((by_nodes.devices.len(), by_nodes.cdi_devices.len()), (2, 0));
        assert_eq!((by_cdi.devices.len(), by_cdi.cdi_devices.len()), (0, 1));
        let shared = Allocation { cdi_names: vec![], ..allocation };
        assert_eq!(container(shared, true).devices.len(), 2);
    }

    #[test]
    fn a_folder_is_mounted_read_only_whether_devices_are_given_by_cdi_or_not() {
        let folder = FolderMount { host: "/on/host".into(), inside: "/in/pod".into() };
        let allocation = Allocation { mounts: vec![folder], ..Allocation::default() };
        let (host_path, container_path) = ("/on/host".to_owned(), "/in/pod".to_owned());
        let mount = Mount { container_path, host_path, read_only: true };
        for by_cdi in [false, true] {
            let response = container(allocation.clone(), by_cdi);
            assert_eq!(response.mounts, std::slice::from_ref(&mount));
            assert!(
                response.devices.is_empty() && response.cdi_devices.is_empty() && response.envs.is_empty()
            );
        }
    }
}
