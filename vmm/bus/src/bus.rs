//! A bus: address ranges, each served by one device.
//!
//! Used for ports and for MMIO. Lookups run on vCPU threads and take a read lock;
//! devices are registered at build time, and moved when a guest moves a BAR.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

/// A device that answers reads and writes at offsets from its base.
pub trait BusDevice: Send + fmt::Debug {
    /// Fills `data` from `offset`. What is not implemented reads as all ones.
    fn read(&mut self, offset: u64, data: &mut [u8]);

    /// Takes `data` at `offset`. What is not implemented is dropped.
    fn write(&mut self, offset: u64, data: &[u8]);
}

/// A device that does its own locking: accesses from several vCPUs may run at once.
///
/// Offsets and rules are those of [`BusDevice`].
pub trait SharedBusDevice: Send + Sync + fmt::Debug {
    /// Fills `data` from `offset`.
    fn read(&self, offset: u64, data: &mut [u8]);

    /// Takes `data` at `offset`.
    fn write(&self, offset: u64, data: &[u8]);
}

#[derive(Clone, Debug)]
enum Target {
    Locked(Arc<Mutex<dyn BusDevice>>),
    Shared(Arc<dyn SharedBusDevice>),
}

impl Target {
    fn read(&self, offset: u64, data: &mut [u8]) {
        match self {
            Self::Locked(device) => {
                device.lock().unwrap_or_else(PoisonError::into_inner).read(offset, data);
            }
            Self::Shared(device) => device.read(offset, data),
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        match self {
            Self::Locked(device) => {
                device.lock().unwrap_or_else(PoisonError::into_inner).write(offset, data);
            }
            Self::Shared(device) => device.write(offset, data),
        }
    }
}

/// A range of addresses, in the bus's own space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BusRange {
    /// First address.
    pub base: u64,
    /// Length; never zero.
    pub len: u64,
}

/// Why a range was not registered.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BusError {
    /// Empty, or past the end of the address space.
    #[error("Range {base:#x}+{len:#x} is empty or wraps")]
    BadRange {
        /// First address.
        base: u64,
        /// Length.
        len: u64,
    },
    /// Overlaps another device.
    #[error("Range {base:#x}+{len:#x} overlaps the device at {other:#x}")]
    Overlap {
        /// First address.
        base: u64,
        /// Length.
        len: u64,
        /// First address of the device that is there.
        other: u64,
    },
}

/// Length and device.
type Entry = (u64, Target);

/// A bus of ports or of guest physical addresses.
#[derive(Debug, Default)]
pub struct Bus {
    devices: RwLock<BTreeMap<u64, Entry>>,
}

impl Bus {
    /// An empty bus.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a device at a range.
    ///
    /// # Errors
    /// [`BusError`] when the range is empty, wraps or overlaps; nothing is changed then.
    pub fn register(&self, range: BusRange, device: Arc<Mutex<dyn BusDevice>>) -> Result<(), BusError> {
        self.insert(range, Target::Locked(device))
    }

    /// Puts a device that does its own locking at a range.
    ///
    /// # Errors
    /// As [`Bus::register`].
    pub fn register_shared(&self, range: BusRange, device: Arc<dyn SharedBusDevice>) -> Result<(), BusError> {
        self.insert(range, Target::Shared(device))
    }

    fn insert(&self, range: BusRange, target: Target) -> Result<(), BusError> {
        let BusRange { base, len } = range;
        let last =
            len.checked_sub(1).and_then(|l| base.checked_add(l)).ok_or(BusError::BadRange { base, len })?;
        let mut devices = self.devices.write().unwrap_or_else(PoisonError::into_inner);
        if let Some((&other, &(other_len, _))) = devices.range(..=last).next_back()
            && other + (other_len - 1) >= base
        {
            return Err(BusError::Overlap { base, len, other });
        }
        devices.insert(base, (len, target));
        Ok(())
    }

    /// Takes away the device whose range starts at `base`; says whether there was one.
    pub fn unregister(&self, base: u64) -> bool {
        self.devices.write().unwrap_or_else(PoisonError::into_inner).remove(&base).is_some()
    }

    /// Reads; what nobody serves, or an access across the end of a device, reads as all ones.
    pub fn read(&self, address: u64, data: &mut [u8]) {
        match self.find(address, data.len()) {
            Some((device, offset)) => device.read(offset, data),
            None => data.fill(0xff),
        }
    }

    /// Writes; what nobody serves is dropped.
    pub fn write(&self, address: u64, data: &[u8]) {
        if let Some((device, offset)) = self.find(address, data.len()) {
            device.write(offset, data);
        }
    }

    fn find(&self, address: u64, len: usize) -> Option<(Target, u64)> {
        let devices = self.devices.read().unwrap_or_else(PoisonError::into_inner);
        let (&base, (range, device)) = devices.range(..=address).next_back()?;
        let offset = address - base;
        let end = offset.checked_add(u64::try_from(len).ok()?)?;
        (end <= *range).then(|| (device.clone(), offset))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Echo(u8);

    impl BusDevice for Echo {
        fn read(&mut self, offset: u64, data: &mut [u8]) {
            data.fill(self.0.wrapping_add(u8::try_from(offset).unwrap()));
        }
        fn write(&mut self, _offset: u64, data: &[u8]) {
            self.0 = data[0];
        }
    }

    fn device(value: u8) -> Arc<Mutex<dyn BusDevice>> {
        Arc::new(Mutex::new(Echo(value)))
    }

    fn read(bus: &Bus, address: u64) -> u8 {
        let mut data = [0];
        bus.read(address, &mut data);
        data[0]
    }

    #[test]
    fn access_reaches_the_device_at_its_offset() {
        let bus = Bus::new();
        bus.register(BusRange { base: 0x10, len: 4 }, device(1)).unwrap();
        bus.register(BusRange { base: 0x14, len: 4 }, device(100)).unwrap();
        assert_eq!(read(&bus, 0x12), 3);
        assert_eq!(read(&bus, 0x14), 100);
        bus.write(0x10, &[9]);
        assert_eq!(read(&bus, 0x10), 9);
    }

    #[derive(Debug)]
    struct Shared;

    impl SharedBusDevice for Shared {
        fn read(&self, _offset: u64, data: &mut [u8]) {
            data.fill(0x5a);
        }
        fn write(&self, _offset: u64, _data: &[u8]) {}
    }

    #[test]
    fn a_shared_device_stands_beside_a_locked_one() {
        let bus = Bus::new();
        bus.register(BusRange { base: 0x10, len: 4 }, device(1)).unwrap();
        bus.register_shared(BusRange { base: 0x14, len: 4 }, Arc::new(Shared)).unwrap();
        bus.write(0x14, &[3]);
        assert_eq!((read(&bus, 0x10), read(&bus, 0x17)), (1, 0x5a));
    }

    #[test]
    fn unserved_and_straddling_accesses_read_as_ones() {
        let bus = Bus::new();
        bus.register(BusRange { base: 0x10, len: 4 }, device(1)).unwrap();
        assert_eq!(read(&bus, 0xf), 0xff);
        assert_eq!(read(&bus, 0x14), 0xff);
        let mut data = [0; 4];
        bus.read(0x12, &mut data);
        assert_eq!(data, [0xff; 4]);
        bus.read(u64::MAX, &mut data);
        assert_eq!(data, [0xff; 4]);
    }

    #[test]
    fn overlaps_and_bad_ranges_are_refused() {
        let bus = Bus::new();
        bus.register(BusRange { base: 0x10, len: 4 }, device(1)).unwrap();
        let refused = |base, len| bus.register(BusRange { base, len }, device(2)).unwrap_err();
        assert_eq!(refused(0x13, 1), BusError::Overlap { base: 0x13, len: 1, other: 0x10 });
        assert_eq!(refused(0x8, 0x100), BusError::Overlap { base: 0x8, len: 0x100, other: 0x10 });
        assert_eq!(refused(0x20, 0), BusError::BadRange { base: 0x20, len: 0 });
        assert_eq!(refused(u64::MAX, 2), BusError::BadRange { base: u64::MAX, len: 2 });
        assert!(bus.unregister(0x10));
        bus.register(BusRange { base: 0x13, len: 1 }, device(2)).unwrap();
    }
}
