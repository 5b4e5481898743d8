//! The files of the host that hold settings.
//!
//! Called by the keeper; the only place that knows where they are. It must never decide what they should say.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use pinion_interrupts::{IrqFiles, Line};
use pinion_machine::{CpuId, CpuSet};

use super::record::Setting;

/// A CPU that may take this long wakes at once from its lightest sleep, µs; where the kernel does not say how
/// long that takes.
const LIGHTEST_SLEEP_US: u32 = 1;

/// The host, or a folder that stands for it in tests.
#[derive(Clone, Debug)]
pub struct Host {
    root: PathBuf,
    pub(super) irqs: IrqFiles,
}

impl Default for Host {
    fn default() -> Self {
        Self::at(Path::new("/"))
    }
}

impl Host {
    /// A host whose `/proc`, `/sys` and `/dev` are in a folder.
    #[must_use]
    pub fn at(root: &Path) -> Self {
        Self { root: root.to_owned(), irqs: IrqFiles::below(&root.join("proc")) }
    }

    /// The setting's file.
    pub(super) fn path(&self, setting: Setting) -> PathBuf {
        match setting {
            Setting::DefaultInterrupts => self.irqs.path(Line::Default),
            Setting::Interrupt { irq } => self.irqs.path(Line::Number(irq)),
            Setting::IdleLatency { cpu } => self.cpu(cpu).join("power/pm_qos_resume_latency_us"),
            Setting::Governor { cpu } => self.cpu(cpu).join("cpufreq/scaling_governor"),
        }
    }

    fn cpu(&self, cpu: CpuId) -> PathBuf {
        self.root.join(format!("sys/devices/system/cpu/cpu{cpu}"))
    }

    /// What it says; CPUs as a list, whatever the file has.
    pub(super) fn read(&self, setting: Setting) -> io::Result<String> {
        let text = fs::read_to_string(self.path(setting))?;
        let text = text.trim();
        match line(setting) {
            Some(line) => {
                let malformed =
                    || io::Error::new(io::ErrorKind::InvalidData, format!("{text:?} names no CPUs"));
                line.cpus(text).map(|cpus| cpus.to_string()).ok_or_else(malformed)
            }
            None => Ok(text.to_owned()),
        }
    }

    /// Makes it say so; CPUs as [`Host::read`] gives them.
    pub(super) fn write(&self, setting: Setting, value: &str) -> io::Result<()> {
        let text = match line(setting) {
            Some(line) => {
                let cpus: CpuSet =
                    value.parse().map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
                line.text(&cpus)
            }
            None => value.to_owned(),
        };
        OpenOptions::new().write(true).truncate(true).open(self.path(setting))?.write_all(text.as_bytes())
    }

    /// How long a CPU may take to wake so that it sleeps in its lightest state at most, µs.
    pub(super) fn lightest_sleep(&self, cpu: CpuId) -> String {
        let latency = fs::read_to_string(self.cpu(cpu).join("cpuidle/state1/latency")).ok();
        // 0 would mean that any is allowed.
        let known = latency.and_then(|text| text.trim().parse::<u32>().ok()).filter(|us| *us > 0);
        known.unwrap_or(LIGHTEST_SLEEP_US).to_string()
    }

    /// Keeps every CPU of the host from deep sleep until the file is closed (`/dev/cpu_dma_latency`).
    pub(super) fn hold_latency(&self) -> io::Result<File> {
        let mut file = OpenOptions::new().write(true).open(self.root.join("dev/cpu_dma_latency"))?;
        file.write_all(&(LIGHTEST_SLEEP_US.cast_signed()).to_ne_bytes())?;
        Ok(file)
    }
}

const fn line(setting: Setting) -> Option<Line> {
    match setting {
        Setting::DefaultInterrupts => Some(Line::Default),
        Setting::Interrupt { irq } => Some(Line::Number(irq)),
        Setting::IdleLatency { .. } | Setting::Governor { .. } => None,
    }
}
