//! The serial console: from the terminal that libvirt made for it to where the session wants it, and back.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::thread;

use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};
use pinion_launcher::ConsoleConfig;
use roxmltree::Document;

use crate::error::LibvirtError;

/// Threads that carry the console's bytes. They end with the guest, whose end of the terminal is closed then.
#[derive(Debug)]
pub(crate) struct Wires(Vec<thread::JoinHandle<()>>);

impl Wires {
    /// Waits until the guest's last words are said.
    pub(crate) fn finish(&mut self) {
        for wire in self.0.drain(..) {
            let _ = wire.join();
        }
    }
}

/// Connects the console, where the guest has one.
pub(crate) fn connect(description: &Document<'_>, config: ConsoleConfig) -> Result<Wires, LibvirtError> {
    let Some(path) = terminal(description) else { return Ok(Wires(Vec::new())) };
    let failed =
        |source| LibvirtError::File { action: "open the console", path: path.clone().into(), source };
    let flags = OFlag::O_NOCTTY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
    let terminal =
        OpenOptions::new().read(true).write(true).custom_flags(flags.bits()).open(&path).map_err(failed)?;
    // As it comes: no echo, no lines.
    let mut raw = tcgetattr(&terminal).map_err(|e| failed(e.into()))?;
    cfmakeraw(&mut raw);
    tcsetattr(&terminal, SetArg::TCSANOW, &raw).map_err(|e| failed(e.into()))?;
    let start = |name: &str, from: File, to: Option<File>| {
        let thread = thread::Builder::new().name(name.to_owned()).stack_size(64 << 10);
        thread.spawn(move || carry(from, to)).map_err(failed)
    };
    let output = start("console out", terminal.try_clone().map_err(failed)?, config.output.map(File::from))?;
    if let Some(input) = config.input {
        // It ends with the terminal, or with this process: nobody waits for it.
        start("console in", input.into(), Some(terminal))?;
    }
    Ok(Wires(vec![output]))
}

/// The terminal's path in libvirt's description of a guest that runs.
fn terminal(description: &Document<'_>) -> Option<String> {
    let console = description
        .descendants()
        .find(|n| n.has_tag_name("console") && n.attribute("type") == Some("pty"))?;
    console.attribute("tty").map(str::to_owned)
}

/// Carries bytes until the guest is gone. What nobody takes is lost, as on a serial line.
fn carry(mut from: File, mut to: Option<File>) {
    let mut bytes = [0; 4096];
    loop {
        if wait(&from, PollFlags::POLLIN).is_err() {
            return;
        }
        match from.read(&mut bytes) {
            // The other end of a terminal that is closed is an error.
            Ok(0) => return,
            Ok(read) => {
                let read = bytes.get(..read).unwrap_or_default();
                if to.as_mut().is_some_and(|to| write(to, read).is_err()) {
                    to = None;
                }
            }
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(_) => return,
        }
    }
}

/// Writes all of it; a terminal that is full is waited for.
fn write(to: &mut File, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match to.write(bytes) {
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => wait(to, PollFlags::POLLOUT)?,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

fn wait(file: &File, events: PollFlags) -> io::Result<()> {
    match poll(&mut [PollFd::new(file.as_fd(), events)], PollTimeout::NONE) {
        Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_terminal_is_that_of_the_console() {
        let text =
            "<domain><devices><serial type='pty'/><console type='pty' tty='/dev/pts/7'/></devices></domain>";
        let terminal = |text| terminal(&Document::parse(text).unwrap());
        assert_eq!(terminal(text).as_deref(), Some("/dev/pts/7"));
        assert_eq!(terminal("<domain/>"), None);
    }
}
