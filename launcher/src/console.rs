//! The terminal's end of the serial console.
//!
//! Owned by the session, on its thread, which must never wait for the guest here. A terminal is put
//! into raw mode so that the guest gets each key, and is put back however the session ends. Ctrl-]
//! asks for the guest's end.

use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::fcntl::OFlag;
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use nix::unistd::pipe2;
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

/// The mode that a terminal was in; dropping it puts the terminal back.
///
/// Whoever starts a launcher with an attached console keeps one too: a launcher that is killed
/// cannot put anything back.
#[derive(Debug)]
pub struct TerminalMode {
    terminal: File,
    before: Termios,
}

impl TerminalMode {
    /// Remembers the mode of standard input; `None` where that is no terminal.
    ///
    /// # Errors
    /// As the operating system says.
    pub fn of_standard_input() -> io::Result<Option<Self>> {
        let input = io::stdin();
        if !input.is_terminal() {
            return Ok(None);
        }
        Self::of(input.as_fd().try_clone_to_owned()?.into()).map(Some)
    }

    fn of(terminal: File) -> io::Result<Self> {
        let before = tcgetattr(&terminal)?;
        Ok(Self { terminal, before })
    }

    /// Passes on each key as it is typed, until this is dropped.
    ///
    /// # Errors
    /// As the operating system says.
    pub fn set_raw(&self) -> io::Result<()> {
        let mut raw = self.before.clone();
        cfmakeraw(&mut raw);
        // Lines of other programs, such as those about this guest, still begin at the margin.
        raw.output_flags = self.before.output_flags;
        Ok(tcsetattr(&self.terminal, SetArg::TCSADRAIN, &raw)?)
    }
}

impl Drop for TerminalMode {
    fn drop(&mut self) {
        // A terminal that has gone needs nothing put back.
        let _ = tcsetattr(&self.terminal, SetArg::TCSADRAIN, &self.before);
    }
}

/// The terminal.
#[derive(Debug)]
pub(crate) struct Console {
    input: Option<File>,
    guest: Option<File>,
    terminal: Option<TerminalMode>,
}

impl Console {
    /// The guest's end goes into the answer's second half. Output goes to standard output, unless
    /// nobody is attached and `log` is off.
    pub(crate) fn open(mode: ConsoleMode, log: bool) -> io::Result<(Self, ConsoleConfig)> {
        let attached = mode == ConsoleMode::Attached;
        let output = if log || attached { Some(io::stdout().as_fd().try_clone_to_owned()?) } else { None };
        let terminal = if attached { TerminalMode::of_standard_input()? } else { None };
        if let Some(terminal) = &terminal {
            terminal.set_raw()?;
        }
        let input = if attached { Some(io::stdin().as_fd().try_clone_to_owned()?) } else { None };
        let (console, reader) = Self::between(input, terminal)?;
        Ok((console, ConsoleConfig { output, input: Some(reader) }))
    }

    fn between(input: Option<OwnedFd>, terminal: Option<TerminalMode>) -> io::Result<(Self, OwnedFd)> {
        let (reader, writer) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        let console = Self { input: input.map(File::from), guest: Some(writer.into()), terminal };
        Ok((console, reader))
    }

    /// Another way to type to the guest; `None` once nobody types any more.
    pub(crate) fn keys(&self) -> io::Result<Option<File>> {
        self.guest.as_ref().map(File::try_clone).transpose()
    }

    /// Readable when something was typed; `None` where nobody types.
    pub(crate) fn input(&self) -> Option<BorrowedFd<'_>> {
        self.input.as_ref().map(AsFd::as_fd)
    }

    /// Passes on what was typed. What a guest that does not read has no room for is lost, as on a
    /// serial line.
    pub(crate) fn typed(&mut self) -> Typed {
        let mut keys = [0; 256];
        let read = self.input.as_mut().map_or(Ok(0), |f| f.read(&mut keys));
        let keys = keys.get(..read.unwrap_or(0)).unwrap_or_default();
        if keys.is_empty() {
            (self.input, self.guest) = (None, None);
            return Typed::Closed;
        }
        let escape = keys.iter().position(|&k| k == ESCAPE).filter(|_| self.terminal.is_some());
        let passed = keys.get(..escape.unwrap_or(keys.len())).unwrap_or_default();
        let _ = self.guest.as_mut().map(|g| g.write_all(passed));
        if escape.is_some() { Typed::Escape } else { Typed::Keys }
    }
}

#[cfg(test)]
mod tests {
    use nix::pty::openpty;
    use nix::sys::termios::LocalFlags;

    use super::*;

    #[test]
    fn keys_reach_the_guest_and_the_end_of_input_is_told() {
        let (reader, writer) = nix::unistd::pipe().unwrap();
        let (mut console, guest) = Console::between(Some(reader), None).unwrap();
        File::from(writer).write_all(b"ls\x1d\n").unwrap();
        assert_eq!(console.typed(), Typed::Keys);
        let mut keys = [0; 8];
        assert_eq!(
            File::from(guest).read(&mut keys).unwrap(),
            4,
            "Ctrl-] is a key where there is no terminal"
        );
        assert_eq!(console.typed(), Typed::Closed);
        assert!(console.input().is_none());
    }

    #[test]
    fn a_guest_that_does_not_read_does_not_hold_up_the_session() {
        let (reader, writer) = nix::unistd::pipe().unwrap();
        let (mut console, _guest) = Console::between(Some(reader), None).unwrap();
        let mut writer = File::from(writer);
        for _ in 0..1024 {
            writer.write_all(&[b'x'; 256]).unwrap();
            assert_eq!(console.typed(), Typed::Keys);
        }
    }

    #[test]
    fn a_terminal_is_raw_meanwhile_ends_the_guest_with_its_escape_and_is_put_back() {
        let pty = openpty(None, None).unwrap();
        let is_raw = |fd: &OwnedFd| !tcgetattr(fd).unwrap().local_flags.contains(LocalFlags::ICANON);
        let terminal = TerminalMode::of(pty.slave.try_clone().unwrap().into()).unwrap();
        terminal.set_raw().unwrap();
        let (mut console, guest) =
            Console::between(Some(pty.slave.try_clone().unwrap()), Some(terminal)).unwrap();
        assert!(is_raw(&pty.slave));
        File::from(pty.master.try_clone().unwrap()).write_all(b"a\x1db").unwrap();
        assert_eq!(console.typed(), Typed::Escape);
        let mut keys = [0; 8];
        assert_eq!(File::from(guest).read(&mut keys).unwrap(), 1);
        drop(console);
        assert!(!is_raw(&pty.slave));
    }
}
