//! Where the serial console's output goes: standard output, a bounded memory, and everybody who follows.
//!
//! Runs on the control thread. A reader that is slow misses output; the guest never waits.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::sync::broadcast;

/// Bytes of output that are remembered.
const REMEMBERED: usize = 256 << 10;
/// Pieces that a follower may be behind.
const BEHIND: usize = 256;
/// Bytes that wait for standard output at most.
const WAITING: usize = 256 << 10;
/// A pipe that can be written to at all takes this many bytes without blocking (`PIPE_BUF`).
const AT_ONCE: usize = 4096;
/// How often a blocked standard output is looked at.
const AGAIN: Duration = Duration::from_millis(10);

/// What is printed from now on, piece by piece.
type Live = broadcast::Receiver<Arc<[u8]>>;

/// The console's output.
#[derive(Debug)]
pub(super) struct Hub {
    memory: RefCell<VecDeque<u8>>,
    live: RefCell<Option<broadcast::Sender<Arc<[u8]>>>>,
}

impl Default for Hub {
    fn default() -> Self {
        Self { memory: RefCell::default(), live: RefCell::new(Some(broadcast::channel(BEHIND).0)) }
    }
}

impl Hub {
    /// What was printed last, and what is from now on; nothing more once the guest has ended.
    pub(super) fn follow(&self) -> (Vec<u8>, Option<Live>) {
        let memory = self.memory.borrow().iter().copied().collect();
        (memory, self.live.borrow().as_ref().map(broadcast::Sender::subscribe))
    }

    fn print(&self, bytes: &[u8]) {
        let mut memory = self.memory.borrow_mut();
        memory.extend(bytes);
        let over = memory.len().saturating_sub(REMEMBERED);
        memory.drain(..over);
        if let Some(live) = self.live.borrow().as_ref() {
            // Nobody may follow.
            let _ = live.send(bytes.into());
        }
    }

    fn end(&self) {
        self.live.borrow_mut().take();
    }
}

/// Carries output on until nobody can write any more.
pub(super) async fn carry(from: OwnedFd, hub: Rc<Hub>, mut print: Option<Outlet>) {
    if let Ok(mut from) = Receiver::from_owned_fd(from) {
        let mut bytes = [0; 4096];
        loop {
            let again = if print.as_ref().is_some_and(Outlet::is_behind) { AGAIN } else { Duration::MAX };
            match tokio::time::timeout(again, from.read(&mut bytes)).await {
                Ok(Ok(read)) if read > 0 => {
                    let bytes = bytes.get(..read).unwrap_or_default();
                    hub.print(bytes);
                    if let Some(outlet) = &mut print {
                        outlet.take(bytes);
                    }
                }
                Ok(_) => break,
                Err(_) => {}
            }
            if let Some(outlet) = &mut print {
                outlet.flush();
            }
        }
    }
    hub.end();
    while let Some(outlet) = print.as_mut().filter(|o| o.is_behind()) {
        outlet.flush();
        tokio::time::sleep(AGAIN).await;
    }
}

/// Standard output, which may be a pipe that nobody reads or a terminal that is stopped.
#[derive(Debug)]
pub(super) struct Outlet {
    file: File,
    waiting: VecDeque<u8>,
}

impl Outlet {
    pub(super) fn new(fd: OwnedFd) -> Self {
        Self { file: fd.into(), waiting: VecDeque::new() }
    }

    fn is_behind(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Takes what there is room for; the rest is lost to this reader alone.
    fn take(&mut self, bytes: &[u8]) {
        let room = WAITING.saturating_sub(self.waiting.len());
        self.waiting.extend(bytes.get(..room.min(bytes.len())).unwrap_or_default());
    }

    /// Writes what goes without blocking.
    fn flush(&mut self) {
        while self.is_behind() && self.is_ready() {
            let piece: Vec<u8> = self.waiting.iter().take(AT_ONCE).copied().collect();
            match self.file.write(&piece) {
                Ok(written) if written > 0 => drop(self.waiting.drain(..written.min(piece.len()))),
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => return,
                // Nobody reads any more.
                _ => self.waiting.clear(),
            }
        }
    }

    fn is_ready(&self) -> bool {
        let mut fds = [PollFd::new(self.file.as_fd(), PollFlags::POLLOUT)];
        poll(&mut fds, PollTimeout::ZERO).is_ok_and(|n| n > 0)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use nix::fcntl::OFlag;
    use nix::unistd::{pipe, pipe2};

    use super::*;

    fn run(print: Option<Outlet>, say: &[u8]) -> Rc<Hub> {
        let hub = Rc::new(Hub::default());
        let (reader, writer) = pipe2(OFlag::O_NONBLOCK).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (twin, say) = (Rc::clone(&hub), say.to_owned());
        tokio::task::LocalSet::new().block_on(&runtime, async move {
            let carried = tokio::task::spawn_local(carry(reader, twin, print));
            let mut to = tokio::net::unix::pipe::Sender::from_owned_fd(writer).unwrap();
            tokio::io::AsyncWriteExt::write_all(&mut to, &say).await.unwrap();
            drop(to);
            let _ = tokio::time::timeout(Duration::from_secs(1), carried).await;
        });
        hub
    }

    #[test]
    fn output_is_printed_and_the_last_of_it_remembered() {
        let (reader, writer) = pipe().unwrap();
        let hub = run(Some(Outlet::new(writer)), b"hello\n");
        let mut printed = [0; 16];
        assert_eq!(File::from(reader).read(&mut printed).unwrap(), 6);
        let (memory, live) = hub.follow();
        assert_eq!(memory, b"hello\n");
        assert!(live.is_none(), "the guest has ended");
        let long: Vec<u8> = (0..REMEMBERED + 7).map(|i| u8::try_from(i % 251).unwrap()).collect();
        assert_eq!(run(None, &long).follow().0, long[7..]);
    }

    #[test]
    fn a_reader_that_does_not_read_holds_up_nobody() {
        let (_reader, writer) = pipe().unwrap();
        let long = vec![b'x'; 2 * WAITING];
        assert_eq!(run(Some(Outlet::new(writer)), &long).follow().0.len(), REMEMBERED);
    }
}
