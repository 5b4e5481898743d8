//! A lab host: booted, asked to run commands, and gone when it is dropped.

use std::fs;
use std::io;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Child;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use pinion_lab_agent::{Answer, Outcome, Request, Stream, What, receive, send};

use crate::disk::blank_disk;
use crate::image::{pack, target};
use crate::initramfs::append;
use crate::kept;
use crate::monitor::Monitor;
use crate::outcome::Output;
use crate::qemu;
use crate::slot::Slot;
use crate::start::start_again;
use crate::{Cache, Files, Kernel, LabError, Shape};

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
    monitor: Mutex<Monitor>,
    boot: Duration,
    cpus: u32,
    _slot: Arc<Slot>,
}

impl Lab {
    /// Boots a lab host with files in it, and waits until it takes commands. It dies with the thread that
    /// boots it. Its console and what ran on it are kept under `target/lab` if the thread that drops it
    /// panics.
    ///
    /// # Errors
    /// [`LabError`].
    pub fn boot(name: &str, shape: &Shape, files: &Files) -> Result<Self, LabError> {
        let slot = Slot::wait(&Cache::of_user())?;
        Self::boot_beside(Arc::new(slot), name, shape, files)
    }

    /// As [`Lab::boot`], for several that belong together and share the right to run.
    ///
    /// # Errors
    /// [`LabError`].
    pub fn boot_beside(slot: Arc<Slot>, name: &str, shape: &Shape, files: &Files) -> Result<Self, LabError> {
        let cache = Cache::of_user();
        let began = Instant::now();
        let folder = kept::folder(&target().join("lab"), name)?;
        let kernel = Kernel::of_debian(&cache)?;
        let initramfs = folder.join("initramfs");
        pack(shape, files, &kernel, &cache, &folder, &initramfs)?;
        for number in 1..=qemu::drives(shape) {
            let path = folder.join(format!("nvme{number}.img"));
            blank_disk(&path, 64 << 20)?;
        }
        let (qemu, stream, monitor) = start_again(shape, files, &kernel, &folder, &initramfs)?;
        let mut lab = Self {
            folder,
            qemu,
            stream: Mutex::new((stream, 0)),
            monitor: Mutex::new(Monitor::new(monitor)),
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

    /// Gives a command to QEMU's monitor, such as `device_del port1`, and what it says, prompts included.
    ///
    /// # Errors
    /// When QEMU is gone.
    pub fn monitor(&self, command: &str) -> Result<String, LabError> {
        append(&self.journal(), &format!("(qemu) {command}"));
        let lost = |source| LabError::Agent { console: self.console(), source };
        let mut monitor = self.monitor.lock().unwrap_or_else(PoisonError::into_inner);
        let said = monitor.ask(&format!("{command}\n")).map_err(lost)?;
        Ok(String::from_utf8_lossy(&said).into_owned())
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
            let monitor = self.monitor.get_mut().unwrap_or_else(PoisonError::into_inner);
            monitor.record(self.cpus, &self.folder.join("cpus"));
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
