use std::convert::Infallible;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::sync::{Arc, Barrier};
use std::thread;

use pinion_machine::{CpuId, CpuSet, NodeId, PageSize};
use pinion_planner::{HeldMemory, Holding, HoldingState, Occupancy};
use proptest::prelude::*;

use super::{Holder, Ledger, LedgerError, ReserveError};

fn holding(owner: &str, cpus: &str) -> Holding {
    Holding {
        owner: owner.into(),
        state: HoldingState::Reserved,
        cpus: cpus.parse().unwrap(),
        floating: Vec::new(),
        memory: vec![HeldMemory { node: NodeId(0), page_size: PageSize::MIB2, bytes: 2 << 20 }],
        devices: vec![],
    }
}

fn ledger() -> (tempfile::TempDir, Ledger) {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::at(dir.path().join("run/ledger.json"));
    (dir, ledger)
}

fn take(ledger: &Ledger, wanted: Holding) -> Result<super::Reservation, LedgerError> {
    let me = Holder::current().unwrap();
    Ok(ledger.reserve(me, |_| Ok::<_, Infallible>((wanted, ())))?.0)
}

#[test]
fn a_missing_ledger_is_empty_and_reading_it_writes_nothing() {
    let (dir, ledger) = ledger();
    assert_eq!(ledger.read().unwrap().occupancy(), Occupancy::default());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_reservation_is_seen_committed_and_given_back() {
    let (_dir, ledger) = ledger();
    ledger.set_housekeeping("0".parse().unwrap()).unwrap();
    let mut reservation = take(&ledger, holding("default/a", "2-3")).unwrap();
    let seen = ledger.read().unwrap();
    assert_eq!((seen.generation, seen.holdings.len()), (2, 1));
    assert_eq!(seen.holdings[0].holding, holding("default/a", "2-3"));
    assert_eq!(seen.housekeeping.to_string(), "0");
    reservation.commit().unwrap();
    assert_eq!(ledger.read().unwrap().holdings[0].holding.state, HoldingState::Committed);
    reservation.release().unwrap();
    let seen = ledger.read().unwrap();
    assert_eq!((seen.generation, seen.holdings.len()), (4, 0));
}

#[test]
fn dropping_a_reservation_gives_it_back() {
    let (_dir, ledger) = ledger();
    drop(take(&ledger, holding("default/a", "2")).unwrap());
    assert!(ledger.read().unwrap().holdings.is_empty());
}

#[test]
fn the_same_name_cpu_or_stale_generation_is_refused_naming_the_holder() {
    let (_dir, ledger) = ledger();
    let _held = take(&ledger, holding("default/a", "2-3")).unwrap();
    let error = take(&ledger, holding("default/a", "5")).unwrap_err();
    assert!(matches!(&error, LedgerError::AlreadyHeld { owner, .. } if owner == "default/a"), "{error}");
    let error = take(&ledger, holding("default/b", "3-4")).unwrap_err();
    assert!(matches!(&error, LedgerError::CpusHeld { holder, .. } if holder == "default/a"), "{error}");
    assert!(error.to_string().starts_with("CPUs 3 are held by \"default/a\""), "{error}");
    let me = Holder::current().unwrap();
    let error = ledger.reserve_planned(me.clone(), 0, holding("default/b", "7")).unwrap_err();
    assert!(matches!(error, LedgerError::Changed { planned: 0, found: 1 }));
    ledger.reserve_planned(me, 1, holding("default/b", "7")).unwrap().release().unwrap();
}

#[test]
fn a_refused_plan_changes_nothing() {
    let (_dir, ledger) = ledger();
    let me = Holder::current().unwrap();
    let refused: Result<(_, ()), _> = ledger.reserve(me, |_| Err(std::io::Error::other("no room")));
    assert!(matches!(refused, Err(ReserveError::Plan(e)) if e.to_string() == "no room"));
    assert_eq!(ledger.read().unwrap().generation, 0);
}

#[test]
fn of_racing_reservations_for_one_cpu_exactly_one_wins() {
    let (_dir, ledger) = ledger();
    let ledger = Arc::new(ledger);
    let start = Arc::new(Barrier::new(8));
    let threads: Vec<_> = (0..8)
        .map(|i| {
            let (ledger, start) = (Arc::clone(&ledger), Arc::clone(&start));
            thread::spawn(move || {
                start.wait();
                take(&ledger, holding(&format!("default/{i}"), "4"))
            })
        })
        .collect();
    let results: Vec<_> = threads.into_iter().map(|t| t.join().unwrap()).collect();
    assert_eq!(results.iter().filter(|r| r.is_ok()).count(), 1);
    for error in results.iter().filter_map(|r| r.as_ref().err()) {
        assert!(matches!(error, LedgerError::CpusHeld { .. }), "{error}");
    }
}

#[test]
fn racing_plans_each_see_the_one_before() {
    let (_dir, ledger) = ledger();
    let reservations: Vec<_> = thread::scope(|scope| {
        let plan = |i: u32| {
            let me = Holder::current().unwrap();
            let answer = ledger.reserve(me, |occupancy| {
                let taken: CpuSet = occupancy.holdings.iter().flat_map(|h| h.cpus.iter()).collect();
                let free = (0..).map(CpuId).find(|c| !taken.contains(*c)).unwrap();
                Ok::<_, Infallible>((holding(&format!("default/{i}"), &free.to_string()), free))
            });
            answer.unwrap()
        };
        let threads: Vec<_> = (0..8).map(|i| scope.spawn(move || plan(i))).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    let given: CpuSet = reservations.iter().map(|(_, cpu)| *cpu).collect();
    assert_eq!(given.to_string(), "0-7");
}

#[test]
fn an_entry_of_a_dead_process_is_void() {
    let (_dir, ledger) = ledger();
    let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let mut reservation = take(&ledger, holding("default/a", "2")).unwrap();
    reservation.transfer(i32::try_from(child.id()).unwrap()).unwrap();
    std::mem::forget(reservation);
    assert!(matches!(take(&ledger, holding("default/b", "2")), Err(LedgerError::CpusHeld { .. })));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(ledger.read().unwrap().holdings.is_empty());
    let _next = take(&ledger, holding("default/a", "2")).unwrap();
    assert_eq!(ledger.read().unwrap().holdings.len(), 1);
}

#[test]
fn an_entry_that_somebody_took_out_is_reported_lost() {
    let (_dir, ledger) = ledger();
    let mut reservation = take(&ledger, holding("default/a", "2")).unwrap();
    fs::remove_file(ledger.path()).unwrap();
    assert!(matches!(reservation.commit(), Err(LedgerError::Lost { .. })));
}

#[test]
fn a_damaged_ledger_is_refused_and_left_as_it_is() {
    let (_dir, ledger) = ledger();
    drop(take(&ledger, holding("default/a", "2")).unwrap());
    let _held = take(&ledger, holding("default/a", "2")).unwrap();
    let good = fs::read_to_string(ledger.path()).unwrap();
    let overlap = {
        let mut value: serde_json::Value = serde_json::from_str(&good).unwrap();
        let mut second = value["holdings"][0].clone();
        second["owner"] = "default/b".into();
        value["holdings"].as_array_mut().unwrap().push(second);
        value.to_string()
    };
    let cases: [(&str, Vec<u8>); 7] = [
        ("empty", vec![]),
        ("truncated", good.as_bytes()[..good.len() / 2].to_vec()),
        ("binary", vec![0xff; 4096]),
        ("another kind", good.replace("\"Ledger\"", "\"Certificate\"").into_bytes()),
        ("another version", good.replace("v1alpha1", "v9").into_bytes()),
        (
            "a CPU out of range",
            good.replace("\"cpus\": [\n        2", "\"cpus\": [\n        4294967295").into(),
        ),
        ("an overlap", overlap.into_bytes()),
    ];
    for (what, bytes) in cases {
        assert_ne!(bytes, good.as_bytes(), "{what} is not damaged");
        fs::write(ledger.path(), &bytes).unwrap();
        let error = take(&ledger, holding("default/c", "9")).unwrap_err();
        assert!(matches!(error, LedgerError::Damaged { .. }), "{what}: {error}");
        assert!(error.to_string().contains("ledger.json"), "{error}");
        assert_eq!(fs::read(ledger.path()).unwrap(), bytes, "{what} was changed");
    }
}

#[test]
fn a_huge_ledger_a_folder_and_a_pipe_are_refused_without_blocking() {
    let (dir, _) = ledger();
    let huge = dir.path().join("huge");
    fs::File::create(&huge).unwrap().set_len(1 << 40).unwrap();
    let pipe = dir.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    for path in [huge, pipe, dir.path().to_owned()] {
        let error = Ledger::at(&path).read().unwrap_err();
        assert!(matches!(error, LedgerError::Damaged { .. } | LedgerError::Unreadable { .. }), "{path:?}");
    }
}

#[test]
fn a_ledger_that_cannot_be_written_is_left_as_it_was() {
    let (_dir, ledger) = ledger();
    let held = take(&ledger, holding("default/a", "2")).unwrap();
    let before = fs::read(ledger.path()).unwrap();
    let folder = ledger.path().parent().unwrap().to_owned();
    // A folder in the draft's place stops the write for root too.
    fs::create_dir(folder.join(".ledger.json.tmp")).unwrap();
    let error = take(&ledger, holding("default/b", "3")).unwrap_err();
    assert!(matches!(error, LedgerError::Unwritable { .. }), "{error}");
    assert_eq!(fs::read(ledger.path()).unwrap(), before);
    fs::remove_dir(folder.join(".ledger.json.tmp")).unwrap();
    held.release().unwrap();
    assert_eq!(fs::metadata(ledger.path()).unwrap().permissions().mode() & 0o777, 0o644);
}

#[test]
fn the_document_has_the_keys_that_others_read() {
    let (_dir, ledger) = ledger();
    let _held = take(&ledger, holding("default/a", "2-3")).unwrap();
    let mut value: serde_json::Value = serde_json::from_slice(&fs::read(ledger.path()).unwrap()).unwrap();
    let entry = &mut value["holdings"][0];
    assert!(entry["process"]["pid"].is_i64() && entry["process"]["startTicks"].is_u64());
    assert!(entry["process"]["bootId"].is_string());
    assert!(entry["since"].as_str().unwrap().ends_with('Z'));
    entry["process"].take();
    entry["since"].take();
    assert_eq!(
        value,
        serde_json::json!({
            "apiVersion": "pinion.dev/v1alpha1", "kind": "Ledger", "generation": 1, "housekeeping": [],
            "holdings": [{
                "owner": "default/a", "state": "reserved", "cpus": [2, 3],
                "memory": [{"node": 0, "pageSize": 2_097_152, "bytes": 2_097_152}],
                "process": null, "since": null
            }]
        })
    );
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        let (dir, _) = ledger();
        let path = dir.path().join("ledger.json");
        fs::write(&path, &bytes).unwrap();
        prop_assert!(Ledger::at(&path).read().is_err());
    }
}
