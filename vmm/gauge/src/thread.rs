//! The gauge's threads: one for each CPU, made once, and run as often as is asked.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use vmm_host::{PinnedThread, ThreadError, spawn_on};

use crate::guest::{Guest, Stop, Written, tsc};
use crate::host;
use crate::record::{LONG_GAP_CYCLES, Record};

/// How long a run may take beyond its time: a CPU that is taken for longer than this gives nothing.
const LATE: Duration = Duration::from_secs(60);

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
pub enum GaugeError {
    /// KVM refused.
    #[error("Cannot {what}: is /dev/kvm there, and may you open it?")]
    Kvm {
        /// What was attempted, as a verb phrase.
        what: &'static str,
        /// From the kernel.
        source: io::Error,
    },
    /// The guest's memory.
    #[error("The gauge's guest has no memory: {0}")]
    Memory(String),
    /// The guest did what it should not.
    #[error("The gauge's guest left the CPU with {0}")]
    Exit(String),
    /// A thread.
    #[error("Cannot measure on CPU {cpu}")]
    Thread {
        /// The CPU.
        cpu: u32,
        /// Why.
        source: ThreadError,
    },
    /// A CPU gave nothing.
    #[error("CPU {cpu} has not come to measure within {} s: what else runs there?", LATE.as_secs())]
    Late {
        /// The CPU.
        cpu: u32,
    },
}

/// Who measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A vCPU of a guest without an operating system.
    Guest,
    /// A thread of the host.
    Host,
}

enum Stopper {
    Guest(Stop),
    Host(Arc<AtomicBool>),
}

struct Order {
    threshold: u32,
}

struct Worker {
    cpu: u32,
    thread: PinnedThread<()>,
    orders: Sender<Order>,
    begun: Receiver<()>,
    results: Receiver<Result<Written, GaugeError>>,
    stopper: Stopper,
}

/// Threads that are ready to measure.
pub struct Gauge {
    workers: Vec<Worker>,
}

impl std::fmt::Debug for Gauge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gauge").field("tids", &self.tids()).finish_non_exhaustive()
    }
}

impl Gauge {
    /// Makes a thread on each CPU, with a guest where asked for.
    ///
    /// # Errors
    /// [`GaugeError`]; no thread is left then.
    pub fn arm(cpus: &[u32], subject: Subject) -> Result<Self, GaugeError> {
        let workers: Result<Vec<Worker>, GaugeError> =
            cpus.iter().map(|cpu| arm_one(*cpu, subject)).collect();
        Ok(Self { workers: workers? })
    }

    /// The threads, by their ids.
    #[must_use]
    pub fn tids(&self) -> Vec<i32> {
        self.workers.iter().map(|w| w.thread.tid()).collect()
    }

    /// Measures on all CPUs at once; gaps of at least `threshold` cycles are kept one by one. `meanwhile` is called some
    /// times a second with the time that has passed; it ends the measurement early by answering false.
    ///
    /// # Errors
    /// [`GaugeError`].
    pub fn run(
        &self,
        time: Duration,
        threshold: usize,
        meanwhile: &mut dyn FnMut(Duration) -> bool,
    ) -> Result<Vec<Record>, GaugeError> {
        let threshold = u32::try_from(threshold.clamp(1, LONG_GAP_CYCLES)).unwrap_or(1);
        for worker in &self.workers {
            if let Stopper::Host(stop) = &worker.stopper {
                stop.store(false, Ordering::Relaxed);
            }
            // A worker that is gone says so below.
            let _ = worker.orders.send(Order { threshold });
        }
        for worker in &self.workers {
            if worker.begun.recv_timeout(LATE).is_err() {
                self.stop();
                let result = worker.results.recv_timeout(Duration::from_millis(100));
                return Err(result
                    .ok()
                    .and_then(Result::err)
                    .unwrap_or(GaugeError::Late { cpu: worker.cpu }));
            }
        }
        let (began, first) = (Instant::now(), tsc());
        while began.elapsed() < time {
            std::thread::sleep(time.saturating_sub(began.elapsed()).min(Duration::from_millis(200)));
            if !meanwhile(began.elapsed()) {
                break;
            }
        }
        self.stop();
        let (took, last) = (began.elapsed(), tsc());
        let record = |worker: &Worker| {
            let late = |_| GaugeError::Late { cpu: worker.cpu };
            let written = worker.results.recv_timeout(LATE).map_err(late)??;
            Ok(Record {
                cpu: worker.cpu,
                counts: written.counts,
                gaps: written.gaps,
                dropped: written.dropped,
                threshold: threshold.into(),
                tsc: (first, last),
                took_ns: u64::try_from(took.as_nanos()).unwrap_or(u64::MAX),
            })
        };
        self.workers.iter().map(record).collect()
    }

    fn stop(&self) {
        for worker in &self.workers {
            match &worker.stopper {
                Stopper::Guest(stop) => stop.stop(),
                Stopper::Host(stop) => stop.store(true, Ordering::Relaxed),
            }
        }
    }
}

impl Drop for Gauge {
    fn drop(&mut self) {
        self.stop();
        for worker in self.workers.drain(..) {
            // Without orders to come, it ends.
            drop(worker.orders);
            let _ = worker.thread.join();
        }
    }
}

fn arm_one(cpu: u32, subject: Subject) -> Result<Worker, GaugeError> {
    let (orders, to_do) = channel::<Order>();
    let (tell_begun, begun) = channel();
    let (give, results) = channel();
    let (ready, armed) = channel();
    let work = move || match subject {
        Subject::Guest => {
            let mut guest = match Guest::new() {
                Ok(guest) => guest,
                Err(e) => return drop(ready.send(Err(e))),
            };
            let _ = ready.send(Ok(Stopper::Guest(guest.stop())));
            for Order { threshold } in to_do {
                let ran = guest.run(threshold, || tell_begun.send(()).unwrap_or_default());
                let _ = give.send(ran.and_then(|()| guest.written()));
            }
        }
        Subject::Host => {
            let stop = Arc::new(AtomicBool::new(false));
            let _ = ready.send(Ok(Stopper::Host(Arc::clone(&stop))));
            for Order { threshold } in to_do {
                let _ =
                    give.send(Ok(host::run(threshold, &stop, || tell_begun.send(()).unwrap_or_default())));
            }
        }
    };
    let failed = |source| GaugeError::Thread { cpu, source };
    let thread = spawn_on(&format!("gauge {cpu}"), &[cpu], work).map_err(failed)?;
    let stopper = armed.recv_timeout(LATE).map_err(|_| GaugeError::Late { cpu })??;
    Ok(Worker { cpu, thread, orders, begun, results, stopper })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_thread_records_every_gap_of_a_run_and_of_the_next() {
        let gauge = Gauge::arm(&[0], Subject::Host).unwrap();
        for _ in 0..2 {
            let time = Duration::from_millis(50);
            let records = gauge.run(time, 20_000, &mut |_| true).unwrap();
            let record = records.first().unwrap();
            assert!(record.samples() > 10_000, "{}", record.samples());
            assert!(record.counts.iter().skip(20_000).all(|n| *n == 0));
            assert!(record.gaps.iter().all(|g| g.cycles >= 20_000));
            // The gaps make up the time, but for what is before the first and after the last.
            let short: u128 = (0u128..).zip(&record.counts).map(|(c, n)| c * u128::from(*n)).sum();
            let long: u128 = record.gaps.iter().map(|g| u128::from(g.cycles)).sum();
            let all = (short + long) as f64 / record.cycles_per_ns();
            assert!(all > 0.8 * record.took_ns as f64, "{all} of {}", record.took_ns);
        }
    }

    #[test]
    fn a_guest_does_the_same_where_there_is_kvm() {
        if let Err(e) = std::fs::File::options().read(true).write(true).open("/dev/kvm") {
            println!("skipped: no KVM here: {e}");
            return;
        }
        let gauge = Gauge::arm(&[0], Subject::Guest).unwrap();
        let records = gauge.run(Duration::from_millis(200), 20_000, &mut |_| true).unwrap();
        assert!(records.first().unwrap().samples() > 1000);
    }
}
