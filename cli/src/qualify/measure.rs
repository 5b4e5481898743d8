//! One phase of a qualification: measured, and blamed.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use clap::ValueEnum;
use nix::sys::signalfd::SignalFd;
use pinion_machine::CpuSet;
use pinion_node_agent::{Blame, Cause, CpuResult, Gaps, Phase, Trace};
use vmm_gauge::{Gauge, LONG_GAP_CYCLES, Record};

use super::counters::Counters;
use super::load::Load;
use crate::arguments::QualifyOptions;
use crate::failure::Failure;

/// Where the kernel's trace is.
const TRACING: &str = "/sys/kernel/tracing";
/// As many of the longest gaps of a CPU are blamed.
const BLAMED: usize = 4096;
/// Time in which the gauge's speed is found, and everything is in caches.
const WARM_UP: Duration = Duration::from_millis(100);

/// Who measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Subject {
    /// A vCPU of a guest without an operating system
    Guest,
    /// A thread of the host
    Host,
}

impl Subject {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Guest => "guest",
            Self::Host => "host",
        }
    }
}

/// What is measured.
pub(super) struct Measurement<'a> {
    pub(super) options: &'a QualifyOptions,
    pub(super) cpus: &'a CpuSet,
    /// CPUs for the load.
    pub(super) others: CpuSet,
    /// Signals that ask for the end.
    pub(super) signals: SignalFd,
    pub(super) ended: Cell<bool>,
    /// Whether it was said that nothing can be traced.
    pub(super) told: Cell<bool>,
}

impl Measurement<'_> {
    /// Whether a signal asks for the end. Everything is put back then, as at any other end.
    fn asked_to_end(&self) -> bool {
        while let Ok(Some(_)) = self.signals.read_signal() {
            self.ended.set(true);
        }
        self.ended.get()
    }

    /// Makes the threads that measure.
    pub(super) fn arm(&self, subject: Subject) -> Result<Gauge, Failure> {
        let cpus: Vec<u32> = self.cpus.iter().map(|cpu| cpu.0).collect();
        let subject = match subject {
            Subject::Guest => vmm_gauge::Subject::Guest,
            Subject::Host => vmm_gauge::Subject::Host,
        };
        Gauge::arm(&cpus, subject).map_err(Failure::failed)
    }

    /// Measures under a load.
    ///
    /// 1. The trace is switched on, which interrupts every CPU.
    /// 2. A short run finds how fast the counter counts, and so from where on a gap is long.
    /// 3. What was traced so far is forgotten; then it counts.
    pub(super) fn phase(&self, gauge: &Gauge, subject: Subject, load: Load) -> Result<Phase, Failure> {
        let trace = Trace::start(Path::new(TRACING), self.cpus)
            .inspect_err(|e| {
                if !self.told.replace(true) {
                    eprintln!("warning: causes stay unknown: {}", pinion_launcher::chain(e));
                }
            })
            .ok();
        let running = load.start(&self.others);
        let warm = gauge.run(WARM_UP, LONG_GAP_CYCLES, &mut |_| true).map_err(Failure::failed)?;
        let per_ns = warm.first().map_or(1.0, Record::cycles_per_ns);
        let threshold = cycles(self.options.blame_from, per_ns);
        if let Some(trace) = &trace {
            trace.clear().map_err(Failure::failed)?;
        }
        let before: HashMap<u32, Counters> = self.cpus.iter().map(|c| (c.0, Counters::of(c.0))).collect();
        let time = Duration::from_secs(self.options.seconds);
        let mut shown = Progress::new(subject, load, time);
        let mut go_on = |done| {
            shown.at(done);
            !self.asked_to_end()
        };
        let records = gauge.run(time, threshold, &mut go_on).map_err(Failure::failed)?;
        shown.end();
        if self.ended.get() {
            eprintln!("pinion: asked to end: nothing is kept");
            return Err(Failure::Silent(1));
        }
        drop(running);
        let blame = trace.map(|trace| trace.read().map(Blame::new)).transpose().map_err(Failure::failed)?;
        let result = |record: &Record| {
            let since = before.get(&record.cpu).copied().unwrap_or_default();
            self.result(record, Counters::of(record.cpu).since(since), blame.as_ref())
        };
        let results = records.iter().map(result).collect();
        Ok(Phase { subject: subject.as_str().to_owned(), load: load.as_str().to_owned(), results })
    }

    fn result(&self, record: &Record, counters: Counters, blame: Option<&Blame>) -> CpuResult {
        let mut gaps = Gaps::default();
        for (cycles, count) in (0u64..).zip(&record.counts) {
            gaps.add(cycles, *count);
        }
        for gap in &record.gaps {
            gaps.add(gap.cycles, 1);
        }
        let per_ns = record.cycles_per_ns();
        let mut result = CpuResult::of(record.cpu, record.took_ns, record.dropped, per_ns, &gaps);
        result.causes = blame.map(|blame| causes(record, blame, per_ns)).unwrap_or_default();
        result.smi = counters.smi;
        result.throttled = counters.throttled;
        result.steal_ns = counters.steal_ns;
        result
    }
}

/// A time in cycles, as far as gaps are counted by length.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "casts of floats saturate")]
fn cycles(time: Duration, per_ns: f64) -> usize {
    ((time.as_nanos() as f64 * per_ns) as usize).clamp(1, LONG_GAP_CYCLES)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "casts of floats saturate")]
fn causes(record: &Record, blame: &Blame, per_ns: f64) -> Vec<Cause> {
    let mut longest = record.gaps.clone();
    longest.sort_by_key(|g| std::cmp::Reverse(g.cycles));
    longest.truncate(BLAMED);
    let mut all: BTreeMap<String, Cause> = BTreeMap::new();
    for gap in longest {
        let from = gap.end_tsc.saturating_sub(gap.cycles);
        let what = blame.cause(record.cpu, from, gap.end_tsc);
        let what = what.unwrap_or_else(|| "before the oldest event that the trace still has".to_owned());
        let ns = (gap.cycles as f64 / per_ns.max(f64::MIN_POSITIVE)) as u64;
        let cause = all.entry(what.clone()).or_insert(Cause { what, count: 0, worst_ns: 0, total_ns: 0 });
        cause.count += 1;
        cause.worst_ns = cause.worst_ns.max(ns);
        cause.total_ns = cause.total_ns.saturating_add(ns);
    }
    let mut causes: Vec<Cause> = all.into_values().collect();
    causes.sort_by_key(|c| std::cmp::Reverse(c.worst_ns));
    causes
}

/// What is shown meanwhile, where somebody watches.
struct Progress {
    what: String,
    time: Duration,
}

impl Progress {
    fn new(subject: Subject, load: Load, time: Duration) -> Self {
        Self { what: format!("{} under load {}", subject.as_str(), load.as_str()), time }
    }

    fn at(&mut self, done: Duration) {
        if super::is_watched() {
            let line =
                format!("\r{}: {:.0} of {:.0} s ", self.what, done.as_secs_f32(), self.time.as_secs_f32());
            // Nobody minds where it cannot be shown.
            let _ = std::io::stderr().write_all(line.as_bytes());
        }
    }

    fn end(&self) {
        if super::is_watched() {
            eprintln!();
        }
    }
}
