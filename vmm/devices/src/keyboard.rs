//! What is left of the keyboard controller and system control ports: the ways to reset by them.

use std::sync::Arc;

use vmm_bus::BusDevice;

use crate::PowerSignals;

/// Command that pulses the processor's reset line.
const PULSE_RESET: u8 = 0xfe;
/// All ones but "input buffer full".
const STATUS: u8 = !(1 << 1);

/// The command port of an i8042 (0x64). There is no controller: its status says that there is always
/// more to read, so that Linux gives up looking at once, and that it takes commands, so that who
/// resets by it does not wait.
#[derive(Debug)]
pub struct Keyboard(Arc<dyn PowerSignals>);

impl Keyboard {
    /// The port's address.
    pub const PORT: u16 = 0x64;

    /// A command port.
    #[must_use]
    pub fn new(signals: Arc<dyn PowerSignals>) -> Self {
        Self(signals)
    }
}

impl BusDevice for Keyboard {
    fn read(&mut self, _offset: u64, data: &mut [u8]) {
        data.fill(STATUS);
    }

    fn write(&mut self, _offset: u64, data: &[u8]) {
        if data.first() == Some(&PULSE_RESET) {
            self.0.reset();
        }
    }
}

/// System control port B (0x61). Timer 2's output reads as high: calibration loops end.
#[derive(Debug, Default)]
pub struct SystemControl;

impl SystemControl {
    /// The port's address.
    pub const PORT: u16 = 0x61;
}

impl BusDevice for SystemControl {
    fn read(&mut self, _offset: u64, data: &mut [u8]) {
        const TIMER_2_OUTPUT: u8 = 1 << 5;
        data.fill(TIMER_2_OUTPUT);
    }

    fn write(&mut self, _offset: u64, _data: &[u8]) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::power::tests::Asked;

    #[test]
    fn only_the_reset_pulse_resets() {
        let asked = Arc::new(Asked::default());
        let mut keyboard = Keyboard::new(asked.clone());
        for command in (0..=u8::MAX).filter(|c| *c != PULSE_RESET) {
            keyboard.write(0, &[command]);
        }
        keyboard.write(0, &[]);
        assert!(asked.0.lock().unwrap().is_empty());
        keyboard.write(0, &[PULSE_RESET]);
        assert_eq!(*asked.0.lock().unwrap(), ["reset"]);
    }

    #[test]
    fn there_is_no_controller_and_timer_2_has_always_fired() {
        let mut byte = [0];
        Keyboard::new(Arc::new(Asked::default())).read(0, &mut byte);
        assert_eq!(byte, [0xfd]);
        SystemControl.read(0, &mut byte);
        assert_eq!(byte, [0x20]);
    }
}
