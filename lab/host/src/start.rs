//! Starting QEMU, and waiting until the lab host takes commands.
//!
//! Called by a lab, on the thread that boots it: QEMU dies with that.

use std::fs::{self, File};
use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use pinion_lab_agent::{Answer, Outcome, receive};

use crate::qemu::{self, Places};
use crate::{Cache, Emulator, Files, Kernel, LabError, Shape};

/// Longest that a lab may take to come up, in seconds, for each attempt: it takes about 10. Emulated CPUs now and then
/// stand still for good while they boot, which a fresh start cures; a machine that is merely slow gets longer each time.
const UP_WITHIN: [u64; 3] = [60, 90, 120];

/// Whether a fresh start may help: its CPUs stand still, or QEMU itself crashed.
fn is_emulators_fault(e: &LabError) -> bool {
    match e {
        LabError::NotUp { .. } => true,
        LabError::Ended { status, .. } => status.signal().is_some(),
        _ => false,
    }
}

/// Starts QEMU, and once more where it does not come up.
pub(crate) fn start_again(
    shape: &Shape,
    files: &Files,
    kernel: &Kernel,
    folder: &Path,
    initramfs: &Path,
) -> Result<(Child, UnixStream, UnixListener), LabError> {
    let mut last = None;
    for (attempt, seconds) in UP_WITHIN.into_iter().enumerate() {
        let places = (kernel, folder, initramfs);
        match start(shape, files, places, seconds) {
            Err(e) if is_emulators_fault(&e) => {
                let console = folder.join("console");
                let _ = fs::copy(&console, folder.join(format!("console.{attempt}")));
                eprintln!("{e}; attempt {} of {}", attempt + 1, UP_WITHIN.len());
                last = Some(e);
            }
            done => return done,
        }
    }
    Err(last.unwrap_or_else(|| LabError::NotUp { seconds: 0, console: folder.join("console") }))
}

/// Starts QEMU and waits for the agent's greeting. QEMU dies with the thread that started it.
fn start(
    shape: &Shape,
    files: &Files,
    (kernel, folder, initramfs): (&Kernel, &Path, &Path),
    seconds: u64,
) -> Result<(Child, UnixStream, UnixListener), LabError> {
    let console = folder.join("console");
    let log = folder.join("qemu.log");
    File::create(folder.join("journal")).map_err(LabError::file("create", folder.join("journal")))?;
    let sockets = ["agent", "monitor"].map(|what| socket(folder, what));
    let listen = |path: &PathBuf| {
        let _ = fs::remove_file(path);
        UnixListener::bind(path).map_err(LabError::file("listen on", path))
    };
    let (agent, monitor) = (listen(&sockets[0])?, listen(&sockets[1])?);
    let places = Places {
        kernel: &kernel.image(),
        initramfs,
        console: &console,
        agent: &sockets[0],
        monitor: &sockets[1],
        folder,
        disks: files.disks(),
        cards: files.cards(),
    };
    let errors = File::create(&log).map_err(LabError::file("create", &log))?;
    let emulator = Emulator::best(&Cache::of_user()).words();
    let started = Command::new("setpriv")
        .args(["--pdeathsig", "KILL"])
        .args(&emulator)
        .args(qemu::arguments(shape, &places)?)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(errors)
        .spawn();
    let failed = |reason: String| LabError::Tool { command: emulator.join(" "), reason };
    let mut qemu = started.map_err(|e| failed(e.to_string()))?;
    let greeted = greeting(&agent, &mut qemu, &console, seconds);
    for socket in &sockets {
        let _ = fs::remove_file(socket);
    }
    match greeted {
        Ok(stream) => Ok((qemu, stream, monitor)),
        Err(e) => {
            let _ = qemu.kill();
            let _ = qemu.wait();
            Err(e)
        }
    }
}

/// Socket paths have a limit of about 100 bytes: a short one, in the temporary folder.
fn socket(folder: &Path, what: &str) -> PathBuf {
    std::env::temp_dir().join(format!("pinion-lab-{}-{}-{what}", std::process::id(), short(folder)))
}

fn short(folder: &Path) -> String {
    let name = folder.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    name.chars().take(40).collect()
}

fn greeting(
    listener: &UnixListener,
    qemu: &mut Child,
    console: &Path,
    seconds: u64,
) -> Result<UnixStream, LabError> {
    let not_up = || LabError::NotUp { seconds, console: console.to_owned() };
    let lost = |source| LabError::Agent { console: console.to_owned(), source };
    let end = Instant::now() + Duration::from_secs(seconds);
    listener.set_nonblocking(true).map_err(lost)?;
    let mut stream = loop {
        match listener.accept() {
            Ok((stream, _)) => break stream,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => return Err(lost(e)),
        }
        if let Some(status) = qemu.try_wait().map_err(lost)? {
            return Err(ended(status, console));
        }
        if Instant::now() >= end {
            return Err(not_up());
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    stream.set_nonblocking(false).map_err(lost)?;
    stream.set_read_timeout(Some(end.saturating_duration_since(Instant::now()))).map_err(lost)?;
    match receive::<Answer>(&mut stream) {
        Ok((Answer { what: Outcome::Ready, .. }, _)) => Ok(stream),
        Ok(_) => Err(not_up()),
        Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => Err(not_up()),
        // The other end is closed: QEMU has ended or is about to.
        Err(_) => {
            std::thread::sleep(Duration::from_millis(500));
            let _ = qemu.kill();
            Err(qemu.wait().map_or_else(lost, |status| ended(status, console)))
        }
    }
}

fn ended(status: ExitStatus, console: &Path) -> LabError {
    let said = fs::read_to_string(console.with_file_name("qemu.log")).unwrap_or_default();
    LabError::Ended { status, said: said.trim().to_owned(), console: console.to_owned() }
}
