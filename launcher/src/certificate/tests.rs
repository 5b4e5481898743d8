use std::collections::BTreeMap;
use std::io;
use std::sync::Mutex;

use jiff::Timestamp;
use pinion_machine::{CpuId, CpuSet, NodeId, PageSize};

use super::*;

fn cpus(text: &str) -> CpuSet {
    text.parse().unwrap()
}

fn thread(role: Role, tid: i32, allowed: &str) -> ThreadFacts {
    ThreadFacts {
        role,
        name: format!("{}-thread", role.as_str()),
        tid,
        allowed_cpus: cpus(allowed),
        last_cpu: cpus(allowed).first().unwrap(),
        scheduling: Scheduling::OTHER,
        run_delay_ns: Some(1500),
        run_time_ns: Some(2_000_000),
        involuntary_switches: Some(3),
        runnable: true,
    }
}

fn plan() -> Plan {
    let thread = |list| PlannedThread { cpus: cpus(list), scheduling: Scheduling::OTHER };
    Plan {
        name: "default/a".into(),
        threads: BTreeMap::from([(Role::Vcpu(0), thread("2")), (Role::IoThread(1), thread("3"))]),
        helpers: &[],
        may_narrow: false,
        emulator: cpus("0-1"),
        cells: vec![PlannedCell { id: 0, host_node: NodeId(1), page_size: PageSize::MIB2, bytes: 64 << 20 }],
        locked: false,
        devices: vec![],
    }
}

fn subjects() -> Subjects {
    Subjects {
        pid: 100,
        threads: vec![(Role::Vcpu(0), 101), (Role::IoThread(1), 102)],
        cells: vec![(0, vec![Range { start: 0x7f00_0000_0000, bytes: 64 << 20 }])],
    }
}

fn observation() -> Observation {
    let facts = [thread(Role::Vcpu(0), 101, "2"), thread(Role::IoThread(1), 102, "3")];
    let mut emulator = thread(Role::Emulator, 100, "0-1");
    emulator.name = "pinion-launcher".into();
    let threads = facts.into_iter().chain([emulator]).map(|f| (f.role, f.tid, Some(f)));
    Observation { threads: threads.collect(), threads_unreadable: None }
}

fn memory(pages: &[(u32, u64)]) -> MemoryObservation {
    let pages = pages.iter().map(|&(n, p)| (NodeId(n), p)).collect();
    let census = Census { pages, page_sizes: vec![PageSize::MIB2] };
    MemoryObservation { cells: BTreeMap::from([(0, Ok(census))]), locked_bytes: Some(0) }
}

fn certify(plan: &Plan, threads: &Observation, memory: &MemoryObservation) -> Certificate {
    let at = Timestamp::UNIX_EPOCH;
    judge(
        plan,
        &subjects(),
        &Reading {
            sequence: 7,
            threads_at: at,
            threads,
            memory_at: at,
            memory,
            devices: &DeviceObservation::default(),
        },
    )
}

#[test]
fn the_document_has_the_keys_that_others_read() {
    let certificate = certify(&plan(), &observation(), &memory(&[(1, 32)]));
    insta::assert_json_snapshot!(certificate);
    let text = serde_json::to_string(&certificate).unwrap();
    let mut read: Certificate = serde_json::from_str(&text).unwrap();
    read.threads.iter_mut().for_each(|t| t.runnable = true);
    assert_eq!(read, certificate);
}

#[test]
fn everything_in_its_place_holds() {
    let certificate = certify(&plan(), &observation(), &memory(&[(1, 32)]));
    assert_eq!(certificate.verdict, Verdict::Holds);
    assert_eq!(certificate.mismatches, Vec::<String>::new());
}

#[test]
fn a_wider_narrower_or_other_cpu_list_is_drift() {
    for allowed in ["0-3", "2,4", "5"] {
        let mut observation = observation();
        let facts = observation.threads[0].2.as_mut().unwrap();
        facts.allowed_cpus = cpus(allowed);
        let certificate = certify(&plan(), &observation, &memory(&[(1, 32)]));
        assert_eq!(certificate.verdict, Verdict::Drifted);
        let text = format!("vcpu/0: cpus planned 2, observed {allowed} (drifted)");
        assert_eq!(certificate.mismatches, [text]);
    }
}

#[test]
fn a_last_cpu_elsewhere_is_drift_unless_the_thread_has_slept_since() {
    let mut observation = observation();
    observation.threads[0].2.as_mut().unwrap().last_cpu = CpuId(9);
    let certificate = certify(&plan(), &observation, &memory(&[(1, 32)]));
    assert_eq!(certificate.mismatches, ["vcpu/0: lastCpu planned 2, observed 9 (drifted)"]);
    observation.threads[0].2.as_mut().unwrap().runnable = false;
    let certificate = certify(&plan(), &observation, &memory(&[(1, 32)]));
    assert_eq!(certificate.verdict, Verdict::Unverifiable);
}

#[test]
fn an_emulator_thread_that_was_moved_and_sleeps_holds_and_says_why() {
    let mut observation = observation();
    let facts = observation.threads[2].2.as_mut().unwrap();
    (facts.last_cpu, facts.runnable) = (CpuId(9), false);
    let certificate = certify(&plan(), &observation, &memory(&[(1, 32)]));
    assert_eq!(certificate.verdict, Verdict::Holds);
    assert!(certificate.items.iter().any(|i| i.observed == "9" && i.reason.is_some()));
}

#[test]
fn another_scheduling_class_is_drift() {
    let mut plan = plan();
    plan.threads.get_mut(&Role::Vcpu(0)).unwrap().scheduling = Scheduling::FIFO_1;
    let certificate = certify(&plan, &observation(), &memory(&[(1, 32)]));
    let text = "vcpu/0: scheduling planned SCHED_FIFO:1, observed SCHED_OTHER (drifted)";
    assert_eq!(certificate.mismatches, [text]);
}

#[test]
fn emulator_threads_off_the_housekeeping_cpus_are_drift() {
    let mut observation = observation();
    observation.threads[2].2 = Some(thread(Role::Emulator, 103, "2"));
    let certificate = certify(&plan(), &observation, &memory(&[(1, 32)]));
    assert_eq!(certificate.mismatches.len(), 2);
    assert!(certificate.mismatches[0].starts_with("emulator/emulator-thread:103: cpus planned 0-1"));
}

#[test]
fn a_thread_that_ended_or_never_was_is_drift() {
    let mut observation = observation();
    observation.threads[0].2 = None;
    observation.threads.remove(1);
    let certificate = certify(&plan(), &observation, &memory(&[(1, 32)]));
    assert_eq!(
        certificate.mismatches,
        [
            "ioThread/1: alive planned running, observed never created (drifted)",
            "vcpu/0: alive planned running, observed thread 101 has ended (drifted)",
        ]
    );
}

#[test]
fn misplaced_and_missing_pages_are_counted() {
    let certificate = certify(&plan(), &observation(), &memory(&[(0, 2), (1, 29)]));
    let cell = &certificate.cells[0];
    assert_eq!((cell.misplaced_pages, cell.missing_pages), (2, 1));
    let text = "cell/0: pages planned 32 on node 1, observed 2 on node 0, 29 on node 1, 1 missing (drifted)";
    assert_eq!(certificate.mismatches, [text]);
}

#[test]
fn pages_of_another_size_are_drift() {
    let mut memory = memory(&[(1, 32)]);
    memory.cells.get_mut(&0).unwrap().as_mut().unwrap().page_sizes = vec![PageSize::KIB4];
    let certificate = certify(&plan(), &observation(), &memory);
    assert_eq!(certificate.mismatches, ["cell/0: pageSize planned 2Mi, observed 4Ki (drifted)"]);
}

#[test]
fn what_cannot_be_read_is_unverifiable_with_its_reason() {
    let memory = MemoryObservation {
        cells: BTreeMap::from([(0, Err("Cannot read /proc/100/numa_maps".into()))]),
        locked_bytes: None,
    };
    let unreadable =
        Observation { threads: vec![], threads_unreadable: Some("Cannot read /proc/100/task".into()) };
    let certificate = certify(&plan(), &unreadable, &memory);
    assert_eq!(certificate.verdict, Verdict::Unverifiable);
    assert_eq!(certificate.items.len(), 3);
    assert!(certificate.items.iter().all(|i| i.reason.as_ref().unwrap().starts_with("Cannot read")));
}

#[test]
fn ordinary_memory_of_a_real_time_guest_must_be_locked() {
    let mut plan = plan();
    plan.locked = true;
    let holds = certify(&plan, &observation(), &memory(&[(1, 32)]));
    assert_eq!(holds.verdict, Verdict::Holds, "huge pages need no lock: {:?}", holds.mismatches);
    plan.cells[0].page_size = PageSize::KIB4;
    let mut memory = memory(&[(1, 16384)]);
    memory.cells.get_mut(&0).unwrap().as_mut().unwrap().page_sizes = vec![PageSize::KIB4];
    let drifted = certify(&plan, &observation(), &memory);
    let text = "memory: locked planned at least 67108864 bytes, observed 0 bytes (drifted)";
    assert_eq!(drifted.mismatches, [text]);
    memory.locked_bytes = Some(64 << 20);
    assert_eq!(certify(&plan, &observation(), &memory).verdict, Verdict::Holds);
}

#[derive(Default)]
struct Recorder {
    calls: Mutex<Vec<String>>,
    refuse: bool,
}

impl Repair for Recorder {
    fn set_cpus(&self, tid: i32, cpus: &CpuSet) -> io::Result<()> {
        self.calls.lock().unwrap().push(format!("{tid} to {cpus}"));
        if self.refuse { Err(io::ErrorKind::PermissionDenied.into()) } else { Ok(()) }
    }

    fn set_scheduling(&self, tid: i32, scheduling: Scheduling) -> io::Result<()> {
        self.calls.lock().unwrap().push(format!("{tid} to {scheduling}"));
        Ok(())
    }
}

#[test]
fn drift_is_counted_once_while_it_lasts_and_repaired_by_thread() {
    // The test's own threads stand for a guest's: where they are is what was planned, but for one.
    let pid = i32::try_from(std::process::id()).unwrap();
    let first = observe_threads(&Subjects { pid, threads: vec![], cells: vec![] });
    let here = first.threads[0].2.as_ref().unwrap().allowed_cpus.clone();
    let planned = PlannedThread { cpus: cpus("60000"), scheduling: Scheduling::OTHER };
    let plan = Plan {
        name: "default/a".into(),
        threads: BTreeMap::from([(Role::Vcpu(0), planned)]),
        helpers: &[],
        may_narrow: false,
        emulator: here,
        cells: vec![],
        locked: false,
        devices: vec![],
    };
    let mut auditor =
        Auditor::new(plan, Subjects { pid, threads: vec![(Role::Vcpu(0), pid)], cells: vec![] });
    let checked = auditor.check(Depth::Everything);
    assert_eq!((checked.certificate.sequence, checked.certificate.verdict), (1, Verdict::Drifted));
    assert!(checked.new_drift.iter().any(|i| i.check == Check::Cpus && i.subject == "vcpu/0"));
    assert_eq!(auditor.drift_total()[&Check::Cpus], 1);

    let again = auditor.check(Depth::Threads);
    assert_eq!(again.certificate.sequence, 2);
    assert!(!again.new_drift.iter().any(|i| i.check == Check::Cpus));
    assert_eq!(auditor.drift_total()[&Check::Cpus], 1);

    let recorder = Recorder::default();
    assert_eq!(auditor.repair(&again.certificate, &recorder).len(), 1);
    assert_eq!(*recorder.calls.lock().unwrap(), [format!("{pid} to 60000")]);
    let refusing = Recorder { refuse: true, ..Recorder::default() };
    assert!(auditor.repair(&again.certificate, &refusing)[0].result.is_err());
    let totals = auditor.repairs_total();
    assert_eq!(totals[&(Check::Cpus, RepairResult::Repaired)], 1);
    assert_eq!(totals[&(Check::Cpus, RepairResult::Failed)], 1);
}

#[test]
fn a_certificate_replaces_the_one_before_and_survives_a_failure() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("certificate.json");
    let certificate = certify(&plan(), &observation(), &memory(&[(1, 32)]));
    write(&path, &certificate).unwrap();
    let before = std::fs::read(&path).unwrap();
    std::fs::create_dir(dir.path().join(".certificate.json.tmp")).unwrap();
    let error = write(&path, &certificate).unwrap_err();
    assert!(error.to_string().contains("certificate.json"));
    assert_eq!(std::fs::read(&path).unwrap(), before);
    let read: serde_json::Value = serde_json::from_slice(&before).unwrap();
    assert_eq!(read["kind"], "Certificate");
}

#[test]
fn threads_that_an_io_thread_starts_may_run_where_it_does() {
    let plan = Plan { helpers: &["worker"], ..plan() };
    let named =
        |name: &str, allowed| ThreadFacts { name: name.to_owned(), ..thread(Role::Emulator, 7, allowed) };
    assert_eq!(plan.thread_of(&named("worker", "3")).unwrap().cpus, cpus("3"));
    assert_eq!(plan.thread_of(&named("other", "3")).unwrap().cpus, plan.emulator);
    assert_eq!(plan.thread_of(&named("worker", "2")).unwrap().cpus, plan.emulator);
}

#[test]
fn what_is_left_of_shared_cpus_holds_where_somebody_may_take_some_away() {
    let narrowed = |cpus: &str| {
        let mut observation = observation();
        observation.threads[2].2 = Some(thread(Role::Emulator, 100, cpus));
        observation
    };
    let fixed = certify(&plan(), &narrowed("0"), &memory(&[(1, 32)]));
    assert_eq!(fixed.verdict, Verdict::Drifted);
    let shared = Plan { may_narrow: true, ..plan() };
    assert_eq!(certify(&shared, &narrowed("0"), &memory(&[(1, 32)])).verdict, Verdict::Holds);
    assert_eq!(certify(&shared, &narrowed("0-2"), &memory(&[(1, 32)])).verdict, Verdict::Drifted);
}
