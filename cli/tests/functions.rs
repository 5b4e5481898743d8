//! A virtual function of a drive, a display controller, and memory behind an 8 GiB BAR, in one guest: bound for it,
//! used from inside, their interrupts where the certificate says, the host quiet meanwhile and as it was after.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

#[path = "lab/forced.rs"]
mod forced;
mod lab;
#[path = "lab/libvirt.rs"]
mod libvirt;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use lab::{LONG, QUICK, both, must, on_lab, sh};
use pinion_lab::{Files, Lab, Shape};
use serde_json::Value;

const PARENT: &str = "0000:31:00.0";
const FUNCTION: &str = "0000:31:00.1";
const DISPLAY: &str = "0000:32:00.0";
const MEMORY: &str = "0000:22:00.0";

/// The guest reads until the host, through the parent, writes `stop` to the drive that they share.
const SCRIPT: &str = r#"
modprobe nvme
drive() { for i in $(seq 100); do [ -b /dev/nvme0n1 ] && break; sleep 0.2; done; }
sector() { echo 3 > /proc/sys/vm/drop_caches; dd if=/dev/nvme0n1 bs=4096 skip=$1 count=1 2>/dev/null | tr -d '\0'; }
drive
echo "READ $(sector 0)"
echo written-by-guest | dd of=/dev/nvme0n1 bs=4096 seek=3 conv=sync,fsync 2>/dev/null
echo "BACK $(sector 3)"
bar() {
    d=$(grep -l $1 /sys/bus/pci/devices/*/class | tail -n 1); d=${d%/class}
    printf '\006\000' | dd of=$d/config bs=1 seek=4 conv=notrunc 2>/dev/null
    set -- $(sed -n $2p $d/resource); start=$1; size=$(($2 - $1 + 1))
}
at() { printf '0x%x' $((start + $1)); }
bar 0x030000 1
devmem $(at 0) 32 0xC0FFEE01; devmem $(at $((size - 4))) 32 0x5EED0001
echo "DISPLAY $((size >> 20)) MiB $(devmem $(at 0) 32) $(devmem $(at $((size - 4))) 32)"
bar 0x050000 3
devmem $(at 0) 32 0xC0FFEE02; devmem $(at 0x140000000) 32 0x5EED0002; devmem $(at $((size - 4))) 32 0x12340002
echo "MEMORY $((size >> 30)) GiB $(devmem $(at 0) 32) $(devmem $(at 0x140000000) 32) $(devmem $(at $((size - 4))) 32)"
echo "INTERRUPTS $(grep nvme /proc/interrupts | awk '{ for (i = 2; i <= 3; i++) n += $i } END { print (n > 0 ? "some" : "none") }')"
echo FIRST
grep -q stay /proc/cmdline && sleep 600
until [ "$(sector 7)" = reload ]; do sleep 0.3; done
rmmod nvme && modprobe nvme
drive
echo "AGAIN $(sector 0)"
echo SECOND
until [ "$(sector 7)" = stop ]; do sleep 0.3; done
"#;

const SPEC: &str = r#"
apiVersion: kubevirt.io/v1
kind: VirtualMachineInstance
metadata: {name: functions}
spec:
  terminationGracePeriodSeconds: 2
  domain:
    cpu: {cores: 2, threads: 1, dedicatedCpuPlacement: true}
    memory: {guest: 128Mi, hugepages: {pageSize: 2Mi}}
    firmware:
      kernelBoot:
        kernelArgs: "quiet iomem=relaxed tsc=reliable no_timer_check rcupdate.rcu_expedited=1 mitigations=off cryptomgr.notests"
        container: {image: "file:/var/lib/pinion/debian", kernelPath: /vmlinuz, initrdPath: /initrd}
    devices:
      autoattachPodInterface: false
      interfaces: [{name: memory, sriov: {}}]
      gpus: [{name: gpu, deviceName: example.com/gpu}]
      hostDevices:
        - {name: function, deviceName: example.com/function}
  networks: [{name: memory, multus: {networkName: example.com/memory}}]
"#;

const NAMES: &str = r#"
apiVersion: pinion.dev/v1alpha1
kind: DeviceResources
resources:
- {name: example.com/gpu, select: [{class: "03", node: 1}]}
- {name: example.com/function, select: [{parent: "0000:31:00.0"}]}
- {name: example.com/memory, select: [{vendor: "1af4", device: "1110", node: 0}]}
"#;

/// A guest of one vCPU that stays.
const STAY: &str = "sed 's/quiet/quiet stay/; s/cores: 2/cores: 1/'";

/// Everything of the host that a guest may change.
const STATE: &str = "
    for d in 0000:31:00.0 0000:31:00.1 0000:32:00.0 0000:22:00.0; do
        l=$(readlink /sys/bus/pci/devices/$d/driver); echo $d ${l##*/} $(cat /sys/bus/pci/devices/$d/driver_override)
    done
    cat /proc/irq/default_smp_affinity
    grep . /proc/irq/*/smp_affinity_list
    grep . /sys/devices/system/cpu/cpu*/power/pm_qos_resume_latency_us
    grep -c vfio- /proc/interrupts; grep HugePages_Free /proc/meminfo";

/// A program for the lab that gives virtual functions their queues: no tool in the lab can.
fn nvme_admin(folder: &Path) -> std::path::PathBuf {
    let (source, program) = (folder.join("nvme-admin.c"), folder.join("nvme-admin"));
    std::fs::write(&source, include_str!("lab/nvme-admin.c")).unwrap();
    let built = Command::new("cc").args(["-static", "-O1", "-o"]).args([&program, &source]).status().unwrap();
    assert!(built.success());
    program
}

/// Makes the virtual function, with two queues and two interrupts.
fn make_function(lab: &Lab) {
    let script = format!(
        "printf from-the-host | dd of=/dev/nvme0n1 conv=sync 2>/dev/null; sync
         cd /sys/bus/pci/devices/{PARENT} && echo 0 > sriov_drivers_autoprobe && echo 1 > sriov_numvfs
         for command in '0x10108 2' '0x10008 2' '0x10009 0'; do nvme-admin /dev/nvme0 0x1c $command || exit 1; done
         [ -d /sys/bus/pci/devices/{FUNCTION} ]"
    );
    must(lab, &script, QUICK);
}

/// Where the threads of `pinion run` and of what it has started are in the kernel.
const STACKS: &str =
    "for p in $(cat /pid) $(pidof pinion-launcher qemu-system-x86_64); do grep . /proc/$p/task/*/stack; done";

fn start(lab: &Lab, change: &str) {
    let command = format!(
        "{change} /vm.yaml > /now.yaml; rm -f /console /log /cert.json
         pinion run /now.yaml --bind --devices /names.yaml --certificate /cert.json --audit-interval 1 \\
             > /console 2> /log & echo $! > /pid"
    );
    must(lab, &command, QUICK);
}

/// Waits until a line is in a file.
fn wait_for(lab: &Lab, file: &str, line: &str) {
    let script = format!(
        "end=$(($(date +%s) + 150))
         while [ $(date +%s) -lt $end ]; do grep -q '{line}' {file} && exit 0; kill -0 $(cat /pid) || break; sleep 0.3; done
         grep -q '{line}' {file} && exit 0; cat /console /log; kill -0 $(cat /pid) || exit 1; {STACKS}; exit 4"
    );
    let output = sh(lab, &script, LONG);
    match output.code {
        Some(0) => {}
        Some(4) => {
            println!("{line} did not come: {}", both(&output));
            std::panic::panic_any(lab::Frozen(line.to_owned()))
        }
        _ => panic!("{line} did not come: {}", both(&output)),
    }
}

fn wait_for_end(lab: &Lab) {
    let script = format!(
        "end=$(($(date +%s) + 60))
         while [ $(date +%s) -lt $end ]; do kill -0 $(cat /pid) 2>/dev/null || exit 0; sleep 0.3; done
         cat /log; {STACKS}; exit 1"
    );
    must(lab, &script, LONG);
}

fn tell_guest(lab: &Lab, word: &str) {
    must(
        lab,
        &format!("printf {word} | dd of=/dev/nvme0n1 bs=4096 seek=7 conv=sync,fsync 2>/dev/null"),
        QUICK,
    );
}

fn certificate(lab: &Lab) -> Value {
    serde_json::from_slice(&lab.get("/cert.json").unwrap()).unwrap()
}

/// The vectors of the virtual function, each where the certificate says and where it was planned; by number on the
/// host.
fn vectors_in_place(lab: &Lab) -> Vec<(u64, u64)> {
    let began = Instant::now();
    loop {
        let certificate = certificate(lab);
        let devices = certificate["devices"].as_array().unwrap();
        let function = devices.iter().find(|d| d["name"] == "function").unwrap();
        let mut found = Vec::new();
        let mut all_right = certificate["verdict"] == "holds";
        for vector in function["vectors"].as_array().unwrap() {
            let (irq, cpu) = (vector["irq"].as_u64().unwrap(), vector["plannedCpu"].as_u64().unwrap());
            let effective = sh(lab, &format!("cat /proc/irq/{irq}/effective_affinity_list"), QUICK);
            all_right &= effective.text().trim() == cpu.to_string()
                && vector["effectiveCpus"] == serde_json::json!([cpu]);
            found.push((irq, cpu));
        }
        if all_right && !found.is_empty() {
            return found;
        }
        assert!(began.elapsed() < Duration::from_secs(30), "{certificate:#}");
    }
}

/// No interrupt that can be moved may come to the guest's CPUs.
fn host_is_quiet(lab: &Lab, cpus: &[u64]) {
    let log = must(lab, "cat /log", QUICK);
    for cpu in cpus {
        let latency = format!("cat /sys/devices/system/cpu/cpu{cpu}/power/pm_qos_resume_latency_us");
        assert_eq!(must(lab, &latency, QUICK).trim(), "1", "{log}");
    }
    let default = must(lab, "cat /proc/irq/default_smp_affinity", QUICK);
    let default = u64::from_str_radix(default.trim(), 16).unwrap();
    assert!(cpus.iter().all(|cpu| default >> cpu & 1 == 0), "{default:x}");
    // The timer's, the parent's queues': the kernel lets nobody move those.
    let mut movable = 0;
    for irq in must(lab, "ls /proc/irq | grep '^[0-9]'", QUICK).lines() {
        let file = format!("/proc/irq/{irq}/smp_affinity_list");
        let allowed: pinion_machine::CpuSet =
            must(lab, &format!("cat {file}"), QUICK).trim().parse().unwrap();
        let here = |cpu: &u64| allowed.contains(pinion_machine::CpuId(u32::try_from(*cpu).unwrap()));
        if cpus.iter().any(here) {
            let moved = sh(lab, &format!("echo 0 > {file}"), QUICK);
            assert!(!moved.success(), "interrupt {irq} is left on {allowed}: {log}");
        } else {
            movable += 1;
        }
    }
    assert!(movable > 0);
}

/// A host with the virtual function made; the test is given what the host is like before.
fn on_host(name: &str, files: &Files, set_up: impl Fn(&Lab), test: impl Fn(&Lab, &str)) {
    let folder = tempfile::tempdir().unwrap();
    let admin = nvme_admin(folder.path());
    let files = files.clone().with_program("/usr/bin/nvme-admin", &admin).unwrap();
    on_lab(name, &Shape::devices(), SCRIPT, &files, |lab| {
        lab.put("/vm.yaml", SPEC.as_bytes(), 0o644).unwrap();
        lab.put("/names.yaml", NAMES.as_bytes(), 0o644).unwrap();
        make_function(lab);
        set_up(lab);
        let before = must(lab, STATE, QUICK);
        test(lab, &before);
    });
}

#[test]
fn functions_of_every_kind_are_used_and_their_interrupts_placed() {
    on_host(
        "functions",
        &Files::new(),
        |_| (),
        |lab, before| {
            used(lab);
            assert_eq!(must(lab, STATE, QUICK), before);
        },
    );
}

#[test]
fn functions_of_every_kind_are_used_on_qemu_and_their_interrupts_placed() {
    let Some(files) = libvirt::files(Files::new()) else { return };
    let set_up = |lab: &Lab| {
        libvirt::start(lab);
        forced::force(lab);
    };
    on_host("functions-libvirt", &files, set_up, |lab, before| {
        used(lab);
        assert_eq!(must(lab, STATE, QUICK), before);
    });
}

#[test]
fn what_cannot_be_had_is_told_and_changes_nothing() {
    on_host("refused", &Files::new(), |_| (), refused);
}

#[test]
fn the_host_is_as_before_wherever_a_launcher_is_killed() {
    on_host("killed", &Files::new(), |_| (), killed);
}

fn used(lab: &Lab) {
    start(lab, "cat");
    wait_for(lab, "/console", "^FIRST");
    let console = must(lab, "cat /console", QUICK);
    for line in [
        "READ from-the-host",
        "BACK written-by-guest",
        "DISPLAY 128 MiB 0xC0FFEE01 0x5EED0001",
        "MEMORY 8 GiB 0xC0FFEE02 0x5EED0002 0x12340002",
        "INTERRUPTS some",
    ] {
        assert!(console.contains(line), "{line}: {console}");
    }
    let bound = must(lab, &format!("readlink /sys/bus/pci/devices/{DISPLAY}/driver"), QUICK);
    assert!(bound.ends_with("vfio-pci\n"), "{bound}");
    let first = vectors_in_place(lab);
    let threads = certificate(lab)["threads"].as_array().unwrap().clone();
    let vcpus: Vec<u64> =
        threads.iter().filter(|t| t["role"] == "vcpu").map(|t| t["lastCpu"].as_u64().unwrap()).collect();
    assert!(first.iter().all(|(_, cpu)| !vcpus.contains(cpu)), "{first:?} {vcpus:?}");
    host_is_quiet(lab, &vcpus);

    let (irq, planned) = first[0];
    must(lab, &format!("echo {} > /proc/irq/{irq}/smp_affinity_list", vcpus[0]), QUICK);
    let back = format!(
        "for i in $(seq 60); do [ $(cat /proc/irq/{irq}/smp_affinity_list) = {planned} ] && exit 0; sleep 0.1; done; exit 1"
    );
    must(lab, &back, QUICK);
    vectors_in_place(lab);

    tell_guest(lab, "reload");
    wait_for(lab, "/console", "^SECOND");
    assert!(must(lab, "cat /console", QUICK).contains("AGAIN from-the-host"));
    vectors_in_place(lab);
    tell_guest(lab, "stop");
    wait_for_end(lab);
    let drive = must(lab, "dd if=/dev/nvme0n1 bs=4096 skip=3 count=1 2>/dev/null | tr -d '\\0'", QUICK);
    assert_eq!(drive.trim(), "written-by-guest");
    let log = must(lab, "cat /log", QUICK);
    assert!(log.contains(&format!("host: device {MEMORY} was given back")), "{log}");
}

/// What cannot be had is told, and leaves nothing changed.
fn refused(lab: &Lab, before: &str) {
    let run = "pinion run /vm.yaml --devices /names.yaml";
    let fails = |command: &str, code: i32, says: &str| {
        let output = sh(lab, command, LONG);
        assert_eq!(output.code, Some(code), "`{command}`: {}", both(&output));
        assert!(both(&output).contains(says), "`{command}`: {}", both(&output));
    };
    let group = format!("$(basename $(readlink /sys/bus/pci/devices/{MEMORY}/iommu_group))");
    must(lab, &format!("pinion devices bind {MEMORY}"), QUICK);
    must(lab, &format!("sleep 100 3<>/dev/vfio/{group} & echo $! > /other"), QUICK);
    fails(&format!("{run} --bind"), 1, "another process has its IOMMU group");
    must(lab, &format!("kill $(cat /other); pinion devices unbind {MEMORY}"), QUICK);
    assert_eq!(must(lab, STATE, QUICK), before);

    // A user who may have the devices, but may not lock memory.
    let all = format!("{FUNCTION} {DISPLAY} {MEMORY}");
    must(lab, &format!("pinion devices bind {all}; chmod 666 /dev/vfio/* /dev/kvm"), QUICK);
    must(lab, "grep -q tester /etc/passwd || echo 'tester:x:1000:1000::/tmp:/bin/sh' >> /etc/passwd", QUICK);
    let own = format!("su tester -c 'ulimit -l 64; {run} --ledger /tmp/ledger.json'");
    fails(&own, 1, "raise RLIMIT_MEMLOCK");
    fails(&own, 1, "interrupts and power settings of the host stay as they are");
    must(lab, &format!("pinion devices unbind {all}"), QUICK);
    assert_eq!(must(lab, STATE, QUICK), before);

    // A launcher that stands still does not let go.
    start(lab, STAY);
    wait_for(lab, "/console", "^FIRST");
    must(lab, "kill -STOP $(pidof pinion-launcher)", QUICK);
    fails(&format!("pinion devices unbind {MEMORY}"), 1, "has not let go of it within 10 s");
    must(lab, "kill -CONT $(pidof pinion-launcher)", QUICK);
    wait_for(lab, "/log", &format!("device {MEMORY}: the host took it back"));
    must(lab, "kill $(cat /pid)", QUICK);
    wait_for_end(lab);
    assert_eq!(must(lab, STATE, QUICK), before, "{}", must(lab, "cat /log", QUICK));
}

/// The launcher is killed at ten points, then `pinion run` itself, whose launcher then ends in order.
fn killed(lab: &Lab, before: &str) {
    let phases =
        ["kvm ready", "memory ready", "host devices ready", "threads ready", "kernel ready", "vcpus ready"];
    let later =
        [("/log", "verified"), ("/log", "running"), ("/console", "READ from"), ("/console", "^FIRST")];
    let points = phases.into_iter().map(|phase| ("/log", phase)).chain(later);
    for (file, line) in points {
        start(lab, STAY);
        wait_for(lab, file, line);
        must(
            lab,
            "for i in $(seq 100); do kill -9 $(pidof pinion-launcher) 2>/dev/null && exit 0; sleep 0.05; done; exit 1",
            QUICK,
        );
        wait_for_end(lab);
        assert_eq!(must(lab, STATE, QUICK), before, "killed at {line}: {}", must(lab, "cat /log", QUICK));
    }
    for point in ["was bound", "running"] {
        start(lab, STAY);
        wait_for(lab, "/log", point);
        must(lab, "kill -9 $(cat /pid)", QUICK);
        must(lab, "for i in $(seq 100); do pidof pinion-launcher || exit 0; sleep 0.1; done; exit 1", QUICK);
        let restored = must(lab, "pinion restore", QUICK);
        assert!(restored.contains(&format!("device {MEMORY} was given back")), "{restored}");
        assert_eq!(must(lab, STATE, QUICK), before, "pinion killed at {point}: {restored}");
        assert!(must(lab, "pinion restore", QUICK).starts_with("nothing to do"));
    }
}
