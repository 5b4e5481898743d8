//! Platform devices: serial port, IOAPIC, power and reset.
//!
//! Their registers are accessed on vCPU threads, one access at a time; they never block. There is no
//! clock chip and no interval timer: the guest has kvmclock and the TSC deadline timer, and its
//! ACPI tables say that the rest is absent.

#![forbid(unsafe_code)]

mod ioapic;
mod keyboard;
mod power;
mod serial;

pub use ioapic::{InterruptPin, Ioapic};
pub use keyboard::{Keyboard, SystemControl};
pub use power::{Power, PowerSignals};
pub use serial::Serial;
