//! A guest in what looks like a pod: a container's control group made by hand, a kubelet that tells of it, and a launcher
//! that is nobody, in a PID namespace of its own. The agent does from outside what the launcher may not.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod lab;

use std::path::Path;

use lab::{LONG, QUICK, both, must, on_lab, sh};
use pinion_lab::{Files, Lab, Programs, Shape};

/// Says that it is up, and stays until the power button.
const SCRIPT: &str = "
modprobe -a button evdev 2> /dev/null
(cat /dev/input/event0 | head -c 1 > /dev/null; poweroff -f) &
echo STAYING
while true; do sleep 1; done
";

/// A guest with one core to itself, in a real-time class, which the launcher may not take by itself.
const INSTANCE: &str = r#"{
    "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance",
    "metadata": {"name": "a", "namespace": "lab"},
    "spec": {"terminationGracePeriodSeconds": 60, "domain": {
        "cpu": {"cores": 1, "threads": 2, "dedicatedCpuPlacement": true, "numa": {"guestMappingPassthrough": {}},
                "realtime": {}},
        "memory": {"guest": "128Mi", "hugepages": {"pageSize": "2Mi"}},
        "firmware": {"kernelBoot": {
            "kernelArgs": "quiet tsc=reliable no_timer_check rcupdate.rcu_expedited=1 mitigations=off cryptomgr.notests",
            "container": {"image": "example.com/kernel", "kernelPath": "/vmlinuz", "initrdPath": "/initrd"}
        }},
        "devices": {"autoattachPodInterface": false}
    }}
}"#;

/// The container's group, where the kubelet would make it. Its CPUs are the second node's first core.
const GROUP: &str = "/sys/fs/cgroup/kubepods/pod0c2c4ce4-9d43/ab12";

/// What the kubelet and the container runtime would have made, with a quota that would stop the guest half of the time. The agent's
/// folder for pods is where the device plugin has it mounted, read-only and before there is an agent.
const CONTAINER: &str = "
    cd /sys/fs/cgroup && echo '+cpuset +cpu' > cgroup.subtree_control
    mkdir kubepods && echo '+cpuset +cpu' > kubepods/cgroup.subtree_control
    mkdir kubepods/pod0c2c4ce4-9d43 && echo '+cpuset +cpu' > kubepods/pod0c2c4ce4-9d43/cgroup.subtree_control
    mkdir kubepods/pod0c2c4ce4-9d43/ab12
    echo 4-5 > kubepods/pod0c2c4ce4-9d43/ab12/cpuset.cpus
    echo 50000 100000 > kubepods/pod0c2c4ce4-9d43/ab12/cpu.max
    mkdir -p /var/log/pods/lab_virt-launcher-a_0c2c4ce4-9d43 /var/lib/kubelet/pod-resources
    echo 'nobody:x:65534:65534::/:/bin/sh' > /etc/passwd && echo 'nobody:x:65534:' > /etc/group
    mkdir -p /run/pinion/pods /run/pinion/agent
    mount -o bind /run/pinion/pods /run/pinion/agent && mount -o remount,bind,ro /run/pinion/agent
    mkdir -m 777 /pod && chmod 666 /dev/kvm
    mkdir -p /run/pinion && cp -r /var/lib/pinion/debian /run/pinion/kernel
    fake-kubelet /var/lib/kubelet/pod-resources/kubelet.sock lab virt-launcher-a 4-5 2-7 2> /kubelet.log &
    sleep 1";

/// The launcher, as a container runtime would start it: the first process of its PID namespace.
const LAUNCHER: &str = "
    (echo $(exec sh -c 'echo $PPID') > GROUP/cgroup.procs
     POD_NAMESPACE=lab POD_NAME=virt-launcher-a unshare -m -p -f --mount-proc=/proc \
        start-stop-daemon -S -c nobody -x /usr/bin/pinion-launcher -- pod --instance /vmi.json --status /pod/status.json --audit-interval 1 > /pod/console 2> /pod/log
     echo $? > /pod/code) &
    sleep 1";

/// Starts the agent, and waits until it serves.
fn start_agent(lab: &Lab) {
    let start = "pinion agent 2>> /agent.log & echo $! > /agent.pid; \
        for i in $(seq 300); do pinion_up=$(wget -q -O - http://127.0.0.1:9180/readyz) && exit 0; sleep 0.1; done; \
        cat /agent.log; exit 1";
    must(lab, start, LONG);
}

/// Waits for something, and prints what there is to know where it does not come.
fn wait(lab: &Lab, condition: &str) {
    let wait = format!(
        "for i in $(seq 150); do {condition} && exit 0; \
         [ -e /pod/code ] && [ $i -gt 20 ] && break; sleep 1; done; \
         cat /pod/log /pod/status.json /pod/console /agent.log /kubelet.log; exit 1"
    );
    let output = sh(lab, &wait, LONG);
    assert!(output.success(), "{condition}: {}", both(&output));
}

/// The launcher's threads: name and CPUs that they may run on.
fn threads(lab: &Lab) -> Vec<(String, String)> {
    let script = "for s in /proc/$(pidof pinion-launcher)/task/*/status; do \
        awk -F '\t' '/^Name/ {n=$2} /^Cpus_allowed_list/ {print n \"=\" $2}' $s; done";
    let text = must(lab, script, QUICK);
    text.lines().filter_map(|l| l.split_once('=')).map(|(n, c)| (n.to_owned(), c.to_owned())).collect()
}

/// vCPUs on their own CPUs, everything else on the CPUs that the kubelet reserves.
fn everything_is_in_its_place(lab: &Lab) {
    let threads = threads(lab);
    let (vcpus, others): (Vec<_>, Vec<_>) = threads.iter().partition(|(name, _)| name.starts_with("vcpu"));
    let mut own: Vec<&str> = vcpus.iter().map(|(_, cpus)| cpus.as_str()).collect();
    own.sort_unstable();
    assert_eq!(own, ["4", "5"], "{threads:?}");
    assert!(others.len() >= 3 && others.iter().all(|(_, cpus)| cpus == "0-1"), "{threads:?}");
}

#[test]
fn a_guest_runs_in_its_pod_as_nobody_and_on_the_pods_cpus() {
    let kubelet = Programs::built().unwrap().example("pinion-pod-resources", "fake-kubelet", "fake").unwrap();
    let files = Files::new().with_program(Path::new("/usr/bin/fake-kubelet"), &kubelet).unwrap();
    on_lab("pod-guest", &Shape::small(), SCRIPT, &files, |lab| {
        lab.put("/vmi.json", INSTANCE.as_bytes(), 0o644).unwrap();
        must(lab, CONTAINER, QUICK);
        must(lab, &LAUNCHER.replace("GROUP", GROUP), QUICK);
        wait(lab, "grep -q 'waiting for the node' /pod/log");
        start_agent(lab);
        wait(lab, "grep -q STAYING /pod/console");
        let status = must(lab, "cat /pod/status.json", QUICK);
        println!("{status}{}", must(lab, "cat /pod/log", QUICK));
        for said in
            ["\"phase\": \"Running\"", "\"verdict\": \"holds\"", "\"isolation\": \"pinned\"", "\"startedAt\""]
        {
            assert!(status.contains(said), "{said}: {status}");
        }
        everything_is_in_its_place(lab);
        let groups =
            must(lab, &format!("cd {GROUP}; grep -H . pinion.*/cpuset.cpus.effective; cat cpu.max"), QUICK);
        for said in
            ["pinion.cpus-4/cpuset.cpus.effective:4\n", "pinion.cpus-5/", "pinion.cpus-0-1/", "max 100000"]
        {
            assert!(groups.contains(said), "{said}: {groups}");
        }
        let uid = must(
            lab,
            "awk '/^Uid/ {print $2} /^CapEff/ {print $2}' /proc/$(pidof pinion-launcher)/status",
            QUICK,
        );
        assert_eq!(uid, "65534\n0000000000000000\n");
        asked_from_the_node(lab);
        an_agent_that_is_killed_disturbs_nothing(lab);
        what_a_kubelet_writes_is_put_back(lab);
        must(lab, "kill $(pidof pinion-launcher)", QUICK);
        wait(lab, "[ -e /pod/code ]");
        let end = must(lab, "cat /pod/code /pod/status.json", QUICK);
        assert!(end.starts_with("0\n") && end.contains("\"phase\": \"Succeeded\""), "{end}");
        wait(lab, "pinion ps 2>&1 | grep -q 'No guest'");
        // A container runtime takes away what it knows of, and no groups inside.
        must(lab, &format!("rmdir {GROUP}"), QUICK);
    });
}

/// The guest's socket is where all are: the launcher got it from the agent, and has nothing of the node's.
fn asked_from_the_node(lab: &Lab) {
    let ps = must(lab, "pinion ps -o wide", QUICK);
    assert!(ps.contains(" pinned ") && ps.contains(" holds "), "{ps}");
    assert!(must(lab, "pinion logs lab/a", QUICK).contains("STAYING"));
}

fn an_agent_that_is_killed_disturbs_nothing(lab: &Lab) {
    must(lab, "kill -9 $(cat /agent.pid)", QUICK);
    everything_is_in_its_place(lab);
    start_agent(lab);
    everything_is_in_its_place(lab);
    let guests = must(lab, "wget -q -O - http://127.0.0.1:9180/metrics | grep pinion_node_guests", QUICK);
    assert!(guests.contains("state=\"committed\"} 1"), "{guests}");
}

/// A kubelet that is started anew gives the container its own CPUs only.
fn what_a_kubelet_writes_is_put_back(lab: &Lab) {
    must(lab, &format!("echo 4-5 > {GROUP}/cpuset.cpus"), QUICK);
    wait(lab, &format!("[ $(cat {GROUP}/cpuset.cpus) = 0-1,4-5 ]"));
    everything_is_in_its_place(lab);
    wait(lab, "grep -q 'changed the CPUs of the container of lab/a' /agent.log");
    wait(lab, "grep -q '\"verdict\": \"holds\"' /pod/status.json");
}
