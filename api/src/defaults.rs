//! Fills in what a spec leaves out, as KubeVirt's admission does.

use crate::effective::{DEFAULT_GRACE_SECONDS, DEFAULT_NAMESPACE};
use crate::{
    Architecture, CacheMode, DiskBus, DiskTarget, ErrorPolicy, InterfaceModel, InterfaceState, MacAddress,
    Quantity, VirtualMachineInstance,
};

/// Fills in every default. Doing it twice changes nothing more.
pub(crate) fn fill_in(instance: &mut VirtualMachineInstance) {
    let owner = instance.full_name();
    instance.metadata.namespace.get_or_insert_with(|| DEFAULT_NAMESPACE.to_owned());
    let spec = &mut instance.spec;
    let topology = spec.topology();
    let memory = spec.guest_memory();
    spec.architecture.get_or_insert(Architecture::Amd64);
    spec.termination_grace_period_seconds.get_or_insert(DEFAULT_GRACE_SECONDS);

    let cpu = spec.domain.cpu.get_or_insert_default();
    cpu.sockets = Some(topology.sockets);
    cpu.cores = Some(topology.cores);
    cpu.threads = Some(topology.threads);
    let guest = &mut spec.domain.memory.get_or_insert_default().guest;
    if let (None, Some(bytes)) = (&guest, memory) {
        *guest = Some(Quantity::from_bytes(bytes));
    }

    for disk in &mut spec.domain.devices.disks {
        if disk.cdrom.is_none() && disk.lun.is_none() {
            let target = disk.disk.get_or_insert_with(DiskTarget::default);
            target.bus.get_or_insert(DiskBus::Virtio);
        }
        disk.cache.get_or_insert(CacheMode::Writeback);
        disk.error_policy.get_or_insert(ErrorPolicy::Report);
    }
    for interface in &mut spec.domain.devices.interfaces {
        interface.model.get_or_insert(InterfaceModel::Virtio);
        interface.state.get_or_insert(InterfaceState::Up);
        let given = interface.mac_address.take().filter(|text| !text.is_empty());
        let mac = given.unwrap_or_else(|| MacAddress::for_interface(&owner, &interface.name).to_string());
        interface.mac_address = Some(mac);
    }
}
