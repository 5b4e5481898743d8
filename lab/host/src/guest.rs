//! The initrd of a guest that runs inside a lab host: busybox, virtio drivers and a script.

use std::path::Path;

use crate::debian::busybox;
use crate::initramfs::Tree;
use crate::{Cache, Kernel, LabError};

/// Modules of the guest, in the order in which they load.
const MODULES: [&str; 12] = [
    "virtio_ring",
    "virtio",
    "virtio_pci_legacy_dev",
    "virtio_pci_modern_dev",
    "virtio_pci",
    "virtio_blk",
    "failover",
    "net_failover",
    "virtio_net",
    "virtio-rng",
    "button",
    "evdev",
];

/// Writes an initrd to `to`: it prints `GUEST-READY`, runs `script` in a shell, prints `GUEST-END` and
/// powers off.
///
/// # Errors
/// [`LabError`].
pub fn guest_initrd(script: &str, to: &Path) -> Result<(), LabError> {
    let cache = Cache::of_user();
    let kernel = Kernel::of_debian(&cache)?;
    let tree = Tree::new(to.with_extension("root"))?;
    tree.busybox(&busybox(&cache)?)?;
    for name in MODULES {
        tree.file(&Path::new("/lib/modules").join(format!("{name}.ko")), &kernel.module(name)?)?;
    }
    tree.script("/lib/modules/order", &MODULES.join("\n"))?;
    tree.script("/script.sh", script)?;
    tree.script("/init", include_str!("guest.sh"))?;
    tree.pack(to)
}
