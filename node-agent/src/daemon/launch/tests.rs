//! Launchers in pods that ask, with a folder for a node and a kubelet's side in this process.

use std::fs;
use std::process::{Child, Command, Stdio};

use pinion_endpoint::Peer;
use pinion_pod_resources::fake::FakeKubelet;
use serde_json::{Value, json};

use crate::daemon::Launched;
use crate::daemon::fake::FakeAgent;
use crate::drivers::PciBus;
use crate::ledger::LedgerDocument;
use crate::settings::{Host, Keeper};

const UID: &str = "0c2c4ce4-9d43";

/// A node with an agent, and a process in a pod of it.
struct Node {
    folder: tempfile::TempDir,
    agent: FakeAgent,
    process: Child,
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Node {
    /// Its container, `lab/pod`, has these CPUs to itself, and may use those.
    fn new(own: &[i64], allowed: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let process = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let node = Self { agent: FakeAgent::new(folder.path()), folder, process };
        let sources = FakeAgent::pods(node.folder.path());
        FakeKubelet::new(&[2, 3, 4, 5, 6, 7])
            .pod("lab", "pod", own, &[("a.b/c", "0000:31:00.0")])
            .pod("lab", "other", &[7], &[])
            .serve(&sources.kubelet)
            .unwrap();
        fs::create_dir_all(sources.logs.join(format!("lab_pod_{UID}"))).unwrap();
        node.write(&format!("proc/{}/cgroup", node.pid()), &format!("0::/{}\n", Self::group()));
        node.write("sys/fs/cgroup/cpuset.mems.effective", "0\n");
        node.write_group("cpuset.cpus", allowed);
        // The kernel would say so once it is wide enough.
        node.write_group("cpuset.cpus.effective", &format!("0-1,{allowed}"));
        node.write_group("cpu.max", "200000 100000");
        node
    }

    fn group() -> String {
        format!("kubepods/pod{UID}/ab12")
    }

    fn pid(&self) -> i32 {
        i32::try_from(self.process.id()).unwrap()
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn write_group(&self, file: &str, text: &str) {
        self.write(&format!("sys/fs/cgroup/{}/{file}", Self::group()), text);
    }

    fn read_group(&self, file: &str) -> String {
        let path = self.folder.path().join("sys/fs/cgroup").join(Self::group()).join(file);
        fs::read_to_string(path).unwrap()
    }

    fn ask_as(&mut self, pid: i32, request: &Value) -> Result<Value, String> {
        let peer = Peer { pid, uid: 4242, gid: 4242 };
        self.agent.ask(peer, request.to_string().as_bytes()).map_err(|r| r.reason)
    }

    fn ask(&mut self, request: &Value) -> Result<Value, String> {
        self.ask_as(self.pid(), request)
    }

    fn launch(&mut self, domain: &Value) -> Result<Launched, String> {
        let launched = self.ask(&launch("lab", "a", domain));
        launched.map(|value| serde_json::from_value(value).unwrap())
    }

    fn ledger(&self) -> LedgerDocument {
        self.agent.ledger().read().unwrap()
    }
}

fn launch(namespace: &str, name: &str, domain: &Value) -> Value {
    let mut domain = domain.clone();
    domain["memory"] = json!({"guest": "64Mi"});
    if domain["devices"].is_null() {
        domain["devices"] = json!({});
    }
    domain["devices"]["autoattachPodInterface"] = false.into();
    domain["firmware"] = json!({"kernelBoot": {"container": {
        "image": "example.com/kernel", "kernelPath": "/vmlinuz", "initrdPath": "/initrd"
    }}});
    json!({
        "ask": "launch",
        "pod": {"namespace": "lab", "name": "pod"},
        "instance": {
            "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance",
            "metadata": {"name": name, "namespace": namespace}, "spec": {"domain": domain}
        }
    })
}

fn dedicated(cores: u32) -> Value {
    json!({"cpu": {"cores": cores, "dedicatedCpuPlacement": true}})
}

#[test]
fn a_guest_is_planned_inside_of_its_pod_and_reserved_for_its_process() {
    let mut node = Node::new(&[2, 3], "2-3");
    let launched = node.launch(&dedicated(2)).unwrap();
    assert_eq!(launched.pid, node.pid());
    assert_eq!(launched.placement.dedicated_cpus().to_string(), "2-3");
    assert_eq!(launched.placement.emulator.cpus.to_string(), "0-1", "what the kubelet reserves");
    let [entry] = &node.ledger().holdings[..] else { unreachable!("one guest") };
    assert_eq!((entry.holding.owner.as_str(), entry.process.pid), ("lab/a", node.pid()));
    assert!(entry.host.quiet_cpus && entry.pod.as_ref().is_some_and(|p| p.uid == UID));
    assert_eq!(node.read_group("cpuset.cpus"), "0-3");
    assert!(node.read_group("cpu.max").starts_with("max"));
}

#[test]
fn what_a_kubelet_that_is_started_anew_writes_is_put_back_and_told_once() {
    let mut node = Node::new(&[2, 3], "2-3");
    node.launch(&dedicated(2)).unwrap();
    // What the kernel makes of the word.
    node.write_group("cpu.max", "max 100000");
    let mut keeper = Keeper::of(node.agent.ledger(), Host::at(node.folder.path()), PciBus::default());
    assert!(keeper.settle().unwrap().is_empty());
    node.write_group("cpuset.cpus", "2-3");
    let told = keeper.settle().unwrap();
    let [notice] = &told[..] else { unreachable!("one notice: {told:?}") };
    assert!(notice.reason() == "ContainerChanged" && !notice.is_warning(), "{notice}");
    assert!(notice.to_string().contains("lab/a"), "{notice}");
    assert_eq!(node.read_group("cpuset.cpus"), "0-3");
    node.write_group("cpuset.cpus.effective", "2-3");
    let told = keeper.settle().unwrap();
    assert!(told.len() == 1 && told[0].is_warning(), "{told:?}");
    assert!(keeper.settle().unwrap().is_empty(), "told already");
}

#[test]
fn asked_again_it_is_planned_anew_and_once_it_runs_no_more() {
    let mut node = Node::new(&[2, 3], "2-3");
    let first = node.launch(&dedicated(1)).unwrap();
    let second = node.launch(&dedicated(2)).unwrap();
    assert_eq!((first.placement.vcpus.len(), second.placement.vcpus.len()), (1, 2));
    assert_eq!(node.ledger().holdings.len(), 1);
    assert_eq!(node.ask(&launch("lab", "b", &dedicated(1))), Err("AlreadyRuns".into()), "one guest each");
    let commit = json!({"ask": "commit", "owner": "lab/a"});
    assert_eq!(node.ask_as(1, &commit), Err("NotPermitted".into()));
    node.ask(&commit).unwrap();
    assert_eq!(node.launch(&dedicated(2)), Err("AlreadyRuns".into()));
    node.ask(&json!({"ask": "release", "owner": "lab/a"})).unwrap();
    assert!(node.ledger().holdings.is_empty());
}

#[test]
fn who_is_in_no_pod_or_names_anothers_is_refused() {
    let mut node = Node::new(&[2, 3], "2-3");
    let own = i32::try_from(std::process::id()).unwrap();
    let mut request = launch("lab", "a", &dedicated(2));
    assert_eq!(node.ask_as(own, &request), Err("ProcessUnknown".into()));
    node.write(&format!("proc/{own}/cgroup"), "0::/system.slice/x.service\n");
    assert_eq!(node.ask_as(own, &request), Err("NotInPod".into()));
    request["pod"]["name"] = "other".into();
    assert_eq!(node.ask(&request), Err("AnotherPod".into()));
    assert_eq!(node.ask(&launch("default", "a", &dedicated(2))), Err("AnotherNamespace".into()));
    assert!(node.ledger().holdings.is_empty());
}

#[test]
fn what_the_pod_lacks_is_told_and_nothing_is_held() {
    let mut node = Node::new(&[2, 3], "2-3");
    let mut refused = |domain: &Value| node.launch(domain).unwrap_err();
    assert_eq!(refused(&dedicated(3)), "InsufficientCpus");
    assert_eq!(refused(&json!({"cpu": {"coores": 1}})), "InvalidInstance");
    let gpu = |resource: &str| {
        let mut domain = dedicated(1);
        domain["devices"] = json!({"gpus": [{"name": "g", "deviceName": resource}]});
        domain
    };
    assert_eq!(refused(&gpu("x.y/z")), "DeviceNotGiven");
    assert_eq!(refused(&gpu("a.b/c")), "DeviceBlocked", "the machine has no such function");
    assert!(node.ledger().holdings.is_empty());
    let mut bare = Node::new(&[], "2-5");
    assert_eq!(bare.launch(&dedicated(1)), Err("NoDedicatedCpus".into()));
    fs::remove_file(FakeAgent::pods(bare.folder.path()).kubelet).unwrap();
    assert_eq!(bare.launch(&dedicated(1)), Err("KubeletUnreachable".into()));
}

#[test]
fn a_container_that_cannot_reach_the_housekeeping_cpus_holds_nothing() {
    let mut node = Node::new(&[2, 3], "2-3");
    node.write_group("cpuset.cpus.effective", "2-3");
    assert_eq!(node.launch(&dedicated(2)), Err("ContainerUnchangeable".into()));
    assert!(node.ledger().holdings.is_empty());
}

#[test]
fn a_guest_that_shares_its_cpus_stays_on_those_of_its_container() {
    let mut node = Node::new(&[], "0-1,4-5");
    let launched = node.launch(&json!({"cpu": {"cores": 2}})).unwrap();
    assert!(launched.placement.vcpus.iter().all(|v| v.cpus.to_string() == "0-1,4-5"));
    assert_eq!(launched.placement.emulator.cpus.to_string(), "0-1,4-5");
    assert_eq!(node.read_group("cpuset.cpus"), "0-1,4-5", "left as it is");
    assert!(node.read_group("cpu.max").starts_with("200000"));
}

#[test]
fn a_process_in_a_pod_reserves_nothing_itself() {
    let mut node = Node::new(&[2, 3], "2-3");
    let holding = json!({"owner": "lab/b", "state": "reserved", "cpus": [4], "memory": []});
    let reserve = json!({"ask": "reserve", "generation": 0, "holding": holding});
    assert_eq!(node.ask(&reserve), Err("InPod".into()));
    node.launch(&dedicated(1)).unwrap();
    let prepare = json!({"ask": "prepare", "owner": "lab/a", "wishes": {"quietCpus": true}, "bind": true});
    assert_eq!(node.ask(&prepare), Err("NotPermitted".into()));
}
