//! What the metrics endpoint reads: the guest as it is at the moment somebody asks.
//!
//! Shared by the session's thread, which fills it in, and the endpoint's, which reads it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pinion_endpoint::guest::GuestStatus;
use procfs::process::Process;

use crate::backend::RunningGuest;
use crate::certificate::{Auditor, Certificate, Role, Subjects, observe_threads};
use crate::metrics::{GuestPhase, Identity, ProcessUsage, Snapshot, expose};
use crate::spec::LaunchSpec;

/// Memory in pages of this size is part of the process's resident memory; huge pages are not.
const BASE_PAGE: u64 = 4096;

#[derive(Debug, Default)]
struct Inner {
    snapshot: Snapshot,
    subjects: Option<Subjects>,
    guest: Option<Arc<dyn RunningGuest>>,
    base_page_bytes: u64,
}

/// The state behind the endpoint.
#[derive(Clone, Debug)]
pub(crate) struct Monitor {
    inner: Arc<Mutex<Inner>>,
    began: Instant,
}

impl Monitor {
    /// Of one guest, which is being set up.
    pub(crate) fn new(spec: &LaunchSpec) -> Self {
        let LaunchSpec { instance, placement, .. } = spec;
        let cluster = spec.cluster.clone().unwrap_or_default();
        // In a pod, the host name is the guest's.
        let host = || {
            let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
            name.trim().to_owned()
        };
        let bytes = |huge: bool| {
            let cells = placement.cells.iter().filter(|c| (c.page_size_bytes.bytes() > BASE_PAGE) == huge);
            cells.map(|c| c.memory_bytes).sum::<u64>()
        };
        let identity = Identity {
            node: Some(cluster.node).filter(|node| !node.is_empty()).unwrap_or_else(host),
            pod: Some(cluster.pod).filter(|pod| !pod.is_empty()),
            namespace: instance.namespace().to_owned(),
            name: instance.name().to_owned(),
            labels: instance.metadata.labels.clone(),
            memory_bytes: bytes(true) + bytes(false),
            evictable: false,
        };
        let snapshot = Snapshot { identity, ..Snapshot::default() };
        let inner = Inner { snapshot, base_page_bytes: bytes(false), ..Inner::default() };
        let monitor = Self { inner: Arc::new(Mutex::new(inner)), began: Instant::now() };
        monitor.reached(GuestPhase::Scheduled);
        monitor
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The guest is in a new phase of its life.
    pub(crate) fn reached(&self, phase: GuestPhase) {
        let mut inner = self.lock();
        inner.snapshot.phase = phase;
        let after = self.began.elapsed();
        inner.snapshot.phase_times.insert(phase, after);
    }

    /// A phase of the start is done.
    pub(crate) fn started(&self, phase: &'static str, took: Duration) {
        self.lock().snapshot.startup.push((phase, took));
    }

    /// Threads and memory to look at.
    pub(crate) fn watch(&self, subjects: Subjects) {
        self.lock().subjects = Some(subjects);
    }

    /// The guest runs; `None`: it has ended.
    pub(crate) fn runs(&self, guest: Option<Arc<dyn RunningGuest>>) {
        self.lock().guest = guest;
    }

    /// The guest, while it runs.
    pub(crate) fn guest(&self) -> Option<Arc<dyn RunningGuest>> {
        self.lock().guest.clone()
    }

    /// A new certificate.
    pub(crate) fn certified(&self, certificate: &Certificate, auditor: &Auditor) {
        let mut inner = self.lock();
        inner.snapshot.certificate = Some(certificate.clone());
        inner.snapshot.drift_total.clone_from(auditor.drift_total());
        inner.snapshot.repairs_total.clone_from(auditor.repairs_total());
    }

    /// The last certificate.
    pub(crate) fn certificate(&self) -> Option<Certificate> {
        self.lock().snapshot.certificate.clone()
    }

    /// How the guest is.
    pub(crate) fn status(&self) -> GuestStatus {
        // It may take a moment: others need the lock meanwhile.
        let paused = self.guest().and_then(|guest| guest.pause());
        let inner = self.lock();
        let snapshot = &inner.snapshot;
        let certificate = snapshot.certificate.as_ref();
        let vcpus =
            || certificate.iter().flat_map(|c| &c.threads).filter(|t| matches!(t.role, Role::Vcpu(_)));
        GuestStatus {
            phase: snapshot.phase.as_str().to_owned(),
            paused: paused.map(|pause| pause.to_string()),
            verdict: certificate.map(|c| c.verdict.as_str().to_owned()),
            checks: certificate.map_or(0, |c| c.sequence),
            mismatches: certificate.map(|c| c.mismatches.clone()).unwrap_or_default(),
            drift_total: snapshot.drift_total.iter().map(|(c, n)| (c.as_str().to_owned(), *n)).collect(),
            vcpus: vcpus().count(),
            memory_bytes: snapshot.identity.memory_bytes,
            longest_wait_ns: vcpus().filter_map(|t| t.run_delay_ns).max().unwrap_or(0),
        }
    }

    /// The metrics as Prometheus reads them.
    pub(crate) fn render(&self) -> Option<String> {
        let snapshot = {
            let mut inner = self.lock();
            if let Some(guest) = &inner.guest {
                inner.snapshot.guest = guest.stats();
            }
            if let Some(subjects) = &inner.subjects {
                inner.snapshot.threads =
                    observe_threads(subjects).threads.into_iter().filter_map(|(_, _, facts)| facts).collect();
            }
            inner.snapshot.process = usage(inner.base_page_bytes);
            inner.snapshot.block_wait = inner.subjects.as_ref().map(block_wait).unwrap_or_default();
            inner.snapshot.clone()
        };
        expose(&snapshot).ok()
    }
}

/// Time that each vCPU's thread waited for block I/O; the kernel counts it where
/// `kernel.task_delayacct` is on.
fn block_wait(subjects: &Subjects) -> BTreeMap<u32, Duration> {
    let Ok(process) = Process::myself() else { return BTreeMap::new() };
    let vcpus = subjects.threads.iter().filter_map(|(role, tid)| match role {
        Role::Vcpu(id) => Some((*id, *tid)),
        _ => None,
    });
    let wait = |tid| process.task_from_tid(tid).and_then(|t| t.stat()).ok()?.delayacct_blkio_ticks;
    vcpus.filter_map(|(id, tid)| Some((id, from_ticks(wait(tid)?)))).collect()
}

fn from_ticks(ticks: u64) -> Duration {
    Duration::from_millis(ticks.saturating_mul(1000) / procfs::ticks_per_second().max(1))
}

/// CPU time and memory of this process.
fn usage(base_page_bytes: u64) -> ProcessUsage {
    let Ok(stat) = Process::myself().and_then(|p| p.stat()) else { return ProcessUsage::default() };
    ProcessUsage {
        user: from_ticks(stat.utime),
        system: from_ticks(stat.stime),
        resident_bytes: stat.rss.saturating_mul(procfs::page_size()),
        resident_guest_bytes: base_page_bytes,
    }
}
