//! Facts about a node, and the labels that say them to a scheduler.
//!
//! Pure but for the kernel's files that it reads; written to a file on one host. Labels are those of KubeVirt's
//! node-labeller that need no libvirt, under the same names, and those that it lacks, under `pinion.dev/`.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use pinion_machine::{Bdf, Machine, NodeId, PageSize, obstacles};
use pinion_planner::{
    CpuPolicy, CpuRequest, GuestTopology, MemoryRequest, NumaPolicy, Occupancy, Request, plan,
};
use serde::{Deserialize, Serialize};

use crate::cpuinfo::CpuInfo;
use crate::partition::Isolation;

/// Where facts are written unless another file is named: beside the ledger.
pub const FACTS_FILE: &str = "node.json";

/// Labels by name.
pub type Labels = BTreeMap<String, String>;

/// Facts about a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeFacts {
    /// Always `pinion.dev/v1alpha1`.
    pub api_version: String,
    /// Always `NodeFacts`.
    pub kind: String,
    /// The host's name.
    pub name: String,
    /// Counts the changes of who holds what.
    pub generation: u64,
    /// What a scheduler selects by.
    pub labels: Labels,
    /// By NUMA node with CPUs or memory.
    pub nodes: Vec<NodeRoom>,
    /// vCPUs of the largest guest with dedicated CPUs that would be placed now.
    pub largest_guest_vcpus: u32,
    /// How far guests' CPUs can be their own here.
    pub isolation: Option<Isolation>,
    /// Devices that can be passed through, and where they are.
    pub devices: Vec<DevicePlace>,
}

/// What is free on a NUMA node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeRoom {
    /// The node.
    pub id: NodeId,
    /// Cores of which no CPU is taken.
    pub free_cores: usize,
    /// Free huge pages by size in bytes.
    pub free_huge_pages: BTreeMap<u64, u64>,
}

/// Where a device is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DevicePlace {
    /// Its address.
    pub address: Bdf,
    /// Its class code.
    pub class: u32,
    /// Its NUMA node, where the firmware says.
    pub node: Option<NodeId>,
    /// Who has it, if anybody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_by: Option<String>,
}

/// What facts are made of.
#[derive(Clone, Copy, Debug)]
pub struct Sources<'a> {
    /// The machine.
    pub machine: &'a Machine,
    /// What is taken, with housekeeping CPUs filled in.
    pub occupancy: &'a Occupancy,
    /// How far guests' CPUs can be their own here.
    pub isolation: Isolation,
    /// The latency class that was measured and still holds.
    pub latency_class: Option<&'a str>,
    /// The processor's labels ([`cpu_labels`]).
    pub cpu_labels: &'a Labels,
    /// Where `/proc` and `/sys` are.
    pub root: &'a Path,
}

impl NodeFacts {
    /// Of a node. The largest guest is planned, unless it is known.
    #[must_use]
    pub fn of(name: &str, sources: Sources<'_>, largest: Option<u32>) -> Self {
        let Sources { machine, occupancy, isolation, .. } = sources;
        let nodes = rooms(machine, occupancy, sources.root);
        let devices = devices(machine, occupancy);
        let largest = largest.unwrap_or_else(|| largest_guest(machine, occupancy));
        let mut labels = sources.cpu_labels.clone();
        switch_labels(&mut labels, sources.root);
        own_labels(&mut labels, &sources, &nodes, &devices, largest);
        Self {
            api_version: "pinion.dev/v1alpha1".to_owned(),
            kind: "NodeFacts".to_owned(),
            name: name.to_owned(),
            generation: occupancy.generation,
            labels,
            nodes,
            largest_guest_vcpus: largest,
            isolation: Some(isolation),
            devices,
        }
    }

    /// Writes them: whoever reads meanwhile sees the old ones or these.
    ///
    /// # Errors
    /// As the operating system says.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let draft: PathBuf = path.with_extension("json.tmp");
        fs::write(&draft, format!("{:#}\n", serde_json::to_value(self)?))?;
        fs::rename(&draft, path)
    }
}

/// What is free on each node now.
pub(crate) fn rooms(machine: &Machine, occupancy: &Occupancy, root: &Path) -> Vec<NodeRoom> {
    let free = occupancy.free(machine);
    let room = |node: &pinion_machine::Node| {
        let cores = machine.cores.iter().filter(|c| c.node == Some(node.id));
        let pages = node.huge_pages.iter().map(|pool| {
            let now = free_pages(root, node.id, pool.page_size).unwrap_or(pool.free);
            (pool.page_size.bytes(), now)
        });
        NodeRoom {
            id: node.id,
            free_cores: cores.filter(|c| !c.cpus.is_empty() && c.cpus.is_subset(&free)).count(),
            free_huge_pages: pages.collect(),
        }
    };
    machine.nodes.iter().map(room).collect()
}

/// Free huge pages as the kernel says now: a machine that was read earlier knows no better.
fn free_pages(root: &Path, node: NodeId, size: PageSize) -> Option<u64> {
    let path = format!(
        "sys/devices/system/node/node{node}/hugepages/hugepages-{}kB/free_hugepages",
        size.bytes() >> 10
    );
    fs::read_to_string(root.join(path)).ok()?.trim().parse().ok()
}

fn devices(machine: &Machine, occupancy: &Occupancy) -> Vec<DevicePlace> {
    let holder = |address: Bdf| {
        let holding = occupancy.holdings.iter().find(|h| h.devices.contains(&address));
        holding.map(|h| h.owner.clone())
    };
    let can = machine.pci.iter().filter(|f| obstacles(machine, f.address).is_empty());
    can.map(|f| DevicePlace { address: f.address, class: f.class, node: f.node, held_by: holder(f.address) })
        .collect()
}

/// vCPUs of the largest guest with dedicated CPUs that would be placed. A smaller one fits where a larger one does.
fn largest_guest(machine: &Machine, occupancy: &Occupancy) -> u32 {
    let fits = |vcpus: u32| plan(machine, occupancy, &guest(vcpus)).is_ok();
    let (mut fitting, mut failing) =
        (0, u32::try_from(machine.online().len()).unwrap_or(0).saturating_add(1));
    while failing.saturating_sub(fitting) > 1 {
        let middle = fitting.midpoint(failing);
        if fits(middle) {
            fitting = middle;
        } else {
            failing = middle;
        }
    }
    fitting
}

fn guest(vcpus: u32) -> Request {
    Request {
        name: "pinion/largest".to_owned(),
        cpu: CpuRequest {
            topology: GuestTopology { sockets: 1, cores: vcpus, threads: 1 },
            policy: CpuPolicy::Dedicated,
            realtime: Vec::new(),
        },
        memory: MemoryRequest { bytes: 64 << 20, page_size: PageSize::KIB4 },
        numa: NumaPolicy::Auto,
        io_threads: Vec::new(),
        devices: Vec::new(),
        within: None,
    }
}

/// KubeVirt's labels of the processor. To be kept: nothing changes them while the host runs.
#[must_use]
pub fn cpu_labels(root: &Path) -> Labels {
    let cpu = CpuInfo::below(root);
    let mut labels = Labels::new();
    let mut set = |name: String| drop(labels.insert(name, "true".to_owned()));
    match cpu.field("vendor_id") {
        "GenuineIntel" => set("cpu-vendor.node.kubevirt.io/Intel".into()),
        "AuthenticAMD" => set("cpu-vendor.node.kubevirt.io/AMD".into()),
        _ => {}
    }
    let flags: Vec<&str> = cpu.field("flags").split_whitespace().collect();
    for flag in &flags {
        set(format!("cpu-feature.node.kubevirt.io/{}", libvirt_name(flag)));
    }
    if flags.contains(&"constant_tsc") && flags.contains(&"nonstop_tsc") {
        set("cpu-feature.node.kubevirt.io/invtsc".into());
    }
    labels
}

/// KubeVirt's labels of what may be switched on and off.
fn switch_labels(labels: &mut Labels, root: &Path) {
    let text = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_default().trim().to_owned();
    let switches = [
        ("kubevirt.io/realtime", text("proc/sys/kernel/sched_rt_runtime_us") == "-1"),
        ("kubevirt.io/ksm-enabled", text("sys/kernel/mm/ksm/run") == "1"),
        ("kubevirt.io/schedulable", root.join("dev/kvm").exists()),
    ];
    let on = switches.into_iter().filter(|(_, on)| *on);
    labels.extend(on.map(|(name, _)| (name.to_owned(), "true".to_owned())));
}

/// The name that libvirt, and so KubeVirt's specs, have for what the kernel calls otherwise.
fn libvirt_name(flag: &str) -> String {
    match flag {
        "pclmulqdq" => "pclmuldq".to_owned(),
        "sse4_1" => "sse4.1".to_owned(),
        "sse4_2" => "sse4.2".to_owned(),
        "tsc_deadline_timer" => "tsc-deadline".to_owned(),
        "lahf_lm" => flag.to_owned(),
        other => other.replace('_', "-"),
    }
}

fn own_labels(
    labels: &mut Labels,
    sources: &Sources<'_>,
    nodes: &[NodeRoom],
    devices: &[DevicePlace],
    largest: u32,
) {
    let machine = sources.machine;
    let mut set = |name: &str, value: String| labels.insert(format!("pinion.dev/{name}"), value);
    let with_cpus = machine.nodes.iter().filter(|n| !n.cpus.is_empty()).count();
    set("numa-nodes", with_cpus.to_string());
    set("packages", machine.packages.len().to_string());
    set("smt", machine.cores.iter().any(|c| c.cpus.len() > 1).to_string());
    set("largest-guest-vcpus", largest.to_string());
    set("isolation", sources.isolation.to_string());
    set("iommu", machine.kernel.iommu.unwrap_or(false).to_string());
    set("nohz-full", (!machine.kernel.nohz_full.is_empty()).to_string());
    if let Some(class) = sources.latency_class {
        set("latency-class", class.to_owned());
    }
    for node in nodes {
        set(&format!("free-cores.node-{}", node.id), node.free_cores.to_string());
        for (size, free) in &node.free_huge_pages {
            let size = if *size >= 1 << 30 { "1Gi" } else { "2Mi" };
            set(&format!("free-hugepages-{size}.node-{}", node.id), free.to_string());
        }
    }
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    for device in devices {
        let kind = match device.class >> 16 {
            0x01 => "storage",
            0x02 => "network",
            0x03 => "display",
            0x12 => "accelerator",
            _ => continue,
        };
        let place = device.node.map_or("unknown".to_owned(), |node| format!("node-{node}"));
        *kinds.entry(format!("devices-{kind}.{place}")).or_default() += 1;
    }
    for (name, count) in kinds {
        set(&name, count.to_string());
    }
}

#[cfg(test)]
mod tests {
    use pinion_machine::CpuSet;
    use pinion_planner::{Holding, HoldingState, Shape};

    use super::*;

    fn machine() -> Machine {
        Shape::new(2, 4).threads(2).memory(8 << 30).build()
    }

    fn facts(occupancy: &Occupancy, root: &Path) -> NodeFacts {
        let machine = machine();
        let isolation = Isolation::Isolated;
        NodeFacts::of(
            "n",
            Sources {
                machine: &machine,
                occupancy,
                isolation,
                latency_class: Some("20us"),
                cpu_labels: &Labels::new(),
                root,
            },
            None,
        )
    }

    #[test]
    fn what_is_held_is_not_free() {
        let root = tempfile::tempdir().unwrap();
        let machine = machine();
        let cores = |range: std::ops::Range<usize>| {
            machine.cores[range].iter().fold(CpuSet::new(), |all, core| all.union(&core.cpus))
        };
        let idle = Occupancy { housekeeping: cores(0..1), ..Occupancy::default() };
        let before = facts(&idle, root.path());
        assert_eq!(before.nodes.iter().map(|n| n.free_cores).collect::<Vec<_>>(), [3, 4]);
        assert_eq!(before.largest_guest_vcpus, 14);
        let holding = Holding {
            owner: "default/a".into(),
            state: HoldingState::Committed,
            cpus: cores(4..6),
            floating: vec![],
            memory: vec![],
            devices: vec![],
        };
        let after = facts(&Occupancy { holdings: vec![holding], ..idle }, root.path());
        assert_eq!(after.nodes.iter().map(|n| n.free_cores).collect::<Vec<_>>(), [3, 2]);
        assert_eq!(after.labels["pinion.dev/largest-guest-vcpus"], "10");
        assert_eq!(after.labels["pinion.dev/latency-class"], "20us");
        assert_eq!(after.labels["pinion.dev/smt"], "true");
    }

    #[test]
    fn kubevirts_labels_have_libvirts_names() {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in [
            ("proc/cpuinfo", "vendor_id : AuthenticAMD\nflags : avx2 sse4_2 constant_tsc nonstop_tsc\n"),
            ("proc/sys/kernel/sched_rt_runtime_us", "-1\n"),
        ] {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let mut labels = cpu_labels(root.path());
        switch_labels(&mut labels, root.path());
        for label in [
            "cpu-vendor.node.kubevirt.io/AMD",
            "cpu-feature.node.kubevirt.io/avx2",
            "cpu-feature.node.kubevirt.io/sse4.2",
            "cpu-feature.node.kubevirt.io/invtsc",
            "kubevirt.io/realtime",
        ] {
            assert_eq!(labels.get(label).map(String::as_str), Some("true"), "{label}: {labels:?}");
        }
        assert!(!labels.contains_key("kubevirt.io/schedulable"), "no KVM");
    }

    #[test]
    fn labels_are_what_kubernetes_takes() {
        let root = tempfile::tempdir().unwrap();
        for (name, value) in facts(&Occupancy::default(), root.path()).labels {
            let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            let (prefix, rest) = name.split_once('/').unwrap();
            assert!(prefix.chars().all(allowed) && rest.chars().all(allowed) && rest.len() <= 63, "{name}");
            assert!(value.chars().all(allowed) && value.len() <= 63, "{name}={value}");
        }
    }
}
