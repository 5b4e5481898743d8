//! Disks that begin with any bytes: partition tables, and marks of file systems. The input is put at the start; its
//! checksums are made right, since no search would find them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vmm_fuzz::image::{boot, with_checksums};

fuzz_target!(|input: &[u8]| {
    boot(input.to_vec());
    boot(with_checksums(input));
});
