//! Processes that change one ledger are killed at any moment; it stays whole and they lose what they held.

#![expect(clippy::unwrap_used, reason = "a test may panic, in its helper functions too")]

use std::convert::Infallible;
use std::env;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use pinion_node_agent::{Holder, Ledger};
use pinion_planner::{Holding, HoldingState};

const LEDGER: &str = "PINION_TEST_LEDGER";

/// The killed process: not a test of its own. Reserves, commits and releases until it dies.
#[test]
fn worker() {
    let Some(path) = env::var_os(LEDGER) else { return };
    let ledger = Ledger::at(path);
    let pid = std::process::id();
    let holding = Holding {
        owner: format!("default/{pid}"),
        state: HoldingState::Reserved,
        cpus: Default::default(),
        floating: Vec::new(),
        memory: vec![],
        devices: vec![],
    };
    loop {
        let me = Holder::current().unwrap();
        let taken = ledger.reserve(me, |_| Ok::<_, Infallible>((holding.clone(), ())));
        let mut reservation = taken.unwrap().0;
        reservation.commit().unwrap();
        reservation.release().unwrap();
    }
}

fn spawn(path: &std::path::Path) -> Child {
    Command::new(env::current_exe().unwrap())
        .args(["--exact", "worker", "--nocapture"])
        .env(LEDGER, path)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn a_process_killed_at_any_moment_leaves_a_whole_ledger_without_its_entry() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.json");
    let ledger = Ledger::at(&path);
    let mut generation = 0;
    for round in 0..20u64 {
        let mut workers = [spawn(&path), spawn(&path)];
        // A different point of the workers' loop each time.
        thread::sleep(Duration::from_millis(20 + 7 * round));
        for worker in &mut workers {
            worker.kill().unwrap();
            worker.wait().unwrap();
        }
        let now = ledger.read().unwrap();
        assert!(now.holdings.is_empty(), "{now:?}");
        assert!(now.generation >= generation);
        generation = now.generation;
        // The lock went with its owner: a change is possible at once.
        ledger.set_housekeeping("0".parse().unwrap()).unwrap();
    }
    assert!(generation > 20, "the workers did not work");
    let mut names: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    names.retain(|n| n != ".ledger.json.tmp");
    assert_eq!(names, [".ledger.json.lock", "ledger.json"]);
}
