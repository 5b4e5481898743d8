//! The device plugin as a DaemonSet on a real kubelet with static managers: what pods get, what nodes tell, and what is left
//! of it after kills, restarts, other drivers and devices that are pulled out.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

#[path = "lab/cluster.rs"]
mod cluster;

use std::time::Instant;

use cluster::{LONG, Node, SOON, on_cluster};
use pinion_lab_cluster::{Cluster, unpacked};

/// Two devices alone on node 1, two functions in one group on node 0 by a name with a dash and dots, and a drive on node 1;
/// a network card and virtual functions on node 0.
const NAMES: &str = r#"
apiVersion: pinion.dev/v1alpha1
kind: DeviceResources
resources:
- name: example.com/edu
  select: [{vendor: "1234", device: "11e8", node: 1}]
- name: lab-1.example.com/pair.of-two
  select: [{address: "0000:22:00.0"}, {address: "0000:22:00.1"}]
- name: example.com/drive
  select: [{class: "0108", node: 1}]
- name: example.com/card
  select: [{class: "0200", node: 0}]
- name: example.com/function
  select: [{parent: "0000:24:00.0"}, {parent: "0000:25:00.0"}]
"#;

/// Says where it is and what it has, and stays. A shell drops variables whose names have a dash; the kernel does not.
const SAYS: &str = "grep allowed_list /proc/self/status; tr '\\0' '\\n' < /proc/1/environ; ls /dev/vfio; echo SAID; sleep 3600";

/// Runs the plugin from its image, again and again; it gives devices by CDI.
const PLUGIN: &str = "setsid sh -c 'while :; do chroot /run/plugin /usr/bin/pinion device-plugin --cdi /etc/cdi; sleep 0.1; done' \
    > /var/log/plugin.log 2>&1 < /dev/null &";

fn pod(name: &str, limits: &str) -> String {
    pod_of(name, limits, SAYS)
}

fn pod_of(name: &str, limits: &str, script: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  terminationGracePeriodSeconds: 0\n  \
         containers:\n  - name: it\n    image: pinion.dev/lab/busybox:1\n    \
         command: [/bin/sh, -c, {script:?}]\n    resources:\n      limits: {{{limits}}}\n"
    )
}

#[test]
fn a_kubelet_gives_devices_to_pods_and_loses_none() {
    on_cluster("pods", |cluster| {
        let node = Node::first(cluster);
        node.put("/etc/pinion/devices.yaml", NAMES);
        let [edu, other, pair, drive, card] = bound(&node);
        cluster::in_workspace(cluster, &["apply", "-f", "manifests/namespace.yaml"]);
        cluster::in_workspace(cluster, &["apply", "-k", "manifests/device-plugin"]);
        node.until_allocatable(&[
            ("devices.kubevirt.io/kvm", "1k"),
            ("pinion.dev/agent", "0"),
            ("example.com/edu", "2"),
            ("lab-1.example.com/pair.of-two", "1"),
            ("example.com/drive", "1"),
            ("example.com/card", "1"),
        ]);
        let began = Instant::now();
        let done = |what: &str| println!("pods: {what} done after {:.0} s", began.elapsed().as_secs_f32());
        given(cluster, &edu, &pair);
        done("given");
        agent(cluster, &node);
        done("agent");
        failing(cluster, &node, [&edu, &other]);
        done("failing");
        unplugged(&node, &drive);
        done("unplugged");
        fatal(&node, &card);
        done("fatal");
        many(&node);
        done("many");
        restarted(&node);
        done("restarted");
        wrong_file(cluster, &node);
        done("wrong_file");
        killed(cluster, &node);
        done("killed");
    });
}

/// Functions that the lab has, bound to vfio-pci: those on node 1, the pair's first, the drive, the network card.
fn bound(node: &Node<'_>) -> [String; 5] {
    let all = node.sh(
        "for d in /sys/bus/pci/devices/*; do echo ${d##*/} $(cat $d/device) $(cat $d/class) $(cat $d/numa_node); done",
    );
    let find = |wanted: &str| -> Vec<String> {
        let these = all.lines().filter(|l| l.contains(wanted));
        these.filter_map(|l| Some(l.split_once(' ')?.0.to_owned())).collect()
    };
    let (alone, pair, drive) = (
        find("0x11e8 0x00ff00 1"),
        find("0x010802 0").into_iter().filter(|a| a.starts_with("0000:22")).collect::<Vec<_>>(),
        find("0x010802 1"),
    );
    let card = find("0x020000 0");
    for function in alone.iter().chain(&pair).chain(&drive).chain(&card) {
        node.bind(function);
    }
    match (&alone[..], &pair[..], &drive[..], &card[..]) {
        ([edu, other], [first, _], [drive], [card]) => [edu, other, first, drive, card].map(Clone::clone),
        _ => panic!("other devices than expected: {all}"),
    }
}

/// Pods get node, environment and CPUs of one NUMA node.
fn given(cluster: &Cluster, edu: &str, pair: &str) {
    let said = |name: &str, limits: &str| {
        cluster::apply(cluster, &pod(name, limits));
        cluster.until(&["logs", name], LONG, |text| text.contains("SAID")).unwrap()
    };
    let one = said("one", "cpu: 2, memory: 64Mi, hugepages-2Mi: 32Mi, example.com/edu: 1");
    assert!(one.contains(&format!("PCI_RESOURCE_EXAMPLE_COM_EDU={edu}")), "{one}");
    let cpus = one.lines().find_map(|l| l.strip_prefix("Cpus_allowed_list:\t")).unwrap_or_default();
    assert!(["4-5", "6-7"].contains(&cpus) && one.contains("Mems_allowed_list:\t1\n"), "{one}");
    assert!(one.contains("\nvfio\n"), "{one}");
    let two = said("two", "cpu: 2, memory: 64Mi, lab-1.example.com/pair.of-two: 1");
    assert!(two.contains(&format!("PCI_RESOURCE_LAB-1_EXAMPLE_COM_PAIR_OF-TWO={pair}")), "{two}");
    assert!(two.contains("Cpus_allowed_list:\t2-3\n"), "{two}");
    let kvm = said("kvm", "memory: 16Mi, devices.kubevirt.io/kvm: 1");
    assert!(!kvm.contains("PCI_RESOURCE"), "{kvm}");
}

/// Once the node's agent has made its folder for pods, they see what it has there, and cannot write to it.
fn agent(cluster: &Cluster, node: &Node<'_>) {
    node.sh("mkdir -p /run/pinion/pods && echo here > /run/pinion/pods/agent.sock");
    node.until_allocatable(&[("pinion.dev/agent", "1k")]);
    let says = "cat /run/pinion/agent/agent.sock; touch /run/pinion/agent/x || echo SAID; sleep 3600";
    cluster::apply(cluster, &pod_of("agent", "memory: 16Mi, pinion.dev/agent: 1", says));
    let said = cluster.until(&["logs", "agent"], LONG, |text| text.contains("SAID")).unwrap();
    assert!(said.contains("here\n"), "{said}");
}

/// A device that fails while a pod has it: told in the pod's status.
fn failing(cluster: &Cluster, node: &Node<'_>, edus: [&str; 2]) {
    let path = "jsonpath={.status.containerStatuses[0].allocatedResourcesStatus[*].resources[*].health}";
    let health = |wanted: &str| {
        cluster.until(&["get", "pod", "one", "-o", path], SOON, |text| text == wanted).unwrap();
    };
    health("Healthy");
    edus.iter().for_each(|edu| node.unbind(edu));
    health("Unhealthy");
    node.until_allocatable(&[("example.com/edu", "0")]);
    edus.iter().for_each(|edu| node.bind(edu));
    health("Healthy");
    node.until_allocatable(&[("example.com/edu", "2")]);
}

/// Devices that are taken away from the kernel, and pulled out of the machine; and put in again.
fn unplugged(node: &Node<'_>, drive: &str) {
    node.sh(&format!("echo 1 > /sys/bus/pci/devices/{drive}/remove"));
    node.until_allocatable(&[("example.com/drive", "0")]);
    node.sh("echo 1 > /sys/bus/pci/rescan");
    node.bind(drive);
    node.until_allocatable(&[("example.com/drive", "1")]);
    let plugged = "ls -d /sys/bus/pci/devices/* | wc -l";
    let before = node.sh(plugged);
    node.monitor("device_del device8");
    node.until_allocatable(&[("example.com/drive", "0")]);
    assert_ne!(node.sh(plugged), before);
}

/// The port of a device reports a fatal error (data link protocol): the kernel resets what is below it, and nobody is given the
/// device until somebody has bound it anew. QEMU's card has no errors of its own to report.
fn fatal(node: &Node<'_>, card: &str) {
    node.monitor("pcie_aer_inject_error port3 DLP");
    node.until_allocatable(&[("example.com/card", "0")]);
    node.unbind(card);
    node.bind(card);
    node.until_allocatable(&[("example.com/card", "1")]);
}

/// Two hundred devices appear, virtual functions that are bound one by one.
fn many(node: &Node<'_>) {
    let script = "cd /sys/bus/pci/devices
        for parent in 0000:24:00.0 0000:25:00.0; do
            echo 0 > $parent/sriov_drivers_autoprobe
            echo 100 > $parent/sriov_numvfs
            for function in $parent/virtfn*; do
                echo vfio-pci > $function/driver_override
                basename $(readlink -f $function) > /sys/bus/pci/drivers_probe
            done
        done";
    node.sh_within(script, LONG);
    node.until_allocatable(&[("example.com/function", "200")]);
}

/// A kubelet that starts anew forgets all plugins and removes their sockets; somebody deletes them, too.
fn restarted(node: &Node<'_>) {
    let names = [
        "devices.kubevirt.io/kvm",
        "example.com/edu",
        "lab-1.example.com/pair.of-two",
        "example.com/function",
    ];
    let all = [(names[0], "1k"), (names[1], "2"), (names[2], "1"), (names[3], "200")];
    node.sh("kill $(pidof kubelet); while pidof kubelet > /dev/null; do sleep 0.1; done; start-kubelet");
    node.until_registered(&names.map(|name| (name, 0)));
    node.until_allocatable(&all);
    let before = names.map(|name| (name, node.registrations(name)));
    node.sh("cd /var/lib/kubelet/device-plugins && ls && rm $(ls | grep pinion)");
    node.until_registered(&before);
    node.until_allocatable(&all);
}

/// Each error by line and field; what was offered before still is.
fn wrong_file(cluster: &Cluster, node: &Node<'_>) {
    let wrong = NAMES.replace("vendor: \"1234\"", "vendor: \"12345\"").replace("class:", "clas:");
    node.put("/etc/pinion/devices.yaml", &wrong);
    let words =
        ["logs", "-n", "pinion-system", "-l", "app.kubernetes.io/name=pinion-device-plugin", "--tail=50"];
    let log = cluster.until(&words, SOON, |text| text.contains("is not followed")).unwrap();
    for said in [
        "line 6, column 13: resources[0].select[0].vendor: \"12345\" is not an id",
        "line 10, column 13: resources[2].select[0].clas: unknown field, did you mean \"class\"?",
    ] {
        assert!(log.contains(said), "{said}: {log}");
    }
    node.until_allocatable(&[("example.com/edu", "2"), ("lab-1.example.com/pair.of-two", "1")]);
    node.put("/etc/pinion/devices.yaml", NAMES);
}

/// The plugin killed twenty times while pods come and go: nothing is lost in the end, and nobody's device is taken.
fn killed(cluster: &Cluster, node: &Node<'_>) {
    // The kubelet starts a container that fails ever later: here, a loop starts it at once.
    cluster::in_workspace(cluster, &["delete", "-k", "manifests/device-plugin", "--wait=true"]);
    node.sh(&format!("{}{PLUGIN}", unpacked(cluster::IMAGE, "/run/plugin")));
    node.sh("setsid sh -c 'for i in $(seq 20); do until p=$(pidof pinion); do sleep 0.1; done; sleep 0.5; kill -9 $p; done; \
             touch /run/killed' > /dev/null 2>&1 < /dev/null &");
    let mut rounds = 0;
    while node.sh("[ -e /run/killed ] && echo yes; true").is_empty() {
        rounds += 1;
        cluster::apply(
            cluster,
            &pod("load", "memory: 16Mi, devices.kubevirt.io/kvm: 1, devices.kubevirt.io/tun: 1"),
        );
        cluster.kubectl(&["delete", "pod", "load", "--wait=true"]).unwrap();
        assert!(rounds < 200, "twenty kills take too long");
    }
    node.until_allocatable(&[
        ("devices.kubevirt.io/kvm", "1k"),
        ("example.com/edu", "2"),
        ("lab-1.example.com/pair.of-two", "1"),
        ("example.com/function", "200"),
    ]);
    let phase =
        |name: &str| cluster.kubectl(&["get", "pod", name, "-o", "jsonpath={.status.phase}"]).unwrap();
    assert_eq!([phase("one"), phase("two")], ["Running", "Running"]);
    // The one device of node 1 that is left goes to whoever asks next.
    cluster::apply(cluster, &pod("after", "memory: 16Mi, example.com/edu: 1"));
    let said = cluster.until(&["logs", "after"], LONG, |text| text.contains("SAID")).unwrap();
    assert!(said.contains("PCI_RESOURCE_EXAMPLE_COM_EDU=") && said.contains("\nvfio\n"), "{said}");
    assert!(node.sh("cat /etc/cdi/*.json").contains("0000:31:00.0"));
}
