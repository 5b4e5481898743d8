//! EFI programs that may be unified kernel images.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let _ = vmm_image::fake::unified(input);
});
