//! Any sequence of accesses to the serial port and the IOAPIC.
#![no_main]

use std::sync::{Arc, Mutex};

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use vmm_bus::BusDevice;
use vmm_devices::{InterruptPin, Ioapic, Serial};
use vmm_virtio::driver::MockRouter;

#[derive(Arbitrary, Debug)]
enum Step {
    SerialRead { offset: u8, len: u8 },
    SerialWrite { offset: u8, bytes: Vec<u8> },
    Input(Vec<u8>),
    IoapicSelect { register: u8, value: u32 },
    IoapicRead { offset: u64, len: u8 },
    IoapicWrite { offset: u64, bytes: Vec<u8> },
    Raise(u8),
    Reset,
}

fuzz_target!(|steps: Vec<Step>| {
    let ioapic = Arc::new(Mutex::new(Ioapic::new(Arc::new(MockRouter::default()))));
    let mut serial = Serial::new(InterruptPin::new(&ioapic, 4), Vec::new());
    for step in steps.into_iter().take(256) {
        match step {
            Step::SerialRead { offset, len } => serial.read(offset.into(), &mut vec![0; len.into()]),
            Step::SerialWrite { offset, bytes } => serial.write(offset.into(), &bytes),
            Step::Input(bytes) => {
                let room = serial.room();
                assert!(serial.input(&bytes) <= room);
            }
            Step::IoapicSelect { register, value } => {
                let mut ioapic = ioapic.lock().expect("one thread");
                ioapic.write(0, &u32::from(register).to_le_bytes());
                ioapic.write(0x10, &value.to_le_bytes());
            }
            Step::IoapicRead { offset, len } => {
                ioapic.lock().expect("one thread").read(offset, &mut vec![0; len.into()]);
            }
            Step::IoapicWrite { offset, bytes } => {
                ioapic.lock().expect("one thread").write(offset, &bytes);
            }
            Step::Raise(pin) => {
                let _ = InterruptPin::new(&ioapic, pin.into()).raise();
            }
            Step::Reset => ioapic.lock().expect("one thread").reset(),
        }
    }
});
