//! Nodes: lab hosts with containerd, kubelet and kube-proxy.
//!
//! Called by a cluster, on the thread that holds it. A node's root is a disk that is made once, in the cache; what differs
//! between nodes comes in files.

mod image;

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pinion_lab::{Card, Device, Files, HugePages, Lab, LabError, Node, Shape};
use serde_json::json;

use crate::ClusterError;
use crate::authority::{Authority, write};

pub use image::NodeImage;

/// The port of the proxy in the first node.
pub(crate) const PROXY: u16 = 8888;
/// What the kubelet keeps for itself, and the memory at which it evicts, MiB: the memory manager wants their exact sum.
const KUBE_RESERVED_MIB: u32 = 512;
const EVICTION_MIB: u32 = 100;
const START: Duration = Duration::from_secs(180);

/// A node of 8 CPUs, 2 NUMA nodes of 2 GiB, 128 MiB of them in 2 MiB pages, and devices: on node 0 a network card, another one alone, two in
/// one IOMMU group and two drives with a hundred virtual functions each, on node 1 three alone, one of them a drive.
#[must_use]
pub fn node_shape() -> Shape {
    let node = |devices: &[Device]| Node {
        memory_mib: 2048,
        has_cpus: true,
        huge_pages: vec![HugePages { size_kib: 2048, count: 64 }],
        devices: devices.to_vec(),
    };
    Shape {
        nodes: vec![
            node(&[Device::Edu, Device::Pair, Device::E1000e, Device::NvmeHundred, Device::NvmeHundred]),
            node(&[Device::Edu, Device::Edu, Device::Nvme]),
        ],
        ..Shape::small()
    }
}

/// What the device plugin sees of its node.
const SEEN: &str = "dev sys proc var/lib/kubelet etc/pinion etc/cdi";

/// Shell commands that unpack an image of a node's to `at`, with the node's folders in it: what is run by `chroot` there is
/// as in a pod that the device plugin runs in, but started and ended without the kubelet.
#[must_use]
pub fn unpacked(image: &str, at: &str) -> String {
    format!(
        "set -e; mkdir -p {at}; ctr -n k8s.io images mount --rw {image} {at} > /dev/null\n\
         for folder in {SEEN}; do mkdir -p /$folder {at}/$folder; mount --rbind /$folder {at}/$folder; done\n"
    )
}

/// Who a node is among how many. Numbers start at 1: they end its addresses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    pub(crate) number: u16,
    pub(crate) of: u16,
    /// Cables between nodes are here.
    pub(crate) folder: &'a Path,
}

impl Place<'_> {
    pub(crate) fn name(self) -> String {
        format!("node-{}", self.number)
    }

    fn address(number: u16) -> String {
        format!("10.99.0.{number}")
    }

    /// The first node is the switch that all others are plugged into.
    fn cards(self, proxy: u16) -> Vec<Card> {
        let cable = |to: u16, listens| Card::Cable {
            socket: self.folder.join(format!("cable-{to}")),
            listens,
            number: (u16::from(!listens) << 8) + to,
        };
        if self.number == 1 {
            let outside = Card::Outside { forwards: vec![(proxy, PROXY)] };
            return std::iter::once(outside).chain((2..=self.of).map(|to| cable(to, true))).collect();
        }
        vec![Card::Outside { forwards: Vec::new() }, cable(self.number, false)]
    }

    /// What the scripts on the node read.
    fn environment(self) -> String {
        let mut text = format!(
            "NODE={}\nADDRESS={}\nPODS=10.244.{}\n",
            self.name(),
            Self::address(self.number),
            self.number
        );
        let others = (1..=self.of).filter(|n| *n != self.number);
        let routes: Vec<String> = others.map(|n| format!("10.244.{n}.0/24:{}", Self::address(n))).collect();
        let _ = writeln!(text, "ROUTES='{}'", routes.join(" "));
        text
    }
}

/// Boots a node, which is a member of the cluster once its kubelet has found the API server.
pub(crate) fn boot(
    place: Place<'_>,
    (image, given): (&NodeImage, &[(PathBuf, PathBuf)]),
    (authority, server, proxy): (&Authority, &str, u16),
    boot: impl FnOnce(&str, &Files) -> Result<Lab, ClusterError>,
) -> Result<Lab, ClusterError> {
    let name = place.name();
    let folder = place.folder.join(&name);
    std::fs::create_dir_all(&folder).map_err(LabError::file("make the folder", &folder))?;
    let kubelet = authority.client(&format!("system:node:{name}"), Some("system:nodes"))?;
    let service_proxy = authority.client("system:kube-proxy", None)?;
    let texts = [
        ("/etc/kubernetes/node.env", place.environment()),
        ("/etc/kubernetes/ca.crt", authority.certificate().to_owned()),
        ("/etc/kubernetes/kubelet.kubeconfig", authority.kubeconfig(server, &kubelet)),
        ("/etc/kubernetes/kube-proxy.kubeconfig", authority.kubeconfig(server, &service_proxy)),
        ("/etc/kubernetes/kubelet.json", kubelet_configuration().to_string()),
        ("/etc/kubernetes/kube-proxy.json", proxy_configuration().to_string()),
    ];
    let mut files = Files::new().on_first_disk().with_disk(image.path(), pinion_lab::Attach::Snapshot);
    for (path, text) in texts {
        let file = write(&folder, path.rsplit('/').next().unwrap_or(path), &text)?;
        files = files.with(path, file);
    }
    for (place, file) in given {
        files = files.with(place, file);
    }
    for card in place.cards(proxy) {
        files = files.with_card(card);
    }
    let lab = boot(&name, &files)?;
    run(&lab, &name, "start", "/usr/local/sbin/start-node")?;
    Ok(lab)
}

/// Runs a script on a node.
pub(crate) fn run(lab: &Lab, node: &str, action: &'static str, script: &str) -> Result<String, ClusterError> {
    let done = lab.sh(script, START)?;
    if done.success() {
        return Ok(done.text());
    }
    let said = format!("{}{}", done.text(), done.error_text()).trim().to_owned();
    Err(ClusterError::Node { node: node.to_owned(), action, said })
}

/// The kubelet with all its static managers: whole cores, memory and devices of one NUMA node.
fn kubelet_configuration() -> serde_json::Value {
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": "/etc/kubernetes/ca.crt"},
        },
        "authorization": {"mode": "Webhook"},
        "cgroupDriver": "cgroupfs",
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "cpuManagerPolicy": "static",
        "cpuManagerPolicyOptions": {"full-pcpus-only": "true"},
        "memoryManagerPolicy": "Static",
        "topologyManagerPolicy": "single-numa-node",
        "topologyManagerScope": "pod",
        "reservedSystemCPUs": "0-1",
        "kubeReserved": {"memory": format!("{KUBE_RESERVED_MIB}Mi")},
        "evictionHard": {"memory.available": format!("{EVICTION_MIB}Mi")},
        "reservedMemory": [
            {"numaNode": 0, "limits": {"memory": format!("{}Mi", KUBE_RESERVED_MIB + EVICTION_MIB)}},
        ],
        "clusterDNS": [],
        "resolvConf": "",
        "nodeStatusUpdateFrequency": "2s",
        "shutdownGracePeriod": "0s",
        "featureGates": {"ResourceHealthStatus": true},
    })
}

fn proxy_configuration() -> serde_json::Value {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clusterCIDR": "10.244.0.0/16",
        "clientConnection": {"kubeconfig": "/etc/kubernetes/kube-proxy.kubeconfig"},
        "conntrack": {"maxPerCore": 0},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_node_has_a_cable_to_each_other() {
        let folder = Path::new("/f");
        let first = Place { number: 1, of: 3, folder };
        let cards = first.cards(4000);
        assert_eq!(cards.len(), 3);
        assert_eq!(cards[0], Card::Outside { forwards: vec![(4000, PROXY)] });
        let third = Place { number: 3, ..first }.cards(4000);
        let ends = |card: &Card| match card {
            Card::Cable { socket, listens, number } => Some((socket.clone(), *listens, *number)),
            Card::Outside { .. } => None,
        };
        let (here, there) = (ends(&cards[2]).unwrap(), ends(&third[1]).unwrap());
        assert_eq!(here.0, there.0);
        assert!(here.1 && !there.1 && here.2 != there.2);
    }

    #[test]
    fn a_node_knows_the_way_to_the_pods_of_others() {
        let text = Place { number: 2, of: 3, folder: Path::new("/") }.environment();
        assert!(text.contains("NODE=node-2\nADDRESS=10.99.0.2\nPODS=10.244.2\n"), "{text}");
        assert!(text.contains("ROUTES='10.244.1.0/24:10.99.0.1 10.244.3.0/24:10.99.0.3'"), "{text}");
    }
}
