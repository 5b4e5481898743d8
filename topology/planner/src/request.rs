//! What a VM needs, already defaulted.

use pinion_machine::{Bdf, CpuSet, NodeId, PageSize};
use serde::{Deserialize, Serialize};

/// What a VM needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    /// `namespace/name` of the VM.
    pub name: String,
    /// Its vCPUs.
    pub cpu: CpuRequest,
    /// Its memory.
    pub memory: MemoryRequest,
    /// Whether the guest sees NUMA cells.
    pub numa: NumaPolicy,
    /// Its I/O threads.
    pub io_threads: Vec<IoThreadRequest>,
    /// Its passed-through devices.
    pub devices: Vec<DeviceRequest>,
    /// What it must stay within; the whole machine where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within: Option<Within>,
}

/// What somebody else has given the guest of the machine, as the kubelet gives a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Within {
    /// CPUs for vCPUs, and for I/O threads with one of their own. Shared vCPUs float over the housekeeping CPUs among
    /// them.
    pub cpus: CpuSet,
    /// Nodes that its memory may come from.
    pub memory: Vec<NodeId>,
}

/// vCPUs: how many, in what shape, on what kind of CPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CpuRequest {
    /// Shape the guest sees.
    pub topology: GuestTopology,
    /// Dedicated or shared.
    pub policy: CpuPolicy,
    /// vCPUs that run in a real-time class, by index; empty for none.
    pub realtime: Vec<u32>,
}

/// Sockets × cores × threads, each at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GuestTopology {
    /// Sockets.
    pub sockets: u32,
    /// Cores per socket.
    pub cores: u32,
    /// Threads per core.
    pub threads: u32,
}

/// What kind of CPU a vCPU gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum CpuPolicy {
    /// One CPU each, shared with nobody (`dedicatedCpuPlacement`).
    Dedicated,
    /// All vCPUs float over the CPUs of one node that nobody has to himself.
    Shared,
}

/// Memory of the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MemoryRequest {
    /// Bytes; a multiple of the page size.
    pub bytes: u64,
    /// Pages that back it.
    pub page_size: PageSize,
}

/// Whether the guest sees NUMA cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum NumaPolicy {
    /// One guest cell per host node used (`numa.guestMappingPassthrough`).
    Passthrough,
    /// One cell where the guest fits on one node; cells as with passthrough where it does not.
    Auto,
}

/// An I/O thread: a thread that serves disk queues and nothing else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IoThreadRequest {
    /// Its number, from 1.
    pub id: u32,
    /// What kind of CPU it gets.
    pub place: IoThreadPlace,
    /// The disks it serves, by name.
    pub disks: Vec<String>,
}

/// What kind of CPU an I/O thread gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum IoThreadPlace {
    /// Floats over the host's shared I/O CPUs (policies `shared`, `auto`, `dedicatedIOThread`).
    SharedIo,
    /// A CPU of its own, near the guest (policy `supplementalPool`).
    Dedicated,
}

/// A device to pass through.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeviceRequest {
    /// Name in the spec (`gpus[].name`, `hostDevices[].name`).
    pub name: String,
    /// Functions any one of which satisfies it, as resolved from `deviceName`.
    pub candidates: Vec<Bdf>,
}
