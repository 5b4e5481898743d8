//! Images that are not quite qcow2, opened and used. The first byte says how; the rest is the
//! image.
#![no_main]

use std::io::Write;

use libfuzzer_sys::fuzz_target;
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap};
use vmm_block::{Access, Disk, DiskError, DiskOptions, ImageFormat, Space};

const LEN: usize = 0x1800;

fuzz_target!(|input: &[u8]| {
    let Some((&how, image)) = input.split_first() else { return };
    let mut file = tempfile::tempfile().expect("a file");
    file.write_all(image).expect("a small file");
    let access = if how & 0x80 == 0 { Access::ReadWrite } else { Access::ReadOnly };
    let options = DiskOptions { access, format: Some(ImageFormat::Qcow2) };
    let Ok(mut disk) = vmm_block::open_file(file, "fuzz", options) else { return };
    let last = disk.capacity().saturating_sub(LEN as u64);
    for (step, offset) in [0, last, u64::from(how) * 512, last / 2].into_iter().enumerate() {
        // What an image cannot do is an error; the next operation finds it usable all the same.
        let _ = operate(&mut *disk, usize::from(how) + step, offset);
        let _ = operate(&mut *disk, 0, offset);
    }
});

fn operate(disk: &mut dyn Disk, operation: usize, offset: u64) -> Result<(), DiskError> {
    let memory = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), 0x1_0000)]).expect("memory");
    let slice = memory.get_slice(GuestAddress(0), LEN).expect("in memory");
    match operation % 6 {
        0 => disk.read(&[slice], offset),
        1 => disk.write(&[slice], offset),
        2 => disk.flush(),
        3 => disk.discard(offset, LEN as u64),
        4 => disk.write_zeroes(offset, LEN as u64, Space::Free),
        _ => disk.write_zeroes(offset, LEN as u64, Space::Keep),
    }
}
