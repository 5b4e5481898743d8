//! Any sequence of config accesses through both doors: registers and bus never disagree.
#![no_main]

use std::sync::{Arc, Mutex};

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use vmm_bus::{Bus, BusRange};
use vmm_pci::{
    BarIndex, BarKind, Bdf, ClassCode, ConfigSpace, DeviceIds, HostBridge, PciDevice, PciSegment,
    RegisterOffset, RootBusConfig,
};

#[derive(Arbitrary, Debug)]
enum Step {
    PortWrite { offset: u8, bytes: [u8; 4], width: u8 },
    PortRead { offset: u8, len: u8 },
    EcamWrite { address: u32, bytes: [u8; 4], width: u8 },
    EcamRead { address: u64, len: u8 },
    Bar { device: u8, index: u8, value: u32 },
    Decode { device: u8, on: bool },
    Mmio { address: u64, write: bool },
    Reset,
}

#[derive(Debug)]
struct Device(ConfigSpace);

impl PciDevice for Device {
    fn config(&self) -> &ConfigSpace {
        &self.0
    }
    fn config_mut(&mut self) -> &mut ConfigSpace {
        &mut self.0
    }
    fn bar_read(&mut self, bar: BarIndex, offset: u64, data: &mut [u8]) {
        let bar = self.0.bars().iter().find(|candidate| candidate.index == bar).expect("a BAR");
        assert!(offset + data.len() as u64 <= bar.size);
    }
    fn bar_write(&mut self, bar: BarIndex, offset: u64, data: &[u8]) {
        self.bar_read(bar, offset, &mut data.to_vec());
    }
    fn reset(&mut self) {}
}

fn device(bars: &[(u8, BarKind, u64)]) -> Arc<Mutex<Device>> {
    let ids = DeviceIds { vendor: 1, device: 2, revision: 0, subsystem_vendor: 0, subsystem: 0 };
    let mut config = ConfigSpace::new(ids, ClassCode { class: 0, subclass: 0, interface: 0 });
    for &(index, kind, size) in bars {
        config.add_bar(BarIndex::new(index).expect("an index"), kind, size).expect("a BAR");
    }
    Arc::new(Mutex::new(Device(config)))
}

fuzz_target!(|steps: Vec<Step>| {
    let mmio = Arc::new(Bus::new());
    let bus = RootBusConfig { number: 0, memory_32: 0xc000_0000..0xc010_0000, memory_64: 1 << 33..1 << 34 };
    let segment = PciSegment::new(Arc::clone(&mmio), vec![bus]).expect("a segment");
    segment.add(0, Arc::new(Mutex::new(HostBridge::new()))).expect("room");
    let small = [(0, BarKind::Memory32, 0x1000), (1, BarKind::Memory32, 0x10)];
    let large = [(0, BarKind::Memory64, 0x8000), (4, BarKind::Memory64Prefetchable, 1 << 20)];
    let devices = [device(&small), device(&small), device(&large), device(&large)];
    for device in &devices {
        segment.add(0, device.clone()).expect("room");
    }
    let (ports, ecam) = (segment.config_ports(), segment.ecam());
    for step in steps.into_iter().take(256) {
        match step {
            Step::PortWrite { offset, bytes, width } => {
                ports.write(u64::from(offset % 8), &bytes[..1 << (width % 3)]);
            }
            Step::PortRead { offset, len } => ports.read(u64::from(offset % 8), &mut vec![0; len.into()]),
            Step::EcamWrite { address, bytes, width } => {
                ecam.write(u64::from(address), &bytes[..1 << (width % 3)]);
            }
            Step::EcamRead { address, len } => ecam.read(address, &mut vec![0; len.into()]),
            Step::Bar { device, index, value } => {
                let bdf = Bdf::new(0, 1 + device % 4, 0).expect("an address");
                segment.config_write(
                    bdf,
                    RegisterOffset(0x10 + u16::from(index % 6) * 4),
                    &value.to_le_bytes(),
                );
            }
            Step::Decode { device, on } => {
                let bdf = Bdf::new(0, 1 + device % 4, 0).expect("an address");
                segment.config_write(bdf, RegisterOffset(4), &[u8::from(on) * 2]);
            }
            Step::Mmio { address, write: false } => mmio.read(address, &mut [0; 4]),
            Step::Mmio { address, write: true } => mmio.write(address, &[0; 4]),
            Step::Reset => segment.reset(),
        }
        for device in &devices {
            let device = device.lock().expect("one thread");
            for bar in device.0.bars() {
                assert_eq!(bar.mapped.is_some(), device.0.memory_decode());
                if let Some(at) = bar.mapped {
                    assert!(mmio.register_shared(BusRange { base: at.0, len: 1 }, segment.ecam()).is_err());
                }
            }
        }
    }
});
