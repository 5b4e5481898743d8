//! A function over a made-up device: what the guest sees, and what reaches the host.

use std::sync::{Arc, Mutex};

use vmm_bus::Bus;
use vmm_pci::{Bdf, PciSegment, RegisterOffset, RootBusConfig};

use crate::fake::{FakeFunction, FakeMachine};
use crate::{Health, HostBar, Machine, VfioFunction};

const BUS: u8 = 0;

struct Rig {
    host: FakeFunction,
    machine: Arc<FakeMachine>,
    health: Arc<Health>,
    mmio: Arc<Bus>,
    pci: Arc<PciSegment>,
    at: Bdf,
    device: Arc<Mutex<VfioFunction>>,
}

/// A drive: BAR 0 has 64 bits and 16 KiB, with eight MSI-X vectors at 0x2000 and MSI beside it.
fn config() -> Vec<u8> {
    let mut config = vec![0u8; 4096];
    let mut put = |at: usize, bytes: &[u8]| config[at..at + bytes.len()].copy_from_slice(bytes);
    put(0x00, &[0x36, 0x1b, 0x10, 0x00]);
    put(0x06, &[0x10, 0]);
    put(0x08, &[2, 2, 8, 1]);
    put(0x0e, &[0x80]);
    put(0x10, &[4]);
    put(0x34, &[0x40]);
    put(0x3d, &[1]);
    put(0x40, &[0x11, 0x60, 7, 0, 0, 0x20, 0, 0, 0, 0x30, 0, 0]);
    put(0x60, &[0x05, 0, 0x8a, 0]);
    put(0x100, &[0x10, 0, 0x01, 0x14]);
    put(0x140, &[0x01, 0, 0x01, 0]);
    config
}

fn rig() -> Rig {
    let bar = HostBar { bytes: 0x4000, mappable: true, writable: true, sparse: None, msix_mappable: true };
    let none = HostBar::default;
    let bars = [bar, none(), none(), none(), none(), none()];
    let host = FakeFunction::new(config(), bars, tempfile::tempfile().unwrap()).unwrap();
    let machine = Arc::new(FakeMachine::default());
    let health = Arc::new(Health::new(|| ()));
    let needs = Machine { router: machine.clone(), slots: machine.clone() };
    let function = VfioFunction::new("0000:31:00.0", Box::new(host.clone()), &needs, health.clone()).unwrap();
    let mmio = Arc::new(Bus::new());
    let windows = RootBusConfig { number: BUS, memory_32: 0..0, memory_64: 1 << 32..1 << 33 };
    let pci = PciSegment::new(Arc::clone(&mmio), vec![windows]).unwrap();
    let device = Arc::new(Mutex::new(function));
    let at = pci.add(BUS, device.clone()).unwrap();
    Rig { host, machine, health, mmio, pci, at, device }
}

impl Rig {
    fn read(&self, offset: u16) -> u32 {
        let mut bytes = [0; 4];
        self.pci.config_read(self.at, RegisterOffset(offset), &mut bytes);
        u32::from_le_bytes(bytes)
    }

    fn write(&self, offset: u16, data: &[u8]) {
        self.pci.config_write(self.at, RegisterOffset(offset), data);
    }

    fn base(&self) -> u64 {
        u64::from(self.read(0x14)) << 32 | u64::from(self.read(0x10) & !15)
    }

    /// Memory decode and bus mastering on.
    fn turn_on(&self) {
        self.write(0x04, &6u16.to_le_bytes());
    }

    /// Fills in a vector and unmasks it.
    fn unmask(&self, vector: u64) {
        let entry = self.base() + 0x2000 + vector * 16;
        self.mmio.write(entry, &0xfee0_0000u32.to_le_bytes());
        self.mmio.write(entry + 8, &(0x40 + u32::try_from(vector).unwrap()).to_le_bytes());
        self.mmio.write(entry + 12, &0u32.to_le_bytes());
    }

    fn armed(&self, kind: &str) -> Option<Vec<bool>> {
        self.host.state().armed.get(kind).cloned()
    }
}

#[test]
fn the_guest_sees_the_device_without_pin_rom_and_siblings() {
    let rig = rig();
    assert_eq!(rig.read(0x00), 0x0010_1b36);
    assert_eq!(rig.read(0x0c) >> 16 & 0x80, 0, "not multifunction");
    assert_eq!(rig.read(0x3c) >> 8 & 0xff, 0, "no pin");
    rig.write(0x30, &u32::MAX.to_le_bytes());
    assert_eq!(rig.read(0x30), 0, "no ROM");
    assert_eq!(rig.read(0x100), 0x1400_0000, "SR-IOV is the null capability");
    assert_eq!(rig.read(0x140) & 0xffff, 1);
    rig.write(0x108, &1u32.to_le_bytes());
    assert_eq!(rig.host.state().config[0x108], 0, "writes to what is hidden go nowhere");
    rig.write(0x148, &1u32.to_le_bytes());
    assert_eq!(rig.host.state().config[0x148], 1, "other writes go through");
}

#[test]
fn bars_are_the_guests_memory_but_for_the_page_of_the_table() {
    let rig = rig();
    assert!(rig.machine.shown.lock().unwrap().is_empty());
    rig.turn_on();
    let base = rig.base();
    let shown: Vec<_> = rig.machine.shown.lock().unwrap().values().map(|(at, len)| (at.0, *len)).collect();
    assert_eq!(shown, [(base, 0x2000)]);
    rig.write(0x10, &u32::MAX.to_le_bytes());
    assert_eq!(rig.read(0x10), 0xffff_c004, "16 KiB, 64 bits");
    rig.write(0x10, &0x8000_0000u32.to_le_bytes());
    rig.write(0x14, &1u32.to_le_bytes());
    let moved: Vec<_> = rig.machine.shown.lock().unwrap().values().map(|(at, _)| at.0).collect();
    assert_eq!(moved, [0x1_8000_0000]);
    rig.write(0x04, &0u16.to_le_bytes());
    assert!(rig.machine.shown.lock().unwrap().is_empty());
    assert_eq!(rig.host.state().config[4] & 2, 2, "the device itself always decodes");
    assert_eq!(rig.read(0x04) & 2, 0);
}

#[test]
fn what_is_not_memory_is_read_and_written_through() {
    let rig = rig();
    rig.turn_on();
    rig.mmio.write(rig.base() + 0x3800, &[1, 2, 3, 4]);
    let mut read = [0; 4];
    rig.mmio.read(rig.base() + 0x3800, &mut read);
    assert_eq!(read, [1, 2, 3, 4]);
}

#[test]
fn a_vector_reaches_the_host_when_it_is_first_unmasked() {
    let rig = rig();
    rig.turn_on();
    rig.unmask(2);
    assert_eq!(rig.armed("msix"), None);
    rig.write(0x42, &0x8000u16.to_le_bytes());
    assert_eq!(rig.read(0x40) >> 16, 0x8007);
    let only = |n: &[usize]| Some((0..8).map(|i| n.contains(&i)).collect::<Vec<_>>());
    assert_eq!(rig.armed("msix"), only(&[2]));
    rig.unmask(5);
    assert_eq!(rig.armed("msix"), only(&[2, 5]));
    assert_eq!(rig.health.report().vectors, 2);
    let messages: Vec<u32> = rig.machine.routes.lock().unwrap().values().map(|m| m.data).collect();
    assert_eq!(messages, [0x42, 0x45]);
    rig.write(0x42, &0u16.to_le_bytes());
    assert_eq!((rig.armed("msix"), rig.health.report().vectors), (None, 0));
    assert!(rig.machine.routes.lock().unwrap().is_empty());
    assert_eq!(rig.health.report().faults, 0, "{:?}", rig.health.report());
}

#[test]
fn msi_is_armed_before_the_device_has_it_and_follows_its_message() {
    let rig = rig();
    rig.turn_on();
    rig.write(0x64, &0xfee0_1000u32.to_le_bytes());
    rig.write(0x6c, &0x51u16.to_le_bytes());
    rig.write(0x62, &0x0011u16.to_le_bytes());
    assert_eq!(rig.armed("msi"), Some(vec![true, true]));
    let messages = || rig.machine.routes.lock().unwrap().values().map(|m| m.data).collect::<Vec<_>>();
    assert_eq!(messages(), [0x50, 0x51]);
    rig.write(0x6c, &0x60u16.to_le_bytes());
    assert_eq!(messages(), [0x60, 0x61]);
    rig.write(0x62, &0x0010u16.to_le_bytes());
    assert_eq!((rig.armed("msi"), messages()), (None, vec![]));
    assert!(rig.machine.gsis.lock().unwrap().is_empty());
}

#[test]
fn a_reset_takes_interrupts_down_and_bus_mastering_off() {
    let rig = rig();
    rig.turn_on();
    rig.unmask(0);
    rig.write(0x42, &0x8000u16.to_le_bytes());
    rig.pci.reset();
    assert_eq!((rig.armed("msix"), rig.host.state().resets), (None, 1));
    assert_eq!(rig.host.state().config[4], 2);
    assert!(rig.machine.shown.lock().unwrap().is_empty() && rig.machine.gsis.lock().unwrap().is_empty());
    assert_eq!(rig.health.report().resets, 1);
}

#[test]
fn a_device_that_fails_gives_ones_and_is_reported_once_for_each_kind() {
    let rig = rig();
    rig.turn_on();
    rig.host.state().dead = true;
    let mut read = [0; 4];
    rig.mmio.read(rig.base() + 0x3800, &mut read);
    assert_eq!(read, [0xff; 4]);
    let report = rig.health.report();
    assert!(report.faults > 0 && report.last_fault.unwrap().contains("0000:31:00.0: cannot read"));
}

#[test]
fn a_device_that_is_given_up_is_closed_and_absent() {
    let rig = rig();
    rig.turn_on();
    rig.unmask(1);
    rig.write(0x42, &0x8000u16.to_le_bytes());
    rig.pci.unplug(rig.at);
    rig.device.lock().unwrap().give_up();
    assert_eq!(rig.read(0x00), u32::MAX);
    assert!(rig.machine.shown.lock().unwrap().is_empty());
    assert_eq!(rig.armed("msix"), None);
    assert!(rig.health.report().lost);
    rig.turn_on();
    rig.pci.reset();
}
