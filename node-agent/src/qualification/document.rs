//! The result of a qualification: its JSON, and the file that it is kept in.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use pinion_machine::CpuSet;
use serde::{Deserialize, Serialize};

use super::blame::Cause;
use super::fingerprint::Fingerprint;
use super::statistics::{Gaps, LATENCY_CLASSES_NS, class_name, rate_bound, whole};
use crate::partition::Isolation;

/// Where the last result is kept unless another file is named.
pub const DEFAULT_QUALIFICATION_PATH: &str = "/var/lib/pinion/qualification.json";
/// A result is some hundred KiB for each CPU; anything larger is none.
const MAX_BYTES: u64 = 256 << 20;

/// What CPUs were measured to give.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Qualification {
    /// Always `pinion.dev/v1alpha1`.
    pub api_version: String,
    /// Always `Qualification`.
    pub kind: String,
    /// When it was measured.
    pub measured_at: Timestamp,
    /// What it holds for.
    pub fingerprint: Fingerprint,
    /// The CPUs.
    pub cpus: CpuSet,
    /// How far they were the measurement's own.
    pub isolation: Isolation,
    /// The class: no gap of a vCPU was longer in any phase; absent where one was longer than all classes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_class: Option<String>,
    /// What was measured, in this order.
    pub phases: Vec<Phase>,
}

/// One measurement of all CPUs at once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Phase {
    /// Who measured: `guest` or `host`.
    pub subject: String,
    /// What else ran meanwhile.
    pub load: String,
    /// By CPU.
    pub results: Vec<CpuResult>,
}

/// What one CPU gave.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CpuResult {
    /// The CPU.
    pub cpu: u32,
    /// For how long, ns.
    pub took_ns: u64,
    /// How many gaps there were, long or short.
    pub samples: u64,
    /// Long gaps that found no room: where this is not 0, the figures below are too good.
    pub dropped: u64,
    /// What 50 % of them did not exceed, ns.
    pub p50_ns: f64,
    /// What 99 % of them did not exceed, ns.
    pub p99_ns: f64,
    /// What 99.999 % of them did not exceed, ns.
    pub p99999_ns: f64,
    /// The longest, ns.
    pub max_ns: f64,
    /// How often they were longer than each class.
    pub exceedances: Vec<Exceedance>,
    /// What caused the long ones, as far as the kernel could tell; the worst first.
    pub causes: Vec<Cause>,
    /// System management interrupts meanwhile; absent where the CPU does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub smi: Option<u64>,
    /// Times that firmware throttled the CPU meanwhile; absent where the kernel does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throttled: Option<u64>,
    /// Time that this host's own hypervisor took, ns; absent where the kernel does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steal_ns: Option<u64>,
    /// Cycles of the time-stamp counter in a nanosecond.
    pub cycles_per_ns: f64,
    /// Every gap: cycles, and how often. Nothing is rounded.
    pub histogram: Vec<(u64, u64)>,
}

/// How often gaps were longer than a class.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Exceedance {
    /// Longer than this, ns.
    pub above_ns: u64,
    /// So often.
    pub count: u64,
    /// No oftener than this a second, with 95 % confidence.
    pub bound_per_second: f64,
}

/// Why a result is not to be had.
#[derive(Debug, thiserror::Error)]
pub enum QualificationError {
    /// The file cannot be read or written.
    #[error("Cannot {action} the qualification {path:?}")]
    File {
        /// What was attempted.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// From the operating system.
        source: io::Error,
    },
    /// It is something else.
    #[error("{path:?} is no qualification of this version: measure again (`pinion qualify`)")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
}

impl CpuResult {
    /// From all gaps of a CPU.
    #[must_use]
    pub fn of(cpu: u32, took_ns: u64, dropped: u64, cycles_per_ns: f64, gaps: &Gaps) -> Self {
        let ns = |cycles: u64| if cycles_per_ns > 0.0 { cycles as f64 / cycles_per_ns } else { 0.0 };
        let seconds = took_ns as f64 / 1e9;
        let exceedance = |above_ns: u64| {
            let count = gaps.above(whole(above_ns as f64 * cycles_per_ns));
            Exceedance { above_ns, count, bound_per_second: rate_bound(count, seconds) }
        };
        Self {
            cpu,
            took_ns,
            samples: gaps.samples().saturating_add(dropped),
            dropped,
            p50_ns: ns(gaps.percentile(0.5)),
            p99_ns: ns(gaps.percentile(0.99)),
            p99999_ns: ns(gaps.percentile(0.99999)),
            max_ns: ns(gaps.longest()),
            exceedances: LATENCY_CLASSES_NS.map(exceedance).to_vec(),
            causes: Vec::new(),
            smi: None,
            throttled: None,
            steal_ns: None,
            cycles_per_ns,
            histogram: gaps.iter().collect(),
        }
    }
}

impl Qualification {
    /// Always `pinion.dev/v1alpha1`.
    pub const API_VERSION: &str = "pinion.dev/v1alpha1";
    /// Always `Qualification`.
    pub const KIND: &str = "Qualification";

    /// From what was measured.
    #[must_use]
    pub fn new(fingerprint: Fingerprint, cpus: CpuSet, isolation: Isolation, phases: Vec<Phase>) -> Self {
        let guests = phases.iter().filter(|p| p.subject == "guest").flat_map(|p| &p.results);
        let all = phases.iter().flat_map(|p| &p.results);
        let worst = |results: &mut dyn Iterator<Item = &CpuResult>| {
            results.map(|r| if r.dropped > 0 { f64::INFINITY } else { r.max_ns }).fold(0.0, f64::max)
        };
        let measured = phases.iter().any(|p| p.subject == "guest");
        let longest = if measured { worst(&mut guests.into_iter()) } else { worst(&mut all.into_iter()) };
        let class = LATENCY_CLASSES_NS.into_iter().find(|class| longest <= *class as f64);
        Self {
            api_version: Self::API_VERSION.to_owned(),
            kind: Self::KIND.to_owned(),
            measured_at: Timestamp::now(),
            fingerprint,
            cpus,
            isolation,
            latency_class: class.map(class_name),
            phases,
        }
    }

    /// The result in a file; `None` where there is none.
    ///
    /// # Errors
    /// [`QualificationError`].
    pub fn read(path: &Path) -> Result<Option<Self>, QualificationError> {
        let failed = |source| QualificationError::File { action: "read", path: path.to_owned(), source };
        let file = match fs::File::open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(failed(e)),
        };
        let reader = io::BufReader::new(io::Read::take(file, MAX_BYTES));
        let result = serde_json::from_reader(reader);
        result.map(Some).map_err(|source| QualificationError::Damaged { path: path.to_owned(), source })
    }

    /// Keeps it: whoever reads meanwhile sees the last one or this one.
    ///
    /// # Errors
    /// [`QualificationError`].
    pub fn write(&self, path: &Path) -> Result<(), QualificationError> {
        let failed = |source| QualificationError::File { action: "keep", path: path.to_owned(), source };
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(failed)?;
        }
        let draft = path.with_extension("json.tmp");
        let text = serde_json::to_vec(self).map_err(|e| failed(e.into()))?;
        let written = fs::write(&draft, text).and_then(|()| fs::rename(&draft, path));
        written.inspect_err(|_| drop(fs::remove_file(&draft))).map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(max: u64, dropped: u64) -> CpuResult {
        let mut gaps = Gaps::default();
        gaps.add(40, 1_000_000);
        gaps.add(max, 1);
        CpuResult::of(4, 1_000_000_000, dropped, 2.0, &gaps)
    }

    fn qualification(subject: &str, max: u64, dropped: u64) -> Qualification {
        let phase =
            Phase { subject: subject.into(), load: "none".into(), results: vec![result(max, dropped)] };
        Qualification::new(Fingerprint::default(), "4".parse().unwrap(), Isolation::Isolated, vec![phase])
    }

    #[test]
    fn the_longest_gap_decides_the_class() {
        assert_eq!(qualification("guest", 30_000, 0).latency_class.as_deref(), Some("20us"));
        assert_eq!(qualification("host", 10_000_000, 0).latency_class.as_deref(), Some("5ms"));
        assert_eq!(qualification("guest", 30_000, 1).latency_class, None, "some were lost");
        let result = result(30_000, 0);
        assert_eq!((result.samples, result.max_ns, result.p50_ns), (1_000_001, 15_000.0, 20.0));
        let above = result.exceedances.iter().find(|e| e.above_ns == 10_000).unwrap();
        assert_eq!(above.count, 1);
        assert!((above.bound_per_second - 4.74).abs() < 0.05);
    }

    #[test]
    fn a_result_is_read_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/q.json");
        assert_eq!(Qualification::read(&path).unwrap(), None);
        let first = qualification("guest", 30_000, 0);
        first.write(&path).unwrap();
        assert_eq!(Qualification::read(&path).unwrap(), Some(first));
        fs::write(&path, "{}").unwrap();
        assert!(matches!(Qualification::read(&path), Err(QualificationError::Damaged { .. })));
    }
}
