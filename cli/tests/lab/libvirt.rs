//! A lab host with libvirt.

use pinion_lab::{Attach, Cache, Files, Lab, LibvirtRoot, Programs};

use crate::lab::{QUICK, must};

/// The launcher that is linked to libvirt.
const LAUNCHER: &str = "pinion-launcher-libvirt";

/// The disk with that root, beside other files; `None` with the reason printed. It must be the first disk.
pub(crate) fn files(files: Files) -> Option<Files> {
    match LibvirtRoot::of_debian(&Cache::of_user()) {
        Ok(root) => {
            let launcher = Programs::built().unwrap().path(LAUNCHER);
            let files = files.with_disk(root.image(), Attach::Snapshot);
            Some(files.with(format!("/usr/bin/{LAUNCHER}"), launcher))
        }
        Err(e) => {
            println!("skipped: {e}");
            None
        }
    }
}

/// Makes the host one with libvirt.
pub(crate) fn start(lab: &Lab) {
    must(lab, LibvirtRoot::ENTER, QUICK * 2);
}
