use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use pinion_machine::{CpuId, NodeId, PageSize};

use super::*;
use crate::backend::{DeviceStats, DiskStats, GuestStats, InterfaceStats, Operations, Traffic};
use crate::certificate::{
    API_VERSION, CellFacts, Certificate, Check, DeviceFacts, Item, KIND, RepairResult, Role, Scheduling,
    ThreadFacts, VectorFacts, Verdict,
};

fn certificate() -> Certificate {
    let item = Item {
        subject: "vcpu/0".into(),
        check: Check::Cpus,
        planned: "2".into(),
        observed: "2-3".into(),
        verdict: Verdict::Drifted,
        reason: None,
    };
    let cell = CellFacts {
        id: 0,
        host_node: NodeId(1),
        page_size_bytes: PageSize::MIB2,
        memory_bytes: 64 << 20,
        pages_per_node: BTreeMap::from([(NodeId(0), 2), (NodeId(1), 29)]),
        misplaced_pages: 2,
        missing_pages: 1,
        ranges: vec![],
    };
    let vector = VectorFacts {
        kind: "msix".into(),
        index: 1,
        irq: 40,
        planned_cpu: Some(CpuId(0)),
        effective_cpus: "0".parse().unwrap(),
        count: 12,
    };
    let device = DeviceFacts {
        name: "drive".into(),
        address: "0000:31:00.0".parse().unwrap(),
        interrupt_cpus: "0-1".parse().unwrap(),
        vectors: vec![vector],
    };
    Certificate {
        api_version: API_VERSION.into(),
        kind: KIND.into(),
        name: "default/a".into(),
        pid: 1,
        sequence: 7,
        checked_at: Timestamp::UNIX_EPOCH,
        memory_checked_at: Timestamp::UNIX_EPOCH,
        verdict: Verdict::Drifted,
        items: vec![item],
        mismatches: vec![],
        threads: vec![],
        cells: vec![cell],
        devices: vec![device],
    }
}

pub(super) fn snapshot() -> Snapshot {
    let thread = |role, tid| ThreadFacts {
        role,
        name: "vcpu0".into(),
        tid,
        allowed_cpus: "2-3".parse().unwrap(),
        last_cpu: CpuId(2),
        scheduling: Scheduling::OTHER,
        run_delay_ns: Some(1_500_000_000),
        run_time_ns: Some(2_000_000_000),
        involuntary_switches: Some(3),
        runnable: true,
    };
    let operations = Operations { count: 5, bytes: 4096, time: Duration::from_millis(250) };
    let traffic = Traffic { packets: 9, bytes: 900, dropped: 1, errors: 2 };
    Snapshot {
        identity: Identity {
            node: "host1".into(),
            pod: None,
            namespace: "default".into(),
            name: "a".into(),
            labels: BTreeMap::from([("kubevirt.io/size".into(), "small \"x\"".into())]),
            memory_bytes: 64 << 20,
            evictable: false,
        },
        phase: GuestPhase::Running,
        phase_times: BTreeMap::from([(GuestPhase::Running, Duration::from_millis(30))]),
        startup: vec![("memory", Duration::from_millis(12))],
        process: ProcessUsage {
            user: Duration::from_secs(1),
            system: Duration::from_secs(2),
            resident_bytes: 100,
            resident_guest_bytes: 60,
        },
        threads: vec![thread(Role::Vcpu(0), 11), thread(Role::IoThread(1), 12), thread(Role::Emulator, 13)],
        block_wait: BTreeMap::from([(0, Duration::from_secs(1))]),
        certificate: Some(certificate()),
        drift_total: BTreeMap::from([(Check::Cpus, 4)]),
        repairs_total: BTreeMap::from([((Check::Cpus, RepairResult::Repaired), 3)]),
        guest: GuestStats {
            devices: vec![DeviceStats { name: "0000:31:00.0".into(), resets: 2, ..DeviceStats::default() }],
            disks: vec![DiskStats {
                name: "root".into(),
                reads: operations,
                writes: operations,
                flushes: operations,
                errors: 1,
                last_error: None,
            }],
            interfaces: vec![InterfaceStats { name: "default".into(), received: traffic, sent: traffic }],
            exits: vec![(0, "io", 17)],
            reboots: 1,
            console_dropped_bytes: 6,
        },
    }
}

#[test]
fn every_declared_metric_is_exposed_with_its_help_and_kind() {
    let text = expose(&snapshot()).unwrap();
    for metric in METRICS {
        assert!(text.contains(&format!("# HELP {} {}", metric.name, metric.help)), "{}", metric.name);
        assert!(text.contains(&format!("# TYPE {} ", metric.name)), "{}", metric.name);
    }
    assert_eq!(text.matches("# TYPE ").count(), METRICS.len());
}

#[test]
fn names_are_unique_and_follow_prometheus() {
    for (index, metric) in METRICS.iter().enumerate() {
        assert!(METRICS.iter().skip(index + 1).all(|other| other.name != metric.name), "{}", metric.name);
        assert_eq!(metric.name.ends_with("_total"), metric.kind == Kind::Counter, "{}", metric.name);
    }
}

#[test]
fn every_series_carries_the_guest_and_its_labels() {
    let text = expose(&snapshot()).unwrap();
    let base =
        r#"kubernetes_vmi_label_kubevirt_io_size="small \"x\"",name="a",namespace="default",node="host1""#;
    for line in text.lines().filter(|l| !l.starts_with('#')) {
        assert!(line.contains(r#"namespace="default",node="host1""#), "{line}");
    }
    let line = format!(r#"kubevirt_vmi_vcpu_delay_seconds_total{{id="0",{base}}} 1.5"#);
    assert!(text.contains(&line), "{text}");
}

#[test]
fn values_are_in_seconds_and_bytes() {
    let text = expose(&snapshot()).unwrap();
    let value = |name: &str, label: &str| {
        let found = text.lines().find(|l| l.starts_with(&format!("{name}{{")) && l.contains(label));
        found.unwrap().rsplit(' ').next().unwrap().parse::<f64>().unwrap()
    };
    assert_eq!(value("kubevirt_vmi_vcpu_seconds_total", "RUNNING"), 2.0);
    assert_eq!(value("kubevirt_vmi_storage_write_times_seconds_total", "root"), 0.25);
    assert_eq!(value("kubevirt_vmi_network_transmit_errors_total", "default"), 2.0);
    assert_eq!(value("kubevirt_vmi_cpu_usage_seconds_total", ""), 3.0);
    assert_eq!(value("pinion_vmi_overhead_bytes", ""), 40.0);
    assert_eq!(value("pinion_vmi_certificate_verdict", "drifted"), 1.0);
    assert_eq!(value("pinion_vmi_certificate_verdict", "holds"), 0.0);
    assert_eq!(value("pinion_vmi_misplaced_pages", r#"cell="0""#), 2.0);
    assert_eq!(value("pinion_vmi_drift_total", r#"cause="cpus""#), 4.0);
    assert_eq!(value("pinion_vmi_thread_cpu_info", r#"cpus="2-3""#), 1.0);
    assert_eq!(value("kubevirt_vmi_node_cpu_affinity", ""), 2.0);
}

#[test]
fn a_guest_that_has_not_run_yet_has_metrics_too() {
    let text = expose(&Snapshot::default()).unwrap();
    assert!(text.contains("kubevirt_vmi_info"));
}

#[test]
fn the_documentation_has_a_row_for_each_metric() {
    assert_eq!(markdown_table().lines().count(), METRICS.len() + 2);
}
