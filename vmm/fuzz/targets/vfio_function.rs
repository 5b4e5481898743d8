//! Any config space of a host's device, and any accesses of the guest to it: registers, BARs and MSI-X.
#![no_main]

use std::sync::{Arc, Mutex};

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use vmm_bus::Bus;
use vmm_pci::{PciSegment, RegisterOffset, RootBusConfig};
use vmm_vfio::fake::{FakeFunction, FakeMachine};
use vmm_vfio::{Area, Health, HostBar, Machine, VfioFunction};

#[derive(Arbitrary, Debug)]
struct Bar {
    shift: u8,
    mappable: bool,
    msix_mappable: bool,
    sparse: Option<(u16, u16)>,
}

#[derive(Arbitrary, Debug)]
enum Step {
    Config { offset: u16, value: u32, len: u8 },
    ReadConfig { offset: u16, len: u8 },
    Memory { bar: u8, offset: u32, value: u64, len: u8 },
    ReadMemory { bar: u8, offset: u32, len: u8 },
    Kill,
    Unplug,
    Reset,
}

#[derive(Arbitrary, Debug)]
struct Input {
    extended: bool,
    registers: Vec<(u16, u32)>,
    bars: [Bar; 6],
    steps: Vec<Step>,
}

fn len(of: u8) -> usize {
    1 << (of % 4)
}

fuzz_target!(|input: Input| {
    let mut config = vec![0; if input.extended { 4096 } else { 256 }];
    for (at, value) in input.registers.iter().take(64) {
        let at = usize::from(at & !3) % config.len();
        config[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }
    let bars = input.bars.map(|bar| HostBar {
        bytes: if bar.shift % 24 < 4 { 0 } else { 1 << (bar.shift % 24) },
        mappable: bar.mappable,
        writable: true,
        sparse: bar.sparse.map(|(o, b)| vec![Area { offset: u64::from(o) << 8, bytes: u64::from(b) << 8 }]),
        msix_mappable: bar.msix_mappable,
    });
    let host = FakeFunction::new(config, bars, tempfile::tempfile().expect("a file")).expect("room");
    let machine = Arc::new(FakeMachine::default());
    let needs = Machine { router: machine.clone(), slots: machine.clone() };
    let health = Arc::new(Health::new(|| ()));
    let Ok(function) = VfioFunction::new("fuzz", Box::new(host.clone()), &needs, health) else { return };
    let mmio = Arc::new(Bus::new());
    let bus = RootBusConfig { number: 0, memory_32: 0xc000_0000..0xe000_0000, memory_64: 1 << 32..1 << 36 };
    let pci = PciSegment::new(Arc::clone(&mmio), vec![bus]).expect("windows");
    let device = Arc::new(Mutex::new(function));
    let at = pci.add(0, device.clone()).expect("room for six BARs");
    for step in input.steps.into_iter().take(256) {
        let base = |bar: u8| {
            let mut address = [0; 8];
            let offset = 0x10 + u16::from(bar % 6) * 4;
            pci.config_read(at, RegisterOffset(offset), &mut address[..4]);
            pci.config_read(at, RegisterOffset(offset + 4), &mut address[4..]);
            let address = u64::from_le_bytes(address);
            if address & 4 == 0 { address & 0xffff_fff0 } else { address & !15 }
        };
        match step {
            Step::Config { offset, value, len: l } => {
                pci.config_write(at, RegisterOffset(offset), &value.to_le_bytes()[..len(l).min(4)]);
            }
            Step::ReadConfig { offset, len: l } => {
                pci.config_read(at, RegisterOffset(offset), &mut [0; 8][..len(l)]);
            }
            Step::Memory { bar, offset, value, len: l } => {
                mmio.write(base(bar).wrapping_add(offset.into()), &value.to_le_bytes()[..len(l)]);
            }
            Step::ReadMemory { bar, offset, len: l } => {
                mmio.read(base(bar).wrapping_add(offset.into()), &mut [0; 8][..len(l)]);
            }
            Step::Kill => host.state().dead = true,
            Step::Unplug => {
                pci.unplug(at);
                device.lock().expect("not poisoned").give_up();
            }
            Step::Reset => pci.reset(),
        }
    }
    pci.reset();
    assert!(machine.routes.lock().expect("not poisoned").is_empty(), "routes are left");
    assert!(machine.shown.lock().expect("not poisoned").is_empty(), "memory slots are left");
});
