//! The root of a host with libvirt.
//!
//! Called by tests, benchmarks and `cargo xtask setup`. In the cache.

use std::fs;
use std::path::{Path, PathBuf};

use super::{blank_disk, debian_system, within};
use crate::cache::key;
use crate::{Cache, LabError};

/// What a host for libvirt has, and what Pinion's programs are linked to.
const PACKAGES: &str = "libvirt-daemon-system,qemu-system-x86,qemu-utils,ovmf,libhwloc15,libudev1,iproute2,procps,\
    passwd,libvirt-clients,python3-minimal,swtpm,swtpm-tools";
const BYTES: u64 = 2 << 30;
/// Sets that host up while it is a folder.
const CONFIGURE: &str = include_str!("libvirt.sh");
/// libvirt asks each QEMU it finds what it can do, which takes long in a lab host, and keeps the answers.
const ASK: &str = "
    virsh -q domcapabilities > /dev/null || exit 1
    kill $(pidof libvirtd virtlogd)
    while pidof libvirtd virtlogd > /dev/null; do sleep 0.2; done
    rm -rf /var/log/libvirt/* && ls /var/cache/libvirt/qemu/capabilities/*.xml && sync";

/// A root file system of a Debian with libvirt, QEMU and firmware, for a lab host to change into: on a disk of its own,
/// without partitions.
#[derive(Clone, Debug)]
pub struct LibvirtRoot {
    folder: PathBuf,
}

impl LibvirtRoot {
    /// A script for a lab host that has it as its first disk: makes it a host with libvirt, which is started, by mounting
    /// system folders of this root over its own. It keeps its own tools, modules and Pinion's programs.
    pub const ENTER: &str = include_str!("enter.sh");

    /// From the cache, else made: about a minute, and the network.
    ///
    /// # Errors
    /// When it is not in the cache and cannot be made here.
    pub fn of_debian(cache: &Cache) -> Result<Self, LabError> {
        let key = key(&[PACKAGES, CONFIGURE, Self::ENTER, ASK]);
        let folder = cache.entry("libvirt", &key, make)?;
        Ok(Self { folder })
    }

    /// The raw image; it must not be written to.
    #[must_use]
    pub fn image(&self) -> PathBuf {
        self.folder.join("root.img")
    }
}

fn make(folder: &Path) -> Result<(), LabError> {
    let image = folder.join("root.img");
    blank_disk(&image, BYTES)?;
    let script = folder.join("configure.sh");
    fs::write(&script, CONFIGURE).map_err(LabError::file("write", &script))?;
    debian_system(PACKAGES, &format!("sh '{}' \"$1\"", script.display()), &image, 0, BYTES / 4096)?;
    fs::remove_file(&script).map_err(LabError::file("remove", &script))?;
    within(&image, "libvirt-root", &[LibvirtRoot::ENTER, ASK])
}
