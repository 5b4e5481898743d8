//! A machine from an hwloc XML file or synthetic description.
//!
//! hwloc does the parsing; its answer is checked like any other. XML tells how much
//! memory and how many huge pages a node has, not what is free: all of it counts as free.

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use hwlocality::Topology;
use hwlocality::bitmap::Bitmap;
use hwlocality::object::TopologyObject;
use hwlocality::object::attributes::ObjectAttributes;
use hwlocality::object::types::ObjectType;
use hwlocality::topology::builder::{BuildFlags, TypeFilter};
use pinion_machine::{
    Bdf, CpuId, CpuSet, DieId, Distances, HugePagePool, KernelFacts, NodeId, PackageId, PageSize, PciFunction,
};

use crate::draft::{CoreDraft, Draft, NodeDraft};

/// The XML of the largest machines known is some 10 MiB.
const MAX_XML: u64 = 64 << 20;
/// A description is a few words; hwloc builds what it says, however large.
const MAX_SYNTHETIC_CPUS: usize = 65_536;

/// Why hwloc did not give a machine.
#[derive(Debug, thiserror::Error)]
pub enum HwlocError {
    /// The file could not be read.
    #[error("Could not read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The file is larger than any machine's.
    #[error("{} is larger than the topology of any machine", .0.display())]
    TooLarge(PathBuf),
    /// hwloc refused the XML.
    #[error("{} is not a topology that hwloc 2 can read ({reason}): write it with lstopo --of xml", path.display())]
    Xml {
        /// The file.
        path: PathBuf,
        /// What hwloc said.
        reason: String,
    },
    /// hwloc refused the description.
    #[error(
        "{text:?} is not an hwloc synthetic description such as \"pack:2 [numa] core:4 pu:2\" ({reason})"
    )]
    Synthetic {
        /// The description.
        text: String,
        /// What hwloc said.
        reason: String,
    },
    /// The machine would have more CPUs than Linux supports.
    #[error("{text:?} describes more than {MAX_SYNTHETIC_CPUS} CPUs")]
    TooManyCpus {
        /// The description.
        text: String,
    },
    /// There is no CPU in it.
    #[error("The topology has no CPU")]
    NoCpus,
}

/// Reads an XML file.
///
/// # Errors
/// When it cannot be read or is no topology.
pub(crate) fn xml(path: &Path) -> Result<Draft, HwlocError> {
    let read_error = |source| HwlocError::Read { path: path.to_owned(), source };
    let refused = |reason: String| HwlocError::Xml { path: path.to_owned(), reason };
    let mut text = String::new();
    // hwloc opens files itself, without a bound.
    let file = File::open(path).map_err(read_error)?;
    if !file.metadata().map_err(read_error)?.is_file() {
        return Err(read_error(io::Error::other("not a plain file")));
    }
    let length = match file.take(MAX_XML + 1).read_to_string(&mut text) {
        Ok(length) => length,
        Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err(refused(error.to_string())),
        Err(error) => return Err(read_error(error)),
    };
    if length as u64 > MAX_XML {
        return Err(HwlocError::TooLarge(path.to_owned()));
    }
    let build = || -> Result<Topology, String> {
        let builder = Topology::builder().from_xml(&text).map_err(|e| e.to_string())?;
        let flags = BuildFlags::INCLUDE_DISALLOWED;
        let builder = builder.with_flags(flags).map_err(|e| e.to_string())?;
        let builder = builder.with_io_type_filter(TypeFilter::KeepAll).map_err(|e| e.to_string())?;
        builder.build().map_err(|e| e.to_string())
    };
    draft(&build().map_err(refused)?)
}

/// Builds a machine from a description.
///
/// # Errors
/// When it is none, or too large.
pub(crate) fn synthetic(text: &str) -> Result<Draft, HwlocError> {
    let refused = |reason: String| HwlocError::Synthetic { text: text.to_owned(), reason };
    if declared_cpus(text).is_none_or(|cpus| cpus > MAX_SYNTHETIC_CPUS) {
        return Err(HwlocError::TooManyCpus { text: text.to_owned() });
    }
    let builder = Topology::builder().from_synthetic(text).map_err(|e| refused(e.to_string()))?;
    draft(&builder.build().map_err(|e| refused(e.to_string()))?)
}

/// The product of all counts outside brackets: how many objects the last level has. `None`
/// if that overflows.
fn declared_cpus(text: &str) -> Option<usize> {
    let mut depth = 0u32;
    let mut outside = String::new();
    for c in text.chars() {
        match c {
            '[' | '(' => depth += 1,
            ']' | ')' => depth = depth.saturating_sub(1),
            c if depth == 0 => outside.push(c),
            _ => {}
        }
    }
    let counts = outside.split_whitespace().map(|word| word.rsplit(':').next().unwrap_or(word));
    counts.filter_map(|n| n.parse::<usize>().ok()).try_fold(1usize, |all, n| all.checked_mul(n.max(1)))
}

/// The L3 caches of this host as hwloc sees them; none where it does not.
pub(crate) fn host_l3() -> Vec<(CpuSet, u64)> {
    let built = Topology::builder().with_flags(BuildFlags::INCLUDE_DISALLOWED).map(|b| b.build());
    built.ok().and_then(Result::ok).map(|topology| l3(&topology)).unwrap_or_default()
}

fn draft(topology: &Topology) -> Result<Draft, HwlocError> {
    let online: CpuSet = numbers(&topology.cpuset()).map(CpuId).collect();
    if online.is_empty() {
        return Err(HwlocError::NoCpus);
    }
    let complete: CpuSet = numbers(&topology.complete_cpuset()).map(CpuId).collect();
    let packages: Vec<_> = topology.objects_with_type(ObjectType::Package).collect();
    let model = |o: &&TopologyObject| Some((package_id(o), o.info("CPUModel").map(text)?));
    Ok(Draft {
        cores: cores(topology),
        l3: l3(topology),
        nodes: nodes(topology),
        distances: distances(topology),
        pci: topology.objects_with_type(ObjectType::PCIDevice).filter_map(function).collect(),
        kernel: KernelFacts {
            release: topology.root_object().info("OSRelease").map(text),
            ..KernelFacts::default()
        },
        models: packages.iter().filter_map(model).collect(),
        offline: complete.difference(&online),
        online,
        power: std::collections::BTreeMap::new(),
    })
}

fn cores(topology: &Topology) -> Vec<CoreDraft> {
    let core = |object: &TopologyObject| {
        let package = object.first_ancestor_with_type(ObjectType::Package).map(package_id);
        let die = object.first_ancestor_with_type(ObjectType::Die).and_then(number);
        CoreDraft { cpus: cpus(object), package: package.unwrap_or(PackageId(0)), die: die.map(DieId) }
    };
    let cores: Vec<_> = topology.objects_with_type(ObjectType::Core).map(core).collect();
    if cores.is_empty() {
        return topology.objects_with_type(ObjectType::PU).map(core).collect();
    }
    cores
}

fn l3(topology: &Topology) -> Vec<(CpuSet, u64)> {
    let size = |object: &TopologyObject| match object.attributes() {
        Some(ObjectAttributes::Cache(cache)) => cache.size().map_or(0, u64::from),
        _ => 0,
    };
    topology.objects_with_type(ObjectType::L3Cache).map(|o| (cpus(o), size(o))).collect()
}

fn nodes(topology: &Topology) -> Vec<NodeDraft> {
    let node = |object: &TopologyObject| {
        let (mut memory_bytes, mut huge_pages) = (0, Vec::new());
        if let Some(ObjectAttributes::NUMANode(numa)) = object.attributes() {
            memory_bytes = numa.local_memory().map_or(0, u64::from);
            for pages in numa.page_types() {
                let Ok(page_size) = PageSize::new(pages.size().into()) else { continue };
                if page_size.is_huge() {
                    let count = pages.count();
                    huge_pages.push(HugePagePool { page_size, total: count, free: count });
                }
            }
        }
        let in_pools = |pool: &HugePagePool| pool.total.saturating_mul(pool.page_size.bytes());
        let pooled = huge_pages.iter().map(in_pools).fold(0u64, u64::saturating_add);
        let available_bytes = memory_bytes.saturating_sub(pooled);
        Some(NodeDraft {
            id: NodeId(number(object)?),
            cpus: cpus(object),
            memory_bytes,
            available_bytes,
            huge_pages,
        })
    };
    topology.objects_with_type(ObjectType::NUMANode).filter_map(node).collect()
}

/// The matrix that is the firmware's: latencies between nodes.
fn distances(topology: &Topology) -> Distances {
    let Ok(matrices) = topology.distances_with_type(None, ObjectType::NUMANode) else {
        return Distances::default();
    };
    let is_latency = |name: Option<&CStr>| name.is_some_and(|n| n.to_bytes() == b"NUMALatency");
    let Some(matrix) = matrices.iter().find(|m| is_latency(m.name())) else {
        return Distances::default();
    };
    let nodes: Option<Vec<NodeId>> =
        matrix.objects().map(|object| object.and_then(number).map(NodeId)).collect();
    let Some(nodes) = nodes else { return Distances::default() };
    let row = |values: &[u64]| values.iter().map(|v| u32::try_from(*v).unwrap_or(u32::MAX)).collect();
    let rows = matrix.distances().chunks(nodes.len().max(1)).map(row).collect();
    Distances::new(nodes, rows).unwrap_or_default()
}

fn function(object: &TopologyObject) -> Option<PciFunction> {
    let Some(ObjectAttributes::PCIDevice(pci)) = object.attributes() else { return None };
    let devices = object.io_children().filter(|child| child.object_type() == ObjectType::OSDevice);
    let near = object.first_non_io_ancestor().and_then(TopologyObject::nodeset);
    // A device near more than one node is near none in particular.
    let near: Vec<u32> = near.map(|set| numbers(&set).collect()).unwrap_or_default();
    Some(PciFunction {
        address: Bdf::new(pci.domain().into(), pci.bus_id(), pci.bus_device(), pci.function())?,
        vendor: pci.vendor_id(),
        device: pci.device_id(),
        class: u32::from(pci.class_id()) << 8,
        node: if let [only] = near.as_slice() { Some(NodeId(*only)) } else { None },
        os_devices: devices.filter_map(|device| device.name().map(text)).collect(),
        ..PciFunction::default()
    })
}

fn cpus(object: &TopologyObject) -> CpuSet {
    object.cpuset().map(|set| numbers(&set).map(CpuId).collect()).unwrap_or_default()
}

fn package_id(object: &TopologyObject) -> PackageId {
    PackageId(number(object).unwrap_or_default())
}

/// Its number in the operating system, or its place where it has none.
fn number(object: &TopologyObject) -> Option<u32> {
    u32::try_from(object.os_index().unwrap_or_else(|| object.logical_index())).ok()
}

/// Members of a set; none of an infinite one.
fn numbers(set: &impl AsRef<Bitmap>) -> impl Iterator<Item = u32> {
    let bitmap = set.as_ref();
    let members = bitmap.weight().map(|_| bitmap.iter_set());
    members.into_iter().flatten().filter_map(|index| u32::try_from(usize::from(index)).ok())
}

fn text(name: &CStr) -> String {
    name.to_string_lossy().chars().filter(|c| !c.is_control()).take(128).collect()
}
