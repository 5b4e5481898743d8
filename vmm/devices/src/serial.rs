//! The serial port COM1: a 16550A.
//!
//! Registers are accessed on vCPU threads, input arrives on the emulator's thread. Output goes to a
//! writer that must not block.

use std::io::{self, Write};

use vm_superio::serial::SerialEvents;
use vm_superio::{Serial as Uart, Trigger};
use vmm_bus::BusDevice;
use vmm_sys_util::eventfd::EventFd;

use crate::InterruptPin;

/// A 16550A whose output goes to `W`.
pub struct Serial<W: Write> {
    uart: Uart<InterruptPin, Drained, W>,
}

/// Signalled when the guest has read all input.
#[derive(Debug)]
struct Drained(Option<EventFd>);

impl SerialEvents for Drained {
    fn buffer_read(&self) {}
    fn out_byte(&self) {}
    fn tx_lost_byte(&self) {}
    fn in_buffer_empty(&self) {
        if let Some(event) = &self.0 {
            // Fails only when the counter is full, and then it is readable anyway.
            let _ = event.write(1);
        }
    }
}

impl<W: Write> std::fmt::Debug for Serial<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Serial").finish_non_exhaustive()
    }
}

impl Trigger for InterruptPin {
    type E = io::Error;

    fn trigger(&self) -> io::Result<()> {
        self.raise().map_err(io::Error::other)
    }
}

impl<W: Write> Serial<W> {
    /// As after power-on.
    pub fn new(interrupt: InterruptPin, output: W) -> Self {
        Self { uart: Uart::with_events(interrupt, Drained(None), output) }
    }

    /// As [`Serial::new`]; `drained` is signalled when the guest has read all input.
    pub fn with_drained(interrupt: InterruptPin, drained: EventFd, output: W) -> Self {
        Self { uart: Uart::with_events(interrupt, Drained(Some(drained)), output) }
    }

    /// As after power-on, with the same wires.
    ///
    /// # Errors
    /// When the event descriptor cannot be duplicated; nothing is changed then.
    pub fn reset(&mut self) -> io::Result<()>
    where
        W: Clone,
    {
        let drained = self.uart.events().0.as_ref().map(EventFd::try_clone).transpose()?;
        let (interrupt, output) = (self.uart.interrupt_evt().clone(), self.uart.writer().clone());
        self.uart = Uart::with_events(interrupt, Drained(drained), output);
        Ok(())
    }

    /// Bytes of input that there is room for now.
    #[must_use]
    pub fn room(&self) -> usize {
        self.uart.fifo_capacity()
    }

    /// Takes input; says how many bytes are done with, at most [`Serial::room`].
    pub fn input(&mut self, bytes: &[u8]) -> usize {
        let fits = bytes.len().min(self.room());
        // A port in loop-back mode hears nothing: what arrives then is lost. The only error with room
        // left is an interrupt that could not be sent: the bytes are in the FIFO then.
        let _ = self.uart.enqueue_raw_bytes(bytes);
        fits
    }

    /// The output.
    pub fn output(&mut self) -> &mut W {
        self.uart.writer_mut()
    }
}

impl<W: Write + Send> BusDevice for Serial<W> {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(0xff);
        if let (Ok(register @ 0..=7), [byte]) = (u8::try_from(offset), data) {
            *byte = self.uart.read(register);
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        if let (Ok(register @ 0..=7), [byte]) = (u8::try_from(offset), data) {
            // What the output refuses is lost, as on a real line without a listener.
            let _ = self.uart.write(register, *byte);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use vmm_sys_util::eventfd::EFD_NONBLOCK;

    use super::*;
    use crate::ioapic::tests::ioapic;

    const DATA: u64 = 0;
    const INTERRUPT_ENABLE: u64 = 1;
    const MODEM_CONTROL: u64 = 4;
    const LINE_STATUS: u64 = 5;
    const LOOP_BACK: u8 = 1 << 4;
    const DATA_READY: u8 = 1;

    #[derive(Clone, Debug, Default)]
    struct Line(Arc<Mutex<Vec<u8>>>);

    impl Write for Line {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn serial() -> (Serial<Line>, Line, EventFd) {
        let (line, drained) = (Line::default(), EventFd::new(EFD_NONBLOCK).unwrap());
        let pin = InterruptPin::new(&ioapic().0, 4);
        (Serial::with_drained(pin, drained.try_clone().unwrap(), line.clone()), line, drained)
    }

    fn read(serial: &mut Serial<Line>, register: u64) -> u8 {
        let mut byte = [0];
        serial.read(register, &mut byte);
        byte[0]
    }

    #[test]
    fn output_reaches_the_line() {
        let (mut serial, line, _) = serial();
        b"hi".iter().for_each(|b| serial.write(DATA, &[*b]));
        assert_eq!(*line.0.lock().unwrap(), b"hi");
    }

    #[test]
    fn input_waits_for_the_guest_and_its_end_is_told() {
        let (mut serial, _, drained) = serial();
        let room = serial.room();
        assert_eq!(serial.input(&vec![b'x'; room + 5]), room);
        assert_eq!(serial.input(b"more"), 0);
        assert_eq!(read(&mut serial, LINE_STATUS) & DATA_READY, DATA_READY);
        assert!(drained.read().is_err());
        (0..room).for_each(|_| assert_eq!(read(&mut serial, DATA), b'x'));
        assert_eq!(drained.read().unwrap(), 1);
        assert_eq!(read(&mut serial, LINE_STATUS) & DATA_READY, 0);
    }

    #[test]
    fn in_loop_back_mode_input_is_lost() {
        let (mut serial, line, _) = serial();
        serial.write(MODEM_CONTROL, &[LOOP_BACK]);
        assert_eq!(serial.input(b"abc"), 3);
        assert_eq!(read(&mut serial, LINE_STATUS) & DATA_READY, 0);
        serial.write(DATA, b"z");
        assert!(line.0.lock().unwrap().is_empty());
        assert_eq!(read(&mut serial, DATA), b'z');
    }

    #[test]
    fn a_reset_forgets_registers_and_input() {
        let (mut serial, line, _) = serial();
        serial.write(INTERRUPT_ENABLE, &[1]);
        serial.input(b"old");
        serial.reset().unwrap();
        assert_eq!(read(&mut serial, INTERRUPT_ENABLE), 0);
        assert_eq!(read(&mut serial, LINE_STATUS) & DATA_READY, 0);
        serial.write(DATA, b"n");
        assert_eq!(*line.0.lock().unwrap(), b"n");
    }

    #[test]
    fn any_access_is_survived() {
        let (mut serial, ..) = serial();
        for register in [0, 1, 2, 3, 4, 5, 6, 7, 8, 255, u64::MAX] {
            for len in 0..9 {
                serial.write(register, &vec![0xff; len]);
                serial.read(register, &mut vec![0; len]);
            }
        }
    }
}
