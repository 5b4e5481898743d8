//! What a guest's container asks the kubelet for, and what the launcher needs beside the guest's memory.

use std::collections::BTreeMap;

use pinion_api::{
    BackendKind, InstanceSpec, IoThread, IoThreadCpu, ORDINARY_PAGE, Quantity, Resources,
    VirtualMachineInstance,
};
use serde_json::{Map, Value, json};

/// Device nodes of the host that every guest needs.
pub(crate) const KVM: &str = "devices.kubevirt.io/kvm";
/// By which QEMU opens a tap that is there.
pub(crate) const TUN: &str = "devices.kubevirt.io/tun";
/// The way to the node's agent, which the device plugin gives.
pub(crate) const AGENT: &str = "pinion.dev/agent";

const MIB: u64 = 1 << 20;
/// The launcher itself: 14 MiB were measured (`cargo xtask bench backends`), with its image in the page cache; the rest is
/// the process that reads boot files, and room.
const LAUNCHER: u64 = 40 * MIB;
/// QEMU, libvirt's driver and the launcher: 51 MiB were measured at most, with the image in the page cache.
const QEMU_LAUNCHER: u64 = 96 * MIB;
/// QEMU's screen, and what it keeps of it for a viewer.
const SCREEN: u64 = 32 * MIB;
/// The emulator of a TPM, and what makes one.
const TPM: u64 = 16 * MIB;
/// What QEMU keeps at most of a qcow2 image's tables, with the queue's buffers.
const EACH_QEMU_DISK: u64 = 34 * MIB;
/// Stack, KVM's state and what is traced of each vCPU.
const EACH_VCPU: u64 = MIB;
/// Buffers of each disk's and interface's queue.
const EACH_DEVICE: u64 = 2 * MIB;
/// Bytes of memory that one byte of page tables maps in pages of 4 KiB: two tables, the launcher's and KVM's, have an entry
/// of 8 bytes for each page.
const MAPPED_BY_BYTE: u64 = 256;

/// Memory that a guest's launcher needs beside the guest's own, bytes.
#[must_use]
pub fn overhead_bytes(instance: &VirtualMachineInstance) -> u64 {
    let spec = &instance.spec;
    let own = &spec.domain.devices;
    let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    let screen = if own.autoattach_graphics_device == Some(true) || own.video.is_some() { SCREEN } else { 0 };
    let tpm = if own.tpm.as_ref().is_some_and(|tpm| tpm.enabled != Some(false)) { TPM } else { 0 };
    let (launcher, each_disk) = match instance.backend() {
        BackendKind::Native => (LAUNCHER, EACH_DEVICE),
        BackendKind::Libvirt => (QEMU_LAUNCHER + screen + tpm, EACH_QEMU_DISK),
    };
    let tables = if in_huge_pages(spec) { 0 } else { spec.guest_memory().unwrap_or(0) / MAPPED_BY_BYTE };
    launcher
        .saturating_add(EACH_VCPU.saturating_mul(u64::from(spec.topology().vcpus())))
        .saturating_add(each_disk.saturating_mul(count(own.disks.len())))
        .saturating_add(EACH_DEVICE.saturating_mul(count(own.interfaces.len())))
        .saturating_add(tables)
}

fn in_huge_pages(spec: &InstanceSpec) -> bool {
    spec.page_size() > ORDINARY_PAGE
}

/// Name of the kubelet's resource for pages of a size.
fn page_resource(bytes: u64) -> String {
    if bytes >= 1 << 30 {
        format!("hugepages-{}Gi", bytes >> 30)
    } else {
        format!("hugepages-{}Mi", bytes >> 20)
    }
}

/// `resources` of the container.
///
/// With dedicated CPUs, limits equal requests and CPUs are whole, so that the pod is Guaranteed and the kubelet's static
/// managers give it CPUs, pages and devices of its own; and whole cores of a node with that many threads in each, since
/// nobody else is let onto the rest of one (and a kubelet with `full-pcpus-only` gives no less). Emulator threads cost nothing: the agent puts them on the node's
/// housekeeping CPUs. Without, the guest may use its vCPUs in full and is promised a tenth of each, as with KubeVirt, unless
/// the spec asks for more.
pub(crate) fn resources(instance: &VirtualMachineInstance, threads_per_core: u64) -> Value {
    let spec = &instance.spec;
    let memory = spec.guest_memory().unwrap_or(0);
    let mut both: BTreeMap<String, String> = BTreeMap::new();
    let mut ordinary = overhead_bytes(instance);
    if in_huge_pages(spec) {
        both.insert(page_resource(spec.page_size()), memory.to_string());
    } else {
        ordinary = ordinary.saturating_add(memory);
    }
    both.insert("memory".to_owned(), ordinary.to_string());
    both.insert(KVM.to_owned(), "1".to_owned());
    both.insert(AGENT.to_owned(), "1".to_owned());
    if instance.backend() == BackendKind::Libvirt && !spec.domain.devices.interfaces.is_empty() {
        both.insert(TUN.to_owned(), "1".to_owned());
    }
    let mut devices: BTreeMap<&str, u64> = BTreeMap::new();
    for device in spec.passed_through() {
        if let Some(name) = device.device_name {
            let count = devices.entry(name).or_default();
            *count = count.saturating_add(1);
        }
    }
    both.extend(devices.into_iter().map(|(name, count)| (name.to_owned(), count.to_string())));
    let (mut requests, mut limits) = (map(&both), map(&both));
    let vcpus = u64::from(spec.topology().vcpus());
    if spec.dedicated_cpus() {
        let own = |thread: &&IoThread| thread.cpu == IoThreadCpu::Own;
        let threads = u64::try_from(spec.io_threads().iter().filter(own).count()).unwrap_or(0);
        let wanted = vcpus.saturating_add(threads);
        let cpus =
            Value::from(wanted.checked_next_multiple_of(threads_per_core).unwrap_or(wanted).to_string());
        requests.insert("cpu".to_owned(), cpus.clone());
        limits.insert("cpu".to_owned(), cpus);
    } else {
        let given = |of: fn(&Resources) -> Option<&Quantity>| {
            spec.domain.resources.as_ref().and_then(of).map(ToString::to_string)
        };
        let promised =
            given(|r| r.requests.get("cpu")).unwrap_or_else(|| format!("{}m", vcpus.saturating_mul(100)));
        requests.insert("cpu".to_owned(), promised.into());
        if let Some(limit) = given(|r| r.limits.get("cpu")) {
            limits.insert("cpu".to_owned(), limit.into());
        }
    }
    json!({"requests": requests, "limits": limits})
}

fn map(of: &BTreeMap<String, String>) -> Map<String, Value> {
    of.iter().map(|(key, value)| (key.clone(), value.clone().into())).collect()
}
