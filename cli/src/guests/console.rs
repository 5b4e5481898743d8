//! `pinion console`: this terminal becomes the guest's. Ctrl-] leaves it; the guest runs on.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use pinion_endpoint::guest::GuestRequest;
use pinion_endpoint::open;
use pinion_launcher::TerminalMode;
use serde_json::Value;

use super::{ANSWER_WITHIN, Guest};
use crate::arguments::NameOptions;
use crate::failure::Failure;

/// Ctrl-].
const ESCAPE: u8 = 0x1d;

/// Connects them.
///
/// # Errors
/// Where there is no such guest, or it cannot be asked.
pub(crate) fn run(options: &NameOptions) -> Result<(), Failure> {
    let guest = Guest::named(options)?;
    let (_, stream, first): (Value, _, _) =
        open(&guest.socket(), &GuestRequest::Console, ANSWER_WITHIN).map_err(|e| guest.silent(e))?;
    let terminal = TerminalMode::of_standard_input().map_err(Failure::failed)?;
    if let Some(terminal) = &terminal {
        eprintln!("Console of {}; Ctrl-] leaves it. Press Enter for a prompt.", guest.owner());
        terminal.set_raw().map_err(Failure::failed)?;
    }
    let carried = carry(stream, &first, terminal.is_some());
    drop(terminal);
    carried.map_err(Failure::failed)
}

/// Carries both ways until the guest ends, the input does, or Ctrl-].
fn carry(mut stream: UnixStream, first: &[u8], is_terminal: bool) -> io::Result<()> {
    let (mut input, mut out) = (io::stdin().lock(), io::stdout().lock());
    out.write_all(first)?;
    let mut bytes = [0; 4096];
    loop {
        out.flush()?;
        let stdin = io::stdin();
        let mut fds =
            [PollFd::new(stream.as_fd(), PollFlags::POLLIN), PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            done => done?,
        };
        let ready: Vec<bool> = fds.iter().map(|fd| fd.any().unwrap_or(false)).collect();
        if ready.first().copied().unwrap_or(false) {
            match stream.read(&mut bytes) {
                Ok(0) | Err(_) => return Ok(()),
                Ok(read) => out.write_all(bytes.get(..read).unwrap_or_default())?,
            }
        }
        if ready.get(1).copied().unwrap_or(false) {
            let read = input.read(&mut bytes)?;
            let keys = bytes.get(..read).unwrap_or_default();
            let escape = keys.iter().position(|k| *k == ESCAPE).filter(|_| is_terminal);
            if stream.write_all(keys.get(..escape.unwrap_or(keys.len())).unwrap_or_default()).is_err() {
                return Ok(());
            }
            if escape.is_some() {
                out.write_all(b"\r\n")?;
            }
            if escape.is_some() || read == 0 {
                return Ok(());
            }
        }
    }
}
