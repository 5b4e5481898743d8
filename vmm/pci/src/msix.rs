//! The MSI-X table and pending bits of one function.
//!
//! Each vector has an eventfd that the device (or VFIO) signals. While a vector is unmasked
//! the kernel turns the signal into an interrupt; while it is masked the signal stays in the
//! eventfd, which is what the pending bit shows. A GSI is taken at the first unmasking only:
//! devices advertise more vectors than guests use. Called under the device's lock.

use std::sync::Arc;

use vmm_bus::{AttachError, Gsi, MsiMessage, MsiRouter};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::{ConfigSpace, PciError};

const CAPABILITY_ID: u8 = 0x11;
const CONTROL: u16 = 2;
const CONTROL_ENABLE: u16 = 1 << 15;
const CONTROL_FUNCTION_MASK: u16 = 1 << 14;
const ENTRY_LEN: u64 = 16;
const VECTOR_MASKED: u32 = 1;
/// As many as a capability can announce.
const MAX_VECTORS: u16 = 2048;

/// Which MSI-X vector of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VectorIndex(pub u16);

#[derive(Debug)]
struct Vector {
    event: Arc<EventFd>,
    message: MsiMessage,
    control: u32,
    gsi: Option<Gsi>,
    /// The event raises the interrupt: the kernel's irqfd is assigned.
    live: bool,
}

/// MSI-X of one function.
#[derive(Debug)]
pub struct MsixTable {
    router: Arc<dyn MsiRouter>,
    vectors: Vec<Vector>,
    capability: Option<u16>,
    enabled: bool,
    function_masked: bool,
    faults: u64,
}

impl MsixTable {
    /// A table with all vectors masked and MSI-X off.
    ///
    /// # Errors
    /// When the process is out of file descriptors, or `vectors` is zero or over 2048.
    pub fn new(router: Arc<dyn MsiRouter>, vectors: u16) -> Result<Self, std::io::Error> {
        if vectors == 0 || vectors > MAX_VECTORS {
            return Err(std::io::ErrorKind::InvalidInput.into());
        }
        let vector = |_| {
            Ok(Vector {
                event: Arc::new(EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?),
                message: MsiMessage::default(),
                control: VECTOR_MASKED,
                gsi: None,
                live: false,
            })
        };
        let vectors = (0..vectors).map(vector).collect::<Result<_, std::io::Error>>()?;
        Ok(Self { router, vectors, capability: None, enabled: false, function_masked: false, faults: 0 })
    }

    /// Announces the table in `config`: both parts lie in the BAR `bar`, at offsets that are
    /// multiples of 8.
    ///
    /// # Errors
    /// [`PciError::CapabilitiesFull`].
    pub fn announce(
        &mut self,
        config: &mut ConfigSpace,
        bar: crate::BarIndex,
        table: u32,
        pending: u32,
    ) -> Result<(), PciError> {
        let last = u16::try_from(self.vectors.len().saturating_sub(1)).unwrap_or(MAX_VECTORS - 1);
        let bir = u32::from(bar.get());
        let mut body = Vec::with_capacity(10);
        body.extend_from_slice(&last.to_le_bytes());
        body.extend_from_slice(&(table | bir).to_le_bytes());
        body.extend_from_slice(&(pending | bir).to_le_bytes());
        let writable = (CONTROL_ENABLE | CONTROL_FUNCTION_MASK).to_le_bytes();
        self.capability = Some(config.add_capability(CAPABILITY_ID, &body, &writable)?);
        Ok(())
    }

    /// Bytes of the table.
    #[must_use]
    pub fn table_len(&self) -> u64 {
        self.vectors.len() as u64 * ENTRY_LEN
    }

    /// Bytes of the pending bits.
    #[must_use]
    pub fn pending_len(&self) -> u64 {
        (self.vectors.len() as u64).div_ceil(64) * 8
    }

    /// How many vectors there are.
    #[must_use]
    pub fn vectors(&self) -> usize {
        self.vectors.len()
    }

    /// What the device signals to raise a vector.
    #[must_use]
    pub fn event(&self, vector: VectorIndex) -> Option<Arc<EventFd>> {
        self.vectors.get(usize::from(vector.0)).map(|vector| Arc::clone(&vector.event))
    }

    /// MSI-X is on: the device must not use its pin.
    #[must_use]
    pub fn enabled(&self) -> bool {
        self.enabled
    }

    /// How often the kernel refused a route. The vector stays silent then.
    #[must_use]
    pub fn faults(&self) -> u64 {
        self.faults
    }

    /// Call after each config write of the function: follows enable and function mask.
    pub fn follow_config(&mut self, config: &ConfigSpace) {
        if let Some(capability) = self.capability {
            self.follow_control(config.word(capability + CONTROL));
        }
    }

    /// The same, where the function keeps the capability itself: `control` is its message control word.
    pub fn follow_control(&mut self, control: u16) {
        let enabled = control & CONTROL_ENABLE != 0;
        let function_masked = control & CONTROL_FUNCTION_MASK != 0;
        if (enabled, function_masked) == (self.enabled, self.function_masked) {
            return;
        }
        (self.enabled, self.function_masked) = (enabled, function_masked);
        for index in 0..self.vectors.len() {
            self.settle(index);
        }
    }

    /// Whether a signal of the vector reaches the guest now.
    #[must_use]
    pub fn is_live(&self, vector: VectorIndex) -> bool {
        self.vectors.get(usize::from(vector.0)).is_some_and(|v| v.live)
    }

    /// The vector whose entry holds a byte of the table.
    #[must_use]
    pub fn vector_at(&self, offset: u64) -> Option<VectorIndex> {
        let index = usize::try_from(offset / ENTRY_LEN).ok().filter(|i| *i < self.vectors.len())?;
        u16::try_from(index).ok().map(VectorIndex)
    }

    /// Reads the table.
    pub fn table_read(&self, offset: u64, data: &mut [u8]) {
        for (byte, index) in data.iter_mut().zip(0..) {
            let at = offset.saturating_add(index);
            let entry = usize::try_from(at / ENTRY_LEN).ok().and_then(|index| self.vectors.get(index));
            *byte = entry.map_or(0xff, |vector| vector.byte(at % ENTRY_LEN));
        }
    }

    /// Writes the table: aligned 32 or 64 bits, anything else is dropped, as the standard lets us.
    pub fn table_write(&mut self, offset: u64, data: &[u8]) {
        if !matches!(data.len(), 4 | 8) || !offset.is_multiple_of(data.len() as u64) {
            return;
        }
        let Ok(index) = usize::try_from(offset / ENTRY_LEN) else { return };
        let Some(vector) = self.vectors.get_mut(index) else { return };
        let (before, was_masked) = (vector.message, vector.masked());
        for (dword, at) in data.chunks_exact(4).zip((offset % ENTRY_LEN..).step_by(4)) {
            vector.set(at, u32::from_le_bytes(dword.try_into().unwrap_or_default()));
        }
        // A message that changes under an unmasked vector: off with the old route first.
        if vector.message != before && vector.live {
            self.silence(index);
        }
        if self.vectors.get(index).is_some_and(|vector| !vector.live || vector.masked() != was_masked) {
            self.settle(index);
        }
    }

    /// Reads the pending bits.
    pub fn pending_read(&self, offset: u64, data: &mut [u8]) {
        for (byte, index) in data.iter_mut().zip(0..) {
            let at = offset.saturating_add(index);
            let first = usize::try_from(at).ok().and_then(|at| at.checked_mul(8));
            let vectors = first.and_then(|first| self.vectors.get(first..)).unwrap_or_default();
            let bits = vectors.iter().take(8).enumerate();
            *byte = bits.fold(0, |bits, (bit, vector)| bits | (u8::from(vector.pending()) << bit));
        }
    }

    /// Off, all masked, nothing pending, all GSIs given back. The config space's own reset
    /// clears the control register.
    pub fn reset(&mut self) {
        (self.enabled, self.function_masked) = (false, false);
        for index in 0..self.vectors.len() {
            self.silence(index);
            if let Some(vector) = self.vectors.get_mut(index) {
                vector.message = MsiMessage::default();
                vector.control = VECTOR_MASKED;
                // Fails when there is nothing to drain.
                let _ = vector.event.read();
                if let Some(gsi) = vector.gsi.take() {
                    self.router.release(gsi);
                }
            }
        }
    }

    /// Brings the kernel to what table and control say of one vector.
    fn settle(&mut self, index: usize) {
        let open = self.enabled && !self.function_masked;
        let Some(vector) = self.vectors.get(index) else { return };
        match (open && !vector.masked(), vector.live) {
            (true, false) => {
                let opened = self.open(index);
                self.faults += u64::from(opened.is_err());
            }
            (false, true) => self.silence(index),
            _ => {}
        }
    }

    fn open(&mut self, index: usize) -> Result<(), AttachError> {
        let Some(vector) = self.vectors.get_mut(index) else { return Ok(()) };
        let gsi = match vector.gsi {
            Some(gsi) => gsi,
            None => *vector.gsi.insert(self.router.allocate()?),
        };
        self.router.unmask(gsi, vector.message, &vector.event)?;
        vector.live = true;
        Ok(())
    }

    fn silence(&mut self, index: usize) {
        let Some(vector) = self.vectors.get_mut(index) else { return };
        if let (true, Some(gsi)) = (vector.live, vector.gsi)
            && self.router.mask(gsi, &vector.event).is_err()
        {
            self.faults += 1;
        }
        vector.live = false;
    }
}

impl Drop for MsixTable {
    fn drop(&mut self) {
        self.reset();
    }
}

impl Vector {
    fn masked(&self) -> bool {
        self.control & VECTOR_MASKED != 0
    }

    /// Signalled while nobody listens. Looking takes the signal out and puts it back.
    fn pending(&self) -> bool {
        !self.live && self.event.read().is_ok_and(|count| self.event.write(count).is_ok())
    }

    fn byte(&self, offset: u64) -> u8 {
        let mut entry = [0; 16];
        let bytes = self.message.address.to_le_bytes().into_iter();
        let bytes = bytes.chain(self.message.data.to_le_bytes()).chain(self.control.to_le_bytes());
        for (to, from) in entry.iter_mut().zip(bytes) {
            *to = from;
        }
        usize::try_from(offset).ok().and_then(|at| entry.get(at)).copied().unwrap_or(0xff)
    }

    fn set(&mut self, offset: u64, value: u32) {
        let address = self.message.address;
        match offset {
            0 => self.message.address = (address & !0xffff_ffff) | u64::from(value & !3),
            4 => self.message.address = (address & 0xffff_ffff) | (u64::from(value) << 32),
            8 => self.message.data = value,
            _ => self.control = value & VECTOR_MASKED,
        }
    }
}

#[cfg(test)]
mod tests;
