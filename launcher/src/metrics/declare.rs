//! Every metric of a guest: its name, kind, labels and meaning. Pure data; the documentation's
//! table is made of it.

use std::fmt::Write;

/// A metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// Its kind.
    pub kind: Kind,
    /// Labels beyond those that every metric has ([`BASE_LABELS`]).
    pub labels: &'static [&'static str],
    /// What it says.
    pub help: &'static str,
}

/// What kind of metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Observations in buckets.
    Histogram,
}

/// Labels of every metric. Each label of the VM is added as `kubernetes_vmi_label_<name>`.
pub const BASE_LABELS: [&str; 3] = ["node", "namespace", "name"];

/// Upper bounds of the buckets of phase transitions, seconds; KubeVirt's own, and below them
/// those that a start of milliseconds needs.
pub(super) const PHASE_BUCKETS: [f64; 24] = [
    0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 90.0, 120.0, 180.0,
    300.0, 600.0, 1200.0, 1800.0, 2700.0, 3600.0,
];

const fn counter(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Metric {
    Metric { name, kind: Kind::Counter, labels, help }
}

const fn gauge(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Metric {
    Metric { name, kind: Kind::Gauge, labels, help }
}

const INFO_LABELS: &[&str] = &[
    "phase",
    "os",
    "workload",
    "flavor",
    "instance_type",
    "preference",
    "guest_os_kernel_release",
    "guest_os_machine",
    "guest_os_arch",
    "guest_os_name",
    "guest_os_version_id",
    "evictable",
    "outdated",
    "vmi_pod",
];

/// Every metric, KubeVirt's names first.
pub const METRICS: &[Metric] = &[
    gauge("kubevirt_vmi_info", INFO_LABELS, "1 for each guest; `<none>` where a label is not known."),
    Metric {
        name: "kubevirt_vmi_phase_transition_time_from_creation_seconds",
        kind: Kind::Histogram,
        labels: &["phase"],
        help: "Time from the start of the command to a phase of the guest.",
    },
    gauge(
        "kubevirt_vmi_node_cpu_affinity",
        &[],
        "CPUs of the host that the vCPUs may run on, summed over vCPUs.",
    ),
    counter("kubevirt_vmi_cpu_usage_seconds_total", &[], "CPU time of all threads of the guest's process."),
    counter(
        "kubevirt_vmi_cpu_user_usage_seconds_total",
        &[],
        "CPU time of the guest's process in user mode.",
    ),
    counter(
        "kubevirt_vmi_cpu_system_usage_seconds_total",
        &[],
        "CPU time of the guest's process in the kernel, which the guest's own time is part of.",
    ),
    counter(
        "kubevirt_vmi_vcpu_seconds_total",
        &["id", "state"],
        "CPU time of the vCPU's thread; state is RUNNING.",
    ),
    counter(
        "kubevirt_vmi_vcpu_delay_seconds_total",
        &["id"],
        "Time the vCPU was ready to run and waited for a CPU.",
    ),
    counter(
        "kubevirt_vmi_vcpu_wait_seconds_total",
        &["id"],
        "Time the vCPU's thread waited for block I/O; 0 unless the host has kernel.task_delayacct=1.",
    ),
    gauge("kubevirt_vmi_memory_domain_bytes", &[], "Memory of the guest."),
    gauge(
        "kubevirt_vmi_memory_resident_bytes",
        &[],
        "Resident memory of the guest's process; huge pages are not part of it.",
    ),
    counter("kubevirt_vmi_storage_iops_read_total", &["drive"], "Reads the guest asked of the disk."),
    counter("kubevirt_vmi_storage_iops_write_total", &["drive"], "Writes the guest asked of the disk."),
    counter("kubevirt_vmi_storage_read_traffic_bytes_total", &["drive"], "Bytes read from the disk."),
    counter("kubevirt_vmi_storage_write_traffic_bytes_total", &["drive"], "Bytes written to the disk."),
    counter("kubevirt_vmi_storage_read_times_seconds_total", &["drive"], "Time spent on reads."),
    counter("kubevirt_vmi_storage_write_times_seconds_total", &["drive"], "Time spent on writes."),
    counter("kubevirt_vmi_storage_flush_requests_total", &["drive"], "Flushes the guest asked for."),
    counter("kubevirt_vmi_storage_flush_times_seconds_total", &["drive"], "Time spent on flushes."),
    counter("kubevirt_vmi_network_receive_bytes_total", &["interface"], "Bytes the guest received."),
    counter("kubevirt_vmi_network_receive_packets_total", &["interface"], "Packets the guest received."),
    counter(
        "kubevirt_vmi_network_receive_packets_dropped_total",
        &["interface"],
        "Packets for the guest that were dropped.",
    ),
    counter(
        "kubevirt_vmi_network_receive_errors_total",
        &["interface"],
        "Packets for the guest that could not be read or delivered.",
    ),
    counter("kubevirt_vmi_network_transmit_bytes_total", &["interface"], "Bytes the guest sent."),
    counter("kubevirt_vmi_network_transmit_packets_total", &["interface"], "Packets the guest sent."),
    counter(
        "kubevirt_vmi_network_transmit_packets_dropped_total",
        &["interface"],
        "Packets of the guest that were dropped.",
    ),
    counter(
        "kubevirt_vmi_network_transmit_errors_total",
        &["interface"],
        "Packets of the guest that could not be read or sent.",
    ),
    gauge(
        "pinion_vmi_thread_cpu_info",
        &["role", "id", "thread", "cpus"],
        "1 for each thread and the CPUs it may run on: the pin map.",
    ),
    gauge("pinion_vmi_thread_last_cpu", &["role", "id", "thread"], "The CPU that the thread ran on last."),
    counter("pinion_vmi_thread_seconds_total", &["role", "id", "thread"], "CPU time of the thread."),
    counter(
        "pinion_vmi_thread_run_delay_seconds_total",
        &["role", "id", "thread"],
        "Time the thread was ready to run and waited for a CPU: on a dedicated CPU it does not grow.",
    ),
    counter(
        "pinion_vmi_thread_involuntary_switches_total",
        &["role", "id", "thread"],
        "How often the kernel took the CPU from the thread.",
    ),
    gauge(
        "pinion_vmi_memory_pages",
        &["cell", "host_node", "page_size"],
        "Pages of the cell that are on the host node.",
    ),
    gauge(
        "pinion_vmi_misplaced_pages",
        &["cell"],
        "Pages of the cell that are on another host node than planned.",
    ),
    gauge(
        "pinion_vmi_missing_pages",
        &["cell"],
        "Pages of the cell that are nowhere: swapped out, or never populated.",
    ),
    gauge("pinion_vmi_overhead_bytes", &[], "Resident memory of the guest's process beyond the guest's own."),
    gauge(
        "pinion_vmi_certificate_verdict",
        &["verdict"],
        "1 for the verdict of the last certificate, 0 for the others.",
    ),
    gauge("pinion_vmi_certificate_sequence", &[], "How many times the guest was checked."),
    gauge("pinion_vmi_certificate_timestamp_seconds", &[], "When the guest was checked last, in Unix time."),
    gauge("pinion_vmi_certificate_items", &["verdict"], "Items of the last certificate, by verdict."),
    counter("pinion_vmi_drift_total", &["cause"], "How often something was found elsewhere than planned."),
    counter(
        "pinion_vmi_repairs_total",
        &["cause", "result"],
        "How often a drifted thread was put back, and whether the kernel let it.",
    ),
    gauge("pinion_vmi_startup_phase_seconds", &["phase"], "How long each phase of the start took."),
    counter("pinion_vmi_exits_total", &["id", "kind"], "Exits of the vCPU to the launcher, by kind."),
    counter("pinion_vmi_reboots_total", &[], "How often the guest rebooted."),
    counter(
        "pinion_vmi_console_dropped_bytes_total",
        &[],
        "Bytes of console output that nobody took in time.",
    ),
    counter(
        "pinion_vmi_storage_errors_total",
        &["drive"],
        "Requests that the disk failed; the guest saw an I/O error.",
    ),
    counter(
        "pinion_vmi_device_interrupts_total",
        &["device", "vector", "cpu"],
        "Interrupts of a vector of a passed-through device; `cpu` is where it comes to now.",
    ),
    gauge(
        "pinion_vmi_device_lost",
        &["address"],
        "1 where the host has taken a passed-through device back, or it is gone.",
    ),
    counter(
        "pinion_vmi_device_resets_total",
        &["address"],
        "Resets of a passed-through device that succeeded.",
    ),
    counter(
        "pinion_vmi_device_faults_total",
        &["address"],
        "Accesses, interrupts and resets of a passed-through device that failed.",
    ),
];

/// The table of the documentation: one row for each metric.
#[must_use]
pub fn markdown_table() -> String {
    let mut table = String::from("| metric | kind | labels | what it says |\n| --- | --- | --- | --- |\n");
    for Metric { name, kind, labels, help } in METRICS {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let labels: Vec<_> = labels.iter().map(|label| format!("`{label}`")).collect();
        // Writing to a String does not fail.
        let _ = writeln!(table, "| `{name}` | {kind} | {} | {help} |", labels.join(", "));
    }
    table
}

/// The whole page of the documentation.
#[must_use]
pub fn markdown_page() -> String {
    let labels: Vec<_> = BASE_LABELS.iter().map(|label| format!("`{label}`")).collect();
    format!(
        "# Metrics\n\nEach guest serves its metrics on the address of `--metrics`, at `/metrics`. Names that start with \
         `kubevirt_` mean what they mean in KubeVirt, so that dashboards keep working; those that start with `pinion_` \
         are Pinion's own. Every metric has the labels {}, and each label of the VM as `kubernetes_vmi_label_NAME`.\n\n{}",
        labels.join(", "),
        markdown_table()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documentation_is_up_to_date() {
        let page = include_str!("../../../docs/metrics.md");
        assert!(
            page == markdown_page(),
            "cargo run -q -p pinion-launcher --example metrics > docs/metrics.md"
        );
    }
}
