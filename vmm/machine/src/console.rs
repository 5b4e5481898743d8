//! The serial console's other end: a bounded buffer for output; `input` is the other direction.
//!
//! The port writes into the buffer on vCPU threads and never waits; the emulator's thread
//! carries it on. What finds no room is dropped and counted.

mod input;

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use vmm_devices::Serial;
use vmm_event_loop::{
    Control, Event, EventLoopError, EventLoopHandle, Interest, Subscriber, SubscriberId, Watch,
};
use vmm_sys_util::eventfd::EventFd;

pub(crate) use input::Input;

/// Bytes of output that wait for their reader at most.
const ROOM: usize = 256 << 10;
/// Bytes carried on in one go: a pipe that is writable takes as many without blocking.
const CHUNK: usize = 4096;
/// How long the last output is waited for at the end.
const LAST_WORDS: Duration = Duration::from_secs(1);

const NEWS: u32 = 0;
const OUTPUT: u32 = 1;

#[derive(Debug, Default)]
struct Waiting {
    bytes: VecDeque<u8>,
    dropped: u64,
    closed: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Output on its way.
#[derive(Debug)]
pub(crate) struct Buffer {
    waiting: Mutex<Waiting>,
    news: EventFd,
}

/// The port's end of a [`Buffer`].
#[derive(Clone, Debug)]
pub(crate) struct Sink(Arc<Buffer>);

/// The console's serial port.
pub(crate) type Port = Arc<Mutex<Serial<Sink>>>;

impl Buffer {
    /// An empty buffer; `closed` when there is nobody to read it.
    pub(crate) fn new(news: EventFd, closed: bool) -> Arc<Self> {
        Arc::new(Self { waiting: Mutex::new(Waiting { closed, ..Waiting::default() }), news })
    }

    /// The end that the port writes to.
    pub(crate) fn sink(self: &Arc<Self>) -> Sink {
        Sink(Arc::clone(self))
    }

    /// Bytes that found no room.
    pub(crate) fn dropped(&self) -> u64 {
        self.lock().dropped
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        lock(&self.waiting)
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut waiting = self.0.lock();
        if waiting.closed {
            return Ok(bytes.len());
        }
        let first = waiting.bytes.is_empty();
        let room = (ROOM - waiting.bytes.len().min(ROOM)).min(bytes.len());
        waiting.bytes.extend(bytes.iter().take(room));
        waiting.dropped += u64::try_from(bytes.len() - room).unwrap_or(0);
        if first && room > 0 {
            // Fails only when the counter is full, and then it is readable anyway.
            let _ = self.0.news.write(1);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Carries output on, on the emulator's thread.
#[derive(Debug)]
pub(crate) struct Output {
    buffer: Arc<Buffer>,
    news: EventFd,
    file: File,
    /// Whether the file tells when it is writable; regular files do not, and never block.
    polled: bool,
}

impl Output {
    /// Starts carrying output to `file`.
    pub(crate) fn start(
        buffer: &Arc<Buffer>,
        news: EventFd,
        file: File,
        on: &EventLoopHandle,
    ) -> Result<SubscriberId, EventLoopError> {
        let twin = |f: &File| f.try_clone().map_err(EventLoopError::Create);
        let second = twin(&file)?;
        let polled = Interest::new(&file, OUTPUT, Watch::Nothing);
        let wakes = Interest::new(&news, NEWS, Watch::Readable);
        let output = |polled, file, news| Box::new(Self { buffer: Arc::clone(buffer), news, file, polled });
        let news_twin = news.try_clone().map_err(EventLoopError::Create)?;
        if let Ok(id) = on.add(output(true, file, news), &[wakes, polled]) {
            return Ok(id);
        }
        let wakes = Interest::new(&news_twin, NEWS, Watch::Readable);
        on.add(output(false, second, news_twin), &[wakes])
    }

    /// Writes a chunk; says whether more waits.
    fn carry(&mut self) -> bool {
        let chunk: Vec<u8> = self.buffer.lock().bytes.iter().copied().take(CHUNK).collect();
        let written = match self.file.write(&chunk) {
            Ok(n) => n,
            Err(e) if matches!(e.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => 0,
            Err(_) => {
                // Nobody reads any more.
                let mut waiting = self.buffer.lock();
                waiting.closed = true;
                waiting.bytes.len()
            }
        };
        let mut waiting = self.buffer.lock();
        let gone = written.min(waiting.bytes.len());
        waiting.bytes.drain(..gone);
        !waiting.bytes.is_empty()
    }
}

impl Subscriber for Output {
    fn ready(&mut self, event: Event, control: &mut Control<'_>) {
        if event.token == NEWS {
            let _ = self.news.read();
        } else if event.hung_up {
            let mut waiting = self.buffer.lock();
            (waiting.closed, waiting.bytes) = (true, VecDeque::new());
            drop(waiting);
            control.remove_me();
            return;
        }
        let more = if event.token == NEWS && self.polled { true } else { self.carry() };
        if self.polled {
            let watch = if more { Watch::Writable } else { Watch::Nothing };
            let _ = control.change(Interest::new(&self.file, OUTPUT, watch));
        } else if more {
            let _ = self.news.write(1);
        }
    }
}

/// Waits until the last output is carried on, or for a second.
pub(crate) fn last_words(buffer: &Buffer, file: Option<&mut File>) {
    let Some(file) = file else { return };
    let end = Instant::now() + LAST_WORDS;
    loop {
        let chunk: Vec<u8> = buffer.lock().bytes.iter().copied().take(CHUNK).collect();
        if chunk.is_empty() {
            return;
        }
        let left = end.saturating_duration_since(Instant::now()).as_millis();
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
        let mut wait = [PollFd::new(file.as_fd(), PollFlags::POLLOUT)];
        if !poll(&mut wait, timeout).is_ok_and(|n| n > 0) {
            return;
        }
        let Ok(written) = file.write(&chunk) else { return };
        let mut waiting = buffer.lock();
        let gone = written.min(waiting.bytes.len());
        waiting.bytes.drain(..gone);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn buffer() -> Arc<Buffer> {
        Buffer::new(EventFd::new(0).unwrap(), false)
    }

    #[test]
    fn what_finds_no_room_is_dropped_and_counted() {
        let buffer = buffer();
        let mut sink = buffer.sink();
        sink.write_all(&vec![b'x'; ROOM]).unwrap();
        sink.write_all(b"late").unwrap();
        assert_eq!(buffer.dropped(), 4);
        assert_eq!(buffer.lock().bytes.len(), ROOM);
    }

    #[test]
    fn the_last_output_reaches_a_reader() {
        let buffer = buffer();
        buffer.sink().write_all(b"bye").unwrap();
        let mut file = pipe();
        last_words(&buffer, Some(&mut file.1));
        drop(file.1);
        let mut text = String::new();
        file.0.read_to_string(&mut text).unwrap();
        assert_eq!(text, "bye");
    }

    fn pipe() -> (File, File) {
        let (reader, writer) = nix::unistd::pipe().unwrap();
        (reader.into(), writer.into())
    }

    #[test]
    fn without_a_reader_nothing_is_kept() {
        let buffer = Buffer::new(EventFd::new(0).unwrap(), true);
        buffer.sink().write_all(b"into the void").unwrap();
        assert!(buffer.lock().bytes.is_empty());
        assert_eq!(buffer.dropped(), 0);
    }
}
