//! Files that are not quite kernels.
#![no_main]

use std::io::Write;

use libfuzzer_sys::fuzz_target;
use vm_memory::{GuestAddress, GuestMemoryMmap};
use vmm_boot::{BootSource, load};
use vmm_bus::Gpa;

fuzz_target!(|kernel: &[u8]| {
    let file = |bytes: &[u8]| {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(bytes).expect("a small file");
        file
    };
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 32 << 20)]).expect("memory");
    // The initrd's length varies with the file, so that both find their room or do not.
    let initrd = vec![1; usize::from(kernel.first().copied().unwrap_or(0)) * 64];
    let (mut kernel, mut initrd) = (file(kernel), file(&initrd));
    let source = BootSource { kernel: &mut kernel, initrd: Some(&mut initrd), command_line: "console=ttyS0" };
    if let Err(error) = load(&memory, source, Gpa(0xe_0000)) {
        assert!(!error.to_string().is_empty());
    }
});
