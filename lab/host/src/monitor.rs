//! What stands in the emulated CPUs of a lab host that leaves its records: QEMU is asked, by its monitor.
//!
//! Called by a lab when it is dropped, on the thread of the test. For people who look for a fault: nothing hangs on it, and
//! nothing that goes wrong here is told.

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::Duration;

/// QEMU answers at once, and then says nothing: there is no end of an answer to be seen.
const SILENCE: Duration = Duration::from_millis(500);
const MOST: usize = 4 << 20;

/// Writes registers and interrupt controllers of so many CPUs to a file. QEMU has connected to `monitor` when it started:
/// where it has ended since, nothing is written, and nothing waited for.
pub(crate) fn record(monitor: &UnixListener, cpus: u32, to: &Path) {
    let _ = ask(monitor, cpus).and_then(|text| std::fs::write(to, text));
}

fn ask(monitor: &UnixListener, cpus: u32) -> std::io::Result<Vec<u8>> {
    monitor.set_nonblocking(true)?;
    let (mut stream, _) = monitor.accept()?;
    stream.set_read_timeout(Some(SILENCE))?;
    let mut questions = String::from("info status\ninfo registers -a\ninfo pic\n");
    for cpu in 0..cpus {
        questions.push_str(&format!("cpu {cpu}\ninfo lapic\n"));
    }
    stream.write_all(questions.as_bytes())?;
    let (mut text, mut part) = (Vec::new(), [0; 65536]);
    while text.len() < MOST {
        match stream.read(&mut part) {
            Ok(0) | Err(_) => break,
            Ok(length) => text.extend(part.iter().take(length)),
        }
    }
    Ok(text)
}
