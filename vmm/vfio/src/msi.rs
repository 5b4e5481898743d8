//! MSI of a passed-through function.
//!
//! Called under the function's lock. The kernel keeps the guest's values of the capability; this
//! follows them with routes and events. Several vectors are one message with the low bits counted up.

use std::io;
use std::sync::Arc;

use vmm_bus::{Gsi, MsiMessage, MsiRouter};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::capabilities::{MsiCapability, dword};
use crate::host::{HostFunction, Region, VectorKind};

const ENABLE: u16 = 1;

#[derive(Debug)]
struct Vector {
    event: EventFd,
    gsi: Option<Gsi>,
    live: bool,
}

#[derive(Debug)]
pub(crate) struct Msi {
    place: MsiCapability,
    router: Arc<dyn MsiRouter>,
    vectors: Vec<Vector>,
    most: u32,
    message: MsiMessage,
    armed: bool,
}

impl Msi {
    pub(crate) fn new(place: MsiCapability, router: Arc<dyn MsiRouter>, most: u32) -> Self {
        Self { place, router, vectors: Vec::new(), most, message: MsiMessage::default(), armed: false }
    }

    /// Whether a byte of config space belongs to it.
    pub(crate) fn contains(&self, offset: u16) -> bool {
        let bytes = if self.place.wide { 14 } else { 10 };
        offset >= self.place.at && offset < self.place.at + bytes
    }

    /// The guest writes one register of it. Whether the host's vectors changed.
    ///
    /// 1. Before MSI is turned on at the device, the host's vectors and their events are there.
    /// 2. Before they are taken down, it is off at the device.
    pub(crate) fn write(&mut self, host: &dyn HostFunction, offset: u16, data: &[u8]) -> io::Result<bool> {
        let turns_on = self.control_of(offset, data).filter(|control| control & ENABLE != 0);
        if let Some(control) = turns_on.filter(|_| !self.armed) {
            self.message = self.read_message(host)?;
            self.open(host, control)?;
            let written = host.write(Region::Config, offset.into(), data);
            return written.map(|()| true);
        }
        host.write(Region::Config, offset.into(), data)?;
        if !self.armed {
            return Ok(false);
        }
        if self.control_of(offset, data).is_some_and(|control| control & ENABLE == 0) {
            return self.close(Some(host)).map(|()| true);
        }
        let message = self.read_message(host)?;
        if message != self.message {
            self.message = message;
            self.reroute()?;
        }
        Ok(false)
    }

    /// Vectors that signal the guest.
    pub(crate) fn live(&self) -> u64 {
        self.vectors.iter().filter(|v| v.live).count() as u64
    }

    /// Off; the host's vectors go even where the kernel complains.
    pub(crate) fn close(&mut self, host: Option<&dyn HostFunction>) -> io::Result<()> {
        let was_armed = std::mem::take(&mut self.armed);
        for vector in self.vectors.drain(..) {
            if let Some(gsi) = vector.gsi {
                if vector.live {
                    let _ = self.router.mask(gsi, &vector.event);
                }
                self.router.release(gsi);
            }
        }
        match host {
            Some(host) if was_armed => host.disarm(VectorKind::Msi),
            _ => Ok(()),
        }
    }

    /// The control word, where this write holds all that counts of it: its low byte.
    fn control_of(&self, offset: u16, data: &[u8]) -> Option<u16> {
        let index = usize::from((self.place.at + 2).checked_sub(offset)?);
        data.get(index).map(|low| u16::from(*low))
    }

    fn read_message(&self, host: &dyn HostFunction) -> io::Result<MsiMessage> {
        let register = |offset: u16| dword(host, u64::from(self.place.at + offset));
        let low = u64::from(register(4)?);
        let (high, data) =
            if self.place.wide { (u64::from(register(8)?), register(12)?) } else { (0, register(8)?) };
        Ok(MsiMessage { address: high << 32 | low, data: data & 0xffff })
    }

    fn open(&mut self, host: &dyn HostFunction, control: u16) -> io::Result<()> {
        let count = (1u32 << (control >> 4 & 7).min(5)).min(self.most.max(1));
        for _ in 0..count {
            let event = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?;
            self.vectors.push(Vector { event, gsi: None, live: false });
        }
        let opened = self.reroute().and_then(|()| {
            host.arm(VectorKind::Msi, count)?;
            self.armed = true;
            let mut vectors = (0u32..).zip(&self.vectors);
            vectors.try_for_each(|(index, vector)| host.attach(VectorKind::Msi, index, &vector.event))
        });
        if opened.is_err() {
            let _ = self.close(Some(host));
        }
        opened
    }

    /// All routes anew: off with the old one first.
    fn reroute(&mut self) -> io::Result<()> {
        let count = u32::try_from(self.vectors.len()).unwrap_or(1).next_power_of_two();
        let base = self.message.data & !(count - 1);
        for (index, vector) in (0u32..).zip(&mut self.vectors) {
            let refused = |e: vmm_bus::AttachError| io::Error::other(format!("{e}: {}", e.source));
            let gsi = match vector.gsi {
                Some(gsi) => gsi,
                None => *vector.gsi.insert(self.router.allocate().map_err(refused)?),
            };
            if std::mem::take(&mut vector.live) {
                self.router.mask(gsi, &vector.event).map_err(refused)?;
            }
            let message = MsiMessage { data: base | index, ..self.message };
            self.router.unmask(gsi, message, &vector.event).map_err(refused)?;
            vector.live = true;
        }
        Ok(())
    }
}

impl Drop for Msi {
    fn drop(&mut self) {
        let _ = self.close(None);
    }
}
