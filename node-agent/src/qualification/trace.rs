//! The kernel's trace of what happens on measured CPUs: an instance of our own, with time stamps of the CPU.
//!
//! Switched on before a measurement, since that itself interrupts every CPU, and read after it.

use std::fs;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use pinion_interrupts::format_mask;
use pinion_machine::CpuSet;

/// What is traced.
const EVENTS: [&str; 5] =
    ["sched/sched_switch", "irq/irq_handler_entry", "irq/softirq_entry", "irq_vectors", "nmi"];
/// What the names of our instances begin with.
const NAME: &str = "pinion-qualify-";
/// Memory of each CPU's trace, KiB; older events go when it is full.
const BUFFER_KIB: u32 = 4096;
/// Longest trace that is read, lines.
const LONGEST: usize = 4_000_000;

/// Why there is no trace: causes of gaps stay unknown.
#[derive(Debug, thiserror::Error)]
#[error(
    "Cannot trace with {path:?}: be root, and mount tracefs (`mount -t tracefs tracefs /sys/kernel/tracing`)"
)]
pub struct TraceError {
    path: PathBuf,
    source: io::Error,
}

/// An event of the trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceEvent {
    /// The CPU.
    pub cpu: u32,
    /// The time-stamp counter.
    pub tsc: u64,
    /// Its name.
    pub name: String,
    /// What the kernel says of it.
    pub words: String,
}

/// A trace that runs; dropping it takes it away.
#[derive(Debug)]
pub struct Trace {
    folder: PathBuf,
}

impl Trace {
    /// Starts tracing CPUs.
    ///
    /// # Errors
    /// [`TraceError`]; nothing is traced then.
    pub fn start(tracing: &Path, cpus: &CpuSet) -> Result<Self, TraceError> {
        sweep(&tracing.join("instances"));
        let folder = tracing.join("instances").join(format!("{NAME}{}", std::process::id()));
        fs::create_dir(&folder).map_err(|source| TraceError { path: folder.clone(), source })?;
        let trace = Self { folder };
        trace.write("trace_clock", "x86-tsc")?;
        trace.write("tracing_cpumask", &format_mask(cpus))?;
        trace.write("buffer_size_kb", &BUFFER_KIB.to_string())?;
        for event in EVENTS {
            let path = format!("events/{event}/enable");
            // Kernels differ in what they can trace.
            if trace.folder.join(&path).exists() {
                trace.write(&path, "1")?;
            }
        }
        Ok(trace)
    }

    /// Forgets what was traced so far.
    ///
    /// # Errors
    /// [`TraceError`].
    pub fn clear(&self) -> Result<(), TraceError> {
        self.write("trace", "")
    }

    /// What was traced, in the order of each CPU.
    ///
    /// # Errors
    /// [`TraceError`].
    pub fn read(&self) -> Result<Vec<TraceEvent>, TraceError> {
        self.write("tracing_on", "0")?;
        let path = self.folder.join("trace");
        let file = fs::File::open(&path).map_err(|source| TraceError { path, source })?;
        let lines = BufReader::new(file).lines().take(LONGEST).map_while(Result::ok);
        let events = lines.filter_map(|line| parse(&line)).collect();
        self.write("tracing_on", "1")?;
        Ok(events)
    }

    fn write(&self, name: &str, text: &str) -> Result<(), TraceError> {
        let path = self.folder.join(name);
        fs::write(&path, text).map_err(|source| TraceError { path, source })
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        // Best effort: it costs memory, and is gone with the next boot.
        let _ = self.write("events/enable", "0");
        let _ = fs::remove_dir(&self.folder);
    }
}

/// Takes away what measurements that were killed have left.
fn sweep(instances: &Path) {
    for entry in fs::read_dir(instances).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|n| n.strip_prefix(NAME));
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            // Another measurement may be quicker.
            let _ = fs::remove_dir(entry.path());
        }
    }
}

/// A line as `  sh-77  [004] d..2. 123456: sched_switch: prev_comm=…`; the name in front may have anything in it.
fn parse(line: &str) -> Option<TraceEvent> {
    let (at, cpu) = line.match_indices('[').find_map(|(at, _)| {
        let digits = line.get(at + 1..)?.split(']').next()?;
        (digits.len() >= 3).then_some(())?;
        Some((at + digits.len() + 2, digits.parse().ok()?))
    })?;
    let rest = line.get(at..)?.trim_start();
    let (_flags, rest) = rest.split_once(' ')?;
    let (tsc, rest) = rest.trim_start().split_once(": ")?;
    let (name, words) = rest.split_once(':')?;
    Some(TraceEvent {
        cpu,
        tsc: tsc.parse().ok()?,
        name: name.trim().to_owned(),
        words: words.trim().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_whatever_a_process_is_called() {
        let line = "        a [b] c-77      [004] d..2. 81234567: sched_switch: prev_comm=a prev_pid=1 ==> next_comm=b";
        let event = parse(line).unwrap();
        assert_eq!((event.cpu, event.tsc, event.name.as_str()), (4, 81_234_567, "sched_switch"));
        assert!(event.words.starts_with("prev_comm=a"));
        let line = "          <idle>-0       [002] d.h.. 1234: local_timer_entry: vector=236";
        assert_eq!(parse(line).unwrap().words, "vector=236");
        for line in ["", "# tracer: nop", "CPU:4 [LOST 12 EVENTS]", "x [abc] y: z", "x-1 [001] d 12.5: e: f"]
        {
            assert_eq!(parse(line), None, "{line}");
        }
    }
}
