//! What machine to build: exact CPUs, nodes and descriptors.

use std::error::Error;
use std::fmt::Debug;
use std::fs::File;
use std::os::fd::OwnedFd;

use vmm_block::SharedDisk;

/// A machine.
#[derive(Debug)]
pub struct MachineConfig {
    /// Sockets the guest sees.
    pub sockets: u32,
    /// Cores per socket.
    pub cores: u32,
    /// Threads per core.
    pub threads: u32,
    /// vCPUs, in the order of their index.
    pub vcpus: Vec<VcpuConfig>,
    /// NUMA cells, in the order of their number; at least one.
    pub cells: Vec<CellConfig>,
    /// What boots.
    pub kernel: Kernel,
    /// Disks, in the order the guest finds them.
    pub disks: Vec<DiskConfig>,
    /// Network interfaces, in the order the guest finds them.
    pub nets: Vec<NetConfig>,
    /// Devices of the host that the guest gets.
    pub devices: Vec<DeviceConfig>,
    /// `/dev/iommu`, where devices come as open files.
    pub iommu: Option<File>,
    /// Whether the guest gets a source of random bytes.
    pub rng: Rng,
    /// The serial console.
    pub console: ConsoleConfig,
    /// I/O threads.
    pub io_threads: Vec<IoThreadConfig>,
    /// CPUs of the emulator thread.
    pub emulator_cpus: Vec<u32>,
    /// What the guest is told of its vCPUs.
    pub hints: Hints,
}

/// What boots, at the start and at every reboot.
#[derive(Debug)]
pub enum Kernel {
    /// The same files each time.
    Files(KernelFiles),
    /// Read each time, from a disk of the guest.
    Read(Box<dyn ReadKernel>),
}

/// A kernel, and what it is started with.
#[derive(Debug)]
pub struct KernelFiles {
    /// A bzImage, or an ELF image with a PVH entry.
    pub kernel: File,
    /// Initial RAM disk.
    pub initrd: Option<File>,
    /// Kernel command line.
    pub command_line: String,
}

/// Reads what boots from the guest's own disk.
pub trait ReadKernel: Send + Debug {
    /// Reads it. Called while arming, and then at each reboot by the emulator's thread, which may start no
    /// process and open no file; no vCPU runs, and no device has work meanwhile.
    ///
    /// # Errors
    /// Why the disk does not boot.
    fn read(&mut self) -> Result<KernelFiles, Box<dyn Error + Send + Sync>>;
}

/// A vCPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VcpuConfig {
    /// Guest socket.
    pub socket: u32,
    /// Guest core in the socket.
    pub core: u32,
    /// Guest thread in the core.
    pub thread: u32,
    /// Guest cell.
    pub cell: u32,
    /// Host CPUs its thread may run on.
    pub cpus: Vec<u32>,
    /// Priority in the `SCHED_FIFO` class; `None` for the ordinary class. Memory is locked as
    /// soon as one vCPU has a priority.
    pub fifo: Option<i32>,
}

/// A NUMA cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CellConfig {
    /// Memory, bytes.
    pub memory_bytes: u64,
    /// Page size, bytes.
    pub page_size: u64,
    /// Host node of the memory; `None` leaves it to the kernel.
    pub host_node: Option<u32>,
    /// Distances to cells 0, 1, ….
    pub distances: Vec<u32>,
}

/// A disk.
#[derive(Debug)]
pub struct DiskConfig {
    /// Name, for messages and counters.
    pub name: String,
    /// The image, open.
    pub image: SharedDisk,
    /// Serial number that the guest sees; at most 20 bytes.
    pub serial: String,
    /// Index into [`MachineConfig::io_threads`]; `None` is the emulator thread.
    pub io_thread: Option<usize>,
}

/// A network interface.
#[derive(Debug)]
pub struct NetConfig {
    /// Name, for messages and counters.
    pub name: String,
    /// A tap device with virtio headers, not blocking.
    pub tap: OwnedFd,
    /// The guest's hardware address.
    pub mac: [u8; 6],
}

/// A device of the host that the guest gets.
#[derive(Debug)]
pub struct DeviceConfig {
    /// Its address on the host, for messages and counters.
    pub name: String,
    /// Where it comes from.
    pub source: vmm_vfio::Source,
    /// The guest's cell that it belongs to.
    pub cell: u32,
}

/// Whether the guest gets a source of random bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rng {
    /// It does.
    Present,
    /// It does not.
    Absent,
}

/// The serial console's other end.
#[derive(Debug, Default)]
pub struct ConsoleConfig {
    /// Where output goes; nowhere if absent.
    pub output: Option<OwnedFd>,
    /// Where input comes from.
    pub input: Option<OwnedFd>,
}

/// An I/O thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IoThreadConfig {
    /// Its number in the plan.
    pub id: u32,
    /// Host CPUs it may run on.
    pub cpus: Vec<u32>,
}

/// What the guest is told of its vCPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hints {
    /// They share their CPUs.
    None,
    /// Each has its CPU to itself.
    Dedicated,
}
