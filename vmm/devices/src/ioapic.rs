//! The IOAPIC: 24 pins, each sent on as a message (Intel 82093AA datasheet).
//!
//! All interrupts that the platform announces are edge triggered. A guest that programs a pin as
//! level triggered gets the message at each assertion all the same.

use std::sync::{Arc, Mutex, PoisonError};

use vmm_acpi::platform;
use vmm_bus::{AttachError, BusDevice, MsiMessage, MsiRouter};

const PINS: usize = platform::IOAPIC_PINS as usize;
const VERSION: u32 = 0x11;
const REG_ID: u8 = 0;
const REG_VERSION: u8 = 1;
const REG_ARBITRATION: u8 = 2;
const REG_TABLE: u8 = 0x10;
/// Offsets of the two registers that can be seen.
const SELECT: u64 = 0x00;
const WINDOW: u64 = 0x10;

const MASKED: u64 = 1 << 16;
const LEVEL: u64 = 1 << 15;
/// Delivery status and remote IRR.
const READ_ONLY: u64 = 1 << 12 | 1 << 14;

/// The IOAPIC's registers.
#[derive(Debug)]
pub struct Ioapic {
    router: Arc<dyn MsiRouter>,
    id: u32,
    select: u8,
    table: [u64; PINS],
    /// Asserted while masked: delivered once unmasked.
    pending: u32,
    failures: u64,
}

/// A pin, for the device that is wired to it.
#[derive(Clone, Debug)]
pub struct InterruptPin {
    ioapic: Arc<Mutex<Ioapic>>,
    pin: u32,
}

impl InterruptPin {
    /// Pin `pin` of an IOAPIC.
    #[must_use]
    pub fn new(ioapic: &Arc<Mutex<Ioapic>>, pin: u32) -> Self {
        Self { ioapic: Arc::clone(ioapic), pin }
    }

    /// Raises an edge.
    ///
    /// # Errors
    /// When the interrupt cannot be sent.
    pub fn raise(&self) -> Result<(), AttachError> {
        self.ioapic.lock().unwrap_or_else(PoisonError::into_inner).raise(self.pin)
    }
}

impl Ioapic {
    /// As after power-on: all pins masked.
    #[must_use]
    pub fn new(router: Arc<dyn MsiRouter>) -> Self {
        Self {
            router,
            id: platform::IOAPIC_ID.into(),
            select: 0,
            table: [MASKED; PINS],
            pending: 0,
            failures: 0,
        }
    }

    /// Back to power-on.
    pub fn reset(&mut self) {
        *self = Self::new(Arc::clone(&self.router));
    }

    /// Interrupts that the kernel did not take when a guest unmasked a pin.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.failures
    }

    fn raise(&mut self, pin: u32) -> Result<(), AttachError> {
        let Some(&entry) = self.table.get(pin as usize) else { return Ok(()) };
        if entry & MASKED != 0 {
            self.pending |= 1u32.checked_shl(pin).unwrap_or(0);
            return Ok(());
        }
        self.router.send(message(entry))
    }

    fn read_register(&self) -> u32 {
        match self.select {
            REG_ID | REG_ARBITRATION => self.id << 24,
            REG_VERSION => VERSION | (platform::IOAPIC_PINS - 1) << 16,
            register => {
                let entry =
                    self.entry(register).and_then(|(pin, _)| self.table.get(pin)).copied().unwrap_or(0);
                let half = if register & 1 == 0 { entry } else { entry >> 32 };
                u32::try_from(half & 0xffff_ffff).unwrap_or(0)
            }
        }
    }

    fn write_register(&mut self, value: u32) {
        if self.select == REG_ID {
            self.id = value >> 24 & 0xf;
            return;
        }
        let Some((pin, high)) = self.entry(self.select) else { return };
        let Some(entry) = self.table.get_mut(pin) else { return };
        *entry = if high {
            *entry & 0xffff_ffff | u64::from(value) << 32
        } else {
            *entry & (0xffff_ffff << 32 | READ_ONLY) | u64::from(value) & !READ_ONLY
        };
        let (bit, open) = (1u32 << pin, *entry & MASKED == 0);
        if open && self.pending & bit != 0 {
            self.pending &= !bit;
            let message = message(*entry);
            if self.router.send(message).is_err() {
                self.failures += 1;
            }
        }
    }

    /// The pin of a table register, and whether it is the high half.
    fn entry(&self, register: u8) -> Option<(usize, bool)> {
        let offset = register.checked_sub(REG_TABLE)?;
        let pin = usize::from(offset / 2);
        (pin < PINS).then_some((pin, offset & 1 == 1))
    }
}

/// What a pin sends (Intel SDM 3A, 11.11).
fn message(entry: u64) -> MsiMessage {
    const ASSERT: u32 = 1 << 14;
    let (vector, delivery) = (entry & 0xff, entry >> 8 & 7);
    let (mode, destination) = (entry >> 11 & 1, entry >> 56);
    let trigger = u32::from(entry & LEVEL != 0) << 15;
    let data = u32::try_from(vector | delivery << 8).unwrap_or(0) | trigger | ASSERT;
    MsiMessage { address: 0xfee0_0000 | destination << 12 | mode << 2, data }
}

impl BusDevice for Ioapic {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        let value = match offset {
            SELECT => u32::from(self.select),
            WINDOW => self.read_register(),
            _ => 0,
        };
        data.fill(0);
        for (to, from) in data.iter_mut().zip(value.to_le_bytes()) {
            *to = from;
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        let mut bytes = [0; 4];
        for (to, from) in bytes.iter_mut().zip(data) {
            *to = *from;
        }
        match offset {
            SELECT => self.select = bytes[0],
            WINDOW => self.write_register(u32::from_le_bytes(bytes)),
            _ => {}
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use vmm_bus::Gsi;
    use vmm_sys_util::eventfd::EventFd;

    use super::*;

    #[derive(Debug, Default)]
    pub(crate) struct Sent(pub(crate) Mutex<Vec<MsiMessage>>);

    impl MsiRouter for Sent {
        fn allocate(&self) -> Result<Gsi, AttachError> {
            Ok(Gsi(24))
        }
        fn release(&self, _: Gsi) {}
        fn unmask(&self, _: Gsi, _: MsiMessage, _: &EventFd) -> Result<(), AttachError> {
            Ok(())
        }
        fn mask(&self, _: Gsi, _: &EventFd) -> Result<(), AttachError> {
            Ok(())
        }
        fn send(&self, message: MsiMessage) -> Result<(), AttachError> {
            self.0.lock().unwrap().push(message);
            Ok(())
        }
    }

    pub(crate) fn program(ioapic: &Arc<Mutex<Ioapic>>, register: u8, value: u32) {
        let mut ioapic = ioapic.lock().unwrap();
        ioapic.write(SELECT, &[register]);
        ioapic.write(WINDOW, &value.to_le_bytes());
    }

    pub(crate) fn ioapic() -> (Arc<Mutex<Ioapic>>, Arc<Sent>) {
        let sent = Arc::new(Sent::default());
        (Arc::new(Mutex::new(Ioapic::new(sent.clone()))), sent)
    }

    #[test]
    fn an_open_pin_sends_its_message() {
        let (ioapic, sent) = ioapic();
        program(&ioapic, 0x19, 3 << 24);
        program(&ioapic, 0x18, 0x31);
        InterruptPin::new(&ioapic, 4).raise().unwrap();
        assert_eq!(*sent.0.lock().unwrap(), [MsiMessage { address: 0xfee0_3000, data: 0x4031 }]);
    }

    #[test]
    fn an_edge_while_masked_is_delivered_once_when_unmasked() {
        let (ioapic, sent) = ioapic();
        InterruptPin::new(&ioapic, 4).raise().unwrap();
        assert!(sent.0.lock().unwrap().is_empty());
        program(&ioapic, 0x18, 0x31);
        program(&ioapic, 0x18, 0x31);
        assert_eq!(sent.0.lock().unwrap().len(), 1);
    }

    #[test]
    fn read_only_bits_stay() {
        let (ioapic, _) = ioapic();
        program(&ioapic, 0x10, u32::MAX);
        let mut data = [0; 4];
        ioapic.lock().unwrap().read(WINDOW, &mut data);
        assert_eq!(u32::from_le_bytes(data), !(1 << 12 | 1 << 14));
    }

    #[test]
    fn any_access_is_survived() {
        let (ioapic, _) = ioapic();
        let mut ioapic = ioapic.lock().unwrap();
        for offset in [0, 1, 0x10, 0x1f, u64::MAX] {
            for register in 0..=255 {
                ioapic.write(SELECT, &[register]);
                ioapic.write(offset, &[0xff; 8]);
                ioapic.read(offset, &mut [0; 8]);
                ioapic.write(offset, &[]);
            }
        }
    }
}
