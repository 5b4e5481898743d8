//! What the dedicated CPUs of this host were measured to give.
//!
//! Pure but for the kernel's trace and the files that a result is kept in. Called by `pinion qualify`, which measures,
//! and by the daemon, which exports the last result. It must never measure itself.

mod blame;
mod document;
mod fingerprint;
mod plot;
mod statistics;
mod trace;

pub use blame::{Blame, Cause};
pub use document::{
    CpuResult, DEFAULT_QUALIFICATION_PATH, Exceedance, Phase, Qualification, QualificationError,
};
pub use fingerprint::Fingerprint;
pub use plot::svg as qualification_svg;
pub use statistics::{Gaps, LATENCY_CLASSES_NS, class_name, rate_bound};
pub use trace::{Trace, TraceError, TraceEvent};
