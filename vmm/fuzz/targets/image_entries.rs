//! Entries of the Boot Loader Specification.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let report = vmm_image::fake::report("/loader/entries/a.conf", input);
    assert!(report.refusal.is_none() || report.reason.is_some());
});
