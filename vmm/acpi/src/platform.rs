//! Ports and interrupts of the platform, where tables and devices must agree.

/// First port of the power device.
pub const POWER_PORT: u16 = 0x600;
/// Ports of the power device.
pub const POWER_PORTS: u16 = 8;
/// Sleep control register (ACPI 6.5, 4.8.3.7): offset from [`POWER_PORT`].
pub const SLEEP_CONTROL: u16 = 0;
/// Sleep status register: offset from [`POWER_PORT`].
pub const SLEEP_STATUS: u16 = 1;
/// Reset register: offset from [`POWER_PORT`].
pub const RESET: u16 = 2;
/// What is written to the reset register to reset.
pub const RESET_VALUE: u8 = 1;
/// Events that are pending, cleared by reading: offset from [`POWER_PORT`].
pub const EVENTS: u16 = 3;
/// Bit of [`EVENTS`]: the power button was pressed.
pub const EVENT_POWER_BUTTON: u8 = 1;
/// Sleep type of soft-off (`_S5`).
pub const SLEEP_TYPE_S5: u8 = 5;
/// Interrupt of the generic event device, edge triggered.
pub const EVENT_GSI: u32 = 5;

/// First port of the serial port COM1.
pub const SERIAL_PORT: u16 = 0x3f8;
/// Ports of the serial port.
pub const SERIAL_PORTS: u16 = 8;
/// Interrupt of the serial port, edge triggered.
pub const SERIAL_GSI: u32 = 4;

/// Id of the IOAPIC.
pub const IOAPIC_ID: u8 = 0;
/// Interrupt pins of the IOAPIC.
pub const IOAPIC_PINS: u32 = 24;
