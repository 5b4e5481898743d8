//! The files of the host that hold settings.
//!
//! Called by the keeper; the only place that knows where they are. It must never decide what they should say.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use pinion_interrupts::{IrqFiles, Line, format_mask, parse_mask};
use pinion_machine::{CpuId, CpuSet};

use super::record::{Direction, Setting};

/// A CPU that may take this long wakes at once from its lightest sleep, µs; where the kernel does not say how
/// long that takes.
const LIGHTEST_SLEEP_US: u32 = 1;

/// The controller that gives control groups CPUs of their own.
const CONTROLLER: &str = "cpuset";

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
    #[must_use]
    pub fn path(&self, setting: &Setting) -> PathBuf {
        match setting {
            Setting::CpusetController => self.cgroups().join("cgroup.subtree_control"),
            Setting::DefaultInterrupts => self.irqs.path(Line::Default),
            Setting::Interrupt { irq } => self.irqs.path(Line::Number(*irq)),
            Setting::IdleLatency { cpu } => self.cpu(*cpu).join("power/pm_qos_resume_latency_us"),
            Setting::Governor { cpu } => self.cpu(*cpu).join("cpufreq/scaling_governor"),
            Setting::Workqueues => self.root.join("sys/devices/virtual/workqueue/cpumask"),
            Setting::Watchdog => self.root.join("proc/sys/kernel/watchdog_cpumask"),
            Setting::Queue { direction, interface, queue } => {
                let file = match direction {
                    Direction::Receive => format!("rx-{queue}/rps_cpus"),
                    Direction::Send => format!("tx-{queue}/xps_cpus"),
                };
                self.root.join("sys/class/net").join(interface).join("queues").join(file)
            }
            Setting::Knob { knob } => self.root.join(knob.file()),
            Setting::HugePages { node, size_kib } => self.root.join(format!(
                "sys/devices/system/node/node{node}/hugepages/hugepages-{size_kib}kB/nr_hugepages"
            )),
        }
    }

    /// Where processes are.
    pub(crate) fn proc(&self) -> PathBuf {
        self.root.join("proc")
    }

    /// Where control groups are.
    #[must_use]
    pub fn cgroups(&self) -> PathBuf {
        self.root.join("sys/fs/cgroup")
    }

    /// The queues of all network interfaces.
    pub(super) fn queues(&self) -> Vec<Setting> {
        let names = |path: &Path| -> Vec<String> {
            let entries = fs::read_dir(path).into_iter().flatten().flatten();
            entries.filter_map(|e| e.file_name().into_string().ok()).collect()
        };
        let net = self.root.join("sys/class/net");
        let mut queues = Vec::new();
        for interface in names(&net) {
            for name in names(&net.join(&interface).join("queues")) {
                let of = |prefix, direction| Some((direction, name.strip_prefix(prefix)?.parse().ok()?));
                let found = of("rx-", Direction::Receive).or_else(|| of("tx-", Direction::Send));
                queues.extend(found.map(|(direction, queue)| Setting::Queue {
                    direction,
                    interface: interface.clone(),
                    queue,
                }));
            }
        }
        queues
    }

    fn cpu(&self, cpu: CpuId) -> PathBuf {
        self.root.join(format!("sys/devices/system/cpu/cpu{cpu}"))
    }

    /// What it says; CPUs as a list, whatever the file has.
    pub(super) fn read(&self, setting: &Setting) -> io::Result<String> {
        let text = fs::read_to_string(self.path(setting))?;
        let text = text.trim();
        let cpus = match form(setting) {
            Form::List => text.parse::<CpuSet>().ok(),
            Form::Mask => parse_mask(text),
            Form::Controller => {
                let on = text.split_whitespace().any(|c| c == CONTROLLER);
                return Ok(if on { "on" } else { "off" }.to_owned());
            }
            Form::Text => return Ok(text.to_owned()),
        };
        let malformed = || io::Error::new(io::ErrorKind::InvalidData, format!("{text:?} names no CPUs"));
        cpus.map(|cpus| cpus.to_string()).ok_or_else(malformed)
    }

    /// Makes it say so; CPUs as [`Host::read`] gives them.
    pub(super) fn write(&self, setting: &Setting, value: &str) -> io::Result<()> {
        let cpus = || value.parse::<CpuSet>().map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e));
        let text = match form(setting) {
            Form::List => cpus()?.to_string(),
            Form::Mask => format_mask(&cpus()?),
            Form::Controller => format!("{}{CONTROLLER}", if value == "on" { '+' } else { '-' }),
            Form::Text => value.to_owned(),
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

/// How a file writes its value.
enum Form {
    /// CPUs, as `0-3,8`.
    List,
    /// CPUs, as `10f`.
    Mask,
    /// Names of controllers; only one of them matters.
    Controller,
    Text,
}

const fn form(setting: &Setting) -> Form {
    match setting {
        Setting::Interrupt { .. } | Setting::Watchdog => Form::List,
        Setting::DefaultInterrupts | Setting::Workqueues | Setting::Queue { .. } => Form::Mask,
        Setting::CpusetController => Form::Controller,
        Setting::IdleLatency { .. }
        | Setting::Governor { .. }
        | Setting::Knob { .. }
        | Setting::HugePages { .. } => Form::Text,
    }
}
