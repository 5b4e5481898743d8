//! One base address register: what it is, what the guest wrote, where it is mapped.

use vmm_bus::Gpa;

/// Which of the six base address registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BarIndex(u8);

impl BarIndex {
    /// `None` over 5.
    #[must_use]
    pub const fn new(index: u8) -> Option<Self> {
        if index < 6 { Some(Self(index)) } else { None }
    }

    /// The first register.
    pub const FIRST: Self = Self(0);

    /// 0 to 5.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }

    /// Offset of its register in config space.
    #[must_use]
    pub const fn register(self) -> u16 {
        0x10 + self.0 as u16 * 4
    }
}

/// What a BAR decodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BarKind {
    /// Memory under 4 GiB.
    Memory32,
    /// Memory anywhere; takes two registers.
    Memory64,
    /// Memory anywhere without side effects of reads; takes two registers.
    Memory64Prefetchable,
}

impl BarKind {
    pub(crate) const fn type_bits(self) -> u32 {
        match self {
            Self::Memory32 => 0,
            Self::Memory64 => 0b0100,
            Self::Memory64Prefetchable => 0b1100,
        }
    }

    pub(crate) const fn is_64_bit(self) -> bool {
        !matches!(self, Self::Memory32)
    }
}

/// A BAR and its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bar {
    /// Which register.
    pub index: BarIndex,
    /// What it decodes.
    pub kind: BarKind,
    /// Bytes; a power of two, at least 16.
    pub size: u64,
    /// Where it is on the MMIO bus now.
    pub mapped: Option<Gpa>,
    /// Where it goes when the guest's choice is impossible: the last address that worked.
    pub(crate) fallback: Gpa,
    /// Where it was put before boot.
    pub(crate) home: Gpa,
}

impl Bar {
    /// Writable address bits.
    pub(crate) const fn mask(&self) -> u64 {
        !(self.size - 1)
    }

    /// The register whose write completes a new address.
    pub(crate) const fn deciding_register(&self) -> u16 {
        self.index.register() + if self.kind.is_64_bit() { 4 } else { 0 }
    }

    pub(crate) const fn covers_register(&self, dword: u16) -> bool {
        dword == self.index.register() || dword == self.deciding_register()
    }
}
