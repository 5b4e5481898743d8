//! Config space and BARs as a guest meets them, through both doors.

use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use vmm_bus::{AttachError, Bus, BusRange, Gpa, SharedBusDevice};

use super::*;

const LOW: u64 = 0xc000_0000;
const HIGH: u64 = 1 << 40;

#[derive(Debug, Default)]
struct Log {
    mapped: Vec<(u8, u64)>,
    refuse: Option<u64>,
    resets: usize,
}

#[derive(Debug)]
struct Probe {
    config: ConfigSpace,
    log: Arc<Mutex<Log>>,
}

impl Probe {
    fn new(bars: &[(u8, BarKind, u64)]) -> (Arc<Mutex<Self>>, Arc<Mutex<Log>>) {
        let ids =
            DeviceIds { vendor: 0x1234, device: 0x5678, revision: 1, subsystem_vendor: 2, subsystem: 3 };
        let mut config = ConfigSpace::new(ids, ClassCode { class: 2, subclass: 0, interface: 0 });
        for &(index, kind, size) in bars {
            config.add_bar(BarIndex::new(index).unwrap(), kind, size).unwrap();
        }
        let log = Arc::new(Mutex::new(Log::default()));
        (Arc::new(Mutex::new(Self { config, log: Arc::clone(&log) })), log)
    }
}

impl PciDevice for Probe {
    fn config(&self) -> &ConfigSpace {
        &self.config
    }
    fn config_mut(&mut self) -> &mut ConfigSpace {
        &mut self.config
    }
    fn bar_read(&mut self, bar: BarIndex, offset: u64, data: &mut [u8]) {
        data.fill(bar.get() * 16 + u8::try_from(offset & 15).unwrap());
    }
    fn bar_write(&mut self, _bar: BarIndex, _offset: u64, _data: &[u8]) {}
    fn bar_mapped(&mut self, bar: BarIndex, at: Gpa) -> Result<(), AttachError> {
        let mut log = self.log.lock().unwrap();
        if log.refuse == Some(at.0) {
            let source = std::io::ErrorKind::Other.into();
            return Err(AttachError { action: "attach", object: at.to_string(), source });
        }
        log.mapped.push((bar.get(), at.0));
        Ok(())
    }
    fn bar_unmapped(&mut self, bar: BarIndex, at: Gpa) {
        self.log.lock().unwrap().mapped.retain(|&mapped| mapped != (bar.get(), at.0));
    }
    fn reset(&mut self) {
        self.log.lock().unwrap().resets += 1;
    }
}

struct Rig {
    segment: Arc<PciSegment>,
    mmio: Arc<Bus>,
    ports: Arc<dyn SharedBusDevice>,
    ecam: Arc<dyn SharedBusDevice>,
}

impl Rig {
    fn new() -> Self {
        let mmio = Arc::new(Bus::new());
        let bus = RootBusConfig {
            number: 0,
            memory_32: LOW..LOW + 0x1000_0000,
            memory_64: HIGH..HIGH + 0x1_0000_0000,
        };
        let segment = PciSegment::new(Arc::clone(&mmio), vec![bus]).unwrap();
        let (ports, ecam) = (segment.config_ports(), segment.ecam());
        Self { segment, mmio, ports, ecam }
    }

    fn add(&self, bars: &[(u8, BarKind, u64)]) -> (Bdf, Arc<Mutex<Log>>) {
        let (device, log) = Probe::new(bars);
        (self.segment.add(0, device).unwrap(), log)
    }

    fn read(&self, bdf: Bdf, register: u16) -> u32 {
        let mut data = [0; 4];
        self.segment.config_read(bdf, RegisterOffset(register), &mut data);
        u32::from_le_bytes(data)
    }

    fn write(&self, bdf: Bdf, register: u16, value: u32) {
        self.segment.config_write(bdf, RegisterOffset(register), &value.to_le_bytes());
    }

    fn decode(&self, bdf: Bdf, on: u32) {
        self.segment.config_write(bdf, RegisterOffset(4), &[u8::try_from(on * 2).unwrap(), 0]);
    }

    fn mmio(&self, address: u64) -> u8 {
        let mut data = [0];
        self.mmio.read(address, &mut data);
        data[0]
    }
}

#[test]
fn both_doors_lead_to_the_same_register() {
    let rig = Rig::new();
    let (bdf, _) = rig.add(&[]);
    rig.ports.write(0, &(0x8000_003c_u32 | u32::from(bdf.device()) << 11).to_le_bytes());
    rig.ports.write(4, &[0x42]);
    let mut data = [0; 4];
    rig.ecam.read((u64::from(bdf.device()) << 15) + 0x3c, &mut data);
    assert_eq!(data, [0x42, 0, 0, 0]);
    rig.ecam.write(0x3c, &[0x43]);
    let mut byte = [0];
    rig.ports.read(4, &mut byte);
    assert_eq!(byte, [0x43]);
    rig.ports.read(0, &mut data);
    assert_eq!(u32::from_le_bytes(data), 0x8000_003c);
}

#[test]
fn what_is_absent_or_crosses_a_register_reads_as_ones() {
    let rig = Rig::new();
    let (bdf, _) = rig.add(&[]);
    assert_eq!(rig.read(Bdf::new(0, 31, 0).unwrap(), 0), u32::MAX);
    assert_eq!(rig.read(Bdf::new(0, 0, 1).unwrap(), 0), u32::MAX, "no such function");
    assert_eq!(rig.read(Bdf::new(1, 0, 0).unwrap(), 0), u32::MAX, "no such bus");
    for (register, len) in [(1, 4), (2, 4), (3, 2), (0xfff, 2), (0, 3), (0, 8), (0, 0)] {
        let mut data = vec![0; len];
        rig.segment.config_read(bdf, RegisterOffset(register), &mut data);
        assert!(data.iter().all(|&byte| byte == 0xff), "{register:#x}+{len}");
    }
    assert_eq!(rig.read(bdf, 0x100), u32::MAX, "no extended space");
    let mut data = [0; 4];
    rig.ports.write(0, &0x0000_0000_u32.to_le_bytes());
    rig.ports.read(4, &mut data);
    assert_eq!(data, [0xff; 4], "not enabled");
    rig.ecam.read(1 << 20, &mut data);
    assert_eq!(data, [0xff; 4], "another bus");
    rig.ecam.read(u64::MAX, &mut data);
    assert_eq!(data, [0xff; 4]);
}

#[test]
fn only_writable_bits_change() {
    let rig = Rig::new();
    let (bdf, _) = rig.add(&[]);
    for register in (0..0x100).step_by(4) {
        rig.write(bdf, register, u32::MAX);
    }
    assert_eq!(rig.read(bdf, 0), 0x5678_1234);
    assert_eq!(rig.read(bdf, 8), 0x0200_0001);
    assert_eq!(rig.read(bdf, 4) & 0xffff, 0x0546);
    assert_eq!(rig.read(bdf, 0x10), 0, "no BAR");
    assert_eq!(rig.read(bdf, 0x3c), 0xff);
}

#[test]
fn bars_are_assigned_before_boot_and_mapped_by_decode() {
    let rig = Rig::new();
    let (bdf, log) = rig.add(&[(0, BarKind::Memory32, 0x1000), (2, BarKind::Memory64Prefetchable, 0x4000)]);
    assert_eq!(u64::from(rig.read(bdf, 0x10)), LOW);
    assert_eq!(rig.read(bdf, 0x18), 0b1100);
    assert_eq!(rig.read(bdf, 0x1c), 0x100);
    assert_eq!(rig.mmio(LOW), 0xff);
    rig.decode(bdf, 1);
    assert_eq!((rig.mmio(LOW + 1), rig.mmio(HIGH + 2)), (0x01, 0x22));
    assert_eq!(log.lock().unwrap().mapped.len(), 2);
    rig.decode(bdf, 0);
    assert_eq!(rig.mmio(LOW), 0xff);
    assert!(log.lock().unwrap().mapped.is_empty());
}

#[test]
fn a_size_probe_moves_nothing_even_while_decode_is_on() {
    let rig = Rig::new();
    let (bdf, _) = rig.add(&[(0, BarKind::Memory64, 0x8000)]);
    rig.decode(bdf, 1);
    let (low, high) = (rig.read(bdf, 0x10), rig.read(bdf, 0x14));
    for (register, original, size) in [(0x10, low, 0xffff_8004), (0x14, high, u32::MAX)] {
        rig.write(bdf, register, u32::MAX);
        assert_eq!(rig.read(bdf, register), size);
        assert_eq!(rig.mmio(HIGH), 0, "still there");
        rig.write(bdf, register, original);
        assert_eq!(rig.read(bdf, register), original);
    }
    rig.write(bdf, 0x10, u32::MAX);
    rig.write(bdf, 0x14, u32::MAX);
    assert_eq!(rig.read(bdf, 0x14), u32::MAX);
    rig.write(bdf, 0x10, low);
    rig.write(bdf, 0x14, high);
    assert_eq!(rig.mmio(HIGH), 0);
}

#[test]
fn a_64_bit_bar_moves_when_its_high_half_is_written() {
    let rig = Rig::new();
    let (bdf, log) = rig.add(&[(0, BarKind::Memory64, 0x8000)]);
    rig.decode(bdf, 1);
    rig.write(bdf, 0x10, 0x0010_0000);
    assert_eq!(log.lock().unwrap().mapped, [(0, HIGH)], "half an address is none");
    rig.write(bdf, 0x14, 0x100);
    assert_eq!(log.lock().unwrap().mapped, [(0, HIGH + 0x10_0000)]);
    assert_eq!((rig.mmio(HIGH), rig.mmio(HIGH + 0x10_0000)), (0xff, 0));
}

#[test]
fn a_move_that_fails_is_undone_in_the_register() {
    let rig = Rig::new();
    let (one, _) = rig.add(&[(0, BarKind::Memory32, 0x1000)]);
    let (two, log) = rig.add(&[(0, BarKind::Memory32, 0x1000)]);
    rig.decode(one, 1);
    rig.decode(two, 1);
    let home = rig.read(two, 0x10);
    log.lock().unwrap().refuse = Some(LOW + 0x8000);
    // Onto another device, out of the window, into RAM, and where the kernel refuses.
    for address in [rig.read(one, 0x10), 0xfee0_0000, 0x10_0000, 0xc000_8000] {
        rig.write(two, 0x10, address);
        assert_eq!(rig.read(two, 0x10), home, "{address:#x}");
        assert_eq!(log.lock().unwrap().mapped, [(0, u64::from(home))]);
    }
    assert_eq!(rig.mmio(LOW), 0);
}

#[test]
fn decode_with_an_impossible_address_falls_back() {
    let rig = Rig::new();
    let (bdf, log) = rig.add(&[(0, BarKind::Memory32, 0x1000)]);
    rig.write(bdf, 0x10, 0x1000);
    rig.decode(bdf, 1);
    assert_eq!(u64::from(rig.read(bdf, 0x10)), LOW);
    assert_eq!(log.lock().unwrap().mapped, [(0, LOW)]);
    rig.decode(bdf, 0);
    rig.write(bdf, 0x10, 0x1000);
    rig.mmio.register_shared(BusRange { base: LOW, len: 0x100 }, rig.segment.ecam()).unwrap();
    rig.decode(bdf, 1);
    assert_eq!(rig.read(bdf, 4) & 2, 0, "nowhere to go: decode is off again");
    assert!(log.lock().unwrap().mapped.is_empty());
}

#[test]
fn parts_of_a_bar_are_not_written() {
    let rig = Rig::new();
    let (bdf, _) = rig.add(&[(0, BarKind::Memory32, 0x1000)]);
    rig.segment.config_write(bdf, RegisterOffset(0x12), &[0x12, 0x34]);
    assert_eq!(u64::from(rig.read(bdf, 0x10)), LOW);
}

#[test]
fn reset_brings_bars_and_registers_home() {
    let rig = Rig::new();
    let (bdf, log) = rig.add(&[(0, BarKind::Memory32, 0x1000)]);
    rig.decode(bdf, 1);
    rig.write(bdf, 0x10, 0xc010_0000);
    rig.write(bdf, 0x3c, 9);
    rig.segment.reset();
    assert_eq!(u64::from(rig.read(bdf, 0x10)), LOW);
    assert_eq!((rig.read(bdf, 4) & 0xffff, rig.read(bdf, 0x3c)), (0, 0));
    assert_eq!((rig.mmio(LOW), rig.mmio(0xc010_0000)), (0xff, 0xff));
    assert_eq!(log.lock().unwrap().resets, 1);
    rig.decode(bdf, 1);
    assert_eq!(log.lock().unwrap().mapped, [(0, LOW)]);
}

#[test]
fn buses_and_windows_fill_up_with_an_error() {
    let rig = Rig::new();
    let (device, _) = Probe::new(&[(0, BarKind::Memory32, 0x4000_0000)]);
    assert!(matches!(rig.segment.add(0, device), Err(PciError::WindowFull { size: 0x4000_0000, .. })));
    for _ in 0..32 {
        rig.add(&[]);
    }
    assert!(matches!(rig.segment.add(0, Probe::new(&[]).0), Err(PciError::BusFull { bus: 0 })));
    assert!(matches!(rig.segment.add(1, Probe::new(&[]).0), Err(PciError::NoBus { bus: 1 })));
    let first = Bdf::new(0, 0, 0).unwrap();
    assert!(matches!(rig.segment.add_at(first, Probe::new(&[]).0), Err(PciError::Taken(_))));
    assert!(rig.segment.device(first).is_some());
}

#[test]
fn impossible_bars_and_capabilities_are_refused() {
    let (device, _) = Probe::new(&[(1, BarKind::Memory64, 0x1000)]);
    let config = &mut device.lock().unwrap().config;
    for (index, kind, size) in [
        (0, BarKind::Memory32, 8),
        (0, BarKind::Memory32, 0x3000),
        (0, BarKind::Memory32, 1 << 32),
        (0, BarKind::Memory64, 0x1000),
        (2, BarKind::Memory32, 0x1000),
        (5, BarKind::Memory64, 0x1000),
    ] {
        assert!(config.add_bar(BarIndex::new(index).unwrap(), kind, size).is_err(), "{index} {size:#x}");
    }
    assert!(config.add_capability(9, &[0; 254], &[]).is_err());
    let first = config.add_capability(9, &[1; 14], &[]).unwrap();
    let second = config.add_capability(5, &[2; 3], &[0xff]).unwrap();
    assert_eq!((first, second), (0x40, 0x50));
    assert_eq!((config.word(0x34), config.word(0x40), config.word(0x50)), (0x40, 0x5009, 5));
    assert_eq!(config.word(6), 0x10);
}

#[test]
fn the_host_bridge_is_one() {
    let rig = Rig::new();
    let bdf = rig.segment.add(0, Arc::new(Mutex::new(HostBridge::new()))).unwrap();
    assert_eq!(bdf.to_string(), "00:00.0");
    assert_eq!(rig.read(bdf, 8) >> 16, 0x0600);
}

proptest! {
    #[test]
    fn registers_and_bus_never_disagree(
        steps in proptest::collection::vec((0_u16..2, 0_u16..0x40, any::<u32>(), 0_u32..6), 1..200)
    ) {
        let rig = Rig::new();
        let bars = [(0, BarKind::Memory32, 0x1000), (2, BarKind::Memory64, 0x2000)];
        let devices = [rig.add(&bars), rig.add(&bars)];
        for (device, register, value, kind) in steps {
            let (bdf, _) = devices[usize::from(device)];
            // Mostly plausible addresses, else nothing would ever be mapped.
            let value = match kind {
                0 => value,
                1 => u32::MAX,
                2 => 0xc000_0000 | (value & 0x7000),
                3 => 0x100,
                _ => value & 0x4002,
            };
            rig.write(bdf, register & !3, value);
            for (bdf, log) in &devices {
                let handle = rig.segment.device(*bdf).unwrap();
                let handle = handle.lock().unwrap();
                let config = handle.config();
                let mut mapped: Vec<(u8, u64)> = config.bars().iter()
                    .filter_map(|bar| Some((bar.index.get(), bar.mapped?.0))).collect();
                let mut logged = log.lock().unwrap().mapped.clone();
                mapped.sort_unstable();
                logged.sort_unstable();
                prop_assert_eq!(&mapped, &logged);
                prop_assert_eq!(mapped.len(), if config.memory_decode() { 2 } else { 0 });
                for bar in config.bars() {
                    if let Some(at) = bar.mapped {
                        let range = BusRange { base: at.0, len: 1 };
                        prop_assert!(rig.mmio.register_shared(range, rig.segment.ecam()).is_err());
                    }
                }
            }
        }
    }
}
