//! A lab host: booted, asked to run commands, and gone when it is dropped.

use std::fs::{self, File};
use std::io;
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use pinion_lab_agent::{Answer, Outcome, Request, Stream, What, receive, send};

use crate::image::{pack, target};
use crate::initramfs::append;
use crate::kept;
use crate::monitor;
use crate::outcome::Output;
use crate::qemu::{self, Places};
use crate::slot::Slot;
use crate::{Attach, Cache, Emulator, Files, Kernel, LabError, Shape};

/// Longest that a lab may take to come up, in seconds, for each attempt: it takes about 10. Emulated CPUs now and then
/// stand still for good while they boot, which a fresh start cures; a machine that is merely slow gets longer each time.
const UP_WITHIN: [u64; 3] = [60, 90, 120];
/// What an answer may take beyond the limit of the command itself.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// What a file may take, beyond that.
const TRANSFER: Duration = Duration::from_secs(60);
/// Set in the environment, it has every lab's console and journal kept: to see where the time goes.
const KEEP: &str = "PINION_LAB_KEEP";

/// A running lab host.
#[derive(Debug)]
pub struct Lab {
    folder: PathBuf,
    qemu: Child,
    stream: Mutex<(UnixStream, u64)>,
    monitor: UnixListener,
    boot: Duration,
    cpus: u32,
    _slot: Slot,
}

impl Lab {
    /// Boots a lab host with files in it, and waits until it takes commands. It dies with the thread that
    /// boots it. Its console and what ran on it are kept under `target/lab` if the thread that drops it
    /// panics.
    ///
    /// # Errors
    /// [`LabError`].
    pub fn boot(name: &str, shape: &Shape, files: &Files) -> Result<Self, LabError> {
        let cache = Cache::of_user();
        let slot = Slot::wait(&cache)?;
        let began = Instant::now();
        let folder = kept::folder(&target().join("lab"), name)?;
        let kernel = Kernel::of_debian(&cache)?;
        let initramfs = folder.join("initramfs");
        pack(shape, files, &kernel, &cache, &folder, &initramfs)?;
        for number in 1..=qemu::drives(shape) {
            let path = folder.join(format!("nvme{number}.img"));
            let drive = File::create(&path).map_err(LabError::file("create", &path))?;
            drive.set_len(64 << 20).map_err(LabError::file("size", &path))?;
        }
        let (qemu, stream, monitor) = start_again(shape, files.disks(), &kernel, &folder, &initramfs)?;
        let mut lab = Self {
            folder,
            qemu,
            stream: Mutex::new((stream, 0)),
            monitor,
            boot: Duration::ZERO,
            cpus: shape.cpus(),
            _slot: slot,
        };
        lab.boot = began.elapsed();
        Ok(lab)
    }

    /// How long it took from nothing to the first command.
    #[must_use]
    pub fn boot_time(&self) -> Duration {
        self.boot
    }

    /// Runs a program to its end, or kills it and all that it started at the limit.
    ///
    /// # Errors
    /// When the lab does not answer, or the program cannot be started. A program that fails is no
    /// error.
    pub fn run(&self, words: &[&str], limit: Duration) -> Result<Output, LabError> {
        self.run_streaming(words, limit, &mut |_, _| ())
    }

    /// Runs a program, and hands on what it prints while it prints it.
    ///
    /// # Errors
    /// As [`Lab::run`].
    pub fn run_streaming(
        &self,
        words: &[&str],
        limit: Duration,
        see: &mut dyn FnMut(Stream, &[u8]),
    ) -> Result<Output, LabError> {
        let words: Vec<String> = words.iter().map(|&w| w.to_owned()).collect();
        let shown = words.join(" ");
        append(&self.journal(), &format!("$ {shown}"));
        let began = Instant::now();
        let limit_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        let what = What::Run { words, environment: Vec::new(), limit_ms };
        let (mut output, mut errors) = (Vec::new(), Vec::new());
        let mut gather = |stream: Stream, bytes: &[u8]| {
            match stream {
                Stream::Output => output.extend_from_slice(bytes),
                Stream::Errors => errors.extend_from_slice(bytes),
            }
            see(stream, bytes);
        };
        let (outcome, _) = self.ask(what, &[], limit, &mut gather)?;
        let Outcome::Ended { code, signal, timed_out } = outcome else {
            return Err(Self::refused(&format!("run {shown:?}"), outcome));
        };
        let output = Output { code, signal, timed_out, output, errors };
        let (out, err, took) = (output.text(), output.error_text(), began.elapsed().as_secs_f32());
        append(
            &self.journal(),
            &format!("{out}{err}-> {code:?} {signal:?} timed out: {timed_out}, {took:.1} s"),
        );
        Ok(output)
    }

    /// Runs a shell script.
    ///
    /// # Errors
    /// As [`Lab::run`].
    pub fn sh(&self, script: &str, limit: Duration) -> Result<Output, LabError> {
        self.run(&["sh", "-c", script], limit)
    }

    /// Writes a file.
    ///
    /// # Errors
    /// When the lab does not answer, or cannot write it.
    pub fn put(&self, path: &str, content: &[u8], mode: u32) -> Result<(), LabError> {
        let what = What::Put { path: path.to_owned(), mode };
        match self.ask(what, content, TRANSFER, &mut |_, _| ())? {
            (Outcome::Done, _) => Ok(()),
            (other, _) => Err(Self::refused(&format!("write {path:?}"), other)),
        }
    }

    /// Reads a file.
    ///
    /// # Errors
    /// When the lab does not answer, or cannot read it.
    pub fn get(&self, path: &str) -> Result<Vec<u8>, LabError> {
        match self.ask(What::Get { path: path.to_owned() }, &[], TRANSFER, &mut |_, _| ())? {
            (Outcome::Content, content) => Ok(content),
            (other, _) => Err(Self::refused(&format!("read {path:?}"), other)),
        }
    }

    /// Powers it off, and waits until it is.
    ///
    /// # Errors
    /// When it does not answer, or is still on after `limit`.
    pub fn power_off(mut self, limit: Duration) -> Result<(), LabError> {
        let console = self.console();
        let lost = |source| LabError::Agent { console: console.clone(), source };
        let stream = self.stream.get_mut().unwrap_or_else(PoisonError::into_inner);
        send(&mut stream.0, &Request { id: stream.1 + 1, what: What::PowerOff }, &[]).map_err(&lost)?;
        let end = Instant::now() + limit;
        while self.qemu.try_wait().map_err(&lost)?.is_none() {
            if Instant::now() >= end {
                return Err(lost(io::ErrorKind::TimedOut.into()));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn refused(what: &str, outcome: Outcome) -> LabError {
        let reason = match outcome {
            Outcome::Failed(reason) => reason,
            other => format!("an answer that does not fit: {other:?}"),
        };
        LabError::Refused { what: what.to_owned(), reason }
    }

    /// Asks, and waits for the answer of that number: those to a question that was given up are
    /// passed over.
    fn ask(
        &self,
        what: What,
        body: &[u8],
        limit: Duration,
        see: &mut dyn FnMut(Stream, &[u8]),
    ) -> Result<(Outcome, Vec<u8>), LabError> {
        let lost = |source| LabError::Agent { console: self.console(), source };
        let mut stream = self.stream.lock().unwrap_or_else(PoisonError::into_inner);
        let (stream, last) = &mut *stream;
        *last += 1;
        let id = *last;
        stream.set_read_timeout(Some(limit.saturating_add(ANSWER_WITHIN))).map_err(lost)?;
        send(stream, &Request { id, what }, body).map_err(lost)?;
        loop {
            let (answer, body): (Answer, _) = receive(stream).map_err(lost)?;
            match answer {
                Answer { id: other, .. } if other != id => {}
                Answer { what: Outcome::Printed(from), .. } => see(from, &body),
                Answer { what, .. } => return Ok((what, body)),
            }
        }
    }

    fn console(&self) -> PathBuf {
        self.folder.join("console")
    }

    fn journal(&self) -> PathBuf {
        self.folder.join("journal")
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let kept = std::thread::panicking() || std::env::var_os(KEEP).is_some();
        if kept {
            monitor::record(&self.monitor, self.cpus, &self.folder.join("cpus"));
        }
        let stream = self.stream.get_mut().unwrap_or_else(PoisonError::into_inner);
        let _ = stream.0.shutdown(Shutdown::Both);
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
        if kept {
            kept::strip(&self.folder);
            eprintln!("the lab's console and journal are kept in {}", self.folder.display());
        } else {
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

/// Whether a fresh start may help: its CPUs stand still, or QEMU itself crashed.
fn is_emulators_fault(e: &LabError) -> bool {
    match e {
        LabError::NotUp { .. } => true,
        LabError::Ended { status, .. } => status.signal().is_some(),
        _ => false,
    }
}

/// Starts QEMU, and once more where it does not come up.
fn start_again(
    shape: &Shape,
    disks: &[(PathBuf, Attach)],
    kernel: &Kernel,
    folder: &Path,
    initramfs: &Path,
) -> Result<(Child, UnixStream, UnixListener), LabError> {
    let mut last = None;
    for (attempt, seconds) in UP_WITHIN.into_iter().enumerate() {
        let places = (kernel, folder, initramfs);
        match start(shape, disks, places, seconds) {
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
    disks: &[(PathBuf, Attach)],
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
        disks,
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
