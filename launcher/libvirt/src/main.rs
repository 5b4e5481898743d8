//! `pinion-launcher-libvirt`: the process that keeps one guest on QEMU, through libvirt.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use pinion_launcher::program;
use pinion_libvirt::Libvirt;

fn main() -> ExitCode {
    program::run("pinion-launcher-libvirt", &Libvirt)
}
