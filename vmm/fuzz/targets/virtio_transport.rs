//! A driver that sets a virtio function up in any way, through its BAR and its config space.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use vmm_bus::Gpa;
use vmm_event_loop::EventLoop;
use vmm_pci::{BarIndex, PciDevice, RegisterOffset};
use vmm_virtio::driver::Driver;
use vmm_virtio::rng::RngDevice;

#[derive(Arbitrary, Debug)]
enum Step {
    Common { register: u8, value: u64, width: u8 },
    Read { offset: u16, len: u8 },
    Write { offset: u16, bytes: Vec<u8> },
    ConfigRead { register: u8, width: u8 },
    ConfigWrite { register: u8, value: u32, width: u8 },
    Map(u64),
    Unmap,
    Queue { index: u8, size: u16 },
    Negotiate(u64),
    Start,
    Reset,
}

fuzz_target!(|steps: Vec<Step>| {
    let event_loop = EventLoop::new().expect("an event loop");
    let mut driver = Driver::new(Box::new(RngDevice::new(event_loop.handle())));
    let mut mapped = None;
    for step in steps.into_iter().take(128) {
        match step {
            Step::Common { register, value, width } => {
                driver.write(u64::from(register % 64), 1 << (width % 4), value);
            }
            Step::Read { offset, len } => {
                let mut data = vec![0; len.into()];
                driver.function.bar_read(BarIndex::FIRST, offset.into(), &mut data);
            }
            Step::Write { offset, bytes } => {
                driver.function.bar_write(BarIndex::FIRST, offset.into(), &bytes);
            }
            Step::ConfigRead { register, width } => {
                let mut data = [0; 4];
                let len = 1 << (width % 3);
                driver.function.config_read(RegisterOffset(register.into()), &mut data[..len]);
            }
            Step::ConfigWrite { register, value, width } => {
                let len = 1 << (width % 3);
                let at = RegisterOffset(register.into());
                driver.function.config_write(at, &value.to_le_bytes()[..len]);
            }
            Step::Map(at) => {
                if mapped.is_none() {
                    let at = Gpa(at & 0xff_ffff_f000);
                    driver.function.bar_mapped(BarIndex::FIRST, at).expect("nothing refuses");
                    mapped = Some(at);
                }
            }
            Step::Unmap => {
                if let Some(at) = mapped.take() {
                    driver.function.bar_unmapped(BarIndex::FIRST, at);
                }
            }
            Step::Queue { index, size } => drop(driver.queue(u16::from(index % 2), size.max(1))),
            Step::Negotiate(features) => drop(driver.negotiate(features)),
            Step::Start => drop(driver.start()),
            Step::Reset => driver.function.reset(),
        }
        vmm_fuzz::serve(&event_loop);
    }
    driver.function.reset();
    assert_eq!(driver.router.counts(), (0, 0));
    assert!(driver.doorbells.attached().is_empty());
    assert_eq!(driver.status(), 0);
});
