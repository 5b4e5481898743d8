//! `pinion-launcher-libvirt`: the process that keeps one guest on QEMU, through libvirt; with `import`, the program that
//! writes specs for domains that are there.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use pinion_launcher::{BackendKind, program};
use pinion_libvirt::{Libvirt, import_program};

fn main() -> ExitCode {
    // A launcher's arguments are all options.
    if std::env::args_os().nth(1).is_some_and(|word| word == "import") {
        return import_program();
    }
    program::run("pinion-launcher-libvirt", BackendKind::Libvirt, &Libvirt)
}
