//! What was changed of the host, as the ledger keeps it. Pure data.

use std::fmt;

use pinion_machine::{Bdf, CpuId};
use serde::{Deserialize, Serialize};

/// A setting of the host that guests may need otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "setting", rename_all = "camelCase")]
pub enum Setting {
    /// Where interrupts may come that are made from now on (`/proc/irq/default_smp_affinity`).
    DefaultInterrupts,
    /// Where an interrupt may come (`/proc/irq/N/smp_affinity_list`).
    Interrupt {
        /// Its number.
        irq: u32,
    },
    /// How long a CPU may take to wake, µs (`power/pm_qos_resume_latency_us`).
    IdleLatency {
        /// The CPU.
        cpu: CpuId,
    },
    /// What chooses a CPU's frequency (`cpufreq/scaling_governor`).
    Governor {
        /// The CPU.
        cpu: CpuId,
    },
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DefaultInterrupts => f.write_str("the CPUs of new interrupts"),
            Self::Interrupt { irq } => write!(f, "the CPUs of interrupt {irq}"),
            Self::IdleLatency { cpu } => write!(f, "the idle latency of CPU {cpu}"),
            Self::Governor { cpu } => write!(f, "the governor of CPU {cpu}"),
        }
    }
}

/// A setting that was changed. CPUs are lists such as `0-3,8`, whatever the file has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// Which.
    #[serde(flatten)]
    pub setting: Setting,
    /// What it was.
    pub was: String,
    /// What was written last.
    pub wrote: String,
}

/// A device that was bound to `vfio-pci` for a guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoundDevice {
    /// The function.
    pub address: Bdf,
    /// Its driver before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub was: Option<String>,
}

/// All that was changed, since the host booted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HostChanges {
    /// The boot it holds for (`/proc/sys/kernel/random/boot_id`): the next begins as the host's own settings say.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub boot_id: String,
    /// Settings.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub settings: Vec<Changed>,
    /// Devices.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<BoundDevice>,
}

impl HostChanges {
    /// Whether the host is as it was.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.settings.is_empty() && self.devices.is_empty()
    }

    pub(super) fn get(&self, setting: Setting) -> Option<&Changed> {
        self.settings.iter().find(|c| c.setting == setting)
    }

    pub(super) fn forget(&mut self, setting: Setting) {
        self.settings.retain(|c| c.setting != setting);
    }

    pub(super) fn put(&mut self, change: Changed) {
        self.forget(change.setting);
        self.settings.push(change);
    }
}
