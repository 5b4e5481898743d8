//! Queue contents of a disk over a real file.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vmm_block::{Access, DiskOptions, ImageFormat};
use vmm_event_loop::EventLoop;
use vmm_fuzz::queue::{Rig, Step};
use vmm_virtio::block::{BlockDevice, BlockOptions};

fuzz_target!(|input: (u64, bool, Vec<Step>)| {
    let (features, read_only, steps) = input;
    let Ok(file) = tempfile::tempfile() else { return };
    file.set_len(16 * 512).expect("a small file");
    let access = if read_only { Access::ReadOnly } else { Access::ReadWrite };
    let options = DiskOptions { access, format: Some(ImageFormat::Raw) };
    let disk = vmm_block::open_file(file, "fuzz", options).expect("a file is a disk");
    let event_loop = EventLoop::new().expect("an event loop");
    let options = BlockOptions { queues: 2, queue_size: 16, ..BlockOptions::default() };
    let device =
        BlockDevice::new(std::sync::Arc::new(std::sync::Mutex::new(disk)), options, event_loop.handle());
    let metrics = device.metrics();
    let mut rig = Rig::new(Box::new(device), features);
    for step in steps.into_iter().take(64) {
        rig.step(step, &event_loop);
    }
    rig.finish();
    let stats = metrics.snapshot();
    assert!(!read_only || (stats.writes.operations, stats.discards.operations) == (0, 0));
});
