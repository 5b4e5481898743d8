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

/// A guest with one core to itself.
const SPEC: &str = include_str!("lab/one-core.yaml");

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

/// Waits until every file is as it was, and says which are not.
fn restored(lab: &Lab, before: &str) {
    let mut after = String::new();
    for _ in 0..20 {
        after = must(lab, ALL_FILES, QUICK);
        if after == before {
            return;
        }
        must(lab, "sleep 1", QUICK);
    }
    let differ: Vec<_> = before.lines().zip(after.lines()).filter(|(was, is)| was != is).collect();
    panic!("before and after: {differ:#?}\n{}", must(lab, "cat /agent.log; ps", QUICK));
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
        "for i in $(seq 120); do pinion logs {name} | grep -q STAYING && exit 0; sleep 1; done; \
            pinion logs {name}; exit 1"
    );
    let output = sh(lab, &wait, LONG);
    assert!(output.success(), "{}", both(&output));
}

fn isolated(lab: &Lab, count: usize) {
    let ps = must(lab, "pinion ps -o wide", QUICK);
    println!("{ps}");
    assert_eq!(ps.matches(" isolated ").count(), count, "{ps}");
    assert_eq!(ps.matches(" holds ").count(), count, "{ps}");
}

#[test]
fn three_guests_have_their_cpus_and_a_fourth_is_refused() {
    on_lab("agent", &Shape::small(), SCRIPT, &Files::new(), |lab| {
        let before = must(lab, ALL_FILES, QUICK);
        start_agent(lab);
        pages_are_made(lab);
        for name in ["a", "b", "c"] {
            start_guest(lab, name);
        }
        isolated(lab, 3);
        write_spec(lab, "d");
        let output = sh(lab, "pinion run --detach /d.yaml", LONG);
        assert_eq!(output.code, Some(3), "{}", both(&output));
        asked_from_outside(lab);
        must(lab, "kill -9 $(cat /agent.pid)", QUICK);
        isolated(lab, 3);
        start_agent(lab);
        isolated(lab, 3);
        let output = must(lab, "pinion stop a b c", LONG);
        assert_eq!(output.matches("stopped").count(), 3, "{output}");
        end_agent(lab);
        restored(lab, &before);
    });
}

/// Huge pages that a guest needs and that are not there are made on its node, and given back.
fn pages_are_made(lab: &Lab) {
    let set = |count: u32| {
        let set = format!(
            "for n in 0 1; do echo {count} > /sys/devices/system/node/node$n/hugepages/hugepages-2048kB/nr_hugepages; done"
        );
        must(lab, &set, QUICK)
    };
    let pages = "cat /sys/devices/system/node/node*/hugepages/hugepages-2048kB/nr_hugepages";
    set(40);
    write_spec(lab, "a");
    let plan = must(lab, "pinion plan /a.yaml", QUICK);
    assert!(plan.contains("huge pages to be made: 24 of 2 MiB on node 0"), "{plan}");
    start_guest(lab, "a");
    assert_eq!(must(lab, pages, QUICK), "64\n40\n");
    must(lab, "pinion stop a", LONG);
    must(
        lab,
        &format!("for i in $(seq 100); do {pages} | grep -q 64 || exit 0; sleep 0.1; done; exit 1"),
        QUICK * 2,
    );
    assert_eq!(must(lab, pages, QUICK), "40\n40\n");
    set(160);
}

fn end_agent(lab: &Lab) {
    let end =
        "kill $(cat /agent.pid); for i in $(seq 100); do pidof pinion || exit 0; sleep 0.1; done; exit 1";
    must(lab, end, QUICK);
}

/// Console, logs, inspection, audit and the pages, from another terminal and by others.
fn asked_from_outside(lab: &Lab) {
    let typed = "(echo hello; sleep 3) | pinion console b > /typed; pinion logs b; cat /typed";
    assert!(must(lab, typed, LONG).contains("HEARD hello"));
    let inspected = must(lab, "pinion inspect a", QUICK);
    for key in ["\"kind\": \"Guest\"", "\"isolation\": \"isolated\"", "\"placement\"", "\"certificate\""] {
        assert!(inspected.contains(key), "{key}: {inspected}");
    }
    assert_eq!(must(lab, "pinion audit", LONG).matches("verdict holds").count(), 3);
    assert_eq!(sh(lab, "pinion stop nobody", QUICK).code, Some(2));
    let metrics = must(lab, "wget -q -O - http://127.0.0.1:9180/metrics", QUICK);
    for sample in [
        "pinion_node_guests{state=\"committed\"} 3",
        "pinion_vmi_isolation_info{isolation=\"isolated\",name=\"a\",namespace=\"default\"} 1",
        "pinion_agent_silent_guests 0",
    ] {
        assert!(metrics.contains(sample), "{sample}: {metrics}");
    }
    assert_eq!(metrics.matches("kubevirt_vmi_info{").count(), 3, "{metrics}");
    assert!(must(lab, "wget -q -O - http://127.0.0.1:9180/", QUICK).contains("default/c"));
}

/// What the ledger and the host say when each step of the agent is just done, for the guest of that name.
const STEPS: [(&str, &str); 6] = [
    ("reserved", "grep -q '\"owner\": \"default/c\"' $L"),
    ("wished", "[ $(grep -c '\"quietCpus\": true' $L) -ge 3 ]"),
    (
        "handed over",
        "[ $(grep -c '\"state\": \"reserved\"' $L) -ge 1 ] && pidof pinion-launcher | grep -q ' .* '",
    ),
    ("committed", "[ $(grep -c '\"state\": \"committed\"' $L) -ge 3 ]"),
    ("grouped", "[ $(ls -d /sys/fs/cgroup/pinion.*/cpus-* | wc -l) -ge 5 ]"),
    ("isolated", "[ $(cat /sys/fs/cgroup/pinion.*/cpuset.cpus.partition | grep -c isolated) -ge 3 ]"),
];

#[test]
fn an_agent_that_is_killed_at_any_step_loses_nothing() {
    on_lab("killed", &Shape::small(), SCRIPT, &Files::new(), |lab| {
        let before = must(lab, ALL_FILES, QUICK);
        must(lab, "(while [ ! -e /end ]; do pinion agent 2>> /agent.log; done) & true", QUICK);
        must(
            lab,
            "for i in $(seq 100); do [ -S /run/pinion/agent.sock ] && exit 0; sleep 0.1; done; exit 1",
            LONG,
        );
        start_guest(lab, "a");
        start_guest(lab, "b");
        write_spec(lab, "c");
        let waits = "for t in $(pidof pinion-launcher); do for s in /proc/$t/task/*; do \
            grep -q vcpu $s/comm && cut -d' ' -f2 $s/schedstat; done; done";
        let waited =
            |lab: &Lab| -> u64 { must(lab, waits, QUICK).lines().map(|l| l.parse::<u64>().unwrap()).sum() };
        let first = waited(lab);
        for (step, reached) in STEPS {
            let kill = format!(
                "L=/run/pinion/ledger.json; (pinion run -d /c.yaml; echo \"code $?\") > /c.log 2>&1 & \
                    for i in $(seq 30000); do {reached} && break; done 2> /dev/null; kill -9 $(pidof pinion | tr ' ' '\n' | \
                    while read p; do grep -q agent /proc/$p/cmdline && echo $p; done); wait; cat /c.log"
            );
            let said = must(lab, &kill, LONG);
            assert!(said.ends_with("code 0\n"), "{step}: {said}");
            isolated(lab, 3);
            let twice = must(lab, "grep -c owner /run/pinion/ledger.json", QUICK);
            assert_eq!(twice, "3\n", "{step}");
            must(lab, "pinion stop c", LONG);
        }
        let more = waited(lab).saturating_sub(first);
        println!("vCPUs of a and b waited {} ms for their CPUs meanwhile", more / 1_000_000);
        let kills = must(lab, "grep -c ready /agent.log", QUICK);
        assert_eq!(kills.trim(), (STEPS.len() + 1).to_string(), "{}", must(lab, "cat /agent.log", QUICK));
        must(lab, "pinion stop a b; touch /end; kill $(pidof pinion); exit 0", LONG);
        restored(lab, &before);
    });
}

/// Lines about single interrupts, and the others.
fn by_interrupts(files: &str) -> (Vec<&str>, Vec<&str>) {
    files.lines().partition(|line| line.contains("smp_affinity_list"))
}

/// Loads every CPU that it may, resets every interrupt, and moves threads about.
const ADVERSARIES: &str = "
    for i in $(seq 8); do (while [ ! -e /enough ]; do :; done) & done
    (while [ ! -e /enough ]; do for f in /proc/irq/*/smp_affinity_list; do echo 0-7 > $f; done; sleep 0.3; done) 2> /dev/null &
    (while [ ! -e /enough ]; do for s in /proc/$(pidof pinion-launcher)/task/*; do \
        taskset -p 1 ${s##*/}; taskset -p ff ${s##*/}; taskset -p 1 ${s##*/}; done; taskset -p 30 $$; sleep 0.5; done) \
        > /dev/null 2>&1 & true";

/// Tasks that are not the guest's and may run on its CPUs, but for threads that the kernel binds to a CPU.
const INTRUDERS: &str = r#"G=$(pidof pinion-launcher)
    grep -E '^(Name|Cpus_allowed_list)' /proc/[0-9]*/task/*/status 2> /dev/null | awk -F '[:\t]+' -v G=$G '
        { split($1, path, "/") }
        $2 == "Name" { name = $3 }
        $2 != "Name" && path[3] != G && name !~ /\// && ("," $3 ",") ~ /,4,|,5,|,4-5,|0-7|2-7|3-/ { print name, $3 }'"#;

#[test]
fn guests_stay_alone_whatever_others_do() {
    on_lab("adversaries", &Shape::small(), SCRIPT, &Files::new(), |lab| {
        let before = must(lab, ALL_FILES, QUICK);
        start_agent(lab);
        start_guest(lab, "a");
        must(lab, ADVERSARIES, QUICK);
        must(
            lab,
            "echo member > /sys/fs/cgroup/pinion.$(pidof pinion-launcher)/cpuset.cpus.partition",
            QUICK,
        );
        must(lab, "sleep 15", LONG);
        println!("{}", must(lab, "cat /agent.log; pinion ps -o wide", LONG));
        assert_eq!(must(lab, INTRUDERS, LONG), "");
        let scrape = "for i in $(seq 20); do wget -q -O /metrics http://127.0.0.1:9180/metrics; \
            grep -q 'silent_guests 0' /metrics && break; done; cat /metrics";
        let metrics = must(lab, scrape, LONG);
        let value = |start: &str| -> f64 {
            let of = metrics.lines().filter(|l| l.starts_with(start));
            of.map(|l| l.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
        };
        assert!(value("pinion_node_drift_total{cause=\"interrupt\"}") >= 1.0, "{metrics}");
        assert!(value("pinion_node_repairs_total{cause=\"interrupt\"}") >= 1.0, "{metrics}");
        assert!(value("pinion_node_repairs_total{cause=\"cgroup\"}") >= 1.0, "{metrics}");
        assert!(must(lab, "pinion ps", LONG).contains(" isolated "), "its partition was made again");
        assert!(value("pinion_vmi_drift_total{cause=\"cpus\"") >= 1.0, "{metrics}");
        assert!(value("pinion_vmi_repairs_total{cause=\"cpus\"") >= 1.0, "{metrics}");
        assert!(value("pinion_node_events_total{kind=\"write\"}") >= 1.0, "{metrics}");
        let log = must(lab, "cat /agent.log", QUICK);
        assert!(log.contains("sh (process"), "who did it is named: {log}");
        let given_up = log.contains("changes it again and again; it is left so for 60 s");
        assert!(given_up, "a fight is not fought for ever: {log}");
        must(lab, "touch /enough; sleep 1", QUICK);
        must(lab, "pinion stop a", LONG);
        end_agent(lab);
        // Interrupts are as the adversary wanted them: that is what the host wants now.
        let after = must(lab, ALL_FILES, QUICK);
        let (irqs, others) = by_interrupts(&after);
        assert!(irqs.iter().all(|line| line.ends_with(" 0-7")), "{irqs:?}");
        assert_eq!(others, by_interrupts(&before).1);
    });
}
