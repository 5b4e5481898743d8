//! What boots a guest, read from its disk at every boot.

use std::error::Error;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

use vmm_block::SharedDisk;
use vmm_machine::{KernelFiles, ReadKernel};

use super::process::{ImageError, ReadLimits, boot};
use crate::guest::with_console;

/// The kernel on a disk. Started processes are a thread's own: at a reboot the emulator's thread asks, which may
/// start none. That thread has the CPUs of the one that made this, and ends with it. The first time it is asked by this itself, at
/// once: it reads while memory is populated, which takes as long.
#[derive(Debug)]
pub struct DiskKernel {
    volume: String,
    /// Whether an answer is on its way.
    is_asked: bool,
    ask: Sender<()>,
    answers: Receiver<Result<KernelFiles, ImageError>>,
}

#[derive(Debug, thiserror::Error)]
enum DiskKernelError {
    #[error("volume {volume:?}")]
    Image { volume: String, source: ImageError },
    #[error("the thread that reads boot files is gone")]
    Gone,
}

impl DiskKernel {
    /// The kernel on the disk of a volume.
    ///
    /// # Errors
    /// When there are no more threads.
    pub fn new(volume: &str, disk: SharedDisk) -> std::io::Result<Self> {
        let ((ask, asked), (answer, answers)) = (mpsc::channel(), mpsc::channel());
        let body = move || {
            while asked.recv().is_ok() {
                if answer.send(boot(&disk, ReadLimits::default())).is_err() {
                    return;
                }
            }
        };
        thread::Builder::new().name("boot files".to_owned()).stack_size(128 << 10).spawn(body)?;
        let is_asked = ask.send(()).is_ok();
        Ok(Self { volume: volume.to_owned(), is_asked, ask, answers })
    }
}

impl ReadKernel for DiskKernel {
    fn read(&mut self) -> Result<KernelFiles, Box<dyn Error + Send + Sync>> {
        if !std::mem::take(&mut self.is_asked) {
            self.ask.send(()).map_err(|_| DiskKernelError::Gone)?;
        }
        let files = self.answers.recv().map_err(|_| DiskKernelError::Gone)?;
        let files = files.map_err(|source| DiskKernelError::Image { volume: self.volume.clone(), source })?;
        let command_line = with_console(&files.command_line);
        Ok(KernelFiles { command_line, ..files })
    }
}
