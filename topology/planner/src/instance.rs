//! From a VM spec to a request.
//!
//! The counts, page sizes and I/O threads that a spec comes to are `pinion_api`'s to say;
//! here they get the planner's types, and device names the functions they stand for.

use pinion_api::{IoThreadCpu, VirtualMachineInstance};
use pinion_machine::{Bdf, PageSize, PageSizeError};

use crate::{
    CpuPolicy, CpuRequest, DeviceRequest, GuestTopology, IoThreadPlace, IoThreadRequest, MemoryRequest,
    NumaPolicy, Request,
};

/// The functions that a device name of a spec (`nvidia.com/GH100`) stands for, any one of
/// which satisfies it; `None` for a name that means nothing here.
pub type DeviceNames<'a> = &'a dyn Fn(&str) -> Option<Vec<Bdf>>;

/// Why a spec is no request.
#[derive(Debug, thiserror::Error)]
pub enum InstanceError {
    /// No field says how much memory.
    #[error("spec.domain.memory.guest: missing; say how much memory the guest has, such as 2Gi")]
    NoMemory,
    /// Not whole huge pages.
    #[error(
        "spec.domain.memory.guest: {bytes} bytes is not a multiple of the page size {page}; choose a multiple"
    )]
    PartOfAPage {
        /// Memory asked for.
        bytes: u64,
        /// Page size asked for.
        page: PageSize,
    },
    /// Not a page size.
    #[error("spec.domain.memory.hugepages.pageSize: not a page size; use 2Mi or 1Gi")]
    Page(#[source] PageSizeError),
    /// A device without a name of what it is.
    #[error("{field}: missing; name the resource")]
    NoDeviceName {
        /// The field.
        field: String,
    },
    /// A device name that no configuration knows.
    #[error("{field}: nothing on this machine is known as {device_name:?}")]
    UnknownDevice {
        /// The field.
        field: String,
        /// What it says.
        device_name: String,
    },
}

impl Request {
    /// What a VM instance needs.
    ///
    /// The instance is taken as `pinion_api` validated it; its memory must still be whole
    /// pages and its device names known to `devices`.
    ///
    /// # Errors
    /// [`InstanceError`], naming the field.
    pub fn from_instance(
        instance: &VirtualMachineInstance,
        devices: DeviceNames<'_>,
    ) -> Result<Self, InstanceError> {
        let spec = &instance.spec;
        let topology = spec.topology();
        let page_size = PageSize::new(spec.page_size()).map_err(InstanceError::Page)?;
        let bytes = spec.guest_memory().filter(|bytes| *bytes > 0).ok_or(InstanceError::NoMemory)?;
        if !bytes.is_multiple_of(page_size.bytes()) {
            return Err(InstanceError::PartOfAPage { bytes, page: page_size });
        }
        Ok(Self {
            name: instance.full_name(),
            cpu: CpuRequest {
                topology: GuestTopology {
                    sockets: topology.sockets,
                    cores: topology.cores,
                    threads: topology.threads,
                },
                policy: if spec.dedicated_cpus() { CpuPolicy::Dedicated } else { CpuPolicy::Shared },
                realtime: spec.realtime_vcpus(),
            },
            memory: MemoryRequest { bytes, page_size },
            numa: if spec.numa_passthrough() { NumaPolicy::Passthrough } else { NumaPolicy::Auto },
            io_threads: spec.io_threads().into_iter().map(io_thread).collect(),
            devices: device_requests(instance, devices)?,
            within: None,
        })
    }
}

fn io_thread(thread: pinion_api::IoThread) -> IoThreadRequest {
    let place = match thread.cpu {
        IoThreadCpu::Shared => IoThreadPlace::SharedIo,
        IoThreadCpu::Own => IoThreadPlace::Dedicated,
    };
    IoThreadRequest { id: thread.id, place, disks: thread.disks }
}

fn device_requests(
    instance: &VirtualMachineInstance,
    names: DeviceNames<'_>,
) -> Result<Vec<DeviceRequest>, InstanceError> {
    let request = |device: pinion_api::PassedThrough<'_>| {
        let field = device.field;
        let Some(device_name) = device.device_name else { return Err(InstanceError::NoDeviceName { field }) };
        match names(device_name) {
            Some(candidates) => Ok(DeviceRequest { name: device.name.to_owned(), candidates }),
            None => Err(InstanceError::UnknownDevice { field, device_name: device_name.to_owned() }),
        }
    };
    instance.spec.passed_through().into_iter().map(request).collect()
}

#[cfg(test)]
mod tests {
    use pinion_api::Gpu;

    use super::*;

    fn instance(text: &str) -> VirtualMachineInstance {
        serde_json::from_str(text).unwrap()
    }

    fn vmi(domain: &str) -> VirtualMachineInstance {
        instance(&format!(
            r#"{{"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance",
                "metadata": {{"name": "a", "namespace": "lab"}}, "spec": {{"domain": {domain}}}}}"#
        ))
    }

    fn nothing(_: &str) -> Option<Vec<Bdf>> {
        None
    }

    #[test]
    fn a_dedicated_guest_on_huge_pages_becomes_a_request() {
        let vmi = vmi(r#"{"cpu": {"cores": 2, "threads": 2, "dedicatedCpuPlacement": true,
                "numa": {"guestMappingPassthrough": {}}, "realtime": {"mask": "1-2"}},
                "memory": {"guest": "64Mi", "hugepages": {"pageSize": "2Mi"}}, "devices": {}}"#);
        let request = Request::from_instance(&vmi, &nothing).unwrap();
        assert_eq!(request.name, "lab/a");
        assert_eq!(request.cpu.topology, GuestTopology { sockets: 1, cores: 2, threads: 2 });
        assert_eq!((request.cpu.policy, request.numa), (CpuPolicy::Dedicated, NumaPolicy::Passthrough));
        assert_eq!(request.cpu.realtime, [1, 2]);
        assert_eq!(request.memory, MemoryRequest { bytes: 64 << 20, page_size: PageSize::MIB2 });
    }

    #[test]
    fn a_spec_without_cpu_fields_is_one_shared_vcpu() {
        let request =
            Request::from_instance(&vmi(r#"{"memory": {"guest": "1Gi"}, "devices": {}}"#), &nothing).unwrap();
        assert_eq!(request.cpu.topology, GuestTopology { sockets: 1, cores: 1, threads: 1 });
        assert_eq!((request.cpu.policy, request.numa), (CpuPolicy::Shared, NumaPolicy::Auto));
        assert_eq!(request.memory.page_size, PageSize::KIB4);
    }

    #[test]
    fn memory_must_be_there_and_whole_pages() {
        let error = |domain: &str| Request::from_instance(&vmi(domain), &nothing).unwrap_err().to_string();
        assert!(error(r#"{"devices": {}}"#).starts_with("spec.domain.memory.guest: missing"));
        let part = r#"{"memory": {"guest": "3Mi", "hugepages": {"pageSize": "2Mi"}}, "devices": {}}"#;
        assert!(error(part).contains("not a multiple of the page size 2Mi"));
    }

    #[test]
    fn device_names_become_functions() {
        let mut guest = vmi(r#"{"memory": {"guest": "1Gi"}, "devices": {}}"#);
        let gpu = |name: &str| Gpu { name: "g".into(), device_name: Some(name.into()), ..Gpu::default() };
        guest.spec.domain.devices.gpus = vec![gpu("nvidia.com/GH100")];
        let at = Bdf::new(0, 0x3b, 0, 0).unwrap();
        let known = |name: &str| (name == "nvidia.com/GH100").then(|| vec![at]);
        let request = Request::from_instance(&guest, &known).unwrap();
        assert_eq!(request.devices, [DeviceRequest { name: "g".into(), candidates: vec![at] }]);
        let error = Request::from_instance(&guest, &nothing).unwrap_err().to_string();
        assert!(error.starts_with("spec.domain.devices.gpus[0].deviceName"), "{error}");
        let sriov =
            vmi(r#"{"memory": {"guest": "1Gi"}, "devices": {"interfaces": [{"name": "net", "sriov": {}}]}},
                "networks": [{"name": "net", "multus": {"networkName": "nvidia.com/GH100"}}]"#);
        let request = Request::from_instance(&sriov, &known).unwrap();
        assert_eq!(request.devices, [DeviceRequest { name: "net".into(), candidates: vec![at] }]);
    }
}
