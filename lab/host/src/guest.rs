//! The initrd of a guest that runs inside a lab host: busybox, virtio drivers and a script.

use std::path::Path;

use crate::debian::busybox;
use crate::initramfs::Tree;
use crate::{Cache, Kernel, LabError};

/// Modules of the guest.
const MODULES: [&str; 11] = [
    "virtio_pci",
    "virtio_blk",
    "virtio_net",
    "virtio-rng",
    "button",
    "evdev",
    "ext4",
    "nvme",
    "vfat",
    "nls_cp437",
    "nls_ascii",
];

/// Writes an initrd to `to`: it prints `GUEST-READY`, runs `script` in a shell, prints `GUEST-END` and
/// powers off.
///
/// # Errors
/// [`LabError`].
pub fn guest_initrd(script: &str, to: &Path) -> Result<(), LabError> {
    guest_initrd_with(script, &[], to)
}

/// As [`guest_initrd`], with programs in it that need no library: where each goes, and where it is.
///
/// # Errors
/// [`LabError`].
pub fn guest_initrd_with(script: &str, programs: &[(&str, &Path)], to: &Path) -> Result<(), LabError> {
    let cache = Cache::of_user();
    let kernel = Kernel::of_debian(&cache)?;
    let tree = Tree::new(to.with_extension("root"))?;
    let busybox = busybox(&cache)?;
    tree.busybox(&busybox)?;
    kernel.install(&MODULES, tree.root(), &busybox)?;
    for (place, program) in programs {
        tree.file(Path::new(place), program)?;
    }
    tree.script("/script.sh", script)?;
    tree.script("/init", include_str!("guest.sh"))?;
    tree.pack(to)
}
