//! MSI-X of a passed-through function: the guest's table, and the host's vectors behind it.
//!
//! Called under the function's lock. The host sets all vectors up when the guest turns MSI-X on, but
//! each gets its event, and with it an interrupt on the host, when the guest first unmasks it: a drive
//! advertises more than a guest uses.

use std::io;
use std::sync::Arc;

use vmm_bus::MsiRouter;
use vmm_pci::{BarIndex, MsixTable, VectorIndex};

use crate::capabilities::MsixCapability;
use crate::host::{HostFunction, VectorKind};

const ENABLE: u16 = 1 << 15;
const FUNCTION_MASK: u16 = 1 << 14;

/// Which emulated part of a BAR an access meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Table(u64),
    Pending(u64),
}

#[derive(Debug)]
pub(crate) struct Msix {
    place: MsixCapability,
    table: MsixTable,
    control: u16,
    armed: bool,
    attached: Vec<bool>,
}

impl Msix {
    pub(crate) fn new(place: MsixCapability, router: Arc<dyn MsiRouter>) -> io::Result<Self> {
        let table = MsixTable::new(router, place.vectors)?;
        let attached = vec![false; usize::from(place.vectors)];
        Ok(Self { place, table, control: 0, armed: false, attached })
    }

    /// The emulated part at a byte of a BAR.
    pub(crate) fn part(&self, bar: BarIndex, offset: u64) -> Option<Part> {
        let (table, pending) = (self.place.table, self.place.pending);
        if bar == table.0 && table.1.contains(offset) {
            Some(Part::Table(offset - table.1.offset))
        } else if bar == pending.0 && pending.1.contains(offset) {
            Some(Part::Pending(offset - pending.1.offset))
        } else {
            None
        }
    }

    pub(crate) fn read(&self, part: Part, data: &mut [u8]) {
        match part {
            Part::Table(offset) => self.table.table_read(offset, data),
            Part::Pending(offset) => self.table.pending_read(offset, data),
        }
    }

    /// Whether the host's vectors changed.
    pub(crate) fn write(&mut self, host: &dyn HostFunction, part: Part, data: &[u8]) -> io::Result<bool> {
        let Part::Table(offset) = part else { return Ok(false) };
        self.table.table_write(offset, data);
        match self.table.vector_at(offset) {
            Some(vector) if self.armed => self.attach(host, vector),
            _ => Ok(false),
        }
    }

    /// Byte offset of the control word in config space.
    pub(crate) fn control_at(&self) -> u16 {
        self.place.at + 2
    }

    /// The control word as the guest reads it: the device's own, with the guest's two bits.
    pub(crate) fn control(&self, device: u16) -> u16 {
        device & !(ENABLE | FUNCTION_MASK) | self.control
    }

    /// The guest writes the control word. Whether the host's vectors changed.
    ///
    /// 1. On its way up the host's vectors exist before any event can be attached.
    /// 2. On its way down routes go first: an event that has none stays pending and is lost with
    ///    the vector, instead of arriving late.
    pub(crate) fn write_control(&mut self, host: &dyn HostFunction, value: u16) -> io::Result<bool> {
        self.control = value & (ENABLE | FUNCTION_MASK);
        let enabled = self.control & ENABLE != 0;
        let mut changed = false;
        if enabled && !self.armed {
            host.arm(VectorKind::Msix, u32::from(self.place.vectors))?;
            self.armed = true;
            changed = true;
        }
        self.table.follow_control(self.control);
        if !enabled {
            return Ok(self.take_down(host)? || changed);
        }
        for index in 0..self.place.vectors {
            changed |= self.attach(host, VectorIndex(index))?;
        }
        Ok(changed)
    }

    /// Vectors that signal the guest.
    pub(crate) fn live(&self) -> u64 {
        self.attached.iter().filter(|a| **a).count() as u64
    }

    /// Off and empty; the host's vectors go even where the kernel complains.
    pub(crate) fn reset(&mut self, host: Option<&dyn HostFunction>) -> io::Result<()> {
        self.control = 0;
        self.table.reset();
        match host {
            Some(host) => self.take_down(host).map(drop),
            None => {
                self.armed = false;
                self.attached.fill(false);
                Ok(())
            }
        }
    }

    fn take_down(&mut self, host: &dyn HostFunction) -> io::Result<bool> {
        if !self.armed {
            return Ok(false);
        }
        self.armed = false;
        self.attached.fill(false);
        host.disarm(VectorKind::Msix).map(|()| true)
    }

    fn attach(&mut self, host: &dyn HostFunction, vector: VectorIndex) -> io::Result<bool> {
        let Some(attached) = self.attached.get_mut(usize::from(vector.0)) else { return Ok(false) };
        if *attached || !self.table.is_live(vector) {
            return Ok(false);
        }
        let Some(event) = self.table.event(vector) else { return Ok(false) };
        host.attach(VectorKind::Msix, vector.0.into(), &event)?;
        *attached = true;
        Ok(true)
    }
}
