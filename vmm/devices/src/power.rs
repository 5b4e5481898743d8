//! Power: soft-off, reset and the power button (ACPI 6.5, 4.8.3.7 and 5.6.9).

use std::fmt::Debug;
use std::sync::Arc;

use vmm_acpi::platform;
use vmm_bus::{BusDevice, InterruptError};

use crate::InterruptPin;

/// Who is told that the guest wants to end. Called on vCPU threads; must not block.
pub trait PowerSignals: Send + Sync + Debug {
    /// The guest has switched itself off.
    fn power_off(&self);
    /// The guest wants to be reset.
    fn reset(&self);
}

const SLEEP_ENABLE: u8 = 1 << 5;

/// The power device's ports.
#[derive(Debug)]
pub struct Power {
    signals: Arc<dyn PowerSignals>,
    interrupt: InterruptPin,
    events: u8,
}

impl Power {
    /// A power device whose events raise `interrupt`.
    #[must_use]
    pub fn new(signals: Arc<dyn PowerSignals>, interrupt: InterruptPin) -> Self {
        Self { signals, interrupt, events: 0 }
    }

    /// Presses the power button.
    ///
    /// # Errors
    /// When the interrupt cannot be sent.
    pub fn press_button(&mut self) -> Result<(), InterruptError> {
        self.events |= platform::EVENT_POWER_BUTTON;
        self.interrupt.raise()
    }

    /// Back to power-on.
    pub fn reset(&mut self) {
        self.events = 0;
    }
}

impl BusDevice for Power {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        if offset == u64::from(platform::EVENTS)
            && let Some(byte) = data.first_mut()
        {
            *byte = std::mem::take(&mut self.events);
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        let Some(&value) = data.first() else { return };
        if offset == u64::from(platform::SLEEP_CONTROL) {
            if value & SLEEP_ENABLE != 0 && value >> 2 & 7 == platform::SLEEP_TYPE_S5 {
                self.signals.power_off();
            }
        } else if offset == u64::from(platform::RESET) && value == platform::RESET_VALUE {
            self.signals.reset();
        }
    }
}
