//! Queue contents of an entropy device.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vmm_event_loop::EventLoop;
use vmm_fuzz::queue::{Rig, Step};
use vmm_virtio::rng::RngDevice;

fuzz_target!(|input: (u64, Vec<Step>)| {
    let (features, steps) = input;
    let event_loop = EventLoop::new().expect("an event loop");
    let mut rig = Rig::new(Box::new(RngDevice::new(event_loop.handle())), features);
    for step in steps.into_iter().take(64) {
        rig.step(step, &event_loop);
    }
    rig.finish();
});
