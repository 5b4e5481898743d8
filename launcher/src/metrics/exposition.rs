//! Writes a snapshot as Prometheus text. Pure.
//!
//! Counters are read from the kernel and the backend, so each scrape fills a fresh
//! registry with what they say now.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use prometheus::{CounterVec, GaugeVec, HistogramOpts, HistogramVec, Opts, Registry, TextEncoder};

use super::declare::{BASE_LABELS, Kind, METRICS, Metric, PHASE_BUCKETS};
use super::snapshot::Snapshot;
use crate::backend::{DeviceStats, DiskStats, InterfaceStats, Traffic};
use crate::certificate::{Certificate, Check, RepairResult, Role, ThreadFacts, Verdict};

/// What KubeVirt writes for a label that is not known.
const NONE: &str = "<none>";

/// Why a snapshot could not be written.
#[derive(Debug, thiserror::Error)]
pub enum ExpositionError {
    /// A sample has no declared metric, or other labels than declared.
    #[error("The metric {0:?} is not declared so")]
    Undeclared(&'static str),
    /// The library refused it.
    #[error("The metrics cannot be written as text")]
    Encoding(#[from] prometheus::Error),
}

/// Samples by metric.
#[derive(Debug, Default)]
struct Samples(BTreeMap<&'static str, Vec<(Vec<String>, f64)>>);

impl Samples {
    fn add(&mut self, name: &'static str, labels: &[&str], value: f64) {
        let labels = labels.iter().map(ToString::to_string).collect();
        self.0.entry(name).or_default().push((labels, value));
    }
}

/// The text of all metrics.
///
/// # Errors
/// [`ExpositionError`], which no snapshot causes.
pub fn expose(snapshot: &Snapshot) -> Result<String, ExpositionError> {
    let mut samples = Samples::default();
    add_guest(&mut samples, snapshot);
    for facts in &snapshot.threads {
        add_thread(&mut samples, facts);
    }
    for (id, wait) in &snapshot.block_wait {
        samples.add("kubevirt_vmi_vcpu_wait_seconds_total", &[&id.to_string()], wait.as_secs_f64());
    }
    for disk in &snapshot.guest.disks {
        add_disk(&mut samples, disk);
    }
    for interface in &snapshot.guest.interfaces {
        add_interface(&mut samples, interface);
    }
    for device in &snapshot.guest.devices {
        add_device(&mut samples, device);
    }
    if let Some(certificate) = &snapshot.certificate {
        add_certificate(&mut samples, certificate);
    }
    for cause in Check::ALL {
        let drifts = snapshot.drift_total.get(&cause).copied().unwrap_or(0);
        samples.add("pinion_vmi_drift_total", &[cause.as_str()], number(drifts));
        for result in RepairResult::ALL {
            let repairs = snapshot.repairs_total.get(&(cause, result)).copied().unwrap_or(0);
            samples.add("pinion_vmi_repairs_total", &[cause.as_str(), result.as_str()], number(repairs));
        }
    }
    encode(snapshot, &samples)
}

fn add_guest(samples: &mut Samples, snapshot: &Snapshot) {
    let evictable = if snapshot.identity.evictable { "true" } else { "false" };
    let mut info = [NONE; 14];
    (info[0], info[11], info[12]) = (snapshot.phase.as_str(), evictable, "false");
    info[13] = snapshot.identity.pod.as_deref().unwrap_or(NONE);
    samples.add("kubevirt_vmi_info", &info, 1.0);
    for (phase, time) in &snapshot.phase_times {
        let name = "kubevirt_vmi_phase_transition_time_from_creation_seconds";
        samples.add(name, &[phase.as_str()], time.as_secs_f64());
    }
    for (phase, time) in &snapshot.startup {
        samples.add("pinion_vmi_startup_phase_seconds", &[phase], time.as_secs_f64());
    }
    let process = &snapshot.process;
    let cpu = process.user.saturating_add(process.system);
    samples.add("kubevirt_vmi_cpu_usage_seconds_total", &[], cpu.as_secs_f64());
    samples.add("kubevirt_vmi_cpu_user_usage_seconds_total", &[], process.user.as_secs_f64());
    samples.add("kubevirt_vmi_cpu_system_usage_seconds_total", &[], process.system.as_secs_f64());
    samples.add("kubevirt_vmi_memory_domain_bytes", &[], number(snapshot.identity.memory_bytes));
    samples.add("kubevirt_vmi_memory_resident_bytes", &[], number(process.resident_bytes));
    let overhead = process.resident_bytes.saturating_sub(process.resident_guest_bytes);
    samples.add("pinion_vmi_overhead_bytes", &[], number(overhead));
    let vcpus = snapshot.threads.iter().filter(|t| matches!(t.role, Role::Vcpu(_)));
    let affinity: usize = vcpus.map(|t| t.allowed_cpus.len()).sum();
    samples.add("kubevirt_vmi_node_cpu_affinity", &[], number(affinity as u64));
    for (id, kind, count) in &snapshot.guest.exits {
        samples.add("pinion_vmi_exits_total", &[&id.to_string(), kind], number(*count));
    }
    samples.add("pinion_vmi_reboots_total", &[], number(snapshot.guest.reboots));
    let dropped = snapshot.guest.console_dropped_bytes;
    samples.add("pinion_vmi_console_dropped_bytes_total", &[], number(dropped));
}

fn add_thread(samples: &mut Samples, facts: &ThreadFacts) {
    let id = match facts.role {
        Role::Vcpu(id) | Role::IoThread(id) => id.to_string(),
        // Emulator threads have no number of their own.
        Role::Emulator => facts.tid.to_string(),
    };
    let (role, name) = (facts.role.as_str(), facts.name.as_str());
    let labels = [role, id.as_str(), name];
    let seconds = |ns: u64| Duration::from_nanos(ns).as_secs_f64();
    let cpus = facts.allowed_cpus.to_string();
    samples.add("pinion_vmi_thread_cpu_info", &[role, id.as_str(), name, cpus.as_str()], 1.0);
    samples.add("pinion_vmi_thread_last_cpu", &labels, f64::from(facts.last_cpu.0));
    if let Some(ns) = facts.run_time_ns {
        samples.add("pinion_vmi_thread_seconds_total", &labels, seconds(ns));
    }
    if let Some(ns) = facts.run_delay_ns {
        samples.add("pinion_vmi_thread_run_delay_seconds_total", &labels, seconds(ns));
    }
    if let Some(switches) = facts.involuntary_switches {
        samples.add("pinion_vmi_thread_involuntary_switches_total", &labels, number(switches));
    }
    if let Role::Vcpu(_) = facts.role {
        if let Some(ns) = facts.run_time_ns {
            samples.add("kubevirt_vmi_vcpu_seconds_total", &[&id, "RUNNING"], seconds(ns));
        }
        if let Some(ns) = facts.run_delay_ns {
            samples.add("kubevirt_vmi_vcpu_delay_seconds_total", &[&id], seconds(ns));
        }
    }
}

fn add_disk(samples: &mut Samples, disk: &DiskStats) {
    let drive = [disk.name.as_str()];
    samples.add("kubevirt_vmi_storage_iops_read_total", &drive, number(disk.reads.count));
    samples.add("kubevirt_vmi_storage_iops_write_total", &drive, number(disk.writes.count));
    samples.add("kubevirt_vmi_storage_read_traffic_bytes_total", &drive, number(disk.reads.bytes));
    samples.add("kubevirt_vmi_storage_write_traffic_bytes_total", &drive, number(disk.writes.bytes));
    samples.add("kubevirt_vmi_storage_read_times_seconds_total", &drive, disk.reads.time.as_secs_f64());
    samples.add("kubevirt_vmi_storage_write_times_seconds_total", &drive, disk.writes.time.as_secs_f64());
    samples.add("kubevirt_vmi_storage_flush_requests_total", &drive, number(disk.flushes.count));
    samples.add("kubevirt_vmi_storage_flush_times_seconds_total", &drive, disk.flushes.time.as_secs_f64());
    samples.add("pinion_vmi_storage_errors_total", &drive, number(disk.errors));
}

fn add_device(samples: &mut Samples, device: &DeviceStats) {
    let address = [device.name.as_str()];
    samples.add("pinion_vmi_device_lost", &address, f64::from(u8::from(device.lost)));
    samples.add("pinion_vmi_device_resets_total", &address, number(device.resets));
    samples.add("pinion_vmi_device_faults_total", &address, number(device.faults));
}

fn add_interface(samples: &mut Samples, interface: &InterfaceStats) {
    let label = [interface.name.as_str()];
    let Traffic { packets, bytes, dropped, errors } = interface.received;
    samples.add("kubevirt_vmi_network_receive_bytes_total", &label, number(bytes));
    samples.add("kubevirt_vmi_network_receive_packets_total", &label, number(packets));
    samples.add("kubevirt_vmi_network_receive_packets_dropped_total", &label, number(dropped));
    samples.add("kubevirt_vmi_network_receive_errors_total", &label, number(errors));
    let Traffic { packets, bytes, dropped, errors } = interface.sent;
    samples.add("kubevirt_vmi_network_transmit_bytes_total", &label, number(bytes));
    samples.add("kubevirt_vmi_network_transmit_packets_total", &label, number(packets));
    samples.add("kubevirt_vmi_network_transmit_packets_dropped_total", &label, number(dropped));
    samples.add("kubevirt_vmi_network_transmit_errors_total", &label, number(errors));
}

fn add_certificate(samples: &mut Samples, certificate: &Certificate) {
    for verdict in Verdict::ALL {
        let is = f64::from(u8::from(certificate.verdict == verdict));
        samples.add("pinion_vmi_certificate_verdict", &[verdict.as_str()], is);
        let items = certificate.items.iter().filter(|i| i.verdict == verdict).count();
        samples.add("pinion_vmi_certificate_items", &[verdict.as_str()], number(items as u64));
    }
    samples.add("pinion_vmi_certificate_sequence", &[], number(certificate.sequence));
    let at = certificate.checked_at.as_duration().as_secs_f64();
    samples.add("pinion_vmi_certificate_timestamp_seconds", &[], at);
    for cell in &certificate.cells {
        let (id, size) = (cell.id.to_string(), cell.page_size_bytes.to_string());
        for (node, &pages) in &cell.pages_per_node {
            samples.add("pinion_vmi_memory_pages", &[&id, &node.to_string(), &size], number(pages));
        }
        samples.add("pinion_vmi_misplaced_pages", &[&id], number(cell.misplaced_pages));
        samples.add("pinion_vmi_missing_pages", &[&id], number(cell.missing_pages));
    }
    for device in &certificate.devices {
        for vector in &device.vectors {
            let (index, cpu) = (vector.index.to_string(), vector.effective_cpus.to_string());
            let labels = [device.name.as_str(), index.as_str(), cpu.as_str()];
            samples.add("pinion_vmi_device_interrupts_total", &labels, number(vector.count));
        }
    }
}

/// Prometheus counts in floating point; beyond 2⁵³ the last digits go.
#[expect(clippy::cast_precision_loss, reason = "the format has no other numbers")]
const fn number(value: u64) -> f64 {
    value as f64
}

fn encode(snapshot: &Snapshot, samples: &Samples) -> Result<String, ExpositionError> {
    let base = base_labels(snapshot);
    let registry = Registry::new();
    for (name, values) in &samples.0 {
        let metric = METRICS.iter().find(|m| m.name == *name).ok_or(ExpositionError::Undeclared(name))?;
        if values.iter().any(|(labels, _)| labels.len() != metric.labels.len()) {
            return Err(ExpositionError::Undeclared(name));
        }
        register(&registry, metric, base.clone(), values)?;
    }
    Ok(TextEncoder::new().encode_to_string(&registry.gather())?)
}

fn register(
    registry: &Registry,
    metric: &Metric,
    base: HashMap<String, String>,
    values: &[(Vec<String>, f64)],
) -> Result<(), prometheus::Error> {
    let opts = Opts::new(metric.name, metric.help).const_labels(base);
    match metric.kind {
        Kind::Counter => {
            let vec = CounterVec::new(opts, metric.labels)?;
            for (labels, value) in values {
                vec.with_label_values(labels).inc_by(*value);
            }
            registry.register(Box::new(vec))
        }
        Kind::Gauge => {
            let vec = GaugeVec::new(opts, metric.labels)?;
            for (labels, value) in values {
                vec.with_label_values(labels).set(*value);
            }
            registry.register(Box::new(vec))
        }
        Kind::Histogram => {
            let opts = HistogramOpts { common_opts: opts, buckets: PHASE_BUCKETS.to_vec() };
            let vec = HistogramVec::new(opts, metric.labels)?;
            for (labels, value) in values {
                vec.with_label_values(labels).observe(*value);
            }
            registry.register(Box::new(vec))
        }
    }
}

fn base_labels(snapshot: &Snapshot) -> HashMap<String, String> {
    let identity = &snapshot.identity;
    let values = [&identity.node, &identity.namespace, &identity.name];
    let base = BASE_LABELS.iter().zip(values).map(|(label, value)| ((*label).to_owned(), value.clone()));
    let own = identity.labels.iter().map(|(label, value)| (vmi_label(label), value.clone()));
    base.chain(own).collect()
}

/// `kubernetes_vmi_label_<name>`, every character that Prometheus does not allow as `_`.
fn vmi_label(label: &str) -> String {
    let allowed = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    format!("kubernetes_vmi_label_{}", label.chars().map(allowed).collect::<String>())
}
