//! Starts the process that reads images, answers it, and ends it.

use std::fs::File;
use std::io::{self, ErrorKind, Seek};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use nix::sys::memfd::{MFdFlags, memfd_create};
use vmm_block::{Disk, SharedDisk};
use vmm_image::ImageReport;
use vmm_machine::KernelFiles;

use super::protocol::{Answer, Hello, Question, write_bytes};

/// The program, beside this one.
const PROGRAM: &str = "pinion-image";

/// How much an image may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadLimits {
    /// From start to end.
    pub time: Duration,
    /// Bytes that are read from the disk.
    pub bytes: u64,
}

impl Default for ReadLimits {
    fn default() -> Self {
        Self { time: Duration::from_secs(60), bytes: 2 << 30 }
    }
}

/// Why an image was not read, or does not boot.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The program was not started.
    #[error("Cannot start {program:?}, which reads disk images: it belongs beside this program")]
    Start {
        /// The program.
        program: PathBuf,
        /// From the operating system.
        source: io::Error,
    },
    /// It did not get what it needs.
    #[error("Cannot set up the process that reads disk images")]
    SetUp(#[source] io::Error),
    /// It ended before it had said anything.
    #[error(
        "The process that reads disk images ended early ({how}): the image is damaged in a way that it does not survive"
    )]
    Ended {
        /// How.
        how: String,
    },
    /// It took too long.
    #[error("Reading the image took longer than {} s: it is damaged, or its storage too slow", .0.as_secs())]
    TooLong(Duration),
    /// It read too much.
    #[error("Reading the image took more than {0} bytes of it: it is damaged")]
    TooMuch(u64),
    /// The disk does not boot.
    #[error("{sentence}")]
    Refused {
        /// A stable word.
        reason: String,
        /// What is wrong.
        sentence: String,
    },
}

/// Looks at a disk: what is on it, and whether it boots directly.
///
/// # Errors
/// [`ImageError`]; [`ImageError::Refused`] only where not even partitions can be read.
pub fn inspect(disk: &SharedDisk, limits: ReadLimits) -> Result<ImageReport, ImageError> {
    let (answer, _) = run(disk, false, limits)?;
    match (answer.report, answer.refusal) {
        (Some(report), _) => Ok(report),
        (None, refusal) => Err(refused(refusal)),
    }
}

/// Reads what boots from a disk.
pub(super) fn boot(disk: &SharedDisk, limits: ReadLimits) -> Result<KernelFiles, ImageError> {
    let (answer, files) = run(disk, true, limits)?;
    let Some(command_line) = answer.command_line else { return Err(refused(answer.refusal)) };
    let (mut kernel, mut initrd) = files;
    let length = initrd.seek(io::SeekFrom::End(0)).map_err(ImageError::SetUp)?;
    kernel.rewind().and_then(|()| initrd.rewind()).map_err(ImageError::SetUp)?;
    Ok(KernelFiles { kernel, initrd: (length > 0).then_some(initrd), command_line })
}

fn refused(refusal: Option<(String, String)>) -> ImageError {
    let (reason, sentence) =
        refusal.unwrap_or_else(|| ("ImageUnreadable".to_owned(), "nothing was found in it".to_owned()));
    ImageError::Refused { reason, sentence }
}

fn run(disk: &SharedDisk, boot: bool, limits: ReadLimits) -> Result<(Answer, (File, File)), ImageError> {
    let deadline = Instant::now() + limits.time;
    let memory = |name| -> Result<File, ImageError> {
        Ok(memfd_create(name, MFdFlags::MFD_CLOEXEC).map_err(|e| ImageError::SetUp(e.into()))?.into())
    };
    let (kernel, initrd) = (memory(c"kernel")?, memory(c"initrd")?);
    let (own, other) = UnixStream::pair().map_err(ImageError::SetUp)?;
    let mut reader = Reader(start(other.into(), &kernel, &initrd)?);
    match converse(own, disk, boot, limits, deadline) {
        Ok(answer) => {
            // Gone before anybody looks at what it wrote: nothing can change under them.
            reader.end();
            Ok((answer, (kernel, initrd)))
        }
        Err(Broken::Excess) => Err(ImageError::TooMuch(limits.bytes)),
        Err(Broken::Talk(e)) if is_late(&e) => Err(ImageError::TooLong(limits.time)),
        Err(Broken::Talk(_)) => Err(ImageError::Ended { how: reader.end() }),
    }
}

fn is_late(e: &io::Error) -> bool {
    matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

fn start(socket: OwnedFd, kernel: &File, initrd: &File) -> Result<Child, ImageError> {
    let program = program();
    let copy = |file: &File| file.try_clone().map(Stdio::from).map_err(ImageError::SetUp);
    let mut command = Command::new(&program);
    command.arg0(PROGRAM).env_clear().current_dir("/");
    command.stdin(Stdio::from(socket)).stdout(copy(kernel)?).stderr(copy(initrd)?);
    command.spawn().map_err(|source| ImageError::Start { program, source })
}

/// Beside this program; a test's is one folder above.
fn program() -> PathBuf {
    let own = std::env::current_exe().unwrap_or_else(|_| PROGRAM.into());
    let beside = own.with_file_name(PROGRAM);
    let above = own.parent().and_then(|folder| folder.parent()).map(|folder| folder.join(PROGRAM));
    if beside.exists() { beside } else { above.filter(|p| p.exists()).unwrap_or(beside) }
}

/// The process; it does not outlive this.
struct Reader(Child);

impl Reader {
    /// Ends it, and says how it had ended before.
    fn end(&mut self) -> String {
        // It has closed the socket, or has nothing more to do.
        let until = Instant::now() + Duration::from_secs(2);
        while Instant::now() < until {
            match self.0.try_wait() {
                Ok(None) => std::thread::sleep(Duration::from_millis(1)),
                Ok(Some(status)) => return how(status),
                Err(e) => return e.to_string(),
            }
        }
        let _ = self.0.kill();
        self.0.wait().map_or_else(|e| e.to_string(), how)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn how(status: ExitStatus) -> String {
    status.signal().map_or_else(|| status.to_string(), |signal| format!("signal {signal}"))
}

enum Broken {
    Talk(io::Error),
    Excess,
}

impl From<io::Error> for Broken {
    fn from(e: io::Error) -> Self {
        Self::Talk(e)
    }
}

/// A piece of the disk.
#[derive(Default)]
struct Piece {
    offset: u64,
    bytes: Vec<u8>,
    /// Whether it could be read.
    is_there: bool,
}

impl Piece {
    fn length(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read(&mut self, disk: &mut dyn Disk, offset: u64, length: u32) {
        self.offset = offset;
        self.bytes.resize(usize::try_from(length).unwrap_or(0), 0);
        self.is_there = vmm_block::read_bytes(disk, &mut self.bytes, offset).is_ok();
    }
}

/// Answers the reader until it is done.
fn converse(
    mut socket: UnixStream,
    disk: &SharedDisk,
    boot: bool,
    limits: ReadLimits,
    deadline: Instant,
) -> Result<Answer, Broken> {
    let lock = || disk.lock().unwrap_or_else(PoisonError::into_inner);
    let size = lock().capacity();
    Hello { size, boot }.write(&mut socket)?;
    let (mut left, mut end, mut piece) = (limits.bytes, 0, Piece::default());
    loop {
        let time = deadline.saturating_duration_since(Instant::now());
        if time.is_zero() {
            return Err(io::Error::from(ErrorKind::TimedOut).into());
        }
        socket.set_read_timeout(Some(time))?;
        socket.set_write_timeout(Some(time))?;
        match Question::read(&mut socket)? {
            Question::Read { offset, length } => {
                left = left.checked_sub(u64::from(length)).ok_or(Broken::Excess)?;
                if !piece.is_there || (piece.offset, piece.length()) != (offset, u64::from(length)) {
                    piece.read(&mut **lock(), offset, length);
                }
                write_bytes(&mut socket, piece.is_there.then_some(&piece.bytes))?;
                let goes_on = end == offset;
                end = offset.saturating_add(length.into());
                // What it asks for next, while it is busy with this.
                if goes_on && end.saturating_add(length.into()) <= size {
                    piece.read(&mut **lock(), end, length);
                }
            }
            Question::Done(answer) => {
                return serde_json::from_slice(&answer).map_err(|e| Broken::Talk(e.into()));
            }
        }
    }
}
