//! What the launcher needs of a hypervisor, and no more.
//!
//! `native` (our own VMM) implements it, and so does libvirt, in a program of its own. The life of a guest goes one
//! way: [`Backend::open`] → [`OpenedGuest::arm`] → [`ArmedGuest::run`] → [`RunningGuest`]; dropping any of them
//! ends the guest and gives everything back. A backend must never decide where anything goes: the
//! [`LaunchSpec`] says it all.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use caps::Capability;
use vmm_machine::ConsoleConfig;

use crate::certificate::{Range, Repair, Role};
use crate::guest_agent::AgentChannel;
use crate::spec::LaunchSpec;

/// Makes guests.
pub trait Backend {
    /// Opens everything that the guest needs, while this process still has its privileges. What is missing,
    /// locked or of the wrong kind is told here.
    ///
    /// # Errors
    /// What cannot be had, by the field of the spec that names it; nothing is left open then.
    fn open(&self, spec: &LaunchSpec, wiring: Wiring) -> Result<Box<dyn OpenedGuest>, BackendError>;

    /// Privileges that it needs while its guests run.
    fn privileges(&self) -> &'static [Capability] {
        &[]
    }
}

/// What a guest is connected to that somebody else has opened.
#[derive(Debug)]
pub struct Wiring {
    /// Its serial console.
    pub console: ConsoleConfig,
    /// Tap devices by the interface that is on them; others are opened by the name of their network.
    pub taps: BTreeMap<String, OwnedFd>,
    /// Who keeps the control groups of the guest's threads, where this process may not.
    pub groups: Option<Arc<dyn ThreadGroups>>,
}

/// Who keeps the control groups that a guest's threads are in.
pub trait ThreadGroups: fmt::Debug + Send + Sync {
    /// Brings each thread to the group it belongs to: those that came after the guest's own go to the emulator's.
    ///
    /// # Errors
    /// When nobody answers, or not that it is done.
    fn sort(&self) -> io::Result<()>;
}

/// A guest that has everything open, and nothing started.
pub trait OpenedGuest: fmt::Debug {
    /// Creates every thread on its CPUs and populates every page on its node, and stops
    /// short of the guest's first instruction. Tells each phase of it and how long it took.
    ///
    /// # Errors
    /// Why it could not; nothing is left then.
    fn arm(
        self: Box<Self>,
        progress: &mut dyn FnMut(&'static str, Duration),
    ) -> Result<Box<dyn ArmedGuest>, BackendError>;
}

/// A guest that is ready and has not run yet.
pub trait ArmedGuest: fmt::Debug {
    /// The process that its threads and its memory are of.
    fn process(&self) -> i32;

    /// Its vCPU and I/O threads by thread id; every other thread of the process is an
    /// emulator thread.
    fn threads(&self) -> Vec<(Role, i32)>;

    /// Names of threads that its I/O threads start for their own work.
    fn helpers(&self) -> &'static [&'static str] {
        &[]
    }

    /// Where its cells' memory lies in that process.
    fn memory(&self) -> Vec<(u32, Vec<Range>)>;

    /// Puts its threads back where they belong.
    fn repair(&self) -> Box<dyn Repair>;

    /// Wakes its threads, where it can: one that has slept since its CPUs were set is seen where it was before.
    fn wake(&self) {}

    /// Lets the vCPUs go.
    ///
    /// # Errors
    /// Why it could not; nothing is left then.
    fn run(self: Box<Self>) -> Result<Box<dyn RunningGuest>, BackendError>;
}

/// A guest that runs, or has ended.
pub trait RunningGuest: fmt::Debug + Send + Sync {
    /// Presses the power button; the guest may ignore it.
    fn power_button(&self);

    /// Ends the guest at once.
    fn stop(&self);

    /// Readable once the guest has ended, from then on.
    fn ended_fd(&self) -> BorrowedFd<'_>;

    /// Readable when a passed-through device has something new to tell; `None` where none ever has.
    fn device_news_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Takes the news: it is told in [`RunningGuest::stats`].
    fn take_device_news(&self) {}

    /// How it ended; `None` while it runs.
    fn end(&self) -> Option<GuestEnd>;

    /// What it did so far.
    fn stats(&self) -> GuestStats;

    /// Does something with it while it runs, and returns when that is done, or in the guest's hands.
    ///
    /// # Errors
    /// Why it cannot be done.
    fn act(&self, action: Action) -> Result<(), BackendError>;

    /// Why its vCPUs stand still; `None` while they do not.
    fn pause(&self) -> Option<Pause>;

    /// The way to the agent inside; `None` where the backend has none.
    fn agent(&self) -> Option<&dyn AgentChannel> {
        None
    }
}

/// What can be done with a guest that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Stop its vCPUs where they are.
    Pause,
    /// Let them go on.
    Unpause,
    /// Reset it at once.
    Reset,
    /// Ask the system inside to reboot.
    SoftReboot,
}

impl Action {
    /// As a verb, with the guest as its object.
    #[must_use]
    pub const fn verb(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Unpause => "unpause",
            Self::Reset => "reset",
            Self::SoftReboot => "reboot",
        }
    }
}

/// Why a guest's vCPUs stand still.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pause {
    /// Somebody asked for it.
    Asked,
    /// The backend could not let it go on: why, and what to do.
    Failed(String),
}

impl fmt::Display for Pause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Asked => f.write_str("somebody has paused it"),
            Self::Failed(why) => f.write_str(why),
        }
    }
}

/// Why a backend could not make or run a guest: a sentence that says what to do, and its causes.
pub type BackendError = Box<dyn Error + Send + Sync>;

/// How a guest ended, as far as the backend can tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GuestEnd {
    /// It powered itself off.
    PoweredOff,
    /// [`RunningGuest::stop`] ended it.
    Stopped,
    /// It crashed, and how.
    Crashed(String),
    /// The host could not go on with it, and why.
    Failed(String),
}

/// What a guest did so far. All counts are from its start and survive its reboots.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GuestStats {
    /// By disk.
    pub disks: Vec<DiskStats>,
    /// By interface.
    pub interfaces: Vec<InterfaceStats>,
    /// By device passed through.
    pub devices: Vec<DeviceStats>,
    /// Exits to the launcher: vCPU, kind, count.
    pub exits: Vec<(u32, &'static str, u64)>,
    /// Reboots.
    pub reboots: u64,
    /// Console bytes that nobody took.
    pub console_dropped_bytes: u64,
}

/// What a disk did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DiskStats {
    /// Name in the spec.
    pub name: String,
    /// Reads.
    pub reads: Operations,
    /// Writes.
    pub writes: Operations,
    /// Flushes; they have no bytes.
    pub flushes: Operations,
    /// Requests that failed.
    pub errors: u64,
    /// What the last failure was, and what to do.
    pub last_error: Option<String>,
}

/// How a device passed through fares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceStats {
    /// Its address on the host.
    pub name: String,
    /// Vectors that signal the guest.
    pub vectors: u64,
    /// Changes whenever the host's vectors are set up anew.
    pub generation: u64,
    /// Resets that succeeded.
    pub resets: u64,
    /// The host took it back, or it is gone.
    pub lost: bool,
    /// Accesses, interrupts and resets that failed.
    pub faults: u64,
    /// What the last failure was.
    pub last_fault: Option<String>,
}

/// Operations of one kind on a disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Operations {
    /// How many.
    pub count: u64,
    /// Bytes.
    pub bytes: u64,
    /// Time spent on them.
    pub time: Duration,
}

/// What an interface did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InterfaceStats {
    /// Name in the spec.
    pub name: String,
    /// To the guest.
    pub received: Traffic,
    /// From the guest.
    pub sent: Traffic,
}

/// Traffic in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
    /// Packets dropped.
    pub dropped: u64,
    /// Packets that failed.
    pub errors: u64,
}
