//! A passed-through function as the guest sees it.
//!
//! Owned by the PCI bus; called on vCPU threads under its lock, and on the emulator's thread for resets
//! and when the host's device is lost. BARs go to the guest as memory slots wherever the kernel allows,
//! so that only the MSI-X table and what cannot be mapped cause exits.

use std::io;
use std::sync::Arc;

use vmm_bus::{AttachError, Gpa, MsiRouter};
use vmm_memory::{DeviceMemory, MemorySlots, SlotId};
use vmm_pci::{BarIndex, BarKind, ClassCode, ConfigSpace, DeviceIds, PciDevice, RegisterOffset};

use crate::areas;
use crate::capabilities::{Capabilities, dword};
use crate::error::PassthroughError;
use crate::health::Health;
use crate::host::{Area, HostFunction, Region};
use crate::msi::Msi;
use crate::msix::Msix;

const COMMAND: u16 = 0x04;
const COMMAND_MEMORY: u8 = 0x02;
const HEADER: u16 = 0x0c;
const MULTIFUNCTION: u32 = 1 << 23;
const ROM: u16 = 0x30;
const INTERRUPT: u16 = 0x3c;
const PIN: u32 = 0xff00;

/// A BAR and the parts of it that the guest gets as memory.
#[derive(Debug)]
struct Window {
    index: BarIndex,
    memory: Vec<(u64, Arc<DeviceMemory>)>,
    slots: Vec<SlotId>,
}

/// A function of the host, given to the guest.
#[derive(Debug)]
pub struct VfioFunction {
    name: String,
    /// `None` once the device is lost.
    host: Option<Box<dyn HostFunction>>,
    config: ConfigSpace,
    capabilities: Capabilities,
    windows: Vec<Window>,
    msix: Option<Msix>,
    msi: Option<Msi>,
    slots: Arc<dyn MemorySlots>,
    health: Arc<Health>,
}

/// What a function needs of the machine.
#[derive(Clone, Debug)]
pub struct Machine {
    /// MSI routes.
    pub router: Arc<dyn MsiRouter>,
    /// Memory slots.
    pub slots: Arc<dyn MemorySlots>,
}

impl VfioFunction {
    /// Makes an opened and reset host function into a device of the guest.
    ///
    /// # Errors
    /// [`PassthroughError`]; the function is closed then.
    pub fn new(
        name: &str,
        host: Box<dyn HostFunction>,
        machine: &Machine,
        health: Arc<Health>,
    ) -> Result<Self, PassthroughError> {
        let failed = |action| PassthroughError::device(name, action);
        let capabilities = Capabilities::read(host.as_ref()).map_err(failed("read the config space"))?;
        let (config, windows) = layout(name, host.as_ref(), &capabilities)?;
        let msix = capabilities.msix.map(|place| Msix::new(place, Arc::clone(&machine.router)));
        let msix = msix.transpose().map_err(failed("make events for the vectors"))?;
        let msi = capabilities.msi.map(|place| {
            let most = host.vectors(crate::host::VectorKind::Msi);
            Msi::new(place, Arc::clone(&machine.router), most)
        });
        host.write(Region::Config, COMMAND.into(), &[COMMAND_MEMORY, 0]).map_err(failed("turn on"))?;
        let (name, slots) = (name.to_owned(), Arc::clone(&machine.slots));
        Ok(Self { name, host: Some(host), config, capabilities, windows, msix, msi, slots, health })
    }

    /// Its name on the host, for people.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The host wants the device back, or it is gone: lets go of it. The guest reads ones from now on. BARs
    /// are unmapped before.
    pub fn give_up(&mut self) {
        self.quieten();
        for window in &mut self.windows {
            window.memory.clear();
        }
        self.host = None;
        self.health.is_lost();
    }

    /// Takes all interrupts down.
    fn quieten(&mut self) {
        let host = self.host.as_deref();
        let msix = self.msix.as_mut().map_or(Ok(()), |msix| msix.reset(host));
        let msi = self.msi.as_mut().map_or(Ok(()), |msi| msi.close(host));
        for outcome in [msix, msi] {
            self.note("take its interrupts down", outcome);
        }
        self.health.vectors_are(0);
    }

    fn note<T: Default>(&self, action: &str, outcome: io::Result<T>) -> T {
        outcome.unwrap_or_else(|e| {
            self.health.fault(format!("{}: cannot {action}: {e}", self.name));
            T::default()
        })
    }

    fn count_vectors(&self) {
        let live = self.msix.as_ref().map_or(0, Msix::live) + self.msi.as_ref().map_or(0, Msi::live);
        self.health.vectors_are(live);
    }

    /// One register, as the guest is to see it.
    fn register(&self, at: u16) -> u32 {
        let Some(host) = self.host.as_deref() else { return u32::MAX };
        if u64::from(at) + 4 > host.config_bytes() {
            return u32::MAX;
        }
        if (0x10..0x28).contains(&at) || at == ROM {
            return self.shadow(at);
        }
        let value = match dword(host, at.into()) {
            Ok(value) => value,
            Err(e) => return self.note("read its config space", Err(e)),
        };
        if self.capabilities.hidden.contains_key(&at) {
            // The null capability: Linux goes on to the next.
            return value & 0xfff0_0000;
        }
        match at {
            COMMAND => value & !u32::from(COMMAND_MEMORY) | self.shadow(COMMAND) & u32::from(COMMAND_MEMORY),
            HEADER => value & !MULTIFUNCTION,
            INTERRUPT => value & !PIN,
            _ => match &self.msix {
                Some(msix) if msix.control_at() == at + 2 => {
                    let [a, b, c, d] = value.to_le_bytes();
                    let control = msix.control(u16::from_le_bytes([c, d])).to_le_bytes();
                    u32::from_le_bytes([a, b, control[0], control[1]])
                }
                _ => value,
            },
        }
    }

    fn shadow(&self, at: u16) -> u32 {
        let mut bytes = [0; 4];
        self.config.read(RegisterOffset(at), &mut bytes);
        u32::from_le_bytes(bytes)
    }

    /// The device always decodes memory: BARs that the guest turned off are not mapped, and accesses that
    /// were on their way do not end in a bus error of this process.
    fn write_command(&self, host: &dyn HostFunction, offset: u16, data: &[u8]) -> io::Result<()> {
        let mut bytes = [0; 4];
        let Some(bytes) = bytes.get_mut(..data.len()) else { return Ok(()) };
        bytes.copy_from_slice(data);
        if let (COMMAND, Some(first)) = (offset, bytes.first_mut()) {
            *first |= COMMAND_MEMORY;
        }
        host.write(Region::Config, offset.into(), bytes)
    }

    fn write_msix_control(&mut self, offset: u16, data: &[u8]) -> Option<io::Result<bool>> {
        let (msix, host) = (self.msix.as_mut()?, self.host.as_deref()?);
        let at = msix.control_at();
        if offset & !3 != at & !3 {
            return None;
        }
        // The low half of this register is read-only, and so is the control word's low byte.
        let high = usize::from((at + 1).checked_sub(offset)?);
        let high = *data.get(high)?;
        Some(msix.write_control(host, u16::from_le_bytes([0, high])))
    }
}

impl PciDevice for VfioFunction {
    fn config(&self) -> &ConfigSpace {
        &self.config
    }

    fn config_mut(&mut self) -> &mut ConfigSpace {
        &mut self.config
    }

    fn config_read(&mut self, offset: RegisterOffset, data: &mut [u8]) {
        let register = self.register(offset.dword()).to_le_bytes();
        let start = usize::from(offset.0 & 3);
        match register.get(start..start.saturating_add(data.len())) {
            Some(bytes) => data.copy_from_slice(bytes),
            None => data.fill(0xff),
        }
    }

    fn config_write(&mut self, offset: RegisterOffset, data: &[u8]) {
        let at = offset.dword();
        if (0x10..0x28).contains(&at) || at == COMMAND {
            self.config.write(offset, data);
        }
        let Some(host) = self.host.as_deref() else { return };
        if (0x10..0x28).contains(&at) || at == ROM || u64::from(at) + 4 > host.config_bytes() {
            return;
        }
        let outcome = if at == COMMAND {
            self.write_command(host, offset.0, data).map(|()| false)
        } else if self.capabilities.hidden_at(offset.0).is_some() {
            Ok(false)
        } else if let (Some(msi), true) =
            (self.msi.as_mut(), self.capabilities.msi.is_some_and(|m| at >= m.at && at < m.at + 16))
            && msi.contains(offset.0)
        {
            msi.write(host, offset.0, data)
        } else if self.msix.as_ref().is_some_and(|m| m.control_at() & !3 == at) {
            self.write_msix_control(offset.0, data).unwrap_or(Ok(false))
        } else {
            host.write(Region::Config, offset.0.into(), data).map(|()| false)
        };
        let failed = outcome.is_err();
        if self.note("write its config space", outcome) || failed {
            self.count_vectors();
        }
    }

    fn bar_read(&mut self, bar: BarIndex, offset: u64, data: &mut [u8]) {
        if let Some((msix, part)) = self.msix.as_ref().and_then(|m| Some((m, m.part(bar, offset)?))) {
            msix.read(part, data);
            return;
        }
        data.fill(0xff);
        if let Some(host) = &self.host {
            let outcome = host.read(Region::Bar(bar), offset, data);
            self.note("read a BAR", outcome);
        }
    }

    fn bar_write(&mut self, bar: BarIndex, offset: u64, data: &[u8]) {
        let Some(host) = self.host.as_deref() else { return };
        let outcome = match self.msix.as_mut().and_then(|m| Some((m.part(bar, offset)?, m))) {
            Some((part, msix)) => msix.write(host, part, data),
            None => host.write(Region::Bar(bar), offset, data).map(|()| false),
        };
        if self.note("write a BAR", outcome) {
            self.count_vectors();
        }
    }

    fn bar_mapped(&mut self, bar: BarIndex, at: Gpa) -> Result<(), AttachError> {
        let Some(window) = self.windows.iter_mut().find(|w| w.index == bar) else { return Ok(()) };
        for (offset, memory) in &window.memory {
            match self.slots.add(Gpa(at.0.saturating_add(*offset)), Arc::clone(memory)) {
                Ok(slot) => window.slots.push(slot),
                Err(e) => {
                    for slot in window.slots.drain(..) {
                        let _ = self.slots.remove(slot);
                    }
                    return Err(e);
                }
            }
        }
        Ok(())
    }

    fn bar_unmapped(&mut self, bar: BarIndex, _at: Gpa) {
        let Some(window) = self.windows.iter_mut().find(|w| w.index == bar) else { return };
        for slot in std::mem::take(&mut window.slots) {
            if let Err(e) = self.slots.remove(slot) {
                self.health.fault(format!("{}: {e}: {}", self.name, e.source));
            }
        }
    }

    /// 1. Interrupts go first: a reset device must not signal a guest that starts anew.
    /// 2. The reset ends all DMA.
    /// 3. Only then is the device turned on again, without bus mastering.
    fn reset(&mut self) {
        self.quieten();
        let Some(host) = self.host.as_deref() else { return };
        if host.can_reset() {
            match host.reset() {
                Ok(()) => self.health.was_reset(),
                Err(e) => self.health.fault(format!("{}: cannot reset it: {e}", self.name)),
            }
        }
        let on = host.write(Region::Config, COMMAND.into(), &[COMMAND_MEMORY, 0]);
        self.note("turn it on after a reset", on);
    }
}

/// The header that the guest sees, and what of each BAR can be mapped.
fn layout(
    name: &str,
    host: &dyn HostFunction,
    capabilities: &Capabilities,
) -> Result<(ConfigSpace, Vec<Window>), PassthroughError> {
    let failed = |action| PassthroughError::device(name, action);
    let none = DeviceIds { vendor: 0, device: 0, revision: 0, subsystem_vendor: 0, subsystem: 0 };
    let mut config = ConfigSpace::new(none, ClassCode { class: 0, subclass: 0, interface: 0 });
    let mut windows = Vec::new();
    let mut upper_half = false;
    for (number, bar) in (0u8..).zip(host.bars()) {
        let Some(index) = BarIndex::new(number).filter(|_| !std::mem::take(&mut upper_half)) else {
            continue;
        };
        let register = dword(host, index.register().into()).map_err(failed("read a BAR register"))?;
        let kind = match (register & 1, register >> 1 & 3, register & 8) {
            (1, ..) => continue,
            (_, 2, 0) => BarKind::Memory64,
            (_, 2, _) => BarKind::Memory64Prefetchable,
            _ => BarKind::Memory32,
        };
        upper_half = kind != BarKind::Memory32;
        if bar.bytes == 0 {
            continue;
        }
        config.add_bar(index, kind, bar.bytes).map_err(|source| PassthroughError::Bar {
            device: name.to_owned(),
            bar: number,
            source,
        })?;
        let emulated = capabilities.msix.map(|m| [m.table, m.pending]).into_iter().flatten();
        let kept: Vec<Area> = emulated.filter(|(at, _)| *at == index).map(|(_, area)| area).collect();
        let map = |area: Area| host.map(index, area).map(|memory| (area.offset, Arc::new(memory)));
        let memory = areas::mapped(&bar, &kept).into_iter().map(map).collect::<io::Result<_>>();
        let memory = memory.map_err(failed("map a BAR"))?;
        windows.push(Window { index, memory, slots: Vec::new() });
    }
    Ok((config, windows))
}
