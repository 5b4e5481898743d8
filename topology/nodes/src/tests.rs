use std::collections::BTreeMap;

use jiff::Timestamp;
use pinion_api::{Document, Place, VirtualMachineInstance, parse_at};
use pinion_machine::{Outline, PageSize};
use pinion_planner::{HoldingState, Shape};

use crate::*;

const GUEST: &str = "
apiVersion: kubevirt.io/v1
kind: VirtualMachineInstance
metadata: {name: NAME}
spec:
  MORE
  domain:
    cpu: {cores: CORES, dedicatedCpuPlacement: DEDICATED}
    memory: {guest: 64Mi}
    firmware: {kernelBoot: {container: {image: a, kernelPath: b}}}
    devices: {DEVICES}
";

fn guest(name: &str, cores: u32, more: &str, devices: &str) -> VirtualMachineInstance {
    let text = GUEST
        .replace("NAME", name)
        .replace("CORES", &cores.to_string())
        .replace("DEDICATED", if cores > 0 { "true" } else { "false" })
        .replace("cores: 0", "cores: 1")
        .replace("MORE", if more.is_empty() { "hostname: a" } else { more })
        .replace("DEVICES", devices);
    let document = parse_at(Place::Cluster, &text).unwrap_or_else(|problems| panic!("{problems}\n{text}"));
    document.into_iter().next().map(Document::into_instance).unwrap()
}

/// A node of two NUMA nodes with that many cores each, of which the first is the host's.
fn node(name: &str, cores: u32) -> (LedgerSpec, LedgerStatus, &str) {
    let machine = Shape::new(2, cores).memory(1 << 30).huge_pages(PageSize::MIB2, 64).build();
    let status = LedgerStatus {
        machine: Outline::of(&machine, |_| true),
        housekeeping: "0".parse().unwrap(),
        ..LedgerStatus::default()
    };
    (LedgerSpec::default(), status, name)
}

fn cluster_node((spec, status, name): &(LedgerSpec, LedgerStatus, &str)) -> ClusterNode {
    ClusterNode {
        name: (*name).to_owned(),
        books: Books::of(spec, status).unwrap(),
        ..ClusterNode::default()
    }
}

fn chosen(guest: &VirtualMachineInstance, nodes: &[ClusterNode]) -> String {
    choose(guest, nodes.iter()).map_or_else(|e| e.to_string(), |choice| choice.node)
}

fn booking(choice: &Choice, uid: &str) -> Booking {
    Booking {
        uid: uid.to_owned(),
        request: choice.request.clone(),
        holding: choice.placement.holding(HoldingState::Reserved),
        since: Timestamp::UNIX_EPOCH,
    }
}

#[test]
fn a_guest_goes_where_least_is_left_and_keeps_to_one_numa_node() {
    let nodes =
        [cluster_node(&node("large", 8)), cluster_node(&node("small", 4)), cluster_node(&node("twin", 4))];
    assert_eq!(chosen(&guest("a", 2, "", ""), &nodes), "small");
    // On the small ones it would be on two NUMA nodes.
    assert_eq!(chosen(&guest("a", 6, "", ""), &nodes), "large");
    let shared = choose(&guest("a", 0, "", ""), nodes.iter()).unwrap();
    assert!(!shared.is_dedicated());
    assert_eq!(shared.node, "large");
}

#[test]
fn bookings_take_their_room_until_nothing_is_left_and_nobody_is_booked_twice() {
    let mut ledger = node("only", 4);
    // Seven cores but the host's: three guests of two, one core is left.
    for number in 0..3 {
        let books = Books::of(&ledger.0, &ledger.1).unwrap();
        let here = ClusterNode { name: "only".into(), books, ..ClusterNode::default() };
        let choice = choose(&guest(&format!("g{number}"), 2, "", ""), [here].iter()).unwrap();
        ledger.0.bookings.push(booking(&choice, &format!("uid-{number}")));
    }
    let full = [cluster_node(&ledger)];
    assert!(full[0].books.has("uid-2") && !full[0].books.has("uid-3"));
    assert_eq!(full[0].books.free_cpus(), 1);
    let refused = choose(&guest("late", 2, "", ""), full.iter()).unwrap_err();
    assert!(refused.is_full());
    let text = refused.to_string();
    assert!(text.starts_with("0 of 1 nodes can take it\n* only: "), "{text}");
    let own: Vec<_> = ledger.0.bookings.iter().map(|b| b.holding.cpus.clone()).collect();
    assert!(own[0].is_disjoint(&own[1]) && own[1].is_disjoint(&own[2]) && own[0].is_disjoint(&own[2]));
    // One has gone: there is room again.
    ledger.0.bookings.remove(0);
    assert_eq!(chosen(&guest("late", 2, "", ""), &[cluster_node(&ledger)]), "only");
}

#[test]
fn what_the_kubelet_gave_counts_and_not_what_was_planned() {
    let mut ledger = node("only", 4);
    for name in ["first", "second"] {
        let choice = choose(&guest(name, 2, "", ""), [cluster_node(&ledger)].iter()).unwrap();
        ledger.0.bookings.push(booking(&choice, name));
    }
    // The first got the CPUs that were planned for the second.
    let mut held = ledger.0.bookings[0].holding.clone();
    held.cpus = ledger.0.bookings[1].holding.cpus.clone();
    held.state = HoldingState::Committed;
    ledger.1.holdings.push(held);
    let books = Books::of(&ledger.0, &ledger.1).unwrap();
    // Two guests of two, of seven CPUs: a union of overlapping sets would leave five.
    assert_eq!(books.free_cpus(), 3);
}

#[test]
fn labels_affinity_and_taints_decide_first_and_say_so() {
    let mut a = cluster_node(&node("a", 4));
    a.labels = BTreeMap::from([("rack".to_owned(), "1".to_owned()), ("speed".to_owned(), "3".to_owned())]);
    let mut b = cluster_node(&node("b", 4));
    b.labels = BTreeMap::from([("rack".to_owned(), "2".to_owned())]);
    b.taints = vec![Taint { key: "guests".into(), value: "rt".into(), effect: Effect::NoSchedule }];
    let mut c = cluster_node(&node("c", 4));
    c.obstacle = Some("it is not ready".into());
    let nodes = [a, b, c];
    let of = |more: &str| chosen(&guest("g", 2, more, ""), &nodes);
    assert_eq!(of(""), "a");
    assert_eq!(
        of("nodeSelector: {rack: '2'}"),
        "0 of 3 nodes can take it\n* a: it has no label rack=2 (nodeSelector)\n* b: its taint guests=rt:NoSchedule is not \
         tolerated\n* c: it is not ready"
    );
    for toleration in [
        "{key: guests, operator: Exists}",
        "{operator: Exists}",
        "{key: guests, value: rt}",
        "{key: guests, operator: Equal, value: rt, effect: NoSchedule}",
    ] {
        assert_eq!(
            of(&format!("tolerations: [{toleration}]\n  nodeSelector: {{rack: '2'}}")),
            "b",
            "{toleration}"
        );
    }
    for toleration in [
        "{key: other, operator: Exists}",
        "{key: guests, value: other}",
        "{operator: Exists, effect: NoExecute}",
    ] {
        let said = of(&format!("tolerations: [{toleration}]\n  nodeSelector: {{rack: '2'}}"));
        assert!(said.contains("is not tolerated"), "{toleration}: {said}");
    }
    let required = |test: &str| {
        of(&format!(
            "tolerations: [{{operator: Exists}}]\n  affinity: {{nodeAffinity: \
             {{requiredDuringSchedulingIgnoredDuringExecution: {{nodeSelectorTerms: [{test}]}}}}}}"
        ))
    };
    for (test, answer) in [
        ("{matchExpressions: [{key: rack, operator: In, values: ['2']}]}", "b"),
        ("{matchExpressions: [{key: rack, operator: NotIn, values: ['1']}]}", "b"),
        ("{matchExpressions: [{key: speed, operator: Exists}]}", "a"),
        ("{matchExpressions: [{key: speed, operator: DoesNotExist}]}", "b"),
        ("{matchExpressions: [{key: speed, operator: Gt, values: ['2']}]}", "a"),
        ("{matchFields: [{key: metadata.name, operator: In, values: [b]}]}", "b"),
        ("{}, {matchExpressions: [{key: rack, operator: In, values: ['2']}]}", "b"),
    ] {
        assert_eq!(required(test), answer, "{test}");
    }
    let nowhere = required("{matchExpressions: [{key: speed, operator: Lt, values: ['3']}]}");
    assert!(nowhere.contains("* a: its labels fit no term of affinity.nodeAffinity"), "{nowhere}");
    let preferred = "tolerations: [{operator: Exists}]\n  affinity: {nodeAffinity: \
                     {preferredDuringSchedulingIgnoredDuringExecution: [{weight: 5, preference: {matchExpressions: [{key: \
                     rack, operator: In, values: ['2']}]}}]}}";
    assert_eq!(of(preferred), "b");
}

#[test]
fn a_device_is_looked_for_on_each_node_and_taken_once() {
    let address = "0000:31:00.0".parse().unwrap();
    let with = |name| {
        let machine = Shape::new(2, 4).memory(1 << 30).device(address, 1, 7).build();
        let (spec, mut status, _) = node(name, 4);
        status.machine = Outline::of(&machine, |_| true);
        status.resources = BTreeMap::from([("example.com/nic".to_owned(), vec![address])]);
        (spec, status, name)
    };
    let wanted = guest("g", 2, "", "hostDevices: [{name: nic, deviceName: example.com/nic}]");
    let (without, mut with) = (node("a", 4), with("b"));
    let choice = choose(&wanted, [cluster_node(&without), cluster_node(&with)].iter()).unwrap();
    assert_eq!((choice.node.as_str(), choice.placement.devices[0].address), ("b", address));
    with.0.bookings.push(booking(&choice, "uid"));
    let refused = choose(&wanted, [cluster_node(&without), cluster_node(&with)].iter()).unwrap_err();
    assert!(!refused.answers[0].is_full && refused.answers[1].is_full, "{refused}");
    assert!(refused.answers[0].why.contains("example.com/nic"), "{refused}");
}

#[test]
fn many_nodes_that_say_the_same_are_counted() {
    let mut nodes: Vec<ClusterNode> = Vec::new();
    let names: Vec<String> = (0..30).map(|n| format!("n{n:02}")).collect();
    for name in &names {
        let mut one = cluster_node(&node(name, 4));
        one.obstacle =
            Some(if name == "n07" { "it is not ready".into() } else { "its agent is silent".into() });
        nodes.push(one);
    }
    assert_eq!(
        chosen(&guest("g", 2, "", ""), &nodes),
        "0 of 30 nodes can take it\n* 29 nodes, n00 for one: its agent is silent\n* n07: it is not ready"
    );
    assert!(chosen(&guest("g", 2, "", ""), &[]).starts_with("no node has an agent"));
}

#[test]
fn a_ledger_that_is_empty_or_damaged_takes_nobody_and_says_why() {
    let (spec, mut status, _) = node("a", 4);
    assert_eq!(Books::of(&spec, &LedgerStatus::default()).unwrap_err(), BookError::Empty);
    status.machine.domains[0].cores[0] = "x".into();
    assert_eq!(
        Books::of(&spec, &status).unwrap_err().to_string(),
        "status.machine.domains[0].cores[0]: \"x\""
    );
    let read: LedgerStatus = serde_json::from_str("{}").unwrap();
    assert_eq!(read, LedgerStatus::default());
}
