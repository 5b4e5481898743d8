//! [`HostFunction`] over a real VFIO device.
//!
//! The device and its regions come from `vfio-ioctls`. Interrupts, resets and accesses are asked for
//! here, since the library drops the kernel's answers and attaches all vectors at once. Called under the
//! function's lock.

use std::fmt;
use std::fs::File;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;

use vfio_bindings::bindings::vfio;
use vfio_ioctls::{VfioDevice, VfioRegionInfoCap};
use vmm_memory::{DeviceAccess, DeviceMemory};
use vmm_pci::BarIndex;
use vmm_sys_util::eventfd::EventFd;

use crate::host::{Area, HostBar, HostFunction, Notice, Region, VectorKind};

/// `VFIO_DEVICE_SET_IRQS` and `VFIO_DEVICE_RESET`: `_IO(';', 110)` and `_IO(';', 111)`.
const SET_IRQS: libc::c_ulong = 0x3b6e;
const RESET: libc::c_ulong = 0x3b6f;
/// Most vectors of one function.
const MOST_VECTORS: usize = 2048;

/// An opened VFIO device.
pub(crate) struct KernelFunction {
    /// Closed by hand: see [`KernelFunction::drop`].
    device: ManuallyDrop<VfioDevice>,
    /// The same file, for reads and writes that tell whether they worked.
    file: File,
}

impl fmt::Debug for KernelFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KernelFunction").field("file", &self.file).finish_non_exhaustive()
    }
}

impl KernelFunction {
    /// # Errors
    /// When the process is out of descriptors.
    pub(crate) fn new(device: VfioDevice) -> io::Result<Self> {
        // SAFETY: the descriptor is open for as long as `device` lives, that is for this call.
        let borrowed = unsafe { BorrowedFd::borrow_raw(device.as_raw_fd()) };
        let file = File::from(borrowed.try_clone_to_owned()?);
        Ok(Self { device: ManuallyDrop::new(device), file })
    }

    fn set_irqs(&self, flags: u32, index: u32, start: u32, events: Events<'_>) -> io::Result<()> {
        let header = [0, flags | events.flag(), index, start, events.count()];
        let mut words: Vec<i32> = header.iter().map(|w| w.cast_signed()).collect();
        words.extend(events.descriptors());
        let bytes = i32::try_from(words.len() * 4).unwrap_or(0);
        if let Some(argsz) = words.first_mut() {
            *argsz = bytes;
        }
        // SAFETY: the argument is a `vfio_irq_set` of five 32-bit words and as many descriptors as its
        // count says, `argsz` bytes in all; the kernel only reads it.
        answer(unsafe { libc::ioctl(self.file.as_raw_fd(), SET_IRQS, words.as_ptr()) })
    }

    fn place(&self, region: Region, offset: u64, bytes: usize) -> io::Result<u64> {
        let index = match region {
            Region::Bar(bar) => u32::from(bar.get()),
            Region::Config => vfio::VFIO_PCI_CONFIG_REGION_INDEX,
        };
        let inside =
            offset.checked_add(bytes as u64).is_some_and(|end| end <= self.device.get_region_size(index));
        let place = self.device.get_region_offset(index).checked_add(offset);
        place.filter(|_| inside).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}

impl Drop for KernelFunction {
    /// The library's own drop looks the device up in sysfs and panics where it cannot: when the device is
    /// gone, and in a confined thread. Here its file is closed, which is all that the kernel waits for;
    /// the group and the container go with the process, or with the next drop of the domain.
    fn drop(&mut self) {
        // SAFETY: the descriptor is owned by `device`, which is never dropped or used again.
        drop(unsafe { OwnedFd::from_raw_fd(self.device.as_raw_fd()) });
    }
}

/// What vectors are to signal.
enum Events<'a> {
    /// Nothing: all of the index goes down.
    Down,
    /// So many, nothing yet.
    Idle(u32),
    /// One event.
    One(&'a EventFd),
}

impl Events<'_> {
    const fn flag(&self) -> u32 {
        match self {
            Self::Down => vfio::VFIO_IRQ_SET_DATA_NONE,
            Self::Idle(_) | Self::One(_) => vfio::VFIO_IRQ_SET_DATA_EVENTFD,
        }
    }

    const fn count(&self) -> u32 {
        match self {
            Self::Down => 0,
            Self::Idle(count) => *count,
            Self::One(_) => 1,
        }
    }

    /// Minus one stands for no event.
    fn descriptors(&self) -> Vec<i32> {
        match self {
            Self::Down => Vec::new(),
            Self::Idle(count) => vec![-1; usize::try_from(*count).unwrap_or(0).min(MOST_VECTORS)],
            Self::One(event) => vec![event.as_raw_fd()],
        }
    }
}

/// Above zero the kernel says how many vectors it could have set up, and has set up none.
fn answer(result: libc::c_int) -> io::Result<()> {
    match result {
        0 => Ok(()),
        1.. => Err(io::Error::other(format!("the host has only {result} vectors left for it"))),
        _ => Err(io::Error::last_os_error()),
    }
}

fn index(kind: VectorKind) -> u32 {
    match kind {
        VectorKind::Msi => vfio::VFIO_PCI_MSI_IRQ_INDEX,
        VectorKind::Msix => vfio::VFIO_PCI_MSIX_IRQ_INDEX,
    }
}

impl HostFunction for KernelFunction {
    fn bars(&self) -> [HostBar; 6] {
        std::array::from_fn(|number| {
            let index = u32::try_from(number).unwrap_or(0);
            let (flags, caps) = (self.device.get_region_flags(index), self.device.get_region_caps(index));
            let sparse = caps.iter().find_map(|cap| match cap {
                VfioRegionInfoCap::SparseMmap(map) => {
                    Some(map.areas.iter().map(|a| Area { offset: a.offset, bytes: a.size }).collect())
                }
                _ => None,
            });
            HostBar {
                bytes: self.device.get_region_size(index),
                mappable: flags & vfio::VFIO_REGION_INFO_FLAG_MMAP != 0,
                writable: flags & vfio::VFIO_REGION_INFO_FLAG_WRITE != 0,
                sparse,
                msix_mappable: caps.contains(&VfioRegionInfoCap::MsixMappable),
            }
        })
    }

    fn config_bytes(&self) -> u64 {
        self.device.get_region_size(vfio::VFIO_PCI_CONFIG_REGION_INDEX)
    }

    fn read(&self, region: Region, offset: u64, data: &mut [u8]) -> io::Result<()> {
        let at = self.place(region, offset, data.len())?;
        self.file.read_exact_at(data, at)
    }

    fn write(&self, region: Region, offset: u64, data: &[u8]) -> io::Result<()> {
        let at = self.place(region, offset, data.len())?;
        self.file.write_all_at(data, at)
    }

    fn map(&self, bar: BarIndex, area: Area) -> io::Result<DeviceMemory> {
        let index = u32::from(bar.get());
        let writable = self.device.get_region_flags(index) & vfio::VFIO_REGION_INFO_FLAG_WRITE != 0;
        let access = if writable { DeviceAccess::ReadWrite } else { DeviceAccess::ReadOnly };
        let at = self.device.get_region_offset(index).saturating_add(area.offset);
        DeviceMemory::map(self.file.as_fd(), at, area.bytes, access)
    }

    fn vectors(&self, kind: VectorKind) -> u32 {
        self.device.get_irq_info(index(kind)).map_or(0, |irq| irq.count)
    }

    fn arm(&self, kind: VectorKind, count: u32) -> io::Result<()> {
        self.set_irqs(vfio::VFIO_IRQ_SET_ACTION_TRIGGER, index(kind), 0, Events::Idle(count))
    }

    fn attach(&self, kind: VectorKind, vector: u32, event: &EventFd) -> io::Result<()> {
        self.set_irqs(vfio::VFIO_IRQ_SET_ACTION_TRIGGER, index(kind), vector, Events::One(event))
    }

    fn disarm(&self, kind: VectorKind) -> io::Result<()> {
        self.set_irqs(vfio::VFIO_IRQ_SET_ACTION_TRIGGER, index(kind), 0, Events::Down)
    }

    fn watch(&self, notice: Notice, event: &EventFd) -> io::Result<()> {
        let index = match notice {
            Notice::Request => vfio::VFIO_PCI_REQ_IRQ_INDEX,
            Notice::Error => vfio::VFIO_PCI_ERR_IRQ_INDEX,
        };
        if self.device.get_irq_info(index).is_none_or(|irq| irq.count == 0) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        self.set_irqs(vfio::VFIO_IRQ_SET_ACTION_TRIGGER, index, 0, Events::One(event))
    }

    fn can_reset(&self) -> bool {
        // The library keeps this flag to itself.
        let mut info = [u32::try_from(size_of::<vfio::vfio_device_info>()).unwrap_or(0), 0, 0, 0, 0, 0];
        // SAFETY: the argument is a `vfio_device_info`: six 32-bit words, the first of which says so.
        let result = unsafe { libc::ioctl(self.file.as_raw_fd(), GET_INFO, info.as_mut_ptr()) };
        result == 0 && info.get(1).is_some_and(|flags| flags & vfio::VFIO_DEVICE_FLAGS_RESET != 0)
    }

    fn reset(&self) -> io::Result<()> {
        // SAFETY: this request takes no argument.
        answer(unsafe { libc::ioctl(self.file.as_raw_fd(), RESET) })
    }
}

/// `VFIO_DEVICE_GET_INFO`: `_IO(';', 107)`.
const GET_INFO: libc::c_ulong = 0x3b6b;
