//! Devices of the host that the guest gets: opened while arming, each behind the host bridge of its cell.
//!
//! Called by [`crate::arm`] on the main thread. What the host tells of them later comes in on the
//! emulator's thread.

use std::fs::File;
use std::sync::{Arc, Mutex, PoisonError};

use nix::sys::eventfd::EventFd as EndFd;
use vmm_acpi::HostBridge;
use vmm_bus::Gpa;
use vmm_event_loop::{Control, Event, EventLoopHandle, Interest, Subscriber, SubscriberId, Watch};
use vmm_kvm::KvmVm;
use vmm_memory::GuestRam;
use vmm_memory::layout::Stretch;
use vmm_pci::{BarKind, Bdf, PciDevice, PciSegment, RootBusConfig};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};
use vmm_vfio::{Domain, Health, Machine, Notice, Opened, Sources, VfioFunction};

use crate::config::DeviceConfig;
use crate::error::ArmError;

/// Windows of host bridges are multiples of this.
const WINDOW: u64 = 1 << 20;

type Function = Arc<Mutex<VfioFunction>>;

/// A device that is open and not on a bus yet.
#[derive(Debug)]
struct Device {
    cell: u32,
    function: Function,
    health: Arc<Health>,
    asked_back: EventFd,
    failed: EventFd,
}

/// The devices of a machine, and what keeps their memory reachable.
pub(crate) struct Passthrough {
    devices: Vec<Device>,
    pub(crate) domain: Domain,
}

/// A device's name and its counters.
pub(crate) type Named = (String, Arc<Health>);

impl Passthrough {
    /// Opens them all and maps the guest's memory for them.
    ///
    /// # Errors
    /// [`ArmError`]; none is open then.
    pub(crate) fn open(
        configs: Vec<DeviceConfig>,
        iommu: Option<File>,
        vm: &KvmVm,
        ram: &Arc<GuestRam>,
        news: &Arc<EndFd>,
    ) -> Result<Self, ArmError> {
        let cells: Vec<u32> = configs.iter().map(|c| c.cell).collect();
        let devices = configs.into_iter().map(|c| (c.name, c.source)).collect();
        let (domain, opened) = Domain::open(vm.vfio()?, Sources { devices, iommu }, Arc::clone(ram))?;
        let machine = Machine { router: vm.router(), slots: vm.slots() };
        let device = |(opened, cell)| Device::new(opened, cell, &machine, news);
        let devices = opened.into_iter().zip(cells).map(device).collect::<Result<_, _>>()?;
        Ok(Self { devices, domain })
    }

    /// What each device needs of the windows.
    pub(crate) fn needs(&self) -> Vec<Need> {
        let need = |device: &Device| {
            let function = lock(&device.function);
            let bars = function.config().bars();
            let sizes = |wide: bool| {
                bars.iter().filter(|b| (b.kind != BarKind::Memory32) == wide).map(|b| b.size).collect()
            };
            Need { cell: device.cell, bars32: sizes(false), bars64: sizes(true) }
        };
        self.devices.iter().map(need).collect()
    }

    /// Puts each on its bus and listens to what the host tells of it.
    pub(crate) fn plug(
        self,
        pci: &Arc<PciSegment>,
        bridges: &[Bridge],
        on: &EventLoopHandle,
    ) -> Result<(Domain, Vec<Named>, Vec<SubscriberId>), ArmError> {
        let (mut named, mut subscribers) = (Vec::new(), Vec::new());
        for device in self.devices {
            let name = lock(&device.function).name().to_owned();
            let bus = bridges.iter().find(|b| b.cell == Some(device.cell)).map_or(0, |b| b.bus);
            let wrong = |source| ArmError::Pci { device: format!("the device {name}"), source };
            let at = pci.add(bus, device.function.clone()).map_err(wrong)?;
            let interests = [
                Interest::new(&device.asked_back, ASKED_BACK, Watch::Readable),
                Interest::new(&device.failed, FAILED, Watch::Readable),
            ];
            named.push((name, Arc::clone(&device.health)));
            let watcher = Watcher { device, pci: Arc::clone(pci), at };
            subscribers.push(on.add(Box::new(watcher), &interests)?);
        }
        Ok((self.domain, named, subscribers))
    }
}

fn lock(function: &Function) -> std::sync::MutexGuard<'_, VfioFunction> {
    function.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Device {
    fn new(opened: Opened, cell: u32, machine: &Machine, news: &Arc<EndFd>) -> Result<Self, ArmError> {
        let event = || EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).map_err(ArmError::Event);
        let (asked_back, failed) = (event()?, event()?);
        // Not every kernel and device has these notices.
        let _ = opened.host.watch(Notice::Request, &asked_back);
        let _ = opened.host.watch(Notice::Error, &failed);
        let news = Arc::clone(news);
        // Full: it is signalled already.
        let health = Arc::new(Health::new(move || {
            let _ = news.write(1);
        }));
        let function = VfioFunction::new(&opened.name, opened.host, machine, Arc::clone(&health))?;
        Ok(Self { cell, function: Arc::new(Mutex::new(function)), health, asked_back, failed })
    }
}

const ASKED_BACK: u32 = 0;
const FAILED: u32 = 1;

/// Hears what the host says of a device.
#[derive(Debug)]
struct Watcher {
    device: Device,
    pci: Arc<PciSegment>,
    at: Bdf,
}

impl Subscriber for Watcher {
    fn ready(&mut self, event: Event, _control: &mut Control<'_>) {
        if event.token == FAILED {
            let _ = self.device.failed.read();
            self.device.health.reported_error(lock(&self.device.function).name());
            return;
        }
        let _ = self.device.asked_back.read();
        self.pci.unplug(self.at);
        lock(&self.device.function).give_up();
    }
}

/// BARs of one device, by size.
pub(crate) struct Need {
    pub(crate) cell: u32,
    pub(crate) bars32: Vec<u64>,
    pub(crate) bars64: Vec<u64>,
}

/// A host bridge with one root bus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bridge {
    pub(crate) bus: u8,
    /// The cell it belongs to; `None` for the first, which has the emulated devices.
    pub(crate) cell: Option<u32>,
    pub(crate) window32: Option<Stretch>,
    pub(crate) window64: Option<Stretch>,
}

impl Bridge {
    pub(crate) fn root_bus(&self) -> RootBusConfig {
        let range = |s: Option<Stretch>| s.map_or(0..0, |s| s.start.0..s.start.0 + s.len);
        RootBusConfig { number: self.bus, memory_32: range(self.window32), memory_64: range(self.window64) }
    }

    pub(crate) fn acpi(&self) -> HostBridge {
        HostBridge {
            first_bus: self.bus,
            last_bus: self.bus,
            window32: self.window32,
            window64: self.window64,
            cell: self.cell,
        }
    }
}

/// The host bridges: one for each cell that has devices, with windows that hold their BARs, and the
/// first with what is left. A guest of one cell has only the first.
///
/// # Errors
/// When the windows are too small: the guest's physical addresses are too few for its devices.
pub(crate) fn bridges(
    needs: &[Need],
    cells: usize,
    window32: Stretch,
    window64: Option<Stretch>,
) -> Result<Vec<Bridge>, ArmError> {
    let mut first = Bridge { bus: 0, cell: None, window32: Some(window32), window64 };
    let mut others = Vec::new();
    let mut owners: Vec<u32> = if cells > 1 { needs.iter().map(|n| n.cell).collect() } else { Vec::new() };
    owners.sort_unstable();
    owners.dedup();
    for cell in owners {
        let mine = || needs.iter().filter(|n| n.cell == cell);
        let bus = u8::try_from(cell + 1).map_err(|_| ArmError::Windows)?;
        let (mut bars32, mut bars64): (Vec<u64>, Vec<u64>) = (
            mine().flat_map(|n| n.bars32.clone()).collect(),
            mine().flat_map(|n| n.bars64.clone()).collect(),
        );
        if first.window64.is_none() {
            bars32.append(&mut bars64);
        }
        let window32 = take(&mut first.window32, &bars32)?;
        let window64 = take(&mut first.window64, &bars64)?;
        others.push(Bridge { bus, cell: Some(cell), window32, window64 });
    }
    others.insert(0, first);
    Ok(others)
}

/// Cuts a window for BARs of these sizes off the end of another.
fn take(from: &mut Option<Stretch>, bars: &[u64]) -> Result<Option<Stretch>, ArmError> {
    let Some(largest) = bars.iter().max().map(|b| (*b).max(WINDOW)) else { return Ok(None) };
    let sum = bars.iter().try_fold(0u64, |sum, b| sum.checked_add(*b)).ok_or(ArmError::Windows)?;
    let window = from.as_mut().ok_or(ArmError::Windows)?;
    let len = sum.checked_next_multiple_of(WINDOW).ok_or(ArmError::Windows)?;
    let end = window.start.0 + window.len;
    let start = end.checked_sub(len).map(|start| start / largest * largest).ok_or(ArmError::Windows)?;
    if start <= window.start.0 {
        return Err(ArmError::Windows);
    }
    window.len = start - window.start.0;
    Ok(Some(Stretch { start: Gpa(start), len }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn need(cell: u32, bars32: &[u64], bars64: &[u64]) -> Need {
        Need { cell, bars32: bars32.to_vec(), bars64: bars64.to_vec() }
    }

    fn stretch(start: u64, len: u64) -> Stretch {
        Stretch { start: Gpa(start), len }
    }

    const LOW: Stretch = Stretch { start: Gpa(0xc000_0000), len: 0x2800_0000 };
    const HIGH: Stretch = Stretch { start: Gpa(1 << 32), len: (1 << 40) - (1 << 32) - 0x1_0000 };

    #[test]
    fn a_guest_of_one_cell_has_one_bridge() {
        let all = bridges(&[need(0, &[1 << 24], &[1 << 34])], 1, LOW, Some(HIGH)).unwrap();
        assert_eq!(all, [Bridge { bus: 0, cell: None, window32: Some(LOW), window64: Some(HIGH) }]);
    }

    #[test]
    fn each_cell_with_devices_has_a_bridge_whose_windows_hold_their_bars() {
        let needs = [need(1, &[1 << 24], &[1 << 37, 1 << 14]), need(1, &[], &[1 << 14])];
        let all = bridges(&needs, 3, LOW, Some(HIGH)).unwrap();
        assert_eq!(all.len(), 2);
        assert_eq!((all[1].bus, all[1].cell), (2, Some(1)));
        assert_eq!(all[1].window32, Some(stretch(0xe700_0000, 1 << 24)));
        let high = all[1].window64.unwrap();
        assert_eq!((high.start.0 % (1 << 37), high.len), (0, (1 << 37) + WINDOW));
        let first = all[0].window64.unwrap();
        assert_eq!(first.start.0 + first.len, high.start.0, "nothing overlaps");
    }

    #[test]
    fn bars_that_fit_nowhere_are_refused() {
        assert!(bridges(&[need(0, &[], &[1 << 41])], 2, LOW, Some(HIGH)).is_err());
        assert!(bridges(&[need(0, &[1 << 30], &[])], 2, LOW, Some(HIGH)).is_err());
        let folded = bridges(&[need(0, &[], &[1 << 20])], 2, LOW, None).unwrap();
        assert_eq!(folded[1].window32.map(|w| w.len), Some(1 << 20));
    }
}
