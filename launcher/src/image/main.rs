//! `pinion-image`: reads a disk image for a process that has it. Started by `pinion` and `pinion-launcher`: its
//! standard input is a socket to them, its outputs are the files for a kernel and an initrd. It is not meant to be
//! typed.

#![forbid(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::process::ExitCode;

use nix::sys::stat::{SFlag, fstat};

fn main() -> ExitCode {
    let (input, output, errors) = (io::stdin(), io::stdout(), io::stderr());
    if !is_socket(input.as_fd()) {
        eprintln!(
            "pinion-image: pinion and pinion-launcher start this program; try `pinion image inspect FILE`"
        );
        return ExitCode::from(2);
    }
    let own = |fd: BorrowedFd<'_>| fd.try_clone_to_owned().map(File::from);
    let served = own(input.as_fd())
        .and_then(|socket| pinion_launcher::image::serve(socket, own(output.as_fd())?, own(errors.as_fd())?));
    if served.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn is_socket(fd: BorrowedFd<'_>) -> bool {
    fstat(fd).is_ok_and(|s| SFlag::from_bits_truncate(s.st_mode).contains(SFlag::S_IFSOCK))
}
