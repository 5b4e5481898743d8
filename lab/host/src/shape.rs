//! The shape of a lab host, as data.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::LabError;

/// The shape of a lab host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Shape {
    /// Sockets.
    pub sockets: u32,
    /// Dies per socket; each has an L3 of its own.
    pub dies: u32,
    /// Cores per die.
    pub cores: u32,
    /// Threads per core.
    pub threads: u32,
    /// NUMA nodes; CPUs are dealt out to those that have any, evenly and in order.
    pub nodes: Vec<Node>,
    /// Distances, row by row; 10 to itself and 20 to others where empty.
    #[serde(default)]
    pub distances: Vec<Vec<u32>>,
    /// Words added to the kernel's command line.
    #[serde(default)]
    pub kernel_arguments: String,
}

/// A NUMA node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Node {
    /// Memory, MiB.
    pub memory_mib: u32,
    /// Whether it has CPUs.
    #[serde(default = "yes")]
    pub has_cpus: bool,
    /// Huge pages taken at boot.
    #[serde(default)]
    pub huge_pages: Vec<HugePages>,
    /// Devices behind a PCI expander of this node.
    #[serde(default)]
    pub devices: Vec<Device>,
}

fn yes() -> bool {
    true
}

/// Huge pages of one size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HugePages {
    /// Page size, KiB: 2048 or 1048576.
    pub size_kib: u32,
    /// Pages.
    pub count: u32,
}

/// A device that can be passed through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Device {
    /// QEMU's device for teaching: a BAR, MSI, DMA.
    Edu,
    /// Two NVMe controllers without drives, functions of one device, that share an IOMMU group.
    Pair,
    /// An NVMe drive of 64 MiB.
    Nvme,
    /// A network card.
    E1000e,
    /// A display controller with a BAR of 128 MiB.
    AtiVga,
    /// A plain display controller.
    BochsDisplay,
    /// A paravirtual GPU.
    VirtioGpu,
    /// QEMU's device for testing port and memory access.
    PciTestdev,
    /// Memory behind a BAR of 1 MiB.
    Ivshmem,
    /// Memory behind a 64-bit BAR of 8 GiB, none of which is used until it is written.
    LargeBar,
    /// An NVMe drive with virtual functions, which its parent must give queues and interrupts.
    NvmeSriov,
    /// An NVMe drive with a hundred virtual functions, which its parent must give queues and interrupts.
    NvmeHundred,
}

impl Device {
    /// QEMU's name of it, with what it is connected to: a drive's number, its port's number.
    pub(crate) fn argument(self, drive: usize, port: usize) -> String {
        match self {
            Self::Edu => "edu".to_owned(),
            Self::Pair => format!("nvme,serial=lab-pair-{port},addr=0.0,multifunction=on"),
            Self::Nvme => format!("nvme,serial=lab-{drive},drive=nvme{drive}"),
            Self::E1000e => "e1000e,rombar=0".to_owned(),
            // Two of them would have one file of firmware.
            Self::AtiVga => "ati-vga,vgamem_mb=128,rombar=0,romfile=".to_owned(),
            Self::BochsDisplay => "bochs-display".to_owned(),
            Self::VirtioGpu => "virtio-gpu-pci".to_owned(),
            Self::PciTestdev => "pci-testdev".to_owned(),
            Self::Ivshmem | Self::LargeBar => format!("ivshmem-plain,memdev=shared{port}"),
            Self::NvmeSriov => format!("{},max_ioqpairs=6,msix_qsize=7", sriov(drive, port, 2, 4)),
            Self::NvmeHundred => format!("{},max_ioqpairs=202,msix_qsize=201", sriov(drive, port, 100, 200)),
        }
    }

    /// Whether it has a drive's file behind it.
    pub(crate) const fn is_drive(self) -> bool {
        matches!(self, Self::Nvme) || self.has_virtual_functions()
    }

    /// Whether it can have virtual functions, which are of its subsystem.
    pub(crate) const fn has_virtual_functions(self) -> bool {
        matches!(self, Self::NvmeSriov | Self::NvmeHundred)
    }

    /// Memory behind it, MiB.
    pub(crate) const fn memory_mib(self) -> Option<u32> {
        match self {
            Self::Ivshmem => Some(1),
            Self::LargeBar => Some(8 << 10),
            _ => None,
        }
    }
}

/// A drive with so many virtual functions, and queues and interrupts to be given to them.
fn sriov(drive: usize, port: usize, functions: u32, flexible: u32) -> String {
    format!(
        "nvme,serial=lab-{drive},subsys=subsystem{port},sriov_max_vfs={functions},sriov_vq_flexible={flexible},\
         sriov_vi_flexible={flexible}"
    )
}

impl Shape {
    /// Two sockets of two dies, each die a node: 16 CPUs, 4 nodes, 512 MiB of huge pages on
    /// each node, NVMe drives on nodes 1 and 3.
    #[must_use]
    pub fn two_socket() -> Self {
        let node = |devices: &[Device]| Node {
            memory_mib: 1024,
            has_cpus: true,
            huge_pages: vec![HugePages { size_kib: 2048, count: 256 }],
            devices: devices.to_vec(),
        };
        Self {
            sockets: 2,
            dies: 2,
            cores: 2,
            threads: 2,
            nodes: vec![
                node(&[Device::Edu]),
                node(&[Device::Nvme]),
                node(&[Device::E1000e]),
                node(&[Device::Nvme, Device::AtiVga]),
            ],
            distances: vec![
                vec![10, 12, 32, 32],
                vec![12, 10, 32, 32],
                vec![32, 32, 10, 12],
                vec![32, 32, 12, 10],
            ],
            kernel_arguments: String::new(),
        }
    }

    /// Two sockets, each a node of two cores of two threads: quick to boot.
    #[must_use]
    pub fn small() -> Self {
        let node = Node {
            memory_mib: 768,
            has_cpus: true,
            huge_pages: vec![HugePages { size_kib: 2048, count: 160 }],
            devices: Vec::new(),
        };
        Self {
            sockets: 2,
            dies: 1,
            cores: 2,
            threads: 2,
            nodes: vec![node.clone(), node],
            distances: vec![vec![10, 21], vec![21, 10]],
            kernel_arguments: String::new(),
        }
    }

    /// One node of two cores of two threads, without huge pages: for guests that need a lot of ordinary memory, MiB.
    #[must_use]
    pub fn one_node(memory_mib: u32) -> Self {
        let node = Node { memory_mib, has_cpus: true, huge_pages: Vec::new(), devices: Vec::new() };
        Self { sockets: 1, nodes: vec![node], distances: Vec::new(), ..Self::small() }
    }

    /// The small shape with half its cores and devices to pass through: memory behind an 8 GiB BAR and the display of the console on node 0; a drive with virtual
    /// functions and another display controller on node 1.
    #[must_use]
    pub fn devices() -> Self {
        let mut shape = Self { cores: 1, ..Self::small() };
        let devices =
            [vec![Device::Edu, Device::LargeBar, Device::AtiVga], vec![Device::NvmeSriov, Device::AtiVga]];
        for (node, devices) in shape.nodes.iter_mut().zip(devices) {
            node.devices = devices;
        }
        shape
    }

    /// A shape from a file, TOML by its name or else JSON.
    ///
    /// # Errors
    /// [`LabError::File`], [`LabError::Shape`].
    pub fn from_file(path: &Path) -> Result<Self, LabError> {
        let text = fs::read_to_string(path).map_err(LabError::file("read", path))?;
        let wrong = |e: String| LabError::Shape(format!("{}: {}", path.display(), e.trim_end()));
        let shape: Self = if path.extension().is_some_and(|x| x == "toml") {
            toml::from_str(&text).map_err(|e| wrong(e.to_string()))?
        } else {
            serde_json::from_str(&text).map_err(|e| wrong(e.to_string()))?
        };
        shape.check()?;
        Ok(shape)
    }

    /// The shape as JSON.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default()
    }

    /// A built-in shape by its name, or one from JSON text.
    ///
    /// # Errors
    /// [`LabError::Shape`].
    pub fn named(text: &str) -> Result<Self, LabError> {
        match text {
            "two-socket" => Ok(Self::two_socket()),
            "small" => Ok(Self::small()),
            "devices" => Ok(Self::devices()),
            json => {
                let shape: Self = serde_json::from_str(json).map_err(|e| {
                    LabError::Shape(format!("{e}: give two-socket, small, devices, or a shape in JSON"))
                })?;
                shape.check()?;
                Ok(shape)
            }
        }
    }

    /// All CPUs.
    #[must_use]
    pub fn cpus(&self) -> u32 {
        self.sockets.saturating_mul(self.dies).saturating_mul(self.cores).saturating_mul(self.threads)
    }

    /// CPUs of each node, as a first and a last; `None` for nodes without.
    pub(crate) fn cpus_of_nodes(&self) -> Vec<Option<(u32, u32)>> {
        let with_cpus = self.nodes.iter().filter(|n| n.has_cpus).count();
        let share = u32::try_from(with_cpus).ok().and_then(|n| self.cpus().checked_div(n)).unwrap_or(0);
        let mut next = 0;
        let mut range = |node: &Node| {
            node.has_cpus.then(|| {
                let first = next;
                next += share;
                (first, next.saturating_sub(1))
            })
        };
        self.nodes.iter().map(&mut range).collect()
    }

    pub(crate) fn check(&self) -> Result<(), LabError> {
        let wrong = |text: &str| Err(LabError::Shape(text.to_owned()));
        let with_cpus = u32::try_from(self.nodes.iter().filter(|n| n.has_cpus).count()).unwrap_or(u32::MAX);
        if with_cpus == 0 || self.cpus() == 0 || !self.cpus().is_multiple_of(with_cpus) {
            return wrong("its CPUs cannot be dealt out evenly to its nodes");
        }
        if self.cpus() > 255 || self.nodes.len() > 64 {
            return wrong("it has more than 255 CPUs or 64 nodes");
        }
        let square = |n: usize| self.distances.len() == n && self.distances.iter().all(|r| r.len() == n);
        if !self.distances.is_empty() && !square(self.nodes.len()) {
            return wrong("its distances are no square over its nodes");
        }
        let itself = |(n, row): (usize, &Vec<u32>)| row.get(n) == Some(&10);
        let far = |(from, row): (usize, &Vec<u32>)| {
            row.iter().enumerate().all(|(to, d)| from == to || (11..=254).contains(d))
        };
        if !self.distances.iter().enumerate().all(|row| itself(row) && far(row)) {
            return wrong("a distance is not 10 to a node itself and 11 to 254 to the others");
        }
        for (id, node) in self.nodes.iter().enumerate() {
            let pages =
                node.huge_pages.iter().map(|p| u64::from(p.size_kib) * u64::from(p.count)).sum::<u64>();
            if node.huge_pages.iter().any(|p| ![2048, 1_048_576].contains(&p.size_kib)) {
                return wrong(&format!("huge pages of node {id} are neither 2048 nor 1048576 KiB"));
            }
            if pages >= u64::from(node.memory_mib) * 1024 {
                return wrong(&format!("node {id} has less memory than huge pages"));
            }
            // A PCI expander has 16 bus numbers, one of them its own.
            if node.devices.len() > 15 || (!node.devices.is_empty() && id > 13) {
                return wrong(&format!("node {id} has no bus numbers for its devices"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_in_shapes_are_sound() {
        for name in ["two-socket", "small", "devices"] {
            Shape::named(name).unwrap().check().unwrap();
        }
        assert_eq!(Shape::two_socket().cpus(), 16);
        assert_eq!(Shape::two_socket().cpus_of_nodes()[3], Some((12, 15)));
    }

    #[test]
    fn shapes_are_data() {
        let json = serde_json::to_string(&Shape::two_socket()).unwrap();
        assert_eq!(Shape::named(&json).unwrap(), Shape::two_socket());
        let text = Shape::named("nonsense").unwrap_err().to_string();
        assert!(text.contains("give two-socket, small"), "{text}");
    }

    #[test]
    fn nodes_without_cpus_are_left_out() {
        let mut shape = Shape::small();
        shape.nodes.push(Node { memory_mib: 128, has_cpus: false, huge_pages: vec![], devices: vec![] });
        shape.distances.clear();
        shape.check().unwrap();
        assert_eq!(shape.cpus_of_nodes(), [Some((0, 3)), Some((4, 7)), None]);
    }

    #[test]
    fn a_shape_in_a_file_is_read_and_its_faults_are_named() {
        let folder = std::env::temp_dir().join(format!("pinion-shape-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let json = folder.join("shape.json");
        fs::write(&json, Shape::small().to_json()).unwrap();
        assert_eq!(Shape::from_file(&json).unwrap(), Shape::small());
        let tomls = folder.join("shape.toml");
        let text = "sockets = 1\ndies = 1\ncores = 2\nthreads = 1\n[[nodes]]\nmemoryMib = 512\ndevices = [\"edu\"]\n";
        fs::write(&tomls, text).unwrap();
        assert_eq!(Shape::from_file(&tomls).unwrap().nodes[0].devices, [Device::Edu]);
        fs::write(&tomls, text.replace("edu", "tpm")).unwrap();
        let error = Shape::from_file(&tomls).unwrap_err().to_string();
        assert!(error.contains("shape.toml") && error.contains("tpm"), "{error}");
        fs::write(&tomls, text.replace("cores", "coers")).unwrap();
        let error = Shape::from_file(&tomls).unwrap_err().to_string();
        assert!(error.contains("coers"), "{error}");
        assert!(Shape::from_file(&folder.join("none")).is_err());
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn shapes_that_make_no_machine_are_refused() {
        for (change, said) in [
            ((|s: &mut Shape| s.distances[0][0] = 20) as fn(&mut Shape), "10 to a node itself"),
            (|s| s.distances[0][1] = 10, "11 to 254"),
            (|s| s.nodes[1].huge_pages[0].size_kib = 4, "huge pages of node 1"),
            (|s| s.nodes[0].huge_pages[0].count = 1000, "node 0 has less memory"),
            (|s| s.nodes[0].devices = vec![Device::Edu; 16], "bus numbers"),
            (|s| s.cores = 0, "CPUs"),
            (|s| s.cores = 1000, "255"),
        ] {
            let mut shape = Shape::small();
            change(&mut shape);
            let error = shape.check().unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
        let mut shape = Shape::small();
        shape.distances.pop();
        assert!(shape.check().is_err());
        let mut shape = Shape::small();
        shape.nodes.push(shape.nodes[0].clone());
        shape.distances.clear();
        assert!(shape.check().is_err());
    }
}
