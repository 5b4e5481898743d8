//! The node agent on a lab host: guests come, are kept, and go, whoever is killed meanwhile.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod lab;

use lab::{LONG, QUICK, both, must, on_lab, sh};
use pinion_lab::{Files, Lab, Shape};

/// Says that it is up, and stays until the power button.
const SCRIPT: &str = "
modprobe -a button evdev 2> /dev/null
(cat /dev/input/event0 | head -c 1 > /dev/null; poweroff -f) &
echo STAYING
while read -r line; do echo \"HEARD $line\"; done
while true; do sleep 1; done
";

const SPEC: &str = r#"
apiVersion: kubevirt.io/v1
kind: VirtualMachineInstance
metadata: {name: NAME}
spec:
  terminationGracePeriodSeconds: 1
  domain:
    cpu: {cores: 1, threads: 2, dedicatedCpuPlacement: true, numa: {guestMappingPassthrough: {}}}
    memory: {guest: 128Mi, hugepages: {pageSize: 2Mi}}
    firmware:
      kernelBoot:
        kernelArgs: quiet
        container: {image: "file:/var/lib/pinion/debian", kernelPath: /vmlinuz, initrdPath: /initrd}
    devices: {autoattachPodInterface: false}
"#;

/// Every file that may be changed for guests, with its content.
const ALL_FILES: &str = "cd /; for f in proc/irq/default_smp_affinity proc/irq/*/smp_affinity_list \
    sys/devices/virtual/workqueue/cpumask proc/sys/kernel/watchdog_cpumask proc/sys/kernel/nmi_watchdog \
    proc/sys/kernel/numa_balancing proc/sys/kernel/sched_rt_runtime_us proc/sys/kernel/timer_migration \
    proc/sys/vm/stat_interval proc/sys/vm/compaction_proactiveness sys/kernel/mm/ksm/run \
    sys/kernel/mm/transparent_hugepage/khugepaged/defrag \
    sys/devices/system/cpu/cpu*/power/pm_qos_resume_latency_us \
    sys/class/net/*/queues/*/rps_cpus sys/class/net/*/queues/*/xps_cpus \
    sys/devices/system/node/node*/hugepages/*/nr_hugepages sys/devices/system/node/node*/hugepages/*/free_hugepages \
    sys/fs/cgroup/cgroup.subtree_control sys/fs/cgroup/cpuset.cpus.effective; do \
    echo \"$f $(cat $f 2>&1)\"; done; ls -d sys/fs/cgroup/pinion.* 2>/dev/null; ls run/pinion/guests 2>/dev/null; true";

fn write_spec(lab: &Lab, name: &str) {
    lab.put(&format!("/{name}.yaml"), SPEC.replace("NAME", name).as_bytes(), 0o644).unwrap();
}

/// Starts the agent, and waits until it serves.
fn start_agent(lab: &Lab) {
    let start = "pinion agent 2>> /agent.log & echo $! > /agent.pid; \
        for i in $(seq 300); do pinion_up=$(wget -q -O - http://127.0.0.1:9180/readyz) && exit 0; sleep 0.1; done; \
        cat /agent.log; exit 1";
    must(lab, start, LONG);
}

fn start_guest(lab: &Lab, name: &str) {
    write_spec(lab, name);
    let output = sh(lab, &format!("pinion run --detach /{name}.yaml"), LONG);
    assert!(output.success(), "{}", both(&output));
    let wait = format!(
        "for i in $(seq 1200); do pinion logs {name} | grep -q STAYING && exit 0; sleep 0.1; done; \
            pinion logs {name}; exit 1"
    );
    must(lab, &wait, LONG);
}

fn isolated(lab: &Lab, count: usize) {
    let ps = must(lab, "pinion ps -o wide", QUICK);
    println!("{ps}");
    assert_eq!(ps.matches(" isolated ").count(), count, "{ps}");
    assert_eq!(ps.matches(" holds ").count(), count, "{ps}");
}

#[test]
fn guests_are_kept_whoever_is_killed() {
    on_lab("agent", &Shape::small(), SCRIPT, &Files::new(), |lab| {
        let before = must(lab, ALL_FILES, QUICK);
        start_agent(lab);
        for name in ["a", "b", "c"] {
            start_guest(lab, name);
        }
        isolated(lab, 3);
        write_spec(lab, "d");
        let output = sh(lab, "pinion run --detach /d.yaml", LONG);
        assert_eq!(output.code, Some(3), "{}", both(&output));
        must(lab, "kill -9 $(cat /agent.pid)", QUICK);
        isolated(lab, 3);
        start_agent(lab);
        isolated(lab, 3);
        let output = must(lab, "pinion stop a b c", LONG);
        assert_eq!(output.matches("stopped").count(), 3, "{output}");
        println!("{}", must(lab, "cat /agent.log", QUICK));
        must(
            lab,
            "sleep 1; kill $(cat /agent.pid); for i in $(seq 100); do pidof pinion || break; sleep 0.1; done",
            QUICK,
        );
        assert_eq!(must(lab, ALL_FILES, QUICK), before);
    });
}
