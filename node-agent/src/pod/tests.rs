//! A node's files in a folder, and what is made of them.

use std::fs;
use std::path::Path;

use pinion_machine::{CpuSet, NodeId};
use pinion_planner::Shape;
use pinion_pod_resources::{ContainerHolds, HeldDevice, HeldMemory, Pods};

use super::asker::{AskerError, PodName, identify, is_in_pod};
use super::given::{Given, GivenError, PodSources, look};

const GROUP: &str = "kubepods/burstable/pod0c2c4ce4-9d43/ab12";

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// A node on which process 7 is in a container of the pod `lab/vm-x`.
fn node() -> (tempfile::TempDir, PodSources) {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let sources = PodSources {
        proc: root.join("proc"),
        cgroups: root.join("cgroup"),
        logs: root.join("logs"),
        kubelet: root.join("kubelet.sock"),
        ..PodSources::default()
    };
    write(&sources.proc.join("7/cgroup"), &format!("0::/{GROUP}\n"));
    write(&sources.proc.join("8/cgroup"), "0::/system.slice/ssh.service\n");
    write(&sources.cgroups.join("cpuset.mems.effective"), "0-1\n");
    write(&sources.cgroups.join(GROUP).join("cpuset.cpus.effective"), "2-3\n");
    fs::create_dir_all(sources.logs.join("lab_vm-x_0c2c4ce4-9d43")).unwrap();
    (folder, sources)
}

fn said(namespace: &str, name: &str) -> PodName {
    PodName { namespace: namespace.into(), name: name.into() }
}

fn cpus(list: &str) -> CpuSet {
    list.parse().unwrap()
}

fn holds(pod: &str, name: &str, list: &str) -> ContainerHolds {
    let (namespace, pod, name) = ("lab".into(), pod.into(), name.into());
    ContainerHolds { namespace, pod, name, cpus: cpus(list), memory: vec![], devices: vec![] }
}

fn given(pods: &Pods, allowed: &str) -> Given {
    let (_folder, sources) = node();
    let place = identify(&sources, 7, &said("lab", "vm-x")).unwrap();
    Given::of(place, pods, cpus(allowed), vec![NodeId(0), NodeId(1)])
}

#[test]
fn a_process_is_taken_for_the_pod_that_the_kubelet_has_put_it_in() {
    let (_folder, sources) = node();
    let place = identify(&sources, 7, &said("lab", "vm-x")).unwrap();
    assert_eq!((place.uid.as_str(), place.group.as_path()), ("0c2c4ce4-9d43", Path::new(GROUP)));
    assert!(is_in_pod(&sources.proc, 7) && !is_in_pod(&sources.proc, 8) && !is_in_pod(&sources.proc, 9));
}

#[test]
fn a_process_that_is_in_no_pod_or_claims_anothers_name_is_refused() {
    let (_folder, sources) = node();
    let reason = |pid, pod: &PodName| identify(&sources, pid, pod).unwrap_err().reason();
    assert_eq!(reason(8, &said("lab", "vm-x")), "NotInPod");
    assert_eq!(reason(9, &said("lab", "vm-x")), "ProcessUnknown");
    fs::create_dir_all(sources.logs.join("lab_vm-y_99")).unwrap();
    assert_eq!(reason(7, &said("lab", "vm-y")), "AnotherPod");
    assert_eq!(reason(7, &said("other", "vm-x")), "AnotherPod");
    for name in ["", "../lab_vm-x", "a/b", "A", "a_b"] {
        assert_eq!(reason(7, &said("lab", name)), "Malformed", "{name}");
    }
}

#[test]
fn a_group_that_a_user_made_with_a_pods_name_is_none_of_the_kubelets() {
    let (_folder, sources) = node();
    let folder = sources.cgroups.join("kubepods/burstable/pod0c2c4ce4-9d43");
    if let Err(e) = std::os::unix::fs::chown(&folder, Some(4242), None) {
        println!("skipped: {e}");
        return;
    }
    let refused = identify(&sources, 7, &said("lab", "vm-x")).unwrap_err();
    assert!(matches!(refused, AskerError::Forged { .. }), "{refused}");
}

#[test]
fn a_container_has_what_the_kubelet_says_and_its_control_group_allows() {
    let device = HeldDevice { resource: "a.b/c".into(), id: "0000:31:00.0".into(), nodes: vec![] };
    let kvm = HeldDevice { resource: "devices.kubevirt.io/kvm".into(), id: "kvm7".into(), nodes: vec![] };
    let memory = HeldMemory { kind: "memory".into(), bytes: 1, nodes: vec![NodeId(1)] };
    let mine = ContainerHolds {
        devices: vec![device, kvm],
        memory: vec![memory],
        ..holds("vm-x", "compute", "2-3")
    };
    let pods = Pods {
        containers: vec![holds("vm-x", "sidecar", "4"), mine, holds("vm-y", "compute", "6-7")],
        allocatable_cpus: cpus("2-7"),
        ..Pods::default()
    };
    let given = given(&pods, "2-3");
    assert_eq!((given.own.to_string(), given.exclusive.to_string()), ("2-3".into(), "2-4,6-7".into()));
    assert_eq!(given.memory, [NodeId(1)]);
    assert_eq!(given.functions("a.b/c").len(), 1);
    assert!(given.functions("devices.kubevirt.io/kvm").is_empty() && given.functions("x").is_empty());
    let machine = Shape::new(1, 8).build();
    let none = CpuSet::new();
    assert_eq!(given.housekeeping(&machine, &none, &none), cpus("0-1"), "what the kubelet reserves");
    assert_eq!(given.housekeeping(&machine, &cpus("1-2"), &none), cpus("1"), "of them what the ledger names");
    assert_eq!(given.housekeeping(&machine, &none, &cpus("0")), cpus("1"));
    let unsaid = Given { allocatable: CpuSet::new(), ..given };
    assert_eq!(unsaid.housekeeping(&machine, &none, &cpus("0")), cpus("1,5"));
    assert_eq!(unsaid.housekeeping(&machine, &cpus("1-3"), &none), cpus("1"));
}

#[test]
fn of_containers_that_share_their_cpus_the_guests_is_taken() {
    let device = |id: &str| vec![HeldDevice { resource: "r".into(), id: id.into(), nodes: vec![] }];
    let shares = |name: &str, id: &str| ContainerHolds { devices: device(id), ..holds("vm-x", name, "") };
    let one = Pods { containers: vec![shares("any", "a"), holds("vm-x", "it", "4-5")], ..Pods::default() };
    assert_eq!(given(&one, "0-3").devices, [("r".to_owned(), "a".to_owned())]);
    let two = Pods { containers: vec![shares("any", "a"), shares("compute", "b")], ..Pods::default() };
    assert_eq!(given(&two, "0-3").devices, [("r".to_owned(), "b".to_owned())]);
    let bare = given(&Pods::default(), "0-3");
    assert!(bare.own.is_empty() && bare.devices.is_empty());
    assert_eq!((bare.allowed.to_string(), bare.memory.len()), ("0-3".into(), 2));
}

#[test]
fn a_kubelet_that_is_not_there_and_groups_that_say_nothing_are_told() {
    let (_folder, sources) = node();
    let place = identify(&sources, 7, &said("lab", "vm-x")).unwrap();
    assert_eq!(look(&sources, place.clone()).unwrap_err().reason(), "KubeletUnreachable");
    fs::remove_file(sources.cgroups.join("cpuset.mems.effective")).unwrap();
    let refused = look(&sources, place).unwrap_err();
    assert!(matches!(&refused, GivenError::Group { what: "memory", .. }), "{refused}");
}
