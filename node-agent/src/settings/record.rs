//! What was changed of the host, as the ledger keeps it. Pure data.

use std::fmt;

use pinion_machine::{Bdf, CpuId, NodeId};
use serde::{Deserialize, Serialize};

use super::knob::Knob;

/// A setting of the host that guests may need otherwise.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "setting", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Setting {
    /// Whether control groups may have CPUs of their own (`cgroup.subtree_control`).
    CpusetController,
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
    /// CPUs of work that the kernel has put off (`workqueue/cpumask`).
    Workqueues,
    /// CPUs that are watched for lockups (`kernel.watchdog_cpumask`).
    Watchdog,
    /// CPUs that packets are received on (`rps_cpus`), or that send by a queue (`xps_cpus`).
    Queue {
        /// Which of the two.
        direction: Direction,
        /// The network interface.
        interface: String,
        /// The queue.
        queue: u32,
    },
    /// A switch of the kernel.
    Knob {
        /// Which.
        knob: Knob,
    },
    /// Huge pages of a node (`nr_hugepages`).
    HugePages {
        /// The node.
        node: NodeId,
        /// Their size, KiB.
        size_kib: u64,
    },
}

/// Which way packets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Direction {
    /// From the network.
    Receive,
    /// To the network.
    Send,
}

impl Setting {
    /// What it is about, as the metric label writes it.
    #[must_use]
    pub const fn cause(&self) -> &'static str {
        match self {
            Self::CpusetController => "cgroup",
            Self::DefaultInterrupts | Self::Interrupt { .. } => "interrupt",
            Self::IdleLatency { .. } | Self::Governor { .. } => "power",
            Self::Workqueues => "workqueue",
            Self::Queue { .. } => "network",
            Self::Watchdog | Self::Knob { .. } => "knob",
            Self::HugePages { .. } => "hugePages",
        }
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DefaultInterrupts => f.write_str("the CPUs of new interrupts"),
            Self::Interrupt { irq } => write!(f, "the CPUs of interrupt {irq}"),
            Self::IdleLatency { cpu } => write!(f, "the idle latency of CPU {cpu}"),
            Self::Governor { cpu } => write!(f, "the governor of CPU {cpu}"),
            Self::CpusetController => f.write_str("the cpuset controller"),
            Self::Workqueues => f.write_str("the CPUs of workqueues"),
            Self::Watchdog => f.write_str("the CPUs of the watchdog"),
            Self::Queue { direction: Direction::Receive, interface, queue } => {
                write!(f, "the CPUs of receive queue {queue} of {interface}")
            }
            Self::Queue { direction: Direction::Send, interface, queue } => {
                write!(f, "the CPUs of send queue {queue} of {interface}")
            }
            Self::Knob { knob } => knob.fmt(f),
            Self::HugePages { node, size_kib } => {
                write!(f, "the huge pages of {size_kib} KiB on node {node}")
            }
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
    /// What was written last, or is about to be.
    pub wrote: String,
    /// What had been written before that. It is still there where a keeper was killed in between, and is no wish of another
    /// process then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
}

impl Changed {
    /// Whether a value is there because the last change has not been made, or has been made and taken back.
    pub(super) fn is_unfinished(&self, found: &str) -> bool {
        self.was == found || self.before.as_deref() == Some(found)
    }

    /// Whether a value is of our making.
    pub(super) fn is_ours(&self, found: &str) -> bool {
        self.wrote == found || self.is_unfinished(found)
    }
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

    pub(super) fn get(&self, setting: &Setting) -> Option<&Changed> {
        self.settings.iter().find(|c| c.setting == *setting)
    }

    pub(super) fn forget(&mut self, setting: &Setting) {
        self.settings.retain(|c| c.setting != *setting);
    }

    pub(super) fn put(&mut self, change: Changed) {
        self.forget(&change.setting);
        self.settings.push(change);
    }
}
