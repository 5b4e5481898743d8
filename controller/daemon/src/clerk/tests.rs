use pinion_machine::Outline;
use pinion_planner::Shape;
use serde_json::json;

use super::*;
use pinion_reconcile::instance::Instance;

fn ledger(name: &str, generation: i64, bookings: &[Booking]) -> Value {
    let machine = Shape::new(1, 8).memory(1 << 30).build();
    let status = LedgerStatus {
        machine: Outline::of(&machine, |_| true),
        housekeeping: "0".parse().unwrap(),
        ..LedgerStatus::default()
    };
    json!({
        "metadata": {"name": name, "generation": generation}, "spec": {"bookings": bookings}, "status": status,
    })
}

fn node(name: &str, ready: &str) -> Value {
    json!({
        "metadata": {"name": name, "labels": {"rack": "1"}},
        "spec": {"taints": [{"key": "a", "effect": "NoSchedule"}, {"key": "b", "effect": "PreferNoSchedule"}]},
        "status": {"conditions": [{"type": "Ready", "status": ready}]},
    })
}

fn instance(name: &str, cores: u32) -> Instance {
    Instance::of(&json!({
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance",
        "metadata": {"name": name, "namespace": "default", "uid": name},
        "spec": {
            "tolerations": [{"operator": "Exists"}],
            "domain": {
                "cpu": {"cores": cores, "dedicatedCpuPlacement": true}, "memory": {"guest": "64Mi"}, "devices": {},
                "firmware": {"kernelBoot": {"container": {"image": "a", "kernelPath": "b"}}},
            },
        },
    }))
}

/// Chooses, and enters the booking in memory, as `book` does before it writes.
fn enter(clerk: &Clerk, instance: &Instance) -> Result<Choice, NowhereToRun> {
    clerk.enter(&instance.meta.uid, instance.spec.as_ref().unwrap())
}

fn bookings(clerk: &Clerk, node: &str) -> Vec<String> {
    clerk.nodes().get(node).unwrap().desk.spec().bookings.iter().map(|b| b.uid.clone()).collect()
}

#[tokio::test]
async fn a_place_that_is_entered_is_taken_before_it_is_stored() {
    let clerk = Clerk::default();
    clerk.node(&node("a", "True"));
    clerk.ledger(&ledger("a", 1, &[]));
    enter(&clerk, &instance("one", 4)).unwrap();
    assert_eq!(clerk.booked("one").as_deref(), Some("a"));
    let refused = enter(&clerk, &instance("two", 4)).unwrap_err();
    assert!(refused.is_full(), "{refused}");
    let patch = clerk.nodes().get("a").unwrap().desk.patch().unwrap();
    assert_eq!(patch[0], json!({"op": "test", "path": "/metadata/generation", "value": 1}));
    assert_eq!(patch[1]["value"][0]["uid"], "one");
}

#[tokio::test]
async fn what_another_controller_has_booked_meanwhile_comes_first() {
    let (ours, theirs) = (Clerk::default(), Clerk::default());
    for clerk in [&ours, &theirs] {
        clerk.node(&node("a", "True"));
        clerk.ledger(&ledger("a", 1, &[]));
    }
    enter(&theirs, &instance("theirs", 4)).unwrap();
    enter(&ours, &instance("ours", 4)).unwrap();
    enter(&ours, &instance("small", 3)).unwrap();
    // Theirs was stored first; ours was refused, and the ledger is read again.
    let stored = theirs.nodes().get("a").unwrap().desk.spec().bookings;
    let mut nodes = ours.nodes();
    let entry = nodes.get_mut("a").unwrap();
    entry.desk.see(&ledger("a", 2, &stored));
    entry.settle();
    drop(nodes);
    assert_eq!(bookings(&ours, "a"), ["theirs", "small"]);
    assert_eq!(ours.booked("ours"), None);
    let spec = ours.nodes().get("a").unwrap().desk.spec();
    let (theirs, small) = (&spec.bookings[0].holding.cpus, &spec.bookings[1].holding.cpus);
    assert!(theirs.is_disjoint(small), "{theirs} {small}");
    // An older ledger that comes late changes nothing.
    let _ = ours.ledger(&ledger("a", 1, &[]));
    assert_eq!(bookings(&ours, "a"), ["theirs", "small"]);
}

#[tokio::test]
async fn a_place_that_is_given_back_is_free_at_once_and_strays_are_found() {
    let clerk = Clerk::default();
    clerk.node(&node("a", "True"));
    clerk.ledger(&ledger("a", 1, &[]));
    enter(&clerk, &instance("one", 4)).unwrap();
    let stored = clerk.nodes().get("a").unwrap().desk.spec().bookings;
    let _ = clerk.ledger(&ledger("a", 2, &stored));
    assert_eq!(clerk.nodes().get("a").unwrap().desk.patch(), None);
    assert_eq!(clerk.stray(&BTreeSet::new()), ["one"]);
    assert!(clerk.stray(&BTreeSet::from(["one".to_owned()])).is_empty());
    clerk.nodes().get_mut("a").unwrap().desk.strike("one");
    assert_eq!(clerk.booked("one"), None);
    enter(&clerk, &instance("two", 4)).unwrap();
    let patch = clerk.nodes().get("a").unwrap().desk.patch().unwrap();
    assert_eq!(patch[1]["value"].as_array().unwrap().len(), 1);
    assert_eq!(patch[1]["value"][0]["uid"], "two");
}

#[tokio::test]
async fn a_node_that_is_not_ready_avoided_or_silent_takes_nobody() {
    let clerk = Clerk::default();
    let why = |clerk: &Clerk| enter(clerk, &instance("one", 1)).unwrap_err().to_string();
    assert!(why(&clerk).starts_with("no node has an agent"));
    clerk.ledger(&ledger("a", 1, &[]));
    assert!(why(&clerk).contains("a: there is no such node"));
    clerk.node(&node("a", "False"));
    assert!(why(&clerk).contains("a: it is not ready"));
    assert_eq!(clerk.trouble("a").as_deref(), Some("node a is not ready"));
    clerk.node(&node("a", "True"));
    clerk.avoid("a", "the kubelet turned it away");
    assert!(why(&clerk).contains("a: it is avoided for a while: the kubelet turned it away"));
    tokio::time::pause();
    tokio::time::advance(AVOIDED_FOR).await;
    tokio::time::advance(SILENT_AFTER).await;
    assert!(why(&clerk).contains("has not been heard of"));
    clerk.ledger(&ledger("a", 1, &[]));
    assert!(enter(&clerk, &instance("one", 1)).is_ok());
    assert_eq!(clerk.trouble("a"), None);
    clerk.node_gone("a");
    assert_eq!(clerk.trouble("a").as_deref(), Some("there is no node a"));
    assert_eq!(clerk.threads_per_core("a"), 1);
}

#[tokio::test]
async fn who_waits_is_told_when_a_node_changes() {
    let clerk = Clerk::default();
    let key = Key { kind: Kind::Instance, namespace: "default".into(), name: "one".into() };
    clerk.wait(key.clone());
    assert_eq!(clerk.node(&node("a", "True")), std::slice::from_ref(&key));
    assert_eq!(clerk.ledger(&ledger("a", 1, &[])).0, std::slice::from_ref(&key));
    clerk.waits_no_more(&key);
    assert_eq!(clerk.ledger(&ledger("a", 2, &[])).0, []);
}

#[tokio::test(start_paused = true)]
async fn who_waits_is_woken_by_what_may_make_room_and_not_by_heartbeats() {
    let clerk = Clerk::default();
    let key = Key { kind: Kind::Instance, namespace: "default".into(), name: "big".into() };
    clerk.wait(key.clone());
    assert_eq!(clerk.node(&node("a", "True")), std::slice::from_ref(&key));
    assert!(clerk.node(&node("a", "True")).is_empty(), "it is there");
    assert_eq!(clerk.node(&node("a", "False")), std::slice::from_ref(&key));
    assert_eq!(clerk.ledger(&ledger("a", 1, &[])).0, std::slice::from_ref(&key));
    let mut heard = ledger("a", 1, &[]);
    heard["status"]["heard"] = "2026-11-22T00:00:00Z".into();
    assert!(clerk.ledger(&heard).0.is_empty(), "a heartbeat");
    tokio::time::advance(SILENT_AFTER + Duration::from_secs(1)).await;
    assert_eq!(clerk.ledger(&heard).0, std::slice::from_ref(&key), "it was silent");
    heard["status"]["generation"] = 7.into();
    assert_eq!(clerk.ledger(&heard).0, std::slice::from_ref(&key));
    clerk.avoid("a", "it turned a pod away");
    assert!(!clerk.is_freed());
    tokio::time::advance(AVOIDED_FOR).await;
    assert!(clerk.is_freed() && !clerk.is_freed());
}
