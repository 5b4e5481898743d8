//! Configurations of Syslinux.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let report = vmm_image::fake::report("/syslinux.cfg", input);
    assert!(report.refusal.is_none() || report.reason.is_some());
});
