//! The serial port COM1: a 16550A.
//!
//! Registers are accessed on vCPU threads, input arrives on the emulator's thread. Output goes to a
//! writer that must not block.

use std::io::{self, Write};

use vm_superio::serial::NoEvents;
use vm_superio::{Serial as Uart, Trigger};
use vmm_bus::BusDevice;

use crate::InterruptPin;

/// A 16550A whose output goes to `W`.
pub struct Serial<W: Write> {
    uart: Uart<InterruptPin, NoEvents, W>,
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
        Self { uart: Uart::new(interrupt, output) }
    }

    /// Bytes of input that there is room for now.
    #[must_use]
    pub fn room(&self) -> usize {
        self.uart.fifo_capacity()
    }

    /// Takes input; says how many bytes found room.
    pub fn input(&mut self, bytes: &[u8]) -> usize {
        // The only other error is an interrupt that could not be sent: the bytes are in the FIFO then.
        self.uart.enqueue_raw_bytes(bytes).unwrap_or_else(|_| bytes.len().min(self.uart.fifo_capacity()))
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
