//! What the keeper tells of: data with plain text.

use std::fmt;

use nix::errno::Errno;
use pinion_machine::CpuSet;

use super::contest::LEFT_ALONE;
use super::record::Setting;
use crate::drivers::Rebound;

/// Something about the host's settings that its user should know.
#[derive(Debug)]
pub enum Notice {
    /// Interrupts stay on quiet CPUs: the kernel places them itself.
    Immovable {
        /// How many.
        count: usize,
        /// The first of them, as `24 (nvme0q1)`.
        some: Vec<String>,
        /// The quiet CPUs that they come to.
        cpus: CpuSet,
    },
    /// Another process changed a setting, and it was changed back.
    PutBack {
        /// The setting.
        setting: Setting,
        /// What the other process had made of it.
        found: String,
        /// What it is again.
        value: String,
        /// The process, where it is known.
        by: Option<String>,
    },
    /// Another process changes a setting again and again: it is left alone for a while.
    Contested {
        /// The setting.
        setting: Setting,
        /// The process, where it is known.
        by: Option<String>,
    },
    /// A setting cannot be had as guests need it.
    Refused {
        /// The setting.
        setting: Setting,
        /// What the kernel says.
        why: String,
    },
    /// Nothing can be changed at all.
    NotPermitted,
    /// A vector of a device does not come where it should.
    Unrouted {
        /// The vector, as `/proc/interrupts` names it.
        vector: String,
        /// Where it should come.
        planned: String,
        /// What the kernel says.
        why: String,
    },
    /// Another process undid the partition of a guest's CPUs.
    Partition {
        /// `namespace/name` of the guest.
        owner: String,
        /// The process, where it is known.
        by: Option<String>,
        /// Why it could not be made again; absent where it was.
        failure: Option<String>,
    },
    /// Another process changed the control groups of a guest's container.
    Container {
        /// `namespace/name` of the guest.
        owner: String,
        /// The process, where it is known.
        by: Option<String>,
        /// Why they could not be put back; absent where they were.
        failure: Option<String>,
    },
    /// A device has its driver again.
    GivenBack(Rebound),
    /// A device was not given back.
    Kept(crate::drivers::DriverError),
}

impl Notice {
    /// Whether something is not as it should be.
    #[must_use]
    pub const fn is_warning(&self) -> bool {
        !matches!(
            self,
            Self::GivenBack(_)
                | Self::PutBack { .. }
                | Self::Partition { failure: None, .. }
                | Self::Container { failure: None, .. }
        )
    }

    /// A stable code.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Immovable { .. } => "InterruptsImmovable",
            Self::PutBack { .. } => "SettingPutBack",
            Self::Contested { .. } => "SettingContested",
            Self::Partition { .. } => "PartitionUndone",
            Self::Container { .. } => "ContainerChanged",
            Self::Refused { .. } => "SettingRefused",
            Self::NotPermitted => "HostSettingsNotPermitted",
            Self::Unrouted { .. } => "InterruptNotRouted",
            Self::GivenBack(_) => "DeviceGivenBack",
            Self::Kept(_) => "DeviceNotGivenBack",
        }
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Immovable { count, some, cpus } => {
                let more = if *count > some.len() { ", …" } else { "" };
                write!(
                    f,
                    "{count} interrupts of the host stay on dedicated CPUs {cpus}, because the kernel places them \
                     itself: {}{more} (boot the host with isolcpus=managed_irq,{cpus}, or dedicate others)",
                    some.join(", ")
                )
            }
            Self::PutBack { setting, found, value, by } => {
                let by = by.as_deref().unwrap_or("another process");
                write!(
                    f,
                    "{setting}: {by} made it {found:?}, and it is {value:?} again: stop that process (irqbalance, \
                     TuneD), or ban these CPUs there"
                )
            }
            Self::Contested { setting, by } => {
                let by = by.as_deref().unwrap_or("another process");
                write!(
                    f,
                    "{setting}: {by} changes it again and again; it is left so for {} s: stop that process, or ban \
                     these CPUs there",
                    LEFT_ALONE.as_secs()
                )
            }
            Self::Partition { owner, by, failure } => {
                let by = by.as_deref().unwrap_or("another process");
                match failure {
                    None => {
                        write!(f, "{by} undid the partition of the CPUs of {owner}, and it is made again")
                    }
                    Some(why) => {
                        write!(
                            f,
                            "{by} undid the partition of the CPUs of {owner}: other tasks may run there: {why}"
                        )
                    }
                }
            }
            Self::Container { owner, by, failure } => {
                let by = by.as_deref().unwrap_or("another process, such as a kubelet that was started anew,");
                match failure {
                    None => {
                        write!(f, "{by} changed the CPUs of the container of {owner}, and they are put back")
                    }
                    Some(why) => write!(f, "{by} changed the CPUs of the container of {owner}: {why}"),
                }
            }
            Self::Refused { setting, why } => write!(f, "{setting} cannot be changed: {why}"),
            Self::NotPermitted => f.write_str(
                "interrupts and power settings of the host stay as they are: be root, or say so with \
                 --leave-host-settings",
            ),
            Self::Unrouted { vector, planned, why } => {
                write!(f, "the interrupt {vector} cannot be brought to CPU {planned}: {why}")
            }
            Self::GivenBack(rebound) => {
                write!(f, "device {} was given back: {}", rebound.address, rebound.change())
            }
            Self::Kept(why) => write!(f, "a device was not given back: {why}"),
        }
    }
}

/// What the kernel says, with what to do about it.
pub(super) fn why(error: &std::io::Error) -> String {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOSPC) => "the CPU has no free vector: give more CPUs to housekeeping".to_owned(),
        Some(Errno::EIO | Errno::EPERM) => format!("the kernel places it itself ({error})"),
        _ => error.to_string(),
    }
}
