//! What this node keeps about its guests, and changes for them: the ledger of who holds what, the drivers of
//! devices, and the settings of the host.
//!
//! Called by the command line on the thread that runs a command; the node's
//! daemon will own it later. It must never decide a placement: it is told one,
//! and says whether it still fits beside the others.

#![forbid(unsafe_code)]

mod cpuinfo;
mod daemon;
mod drivers;
mod facts;
mod ledger;
mod partition;
mod pod;
mod profile;
mod qualification;
mod settings;

#[cfg(any(test, feature = "fake"))]
pub use daemon::fake;
pub use daemon::{
    ANSWERED_WITHIN, AgentError, AgentOptions, AgentRequest, Changes, GuestRow, Launched, METRICS,
    NetworkBinding, NodeMetric, NodeStatus, NoticeText, OpenPort, PublishOutcome, Published, Shown, Told,
    html as page_html, merge, metrics_page, parse, run as run_agent,
};
pub use drivers::{DriverError, PciBus, Rebound, UNBIND_LIMIT};
pub use facts::{DevicePlace, FACTS_FILE, Labels, NodeFacts, NodeRoom, Sources, cpu_labels};
pub use ledger::{
    DEFAULT_LEDGER_PATH, Holder, Ledger, LedgerDocument, LedgerEntry, LedgerError, Reservation, ReserveError,
};
pub use partition::{Isolation, PartitionError};
pub use pod::{PodName, PodPlace, PodSources, SECCOMP_PROFILE, write_seccomp_profile};
pub use profile::{DEFAULT_PROFILE_PATH, KeptPages, MAX_PROFILE_BYTES, NodeProfile, ProfileProblem};
pub use qualification::{
    Blame, Cause, CpuResult, DEFAULT_QUALIFICATION_PATH, Exceedance, Fingerprint, Gaps, LATENCY_CLASSES_NS,
    Phase, Qualification, QualificationError, Trace, TraceError, TraceEvent, class_name, qualification_svg,
    rate_bound,
};
pub use settings::{
    BindError, BoundDevice, Changed, DeviceRoute, Direction, Host, HostChanges, HostWishes, Keeper, Knob,
    Notice, PagesWish, Setting, Tally,
};
