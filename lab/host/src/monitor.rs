//! QEMU's monitor: what stands in the emulated CPUs of a lab host that leaves its records, and devices that are plugged in
//! and out while it runs.
//!
//! Called by a lab, on the thread of the test.

use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

/// QEMU answers at once, and then says nothing: there is no end of an answer to be seen.
const SILENCE: Duration = Duration::from_millis(500);
const MOST: usize = 4 << 20;

/// The monitor of one QEMU, which has connected when it started.
#[derive(Debug)]
pub(crate) struct Monitor {
    listener: UnixListener,
    stream: Option<UnixStream>,
}

impl Monitor {
    pub(crate) fn new(listener: UnixListener) -> Self {
        Self { listener, stream: None }
    }

    /// Gives QEMU commands, a line each, and reads what it says.
    pub(crate) fn ask(&mut self, commands: &str) -> io::Result<Vec<u8>> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => self.connection()?,
        };
        stream.write_all(commands.as_bytes())?;
        let (mut text, mut part) = (Vec::new(), [0; 65536]);
        while text.len() < MOST {
            match stream.read(&mut part) {
                Ok(0) | Err(_) => break,
                Ok(length) => text.extend(part.iter().take(length)),
            }
        }
        self.stream = Some(stream);
        Ok(text)
    }

    /// Where QEMU has ended before anybody asked, this fails at once.
    fn connection(&self) -> io::Result<UnixStream> {
        self.listener.set_nonblocking(true)?;
        let (stream, _) = self.listener.accept()?;
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(SILENCE))?;
        Ok(stream)
    }

    /// Writes registers and interrupt controllers of so many CPUs to a file, for people who look for a fault: nothing that
    /// goes wrong here is told.
    pub(crate) fn record(&mut self, cpus: u32, to: &Path) {
        let mut questions = String::from("info status\ninfo registers -a\ninfo pic\n");
        for cpu in 0..cpus {
            questions.push_str(&format!("cpu {cpu}\ninfo lapic\n"));
        }
        let _ = self.ask(&questions).and_then(|text| std::fs::write(to, text));
    }
}
