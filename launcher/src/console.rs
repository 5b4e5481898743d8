//! The terminal's end of the serial console.
//!
//! Owned by the session, on its thread. A terminal is put into raw mode so that the guest gets each
//! key, and is put back however the session ends. Ctrl-] asks for the guest's end.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use nix::unistd::pipe;
use vmm_machine::ConsoleConfig;

use crate::spec::ConsoleMode;

/// Ctrl-].
const ESCAPE: u8 = 0x1d;

/// What was typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Typed {
    /// Something for the guest.
    Keys,
    /// Ctrl-]: the guest's end.
    Escape,
    /// Nobody types any more.
    Closed,
}

/// The terminal.
#[derive(Debug)]
pub(crate) struct Console {
    input: Option<File>,
    guest: Option<File>,
    before: Option<Termios>,
}

impl Console {
    /// The guest's end goes into the answer's second half.
    pub(crate) fn open(mode: ConsoleMode, log: bool) -> io::Result<(Self, ConsoleConfig)> {
        let output = if log { Some(io::stdout().as_fd().try_clone_to_owned()?) } else { None };
        if mode == ConsoleMode::Log {
            let nothing = Self { input: None, guest: None, before: None };
            return Ok((nothing, ConsoleConfig { output, input: None }));
        }
        let (reader, writer): (OwnedFd, OwnedFd) = pipe()?;
        let input: File = io::stdin().as_fd().try_clone_to_owned()?.into();
        let before = tcgetattr(&input).ok();
        if let Some(before) = &before {
            let mut raw = before.clone();
            cfmakeraw(&mut raw);
            tcsetattr(&input, SetArg::TCSADRAIN, &raw)?;
        }
        let console = Self { input: Some(input), guest: Some(writer.into()), before };
        Ok((console, ConsoleConfig { output, input: Some(reader) }))
    }

    /// Readable when something was typed; `None` where nobody types.
    pub(crate) fn input(&self) -> Option<BorrowedFd<'_>> {
        self.input.as_ref().map(AsFd::as_fd)
    }

    /// Passes on what was typed.
    pub(crate) fn typed(&mut self) -> Typed {
        let mut keys = [0; 256];
        let read = self.input.as_mut().map_or(Ok(0), |f| f.read(&mut keys));
        let keys = keys.get(..read.unwrap_or(0)).unwrap_or_default();
        if keys.is_empty() {
            (self.input, self.guest) = (None, None);
            return Typed::Closed;
        }
        if keys.contains(&ESCAPE) && self.before.is_some() {
            return Typed::Escape;
        }
        // The guest has ended if this fails.
        let _ = self.guest.as_mut().map(|g| g.write_all(keys));
        Typed::Keys
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        if let (Some(before), Some(input)) = (&self.before, &self.input) {
            let _ = tcsetattr(input, SetArg::TCSADRAIN, before);
        }
    }
}
