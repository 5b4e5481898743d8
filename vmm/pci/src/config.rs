//! Config space of one function: registers with the bits a guest may change.
//!
//! Conventional 256 bytes; reads past them give all ones. Owned by a device, called under its
//! lock. It never maps anything: [`crate::mapping`] compares it with the bus after each write.

use vmm_bus::Gpa;

use crate::bar::{Bar, BarIndex, BarKind};
use crate::{PciError, RegisterOffset};

/// Bytes of a conventional config space.
const LEN: usize = 256;
const COMMAND: u16 = 0x04;
const STATUS: u16 = 0x06;
const CAPABILITIES: u16 = 0x34;
const FIRST_CAPABILITY: u16 = 0x40;
const STATUS_CAPABILITIES: u8 = 0x10;
const COMMAND_MEMORY: u8 = 0x02;
/// Memory decode, bus master, parity and SERR: kept as written, the first two mean something.
const COMMAND_MASK: u16 = 0x0146;
/// Interrupts by pin off: we have none, but drivers read back what they wrote.
const COMMAND_INTX_OFF: u16 = 0x0400;

/// Vendor and device numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceIds {
    /// Vendor.
    pub vendor: u16,
    /// Device.
    pub device: u16,
    /// Revision.
    pub revision: u8,
    /// Subsystem vendor.
    pub subsystem_vendor: u16,
    /// Subsystem.
    pub subsystem: u16,
}

/// Class, subclass and programming interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClassCode {
    /// Base class.
    pub class: u8,
    /// Subclass.
    pub subclass: u8,
    /// Programming interface.
    pub interface: u8,
}

/// The registers of one function.
#[derive(Clone, Debug)]
pub struct ConfigSpace {
    registers: [u8; LEN],
    writable: [u8; LEN],
    reset_values: [u8; LEN],
    bars: Vec<Bar>,
    next_capability: u16,
    last_capability: Option<u16>,
}

impl ConfigSpace {
    /// A type 0 header without BARs, capabilities or an interrupt pin.
    #[must_use]
    pub fn new(ids: DeviceIds, class: ClassCode) -> Self {
        let mut config = Self {
            registers: [0; LEN],
            writable: [0; LEN],
            reset_values: [0; LEN],
            bars: Vec::new(),
            next_capability: FIRST_CAPABILITY,
            last_capability: None,
        };
        config.set(0x00, &ids.vendor.to_le_bytes());
        config.set(0x02, &ids.device.to_le_bytes());
        config.set(0x08, &[ids.revision, class.interface, class.subclass, class.class]);
        config.set(0x2c, &ids.subsystem_vendor.to_le_bytes());
        config.set(0x2e, &ids.subsystem.to_le_bytes());
        config.allow(COMMAND, &(COMMAND_MASK | COMMAND_INTX_OFF).to_le_bytes());
        config.allow(0x0c, &[0xff]);
        config.allow(0x3c, &[0xff]);
        config
    }

    /// Declares a BAR; the bus gives it an address.
    ///
    /// # Errors
    /// [`PciError::BadBar`] when the size is not a power of two of at least 16 (and under
    /// 2 GiB for 32 bits), the register is taken, or a 64-bit BAR starts at the last one.
    pub fn add_bar(&mut self, index: BarIndex, kind: BarKind, size: u64) -> Result<(), PciError> {
        let bad = PciError::BadBar { index: index.get(), size };
        let limit = if kind.is_64_bit() { 1 << 62 } else { 1 << 31 };
        let bar = Bar { index, kind, size, mapped: None, fallback: Gpa(0), home: Gpa(0) };
        let taken = self.bars.iter().any(|other| {
            other.covers_register(index.register()) || other.covers_register(bar.deciding_register())
        });
        if taken || !size.is_power_of_two() || !(16..=limit).contains(&size) || bar.deciding_register() > 0x24
        {
            return Err(bad);
        }
        let mask = bar.mask().to_le_bytes();
        let (low, high) = mask.split_at(4);
        self.set(index.register(), &kind.type_bits().to_le_bytes());
        self.allow(index.register(), low);
        if kind.is_64_bit() {
            self.allow(bar.deciding_register(), high);
        }
        self.bars.push(bar);
        Ok(())
    }

    /// Adds a capability; `body` follows its id and next pointer, `writable` are the bits of
    /// the body that the guest may change (shorter: the rest is read-only). Returns where the
    /// capability starts.
    ///
    /// # Errors
    /// [`PciError::CapabilitiesFull`] when it does not fit.
    pub fn add_capability(&mut self, id: u8, body: &[u8], writable: &[u8]) -> Result<u16, PciError> {
        let start = self.next_capability;
        let end = u16::try_from(body.len())
            .ok()
            .and_then(|len| start.checked_add(len)?.checked_add(2 + 3))
            .filter(|&end| usize::from(end & !3) <= LEN)
            .ok_or(PciError::CapabilitiesFull { id })?;
        let [pointer, _] = start.to_le_bytes();
        self.set(start, &[id, 0]);
        self.set(start + 2, body);
        self.allow(start + 2, writable);
        self.set(self.last_capability.map_or(CAPABILITIES, |last| last + 1), &[pointer]);
        self.set(STATUS, &[STATUS_CAPABILITIES]);
        self.last_capability = Some(start);
        self.next_capability = end & !3;
        Ok(start)
    }

    /// Reads as the guest does.
    pub fn read(&self, offset: RegisterOffset, data: &mut [u8]) {
        let start = usize::from(offset.0);
        match start.checked_add(data.len()).and_then(|end| self.registers.get(start..end)) {
            Some(bytes) => data.copy_from_slice(bytes),
            None => data.fill(0xff),
        }
    }

    /// Writes as the guest does: only bits that it may change. Part of a BAR is not taken, so
    /// that no half-written address is ever acted on.
    pub fn write(&mut self, offset: RegisterOffset, data: &[u8]) {
        if data.len() != 4 && self.bars.iter().any(|bar| bar.covers_register(offset.dword())) {
            return;
        }
        let start = usize::from(offset.0);
        let Some(end) = start.checked_add(data.len()) else { return };
        let (Some(registers), Some(masks)) =
            (self.registers.get_mut(start..end), self.writable.get(start..end))
        else {
            return;
        };
        for ((register, mask), byte) in registers.iter_mut().zip(masks).zip(data) {
            *register = (*register & !mask) | (byte & mask);
        }
    }

    /// Sets bytes whatever the guest may change. Out of range: dropped.
    pub fn set(&mut self, offset: u16, data: &[u8]) {
        copy(&mut self.registers, offset, data);
    }

    /// A 16-bit register; zero out of range.
    #[must_use]
    pub fn word(&self, offset: u16) -> u16 {
        let mut word = [0; 2];
        match self.registers.get(usize::from(offset)..usize::from(offset) + 2) {
            Some(bytes) => {
                word.copy_from_slice(bytes);
                u16::from_le_bytes(word)
            }
            None => 0,
        }
    }

    /// Memory decode is on: BARs answer.
    #[must_use]
    pub fn memory_decode(&self) -> bool {
        self.word(COMMAND) & u16::from(COMMAND_MEMORY) != 0
    }

    /// The BARs, in the order they were declared.
    #[must_use]
    pub fn bars(&self) -> &[Bar] {
        &self.bars
    }

    /// Address in a BAR's registers, whether mapped there or not.
    #[must_use]
    pub fn bar_address(&self, bar: &Bar) -> Gpa {
        let low = u64::from(self.dword(bar.index.register()));
        let high = if bar.kind.is_64_bit() { u64::from(self.dword(bar.deciding_register())) } else { 0 };
        Gpa(((high << 32) | low) & bar.mask())
    }

    /// The guest is asking for the size: all address bits that it can set in this register are.
    pub(crate) fn is_size_probe(&self, dword: u16) -> bool {
        let mask = read_dword(&self.writable, dword);
        mask != 0 && self.dword(dword) & mask == mask
    }

    pub(crate) fn set_bar_address(&mut self, bar: &Bar, address: Gpa) {
        let bytes = address.0.to_le_bytes();
        let (low, high) = bytes.split_at(4);
        let mut low: [u8; 4] = low.try_into().unwrap_or_default();
        low[0] |= bar.kind.type_bits().to_le_bytes()[0];
        self.set(bar.index.register(), &low);
        if bar.kind.is_64_bit() {
            self.set(bar.deciding_register(), high);
        }
    }

    pub(crate) fn bars_mut(&mut self) -> &mut [Bar] {
        &mut self.bars
    }

    pub(crate) fn turn_memory_decode_off(&mut self) {
        let command = self.word(COMMAND) & !u16::from(COMMAND_MEMORY);
        self.set(COMMAND, &command.to_le_bytes());
    }

    /// Remembers the present values as those of a reset.
    pub(crate) fn seal(&mut self) {
        self.reset_values = self.registers;
    }

    /// Back to the values before boot. BARs must be unmapped.
    pub(crate) fn reset(&mut self) {
        self.registers = self.reset_values;
        for bar in &mut self.bars {
            bar.fallback = bar.home;
        }
    }

    fn dword(&self, offset: u16) -> u32 {
        read_dword(&self.registers, offset)
    }

    fn allow(&mut self, offset: u16, mask: &[u8]) {
        copy(&mut self.writable, offset, mask);
    }
}

fn copy(to: &mut [u8; LEN], offset: u16, data: &[u8]) {
    let start = usize::from(offset);
    if let Some(bytes) = start.checked_add(data.len()).and_then(|end| to.get_mut(start..end)) {
        bytes.copy_from_slice(data);
    }
}

fn read_dword(from: &[u8; LEN], offset: u16) -> u32 {
    let start = usize::from(offset);
    let bytes = from.get(start..start + 4).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok());
    u32::from_le_bytes(bytes.unwrap_or_default())
}
