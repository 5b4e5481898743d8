//! Power: soft-off, reset and the power button (ACPI 6.5, 4.8.3.7 and 5.6.9).

use std::fmt::Debug;
use std::sync::Arc;

use vmm_acpi::platform;
use vmm_bus::{AttachError, BusDevice};

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
    pub fn press_button(&mut self) -> Result<(), AttachError> {
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

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::ioapic::tests::{ioapic, program};

    /// Notes what was asked for.
    #[derive(Debug, Default)]
    pub(crate) struct Asked(pub(crate) Mutex<Vec<&'static str>>);

    impl PowerSignals for Asked {
        fn power_off(&self) {
            self.0.lock().unwrap().push("off");
        }
        fn reset(&self) {
            self.0.lock().unwrap().push("reset");
        }
    }

    fn events(power: &mut Power) -> u8 {
        let mut byte = [0];
        power.read(platform::EVENTS.into(), &mut byte);
        byte[0]
    }

    #[test]
    fn only_soft_off_and_the_reset_value_count() {
        let asked = Arc::new(Asked::default());
        let mut power = Power::new(asked.clone(), InterruptPin::new(&ioapic().0, platform::EVENT_GSI));
        let sleep = |kind: u8| SLEEP_ENABLE | kind << 2;
        let control = platform::SLEEP_CONTROL.into();
        power.write(control, &[sleep(3)]);
        power.write(control, &[platform::SLEEP_TYPE_S5 << 2]);
        power.write(platform::RESET.into(), &[0]);
        power.write(control, &[]);
        assert!(asked.0.lock().unwrap().is_empty());
        power.write(control, &[sleep(platform::SLEEP_TYPE_S5)]);
        power.write(platform::RESET.into(), &[platform::RESET_VALUE]);
        assert_eq!(*asked.0.lock().unwrap(), ["off", "reset"]);
    }

    #[test]
    fn the_button_raises_an_event_that_is_read_once() {
        let (ioapic, sent) = ioapic();
        let register = u8::try_from(0x10 + 2 * platform::EVENT_GSI).unwrap();
        program(&ioapic, register, 0x40);
        let mut power =
            Power::new(Arc::new(Asked::default()), InterruptPin::new(&ioapic, platform::EVENT_GSI));
        power.press_button().unwrap();
        assert_eq!(sent.0.lock().unwrap().len(), 1);
        assert_eq!(events(&mut power), platform::EVENT_POWER_BUTTON);
        assert_eq!(events(&mut power), 0);
    }

    #[test]
    fn a_reset_forgets_the_button() {
        let mut power = Power::new(Arc::new(Asked::default()), InterruptPin::new(&ioapic().0, 5));
        power.press_button().unwrap();
        power.reset();
        assert_eq!(events(&mut power), 0);
    }
}
