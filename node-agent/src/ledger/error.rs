//! Why the ledger could not be read or changed.

use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use pinion_machine::{Bdf, CpuSet};

/// Why the ledger could not be read or changed. The file is as it was.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The file is there but cannot be read.
    #[error("Cannot read the ledger {path:?}: run as a user who may read it, or name another with --ledger")]
    Unreadable {
        /// The ledger.
        path: PathBuf,
        /// From the operating system.
        source: io::Error,
    },
    /// The file is not a ledger.
    #[error(
        "The ledger {path:?} is damaged and was left as it is: stop the guests that run, then delete it, \
         or name another with --ledger"
    )]
    Damaged {
        /// The ledger.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The file, its lock or its folder cannot be written.
    #[error("Cannot write the ledger {path:?}: run as root, free space there, or name another with --ledger")]
    Unwritable {
        /// The ledger.
        path: PathBuf,
        /// From the operating system.
        source: io::Error,
    },
    /// Another process keeps the lock.
    #[error("Another process has kept {path:?} locked for {} s: see who with `fuser {path:?}`", waited.as_secs())]
    Busy {
        /// The lock file.
        path: PathBuf,
        /// How long it was waited for.
        waited: Duration,
    },
    /// A guest of that name holds something already.
    #[error("{owner:?} runs already, in process {pid}: stop it first, or give this guest another name")]
    AlreadyHeld {
        /// `namespace/name` of the guest.
        owner: String,
        /// The process it lives in.
        pid: i32,
    },
    /// CPUs that another guest holds.
    #[error("CPUs {cpus} are held by {holder:?} (process {pid}): plan again, or stop that guest")]
    CpusHeld {
        /// CPUs that both want.
        cpus: CpuSet,
        /// Who holds them.
        holder: String,
        /// The process it lives in.
        pid: i32,
    },
    /// A device that another guest holds.
    #[error("Device {device} is held by {holder:?} (process {pid}): plan again, or stop that guest")]
    DeviceHeld {
        /// The device.
        device: Bdf,
        /// Who holds it.
        holder: String,
        /// The process it lives in.
        pid: i32,
    },
    /// The ledger changed after the plan was made.
    #[error("The ledger is at generation {found}, the plan was made at {planned}: plan again")]
    Changed {
        /// Generation that the plan was made against.
        planned: u64,
        /// Generation found.
        found: u64,
    },
    /// The reservation is not in the ledger any more.
    #[error(
        "The ledger {path:?} has no entry of {owner:?} any more: it was deleted or edited while the guest ran"
    )]
    Lost {
        /// The ledger.
        path: PathBuf,
        /// `namespace/name` of the guest.
        owner: String,
    },
    /// `/proc` could not be read.
    #[error("Cannot tell process {pid} from others: is /proc mounted?")]
    Process {
        /// The process.
        pid: i32,
        /// From the operating system.
        source: io::Error,
    },
}

impl LedgerError {
    /// A stable code.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Unreadable { .. } => "LedgerUnreadable",
            Self::Damaged { .. } => "LedgerDamaged",
            Self::Unwritable { .. } => "LedgerUnwritable",
            Self::Busy { .. } => "LedgerBusy",
            Self::AlreadyHeld { .. } => "AlreadyRuns",
            Self::CpusHeld { .. } => "CpusHeld",
            Self::DeviceHeld { .. } => "DeviceHeld",
            Self::Changed { .. } => "LedgerChanged",
            Self::Lost { .. } => "NotHeld",
            Self::Process { .. } => "ProcessUnknown",
        }
    }
}

/// Why nothing was reserved.
#[derive(Debug, thiserror::Error)]
pub enum ReserveError<E: Error + 'static> {
    /// The ledger could not be read or changed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The caller's plan was refused.
    #[error(transparent)]
    Plan(E),
}
