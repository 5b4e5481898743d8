//! The kernel's side of a passed-through function, as a narrow trait: what [`crate::VfioFunction`]
//! asks of VFIO and nothing else, so that everything above runs against a made-up device in tests.

use std::fmt;
use std::io;

use vmm_memory::DeviceMemory;
use vmm_pci::BarIndex;
use vmm_sys_util::eventfd::EventFd;

/// A part of the function that can be read and written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Region {
    /// What a BAR decodes.
    Bar(BarIndex),
    /// Config space.
    Config,
}

/// A stretch of a BAR, in bytes from its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Area {
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub bytes: u64,
}

impl Area {
    /// First byte after it.
    #[must_use]
    pub const fn end(self) -> u64 {
        self.offset.saturating_add(self.bytes)
    }

    /// Whether a byte lies in it.
    #[must_use]
    pub const fn contains(self, offset: u64) -> bool {
        offset >= self.offset && offset < self.end()
    }
}

/// What the kernel says of a BAR (`VFIO_DEVICE_GET_REGION_INFO`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostBar {
    /// Bytes; 0 where there is none.
    pub bytes: u64,
    /// Whether any of it can be mapped.
    pub mappable: bool,
    /// Whether it can be written.
    pub writable: bool,
    /// The only stretches that can be mapped, where the kernel says so.
    pub sparse: Option<Vec<Area>>,
    /// Whether pages that hold the MSI-X table can be mapped together with it.
    pub msix_mappable: bool,
}

/// Kinds of message-signalled interrupts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VectorKind {
    /// MSI.
    Msi,
    /// MSI-X.
    Msix,
}

/// What the kernel tells of a device in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Somebody on the host wants the device back.
    Request,
    /// The device reported an error that its bus could not correct.
    Error,
}

/// A function of the host, opened. All calls are made under its lock.
pub trait HostFunction: Send + fmt::Debug {
    /// The six BARs.
    fn bars(&self) -> [HostBar; 6];

    /// Bytes of config space: 256, or 4096 for PCI Express.
    fn config_bytes(&self) -> u64;

    /// Reads from the device.
    ///
    /// # Errors
    /// When the device does not answer, or the range does not exist.
    fn read(&self, region: Region, offset: u64, data: &mut [u8]) -> io::Result<()>;

    /// Writes to the device.
    ///
    /// # Errors
    /// When the device does not answer, or the range does not exist.
    fn write(&self, region: Region, offset: u64, data: &[u8]) -> io::Result<()>;

    /// Maps a stretch of a BAR into this process.
    ///
    /// # Errors
    /// When the kernel refuses.
    fn map(&self, bar: BarIndex, area: Area) -> io::Result<DeviceMemory>;

    /// How many vectors of a kind there are.
    fn vectors(&self, kind: VectorKind) -> u32;

    /// Has the host set up `count` vectors; none of them signals anything yet.
    ///
    /// # Errors
    /// When the host has fewer vectors left.
    fn arm(&self, kind: VectorKind, count: u32) -> io::Result<()>;

    /// Has a vector signal an event from now on.
    ///
    /// # Errors
    /// When the kernel refuses.
    fn attach(&self, kind: VectorKind, vector: u32, event: &EventFd) -> io::Result<()>;

    /// Takes all vectors of a kind down.
    ///
    /// # Errors
    /// When the kernel refuses.
    fn disarm(&self, kind: VectorKind) -> io::Result<()>;

    /// Has the kernel signal an event when it has something to tell.
    ///
    /// # Errors
    /// When this kernel or device has no such notice.
    fn watch(&self, notice: Notice, event: &EventFd) -> io::Result<()>;

    /// Whether the kernel can reset it by itself.
    fn can_reset(&self) -> bool;

    /// Resets it: no memory of the last guest stays in its registers, no DMA goes on.
    ///
    /// # Errors
    /// When it was not reset.
    fn reset(&self) -> io::Result<()>;
}
