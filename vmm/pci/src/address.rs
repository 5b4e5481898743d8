//! Where a PCI function is, and which register of it is meant.

use std::fmt;

/// Bus, device and function within a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bdf {
    bus: u8,
    slot: u8,
}

impl Bdf {
    /// `None` when `device` is over 31 or `function` over 7.
    #[must_use]
    pub const fn new(bus: u8, device: u8, function: u8) -> Option<Self> {
        if device < 32 && function < 8 { Some(Self { bus, slot: (device << 3) | function }) } else { None }
    }

    /// From a bus number and the 8 bits of device and function, as config addresses carry them.
    #[must_use]
    pub const fn from_bus_and_slot(bus: u8, slot: u8) -> Self {
        Self { bus, slot }
    }

    /// Bus number.
    #[must_use]
    pub const fn bus(self) -> u8 {
        self.bus
    }

    /// Device number, 0 to 31.
    #[must_use]
    pub const fn device(self) -> u8 {
        self.slot >> 3
    }

    /// Function number, 0 to 7.
    #[must_use]
    pub const fn function(self) -> u8 {
        self.slot & 7
    }

    pub(crate) const fn slot(self) -> usize {
        self.slot as usize
    }
}

impl fmt::Display for Bdf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}:{:02x}.{}", self.bus, self.device(), self.function())
    }
}

/// Byte offset into a function's config space, 0 to 4095.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RegisterOffset(pub u16);

impl RegisterOffset {
    /// Start of the 32-bit register that holds this byte.
    #[must_use]
    pub const fn dword(self) -> u16 {
        self.0 & !3
    }

    /// An access of `len` bytes from here stays within one 32-bit register and has a width
    /// that the bus knows.
    #[must_use]
    pub const fn is_access(self, len: usize) -> bool {
        self.0 < 4096 && matches!(len, 1 | 2 | 4) && (self.0 & 3) as usize + len <= 4
    }
}
