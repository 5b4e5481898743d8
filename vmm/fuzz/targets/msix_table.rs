//! Any sequence of accesses to an MSI-X table and its control register.
#![no_main]

use std::sync::Arc;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use vmm_bus::MsiRouter;
use vmm_pci::{BarIndex, ClassCode, ConfigSpace, DeviceIds, MsixTable, RegisterOffset, VectorIndex};
use vmm_virtio::driver::MockRouter;

#[derive(Arbitrary, Debug)]
enum Step {
    Write { offset: u16, value: u64, wide: bool },
    Odd { offset: u64, bytes: Vec<u8> },
    Read { offset: u64, len: u8 },
    Pending { offset: u64, len: u8 },
    Control { byte: u8, value: u8 },
    Signal(u8),
    Reset,
}

fuzz_target!(|input: (u8, Vec<Step>)| {
    let (vectors, steps) = input;
    let router = Arc::new(MockRouter::default());
    let kernel: Arc<dyn MsiRouter> = router.clone();
    let mut table = MsixTable::new(kernel, u16::from(vectors % 65) + 1).expect("enough descriptors");
    let ids = DeviceIds { vendor: 1, device: 2, revision: 0, subsystem_vendor: 0, subsystem: 0 };
    let mut config = ConfigSpace::new(ids, ClassCode { class: 0, subclass: 0, interface: 0 });
    table.announce(&mut config, BarIndex::FIRST, 0, 0x8000).expect("room for one capability");
    for step in steps.into_iter().take(256) {
        match step {
            Step::Write { offset, value, wide } => {
                let len = if wide { 8 } else { 4 };
                table.table_write(u64::from(offset % 1056), &value.to_le_bytes()[..len]);
            }
            Step::Odd { offset, bytes } => table.table_write(offset, &bytes),
            Step::Read { offset, len } => table.table_read(offset, &mut vec![0; len.into()]),
            Step::Pending { offset, len } => table.pending_read(offset, &mut vec![0; len.into()]),
            Step::Control { byte, value } => {
                config.write(RegisterOffset(0x42 + u16::from(byte & 1)), &[value]);
                table.follow_config(&config);
            }
            Step::Signal(vector) => {
                if let Some(event) = table.event(VectorIndex(vector.into())) {
                    event.write(1).expect("room in the event");
                }
            }
            Step::Reset => table.reset(),
        }
        let open = config.word(0x42) & 0xc000 == 0x8000;
        let (taken, unmasked) = router.counts();
        assert!(taken <= table.vectors() && unmasked <= taken);
        assert!(open || unmasked == 0 || !table.enabled());
    }
    drop(table);
    assert_eq!(router.counts(), (0, 0));
});
