//! What a spec comes to: the numbers behind fields that may be absent.
//!
//! The same answers before and after [`crate::defaults`] has filled the fields in, so that
//! validation and planning cannot disagree.

use std::time::Duration;

use crate::{
    Cpu, Disk, DiskTarget, InstanceSpec, InstanceTemplate, Quantity, VcpuMask, VirtualMachine,
    VirtualMachineInstance, VirtualMachineInstanceReplicaSet, Volume,
};

/// Bytes in an ordinary page.
pub const ORDINARY_PAGE: u64 = 4096;
/// Page sizes of x86-64 that can be reserved, with their names in a spec.
pub const HUGE_PAGES: [(&str, u64); 2] = [("2Mi", 2 << 20), ("1Gi", 1 << 30)];
/// Seconds from the power button to force, where the spec says nothing.
pub const DEFAULT_GRACE_SECONDS: i64 = 30;
/// Namespace, where the spec says nothing.
pub const DEFAULT_NAMESPACE: &str = "default";

/// Sockets × cores × threads, each at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuTopology {
    /// Sockets.
    pub sockets: u32,
    /// Cores per socket.
    pub cores: u32,
    /// Threads per core.
    pub threads: u32,
}

impl CpuTopology {
    /// How many vCPUs; stops at the largest number where the product is beyond it.
    #[must_use]
    pub fn vcpus(self) -> u32 {
        self.sockets.saturating_mul(self.cores).saturating_mul(self.threads)
    }
}

impl Cpu {
    /// The counts that the spec gives; zero is as good as absent.
    pub(crate) fn given(&self) -> [Option<u32>; 3] {
        [self.sockets, self.cores, self.threads].map(|count| count.filter(|count| *count > 0))
    }
}

impl InstanceSpec {
    /// Shape of the vCPUs. Without counts: as many sockets as the CPU limit says, else the
    /// CPU request, else one.
    #[must_use]
    pub fn topology(&self) -> CpuTopology {
        let [sockets, cores, threads] = self.domain.cpu.as_ref().map(Cpu::given).unwrap_or_default();
        if let (None, None, None) = (sockets, cores, threads) {
            let amount = self.limit("cpu").or_else(|| self.request("cpu"));
            let sockets =
                amount.map_or(1, |amount| u32::try_from(amount.rounded_up()).unwrap_or(u32::MAX)).max(1);
            return CpuTopology { sockets, cores: 1, threads: 1 };
        }
        CpuTopology {
            sockets: sockets.unwrap_or(1),
            cores: cores.unwrap_or(1),
            threads: threads.unwrap_or(1),
        }
    }

    /// Memory the guest sees, in bytes: whole pages, at least one. `None` if no field says.
    #[must_use]
    pub fn guest_memory(&self) -> Option<u64> {
        let given = self.domain.memory.as_ref().and_then(|memory| memory.guest.as_ref());
        let amount = given.or_else(|| self.request("memory")).or_else(|| self.limit("memory"));
        match amount {
            Some(amount) => amount.rounded_up().checked_next_multiple_of(ORDINARY_PAGE),
            None => self.huge_page(),
        }
    }

    /// Size of the huge pages asked for, in bytes, if it is one that exists.
    #[must_use]
    pub fn huge_page(&self) -> Option<u64> {
        let size: Quantity = self.huge_page_text()?.parse().ok()?;
        HUGE_PAGES.iter().map(|(_, bytes)| *bytes).find(|bytes| size.whole() == Some(*bytes))
    }

    /// Size of the pages that back the guest, in bytes.
    #[must_use]
    pub fn page_size(&self) -> u64 {
        self.huge_page().unwrap_or(ORDINARY_PAGE)
    }

    pub(crate) fn huge_page_text(&self) -> Option<&str> {
        self.domain.memory.as_ref()?.hugepages.as_ref()?.page_size.as_deref()
    }

    /// Whether each vCPU has a CPU to itself.
    #[must_use]
    pub fn dedicated_cpus(&self) -> bool {
        self.domain.cpu.as_ref().is_some_and(|cpu| cpu.dedicated_cpu_placement == Some(true))
    }

    /// Whether the guest sees the host's NUMA nodes.
    #[must_use]
    pub fn numa_passthrough(&self) -> bool {
        let numa = self.domain.cpu.as_ref().and_then(|cpu| cpu.numa.as_ref());
        numa.is_some_and(|numa| numa.guest_mapping_passthrough.is_some())
    }

    /// The vCPUs that run in a real-time class, ascending; none without `realtime`.
    #[must_use]
    pub fn realtime_vcpus(&self) -> Vec<u32> {
        let Some(realtime) = self.domain.cpu.as_ref().and_then(|cpu| cpu.realtime.as_ref()) else {
            return Vec::new();
        };
        let vcpus = self.topology().vcpus();
        match realtime.mask.as_deref().filter(|mask| !mask.is_empty()) {
            Some(mask) => VcpuMask::parse(mask, vcpus).map(|mask| mask.vcpus().to_vec()).unwrap_or_default(),
            None => (0..vcpus).collect(),
        }
    }

    /// From the power button to force.
    #[must_use]
    pub fn grace_period(&self) -> Duration {
        let seconds = self.termination_grace_period_seconds.unwrap_or(DEFAULT_GRACE_SECONDS);
        Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
    }

    /// The disk that the guest boots from, where the spec names no kernel: the one with the lowest `bootOrder`, else
    /// the first that holds an image.
    #[must_use]
    pub fn boot_disk(&self) -> Option<&Disk> {
        let disks = &self.domain.devices.disks;
        let ordered =
            disks.iter().filter(|disk| disk.boot_order.is_some()).min_by_key(|disk| disk.boot_order);
        let holds_image = |disk: &&Disk| self.volume(&disk.name).is_some_and(Volume::holds_image);
        ordered.or_else(|| disks.iter().find(holds_image))
    }

    /// The volume of that name.
    #[must_use]
    pub fn volume(&self, name: &str) -> Option<&Volume> {
        self.volumes.iter().find(|volume| volume.name == name)
    }

    /// Every device of the host that the guest wants as its own: GPUs, host devices, and interfaces by SR-IOV.
    #[must_use]
    pub fn passed_through(&self) -> Vec<PassedThrough<'_>> {
        let devices = &self.domain.devices;
        let gpus = devices.gpus.iter().zip(0..).map(|(d, i)| PassedThrough {
            field: format!("spec.domain.devices.gpus[{i}].deviceName"),
            name: &d.name,
            device_name: d.device_name.as_deref(),
        });
        let others = devices.host_devices.iter().zip(0..).map(|(d, i)| PassedThrough {
            field: format!("spec.domain.devices.hostDevices[{i}].deviceName"),
            name: &d.name,
            device_name: d.device_name.as_deref(),
        });
        let interfaces = devices.interfaces.iter().filter(|i| i.sriov.is_some()).map(|interface| {
            let network = self.networks.iter().position(|n| n.name == interface.name).unwrap_or(0);
            PassedThrough {
                field: format!("spec.networks[{network}].multus.networkName"),
                name: &interface.name,
                device_name: self.host_network(&interface.name),
            }
        });
        gpus.chain(others).chain(interfaces).collect()
    }

    /// Name of the host's tap or bridge that an interface is connected to; with SR-IOV, its device's resource name.
    #[must_use]
    pub fn host_network(&self, interface: &str) -> Option<&str> {
        let network = self.networks.iter().find(|network| network.name == interface)?;
        network.multus.as_ref().map(|multus| multus.network_name.as_str())
    }

    pub(crate) fn request(&self, resource: &str) -> Option<&Quantity> {
        self.domain.resources.as_ref()?.requests.get(resource)
    }

    pub(crate) fn limit(&self, resource: &str) -> Option<&Quantity> {
        self.domain.resources.as_ref()?.limits.get(resource)
    }
}

/// A device of the host that a guest wants as its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PassedThrough<'a> {
    /// Path of the field that says what it is.
    pub field: String,
    /// Its name in the spec.
    pub name: &'a str,
    /// Its resource name.
    pub device_name: Option<&'a str>,
}

impl Disk {
    /// Whether the guest can only read it.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.disk.as_ref().and_then(|target: &DiskTarget| target.readonly).unwrap_or(false)
    }

    /// Whether it has an I/O thread of its own.
    #[must_use]
    pub fn has_own_thread(&self) -> bool {
        self.dedicated_io_thread == Some(true)
    }
}

impl VirtualMachineInstance {
    /// Keeps an instance until its pod is gone. KubeVirt's name.
    pub const FINALIZER: &str = "kubevirt.io/foregroundDeleteVirtualMachine";

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }

    /// Its namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.metadata.namespace.as_deref().filter(|name| !name.is_empty()).unwrap_or(DEFAULT_NAMESPACE)
    }

    /// `namespace/name`: what owns its CPUs and pages in the ledger.
    #[must_use]
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.namespace(), self.name())
    }

    /// Host name inside the guest.
    #[must_use]
    pub fn host_name(&self) -> &str {
        self.spec.hostname.as_deref().filter(|name| !name.is_empty()).unwrap_or_else(|| self.name())
    }
}

impl VirtualMachineInstanceReplicaSet {
    /// What each of its instances is, without a name: the API server makes one up.
    #[must_use]
    pub fn into_instance(self) -> VirtualMachineInstance {
        let mut metadata = self.spec.template.metadata.unwrap_or_default();
        metadata.namespace = self.metadata.namespace;
        VirtualMachineInstance {
            api_version: self.api_version,
            kind: "VirtualMachineInstance".to_owned(),
            metadata,
            spec: self.spec.template.spec,
            status: None,
        }
    }
}

impl VirtualMachine {
    /// Keeps a machine until its instance is gone. KubeVirt's name.
    pub const FINALIZER: &str = "kubevirt.io/virtualMachineControllerFinalize";

    /// The instance it makes: its own name and namespace, labels and annotations of the template.
    #[must_use]
    pub fn into_instance(self) -> VirtualMachineInstance {
        let InstanceTemplate { metadata, spec } = self.spec.template;
        let mut metadata = metadata.unwrap_or_default();
        metadata.name = self.metadata.name;
        metadata.namespace = self.metadata.namespace;
        VirtualMachineInstance {
            api_version: self.api_version,
            kind: "VirtualMachineInstance".to_owned(),
            metadata,
            spec,
            status: None,
        }
    }
}
