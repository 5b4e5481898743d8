//! A lab host that has changed its root to a Debian with libvirt: it is used by `chroot /host`.

use std::path::PathBuf;

use pinion_lab::{Attach, Cache, Files, Lab, LibvirtRoot};

use crate::lab::{QUICK, must};

/// The disk with that root, beside other files; `None` with the reason printed. It must be the first disk.
pub(crate) fn files(files: Files) -> Option<Files> {
    match LibvirtRoot::of_debian(&Cache::of_user()) {
        Ok(root) => Some(
            files
                .with_disk(root.image(), Attach::Snapshot)
                .with("/usr/bin/pinion-launcher-libvirt", launcher()),
        ),
        Err(e) => {
            println!("skipped: {e}");
            None
        }
    }
}

/// The launcher for libvirt, built: cargo builds programs of other packages for no test.
fn launcher() -> PathBuf {
    let target = PathBuf::from(env!("CARGO_BIN_EXE_pinion")).parent().unwrap().to_owned();
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = std::process::Command::new(cargo);
    build.args(["build", "--quiet", "-p", "pinion-libvirt", "--target-dir"]).arg(target.parent().unwrap());
    build.current_dir(env!("CARGO_MANIFEST_DIR"));
    assert!(build.status().unwrap().success());
    target.join("pinion-launcher-libvirt")
}

/// Mounts the root with everything of this host in it, and starts libvirt.
pub(crate) fn start(lab: &Lab) {
    let script = "
        mkdir -p /host && mount -t ext4 /dev/vda /host || exit 1
        for f in dev proc sys run tmp var/lib/pinion; do mkdir -p /$f /host/$f; mount -o rbind /$f /host/$f || exit 1; done
        for c in $(cat /sys/fs/cgroup/cgroup.controllers); do echo +$c > /sys/fs/cgroup/cgroup.subtree_control; done
        cp /usr/bin/pinion* /host/usr/bin/
        chroot /host sh -c 'virtlogd -d; libvirtd -d'
        for i in $(seq 100); do chroot /host virsh -q list > /dev/null 2>&1 && exit 0; sleep 0.2; done
        chroot /host virsh list; exit 1";
    must(lab, script, QUICK * 2);
}
