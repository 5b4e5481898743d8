//! Writes sysfs trees.

use std::fs;
use std::path::Path;

/// A tree in a temporary folder, removed when dropped.
pub(crate) struct Tree(tempfile::TempDir);

/// The files of a CPU.
pub(crate) struct CpuFiles<'a> {
    pub(crate) package: u32,
    pub(crate) die: u32,
    pub(crate) siblings: &'a str,
    /// Empty for none.
    pub(crate) l3: &'a str,
}

impl Tree {
    pub(crate) fn new() -> Self {
        let tree = Self(tempfile::tempdir().unwrap());
        fs::create_dir_all(tree.root().join("sys/devices/system/cpu")).unwrap();
        tree
    }

    pub(crate) fn root(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn file(&self, path: &str, text: &str) {
        let path = self.root().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub(crate) fn link(&self, path: &str, target: &str) {
        std::os::unix::fs::symlink(target, self.root().join(path)).unwrap();
    }

    pub(crate) fn online(&self, online: &str, present: &str) {
        self.file("sys/devices/system/cpu/online", &format!("{online}\n"));
        self.file("sys/devices/system/cpu/present", &format!("{present}\n"));
    }

    pub(crate) fn cpu(&self, cpu: u32, files: &CpuFiles<'_>) {
        let folder = format!("sys/devices/system/cpu/cpu{cpu}");
        self.file(&format!("{folder}/topology/physical_package_id"), &format!("{}\n", files.package));
        self.file(&format!("{folder}/topology/die_id"), &format!("{}\n", files.die));
        self.file(&format!("{folder}/topology/core_cpus_list"), &format!("{}\n", files.siblings));
        self.file(&format!("{folder}/cache/index0/level"), "1\n");
        if !files.l3.is_empty() {
            self.file(&format!("{folder}/cache/index3/level"), "3\n");
            self.file(&format!("{folder}/cache/index3/size"), "32768K\n");
            self.file(&format!("{folder}/cache/index3/shared_cpu_list"), &format!("{}\n", files.l3));
        }
    }

    pub(crate) fn idle_state(&self, cpu: u32, state: u32, name: &str, latency: u32, enabled: bool) {
        let folder = format!("sys/devices/system/cpu/cpu{cpu}/cpuidle/state{state}");
        self.file(&format!("{folder}/name"), name);
        self.file(&format!("{folder}/latency"), &latency.to_string());
        self.file(&format!("{folder}/disable"), if enabled { "0" } else { "1" });
    }

    pub(crate) fn node(&self, node: u32, cpus: &str, kib: u64, distances: &str) {
        let folder = format!("sys/devices/system/node/node{node}");
        let memory = format!("Node {node} MemTotal: {kib} kB\nNode {node} MemFree: {kib} kB\n");
        self.file(&format!("{folder}/cpulist"), &format!("{cpus}\n"));
        self.file(&format!("{folder}/meminfo"), &memory);
        self.file(&format!("{folder}/distance"), &format!("{distances}\n"));
    }

    pub(crate) fn pool(&self, node: u32, kib: u64, total: u64, free: u64) {
        let folder = format!("sys/devices/system/node/node{node}/hugepages/hugepages-{kib}kB");
        self.file(&format!("{folder}/nr_hugepages"), &total.to_string());
        self.file(&format!("{folder}/free_hugepages"), &free.to_string());
    }

    /// Its folder.
    pub(crate) fn pci(&self, address: &str, vendor: &str, device: &str, class: &str, node: &str) -> String {
        let folder = format!("sys/bus/pci/devices/{address}");
        for (name, text) in [("vendor", vendor), ("device", device), ("class", class), ("numa_node", node)] {
            self.file(&format!("{folder}/{name}"), &format!("{text}\n"));
        }
        folder
    }
}
