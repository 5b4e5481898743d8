//! A lab host with libvirt.

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

/// Makes the host one with libvirt.
pub(crate) fn start(lab: &Lab) {
    must(lab, LibvirtRoot::ENTER, QUICK * 2);
}
