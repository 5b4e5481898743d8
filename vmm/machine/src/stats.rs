//! What a machine did so far. All counts are from its start and survive reboots of the guest.

use std::time::Duration;

/// What a machine did so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MachineStats {
    /// By disk.
    pub disks: Vec<DiskStats>,
    /// By network interface.
    pub nets: Vec<NetStats>,
    /// By device passed through.
    pub devices: Vec<DeviceStats>,
    /// By vCPU.
    pub vcpus: Vec<VcpuStats>,
    /// Reboots of the guest.
    pub reboots: u64,
    /// Console bytes that found no room.
    pub console_dropped_bytes: u64,
    /// From the start of arming to the first entry into the guest; zero before.
    pub first_entry: Duration,
}

/// Exits of a vCPU, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VcpuStats {
    /// Port accesses.
    pub port: u64,
    /// MMIO accesses.
    pub mmio: u64,
    /// Kicks and signals.
    pub interrupted: u64,
    /// All others.
    pub other: u64,
}

/// What a disk did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DiskStats {
    /// Its name.
    pub name: String,
    /// Reads.
    pub reads: Operations,
    /// Writes.
    pub writes: Operations,
    /// Flushes; they have no bytes.
    pub flushes: Operations,
    /// Requests that failed.
    pub errors: u64,
    /// What the last failure was.
    pub last_error: Option<String>,
}

/// Operations of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Operations {
    /// How many.
    pub count: u64,
    /// Bytes.
    pub bytes: u64,
    /// Time spent on them.
    pub time: Duration,
}

/// What a network interface did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetStats {
    /// Its name.
    pub name: String,
    /// To the guest.
    pub received: Traffic,
    /// From the guest.
    pub sent: Traffic,
}

/// Traffic in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
    /// Packets dropped.
    pub dropped: u64,
    /// Packets that failed.
    pub errors: u64,
}

/// How a device passed through fares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceStats {
    /// Its name.
    pub name: String,
    /// Its counters.
    pub health: vmm_vfio::HealthReport,
}
