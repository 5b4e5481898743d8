//! `pinion devices --pods`: which pod has which device.
//!
//! Called by `devices`. Asks the kubelet and changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use pinion_machine::{CpuSet, NodeId};
use pinion_pod_resources::{ContainerHolds, HeldDevice, Pods, pods};
use serde::Serialize;

use super::words;
use crate::arguments::{DeviceFormat, DeviceListOptions};
use crate::failure::Failure;
use crate::output;
use crate::table::Table;

/// Longest that the kubelet may take.
const WITHIN: Duration = Duration::from_secs(15);
const COLUMNS: [&str; 7] = ["NAMESPACE", "POD", "CONTAINER", "RESOURCE", "DEVICE", "NODE", "CPUS"];

/// Shows them.
///
/// # Errors
/// When the kubelet does not tell.
pub(super) fn show(options: &DeviceListOptions) -> Result<(), Failure> {
    let pods = pods(&options.kubelet, WITHIN).map_err(Failure::failed)?;
    match options.output {
        DeviceFormat::Json => output::document("PodDeviceList", &PodDeviceList::of(&pods)),
        DeviceFormat::Text | DeviceFormat::Wide => output::text(&picture(&pods)),
    }
}

fn picture(pods: &Pods) -> String {
    if pods.containers.iter().all(|container| container.devices.is_empty()) {
        return "No pod on this node has a device.\n".to_owned();
    }
    let mut table = Table::new(&COLUMNS);
    for container in &pods.containers {
        container.devices.iter().for_each(|device| table.row(cells(container, device)));
    }
    table.picture(0)
}

fn cells(container: &ContainerHolds, device: &HeldDevice) -> [String; 7] {
    let nodes: Vec<String> = device.nodes.iter().map(ToString::to_string).collect();
    [
        container.namespace.clone(),
        container.pod.clone(),
        container.name.clone(),
        device.resource.clone(),
        device.id.clone(),
        words::or_none(nodes.join(",")),
        words::or_none(container.cpus.to_string()),
    ]
}

/// The document.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct PodDeviceList<'a> {
    items: Vec<Item<'a>>,
    /// Devices that the kubelet counts as healthy, whoever has them.
    allocatable: &'a BTreeMap<String, BTreeSet<String>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Item<'a> {
    namespace: &'a str,
    pod: &'a str,
    container: &'a str,
    /// Its own; empty where it shares them with others.
    cpus: &'a CpuSet,
    devices: Vec<Device<'a>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Device<'a> {
    resource: &'a str,
    id: &'a str,
    nodes: &'a [NodeId],
}

impl<'a> PodDeviceList<'a> {
    fn of(pods: &'a Pods) -> Self {
        let device =
            |held: &'a HeldDevice| Device { resource: &held.resource, id: &held.id, nodes: &held.nodes };
        let items = pods.containers.iter().map(|container| Item {
            namespace: &container.namespace,
            pod: &container.pod,
            container: &container.name,
            cpus: &container.cpus,
            devices: container.devices.iter().map(device).collect(),
        });
        Self { items: items.collect(), allocatable: &pods.allocatable }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pods_with(devices: Vec<HeldDevice>) -> Pods {
        let container = ContainerHolds {
            namespace: "default".into(),
            pod: "one".into(),
            name: "it".into(),
            cpus: "4-5".parse().unwrap(),
            memory: Vec::new(),
            devices,
        };
        Pods { containers: vec![container], ..Pods::default() }
    }

    #[test]
    fn each_device_has_a_line() {
        let device = |id: &str, nodes| HeldDevice { resource: "a.b/c".into(), id: id.into(), nodes };
        let pods = pods_with(vec![device("0000:31:00.0", vec![NodeId(1)]), device("kvm7", vec![])]);
        let text = picture(&pods);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines,
            [
                "NAMESPACE  POD  CONTAINER  RESOURCE  DEVICE        NODE  CPUS",
                "default    one  it         a.b/c     0000:31:00.0  1     4-5",
                "default    one  it         a.b/c     kvm7          -     4-5",
            ]
        );
        let value = serde_json::to_value(PodDeviceList::of(&pods)).unwrap();
        assert_eq!(value["items"][0]["devices"][0]["nodes"], serde_json::json!([1]));
    }

    #[test]
    fn containers_with_cpus_alone_are_in_the_document_only() {
        let pods = pods_with(Vec::new());
        assert_eq!(picture(&pods), "No pod on this node has a device.\n");
        assert_eq!(PodDeviceList::of(&pods).items.len(), 1);
    }
}
