use std::sync::{Mutex, PoisonError};

use super::*;
use crate::driver::Driver;
use crate::{ActivateError, features};
use vmm_bus::Bus;
use vmm_pci::{PciSegment, RootBusConfig};

#[derive(Debug, Default)]
struct Seen {
    activations: Vec<(u64, Vec<u16>)>,
    resets: usize,
}

#[derive(Debug)]
struct Probe {
    seen: Arc<Mutex<Seen>>,
    refuses: bool,
}

impl VirtioDevice for Probe {
    fn device_type(&self) -> DeviceType {
        DeviceType::Block
    }
    fn features(&self) -> u64 {
        1 << 5
    }
    fn queue_sizes(&self) -> &[u16] {
        &[128, 64]
    }
    fn config_read(&self, offset: u64, data: &mut [u8]) {
        data.fill(u8::try_from(offset).unwrap());
    }
    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError> {
        if self.refuses {
            return Err(ActivateError::QueueMissing { index: 0 });
        }
        let queues = activation.queues.iter().map(|queue| queue.index).collect();
        self.seen.lock().unwrap().activations.push((activation.features, queues));
        Ok(())
    }
    fn reset(&mut self) {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).resets += 1;
    }
}

fn driver() -> (Driver, Arc<Mutex<Seen>>) {
    let seen = Arc::new(Mutex::new(Seen::default()));
    (Driver::new(Box::new(Probe { seen: Arc::clone(&seen), refuses: false })), seen)
}

#[test]
fn a_driver_that_follows_the_order_starts_the_device() {
    let (mut driver, seen) = driver();
    assert_eq!(driver.offered(), (1 << 5) | VERSION_1 | EVENT_IDX | INDIRECT_DESC);
    assert_eq!(driver.read(18, 2), 2, "queues");
    assert!(driver.negotiate((1 << 5) | features::EVENT_IDX));
    driver.write(22, 2, 1);
    assert_eq!(driver.read(24, 2), 64, "size of the second queue");
    assert_eq!(driver.read(30, 2), 1, "its doorbell");
    driver.queue(1, 32);
    assert!(driver.start());
    let features = (1 << 5) | VERSION_1 | EVENT_IDX;
    assert_eq!(seen.lock().unwrap().activations, [(features, vec![1])]);
    assert_eq!(driver.read(0x2003, 1), 3, "device configuration");
}

#[test]
fn features_that_were_not_offered_are_refused() {
    let (mut driver, _) = driver();
    assert!(!driver.negotiate(1 << 6));
    driver.write(20, 1, 0);
    driver.write(20, 1, 3);
    driver.write(20, 1, 11);
    assert_eq!(driver.status(), 3, "without version 1");
    driver.write(20, 1, 7);
    assert_eq!(driver.status(), 3, "ready without features");
}

#[test]
fn queues_outside_memory_ask_for_a_reset() {
    for (register, address) in [(32, !15), (40, crate::driver::MEMORY), (48, crate::driver::MEMORY - 8)] {
        let (mut driver, seen) = driver();
        assert!(driver.negotiate(0));
        driver.queue(0, 128);
        driver.write(22, 2, 1);
        driver.write(register, 8, address);
        driver.write(28, 2, 1);
        assert!(!driver.start());
        assert_eq!(driver.status() & 64, 64);
        assert!(seen.lock().unwrap().activations.is_empty());
        driver.write(20, 1, 0);
        assert_eq!(driver.status(), 0);
    }
}

#[test]
fn bad_queue_sizes_ask_for_a_reset() {
    for size in [0, 3, 256, 0xffff] {
        let (mut driver, _) = driver();
        assert!(driver.negotiate(0));
        driver.queue(0, 128);
        driver.write(22, 2, 1);
        driver.write(24, 2, size);
        driver.write(28, 2, 1);
        assert!(!driver.start(), "{size}");
        assert!(driver.function.is_broken());
    }
}

#[test]
fn a_device_that_does_not_start_asks_for_a_reset() {
    let seen = Arc::new(Mutex::new(Seen::default()));
    let mut driver = Driver::new(Box::new(Probe { seen, refuses: true }));
    assert!(driver.negotiate(0));
    driver.queue(0, 16);
    assert!(!driver.start());
    assert_eq!(driver.status() & 64, 64);
}

#[test]
fn an_enabled_queue_cannot_be_changed() {
    let (mut driver, _) = driver();
    assert!(driver.negotiate(0));
    let queue = driver.queue(0, 16);
    driver.write(32, 8, 0xdead_0000);
    driver.write(24, 2, 64);
    assert_eq!(driver.read(32, 8), queue.addresses()[0]);
    assert_eq!(driver.read(24, 2), 16);
    assert!(driver.start());
    driver.write(20, 1, 3);
    assert_eq!(driver.status(), 15, "status bits are not taken away");
}

#[test]
fn reset_brings_back_the_initial_state() {
    let (mut driver, seen) = driver();
    let fresh: Vec<u64> = (0..56).map(|register| driver.read(register, 1)).collect();
    driver.enable_interrupts(2);
    assert!(driver.negotiate(1 << 5));
    driver.queue(0, 16);
    assert!(driver.start());
    driver.function.bar_mapped(BarIndex::FIRST, Gpa(0x10_0000)).unwrap();
    assert_eq!(driver.doorbells.attached(), [Gpa(0x10_3000), Gpa(0x10_3004)]);
    driver.write(20, 1, 0);
    assert!(driver.doorbells.attached().is_empty());
    let again: Vec<u64> = (0..56).map(|register| driver.read(register, 1)).collect();
    assert_eq!(fresh, again);
    assert_eq!(seen.lock().unwrap().resets, 1);
    assert!(driver.negotiate(0));
    driver.queue(1, 16);
    assert!(driver.start());
    assert_eq!(seen.lock().unwrap().activations.len(), 2);
    driver.function.reset();
    assert_eq!(driver.router.counts(), (0, 0), "all GSIs are given back");
}

#[test]
fn doorbells_follow_the_bar() {
    let (mut driver, _) = driver();
    driver.function.bar_mapped(BarIndex::FIRST, Gpa(0x10_0000)).unwrap();
    assert!(driver.doorbells.attached().is_empty(), "not before the driver is ready");
    assert!(driver.negotiate(0));
    driver.queue(0, 16);
    assert!(driver.start());
    assert_eq!(driver.doorbells.attached().len(), 2);
    driver.function.bar_unmapped(BarIndex::FIRST, Gpa(0x10_0000));
    assert!(driver.doorbells.attached().is_empty());
    driver.function.bar_mapped(BarIndex::FIRST, Gpa(0x20_0000)).unwrap();
    assert_eq!(driver.doorbells.attached(), [Gpa(0x20_3000), Gpa(0x20_3004)]);
}

#[test]
fn vectors_that_do_not_exist_read_back_as_none() {
    let (mut driver, _) = driver();
    driver.write(16, 2, 3);
    assert_eq!(driver.read(16, 2), 0xffff);
    driver.write(16, 2, 2);
    assert_eq!(driver.read(16, 2), 2);
    driver.write(22, 2, 9);
    driver.write(26, 2, 0);
    assert_eq!(driver.read(26, 2), 0xffff, "no such queue");
    assert_eq!(driver.read(24, 2), 0, "no such queue");
}

#[test]
fn the_bar_can_be_reached_through_config_space() {
    let (mut driver, _) = driver();
    let function = &mut driver.function;
    let mut at = function.config().word(0x34) & 0xff;
    while function.config().word(at) & 0xff != 9 || function.config().word(at + 2) >> 8 != 5 {
        at = function.config().word(at) >> 8;
    }
    let mut access =
        |register: u16, bytes: &[u8]| function.config_write(RegisterOffset(at + register), bytes);
    access(12, &1_u32.to_le_bytes());
    access(8, &20_u32.to_le_bytes());
    access(16, &[3]);
    assert_eq!(driver.status(), 3);
    let mut status = [0];
    driver.function.config_read(RegisterOffset(at + 16), &mut status);
    assert_eq!(status, [3]);
}

#[test]
fn a_guest_finds_the_device_through_the_bus() {
    let (Driver { function, .. }, _) = driver();
    let mmio = Arc::new(Bus::new());
    let windows =
        RootBusConfig { number: 0, memory_32: 0xc000_0000..0xd000_0000, memory_64: 1 << 40..1 << 41 };
    let segment = PciSegment::new(Arc::clone(&mmio), vec![windows]).unwrap();
    let bdf = segment.add(0, Arc::new(Mutex::new(function))).unwrap();
    let read = |offset| {
        let mut bytes = [0; 4];
        segment.config_read(bdf, RegisterOffset(offset), &mut bytes);
        u32::from_le_bytes(bytes)
    };
    assert_eq!(read(0), 0x1042_1af4);
    assert_eq!(u64::from(read(0x14)) << 32 | u64::from(read(0x10) & !15), 1 << 40);
    segment.config_write(bdf, RegisterOffset(4), &[6, 0]);
    let mut queues = [0; 2];
    mmio.read((1 << 40) + 18, &mut queues);
    assert_eq!(queues, [2, 0]);
    segment.reset();
    mmio.read((1 << 40) + 18, &mut queues);
    assert_eq!(queues, [0xff, 0xff], "unmapped by the reset");
}
