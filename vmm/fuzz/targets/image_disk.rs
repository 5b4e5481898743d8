//! Disks that are not quite ext4 or FAT: a whole one, with some bytes that are others.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vmm_fuzz::image::{Patch, boot};

const WHOLE: [&[u8]; 2] = [include_bytes!("../images/ext4.img"), include_bytes!("../images/fat.img")];

fuzz_target!(|input: (bool, u16, Vec<Patch>)| {
    let (which, cut, patches) = input;
    let mut disk = WHOLE[usize::from(which)].to_vec();
    patches.iter().take(64).for_each(|patch| patch.apply(&mut disk));
    disk.truncate(disk.len() - usize::from(cut) % disk.len());
    boot(disk);
});
