//! Both backends and plain `virsh`, side by side in one lab host: the same kernel, initrd, CPUs and memory. Time to the
//! guest's init, memory beside the guest's own, and how long its vCPU threads ran where they do not belong.
//!
//! `cargo bench -p pinion-benches --bench backends` runs it. Everything in the lab is emulated: only the ratio of what
//! ran side by side says something. Under `cargo test` it does nothing.

#![expect(clippy::unwrap_used, reason = "a benchmark ends at the first thing that is wrong")]

use std::collections::BTreeMap;
use std::path::Path;

use pinion_benches::side_by_side::{self, Hosts, LONG, median, must, three};
use pinion_lab::{Attach, Cache, Files, Lab, LibvirtRoot, Shape, guest_initrd};
use pinion_machine::CpuSet;
use serde_json::Value;

const RUNS: usize = 3;
/// Lab hosts that are booted at most.
const HOSTS: usize = 5;

/// Traces what runs where, of what this shell and libvirt start; starts a guest, and waits until it is ready.
const MEASURE: &str = "
    T=/sys/kernel/tracing; mountpoint -q $T || mount -t tracefs none $T
    rm -f /tmp/out; echo 0 > $T/tracing_on; echo 4096 > $T/buffer_size_kb; echo 1 > $T/options/event-fork
    { echo $$; ls /proc/$(pidof libvirtd)/task; } > $T/set_event_pid
    echo 1 > $T/events/sched/sched_switch/enable; echo > $T/trace; echo 1 > $T/tracing_on
    S=$(cut -d' ' -f1 /proc/uptime)
    START
    for i in $(seq 600); do grep -q GUEST-READY /tmp/out 2> /dev/null && break; sleep 0.05; done
    E=$(cut -d' ' -f1 /proc/uptime); echo 0 > $T/tracing_on; echo 0 > $T/events/sched/sched_switch/enable
    grep -q GUEST-READY /tmp/out || { cat /tmp/log; exit 1; }
    echo TIME $S $E
    P=$(pidof qemu-system-x86_64 || pidof pinion-launcher)
    for t in /proc/$P/task/*; do case \"$(cat $t/comm)\" in
        'CPU '*/KVM|vcpu*)
            echo VCPU ${t##*/} $(sed -n 's/^Cpus_allowed_list:[^0-9]*//p' $t/status); X=\"$X|${t##*/}\";; esac; done
    for p in $(pidof pinion pinion-launcher pinion-launcher-libvirt qemu-system-x86_64); do
        echo MEMORY $(cat /proc/$p/comm) $(sed -n 's/^Pss: *\\([0-9]*\\) kB/\\1/p' /proc/$p/smaps_rollup); done
    grep -E \"_pid=(${X#|}) \" $T/trace | sed 's/^/TRACE /'
    virsh -q destroy plain > /dev/null 2>&1; kill -9 $(pidof pinion-launcher pinion-launcher-libvirt) 2> /dev/null
    for i in $(seq 200); do pidof qemu-system-x86_64 pinion > /dev/null || exit 0; sleep 0.1; done; exit 1";

/// Commands that start a guest in the background, its console in `/tmp/out`.
const NATIVE: &str = "pinion run /tmp/bench.yaml --backend native < /dev/null > /tmp/out 2> /tmp/log &";
const LIBVIRT: &str = "pinion run /tmp/bench.yaml --backend libvirt < /dev/null > /tmp/out 2> /tmp/log &";
const VIRSH: &str = "virsh -q create /tmp/plain.xml > /tmp/log 2>&1";

fn main() {
    if !std::env::args().any(|a| a == "--bench") {
        println!("backends: skipped, it runs with `cargo bench` only");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut hosts = Hosts::new(HOSTS, || lab(folder.path()));
    let ways = [("pinion, native", NATIVE), ("pinion, libvirt", LIBVIRT), ("plain virsh", VIRSH)];
    let mut all: Vec<Vec<Run>> = vec![Vec::new(); ways.len()];
    for _ in 0..RUNS {
        for ((name, start), runs) in ways.iter().zip(&mut all) {
            let run = hosts.measure(name, |lab| measure(lab, start)).unwrap();
            println!("{name}: {run:?}");
            runs.push(run);
        }
    }
    let show = |what: &str, figure: fn(&Run) -> f64| {
        println!("{what} (min, median, max) of {RUNS}:");
        let figures = |runs: &[Run]| runs.iter().map(figure).collect::<Vec<_>>();
        let ours = sorted_median(figures(all.first().map_or(&[], Vec::as_slice)));
        for ((name, _), runs) in ways.iter().zip(&all) {
            let mut figures = figures(runs);
            let shown = three(&mut figures);
            let times = median(&figures) / ours;
            let beside =
                if times.is_finite() { format!("{times:.2} times the first") } else { String::new() };
            println!("  {name:<16} {shown:<28} {beside}");
        }
    };
    show("time to the guest's init, s", |run| run.seconds);
    show("memory beside the guest's own (Pss), MiB", |run| run.memory_kib as f64 / 1024.0);
    show("vCPU threads ran on other CPUs than planned for, ms", |run| run.elsewhere * 1e3);
    show("from a vCPU thread's first run to its last elsewhere, ms", |run| run.window * 1e3);
}

fn sorted_median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    median(&figures)
}

fn lab(folder: &Path) -> Lab {
    let initrd = folder.join("initrd");
    guest_initrd("sleep 600", &initrd).unwrap();
    let root = LibvirtRoot::of_debian(&Cache::of_user()).unwrap();
    let slim = folder.join("slim");
    let launcher = side_by_side::program("pinion-launcher-libvirt").unwrap();
    assert!(
        std::process::Command::new("strip").arg("-o").arg(&slim).arg(launcher).status().unwrap().success()
    );
    let files = Files::new()
        .with_disk(root.image(), Attach::Snapshot)
        .with("/usr/bin/pinion-launcher-libvirt", &slim);
    let lab = side_by_side::lab_with("bench-backends", &Shape::two_socket(), &initrd, folder, files).unwrap();
    must(&lab, LibvirtRoot::ENTER).unwrap();
    lab.put("/tmp/bench.yaml", side_by_side::spec("256Mi", "quiet", "").as_bytes(), 0o644).unwrap();
    let planned = must(&lab, "pinion plan /tmp/bench.yaml -o json").unwrap();
    lab.put("/tmp/plain.xml", document(&pins(&planned)).as_bytes(), 0o644).unwrap();
    lab
}

/// The CPU of each vCPU, as `pinion plan` says it.
fn pins(planned: &str) -> Vec<u64> {
    let plan: Value = serde_json::from_str(planned).unwrap();
    let vcpus = plan.get("vcpus").and_then(Value::as_array).unwrap();
    vcpus.iter().map(|vcpu| vcpu.get("cpu").and_then(Value::as_u64).unwrap()).collect()
}

/// The same guest as libvirt's own users would write it down. Its memory is not populated at once: with a pin of the
/// emulator, libvirt 9.0 cannot.
fn document(cpus: &[u64]) -> String {
    let pin = |(vcpu, cpu)| format!("<vcpupin vcpu='{vcpu}' cpuset='{cpu}'/>");
    let pins: String = cpus.iter().enumerate().map(pin).collect();
    let count = cpus.len();
    format!(
        "<domain type='kvm'><name>plain</name><memory unit='MiB'>256</memory>\
         <memoryBacking><hugepages/></memoryBacking><vcpu placement='static'>{count}</vcpu>\
         <cputune>{pins}<emulatorpin cpuset='0-1'/></cputune>\
         <os><type arch='x86_64' machine='q35'>hvm</type><kernel>/var/lib/pinion/debian/vmlinuz</kernel>\
         <initrd>/var/lib/pinion/debian/initrd</initrd><cmdline>console=ttyS0 quiet</cmdline></os>\
         <features><acpi/><apic/></features><cpu mode='host-passthrough'/><on_poweroff>destroy</on_poweroff>\
         <devices><controller type='usb' model='none'/><memballoon model='none'/>\
         <serial type='file'><source path='/tmp/out'/></serial></devices></domain>"
    )
}

#[derive(Clone, Debug)]
struct Vcpu {
    tid: u32,
    allowed: CpuSet,
}

/// One start. Times in seconds.
#[derive(Clone, Debug)]
struct Run {
    seconds: f64,
    memory_kib: u64,
    elsewhere: f64,
    window: f64,
}

fn measure(lab: &Lab, start: &str) -> Result<Run, String> {
    let output = lab.sh(&MEASURE.replace("START", start), LONG).map_err(|e| e.to_string())?;
    let text = output.text();
    if !output.success() {
        return Err(format!("{text}{}", output.error_text()));
    }
    let of = |kind: &str| {
        text.lines().filter_map(|line| line.strip_prefix(kind)).map(str::trim).collect::<Vec<_>>()
    };
    let Some(seconds) = of("TIME ").first().and_then(|times| side_by_side::elapsed(times)) else {
        return Err(text);
    };
    let vcpus: Vec<Vcpu> = of("VCPU ").iter().filter_map(|line| vcpu(line)).collect();
    let memory = of("MEMORY ").iter().filter_map(|l| l.rsplit(' ').next()?.parse::<u64>().ok()).sum();
    let switches: Vec<Switch> = of("TRACE ").iter().filter_map(|line| switch(line)).collect();
    if vcpus.is_empty() || switches.is_empty() {
        return Err(text);
    }
    let (elsewhere, window) = elsewhere(&vcpus, &switches);
    Ok(Run { seconds, memory_kib: memory, elsewhere, window })
}

fn vcpu(line: &str) -> Option<Vcpu> {
    let mut words = line.split(' ');
    Some(Vcpu { tid: words.next()?.parse().ok()?, allowed: words.next()?.parse().ok()? })
}

/// A CPU goes from one thread to another.
struct Switch {
    cpu: u32,
    at: f64,
    from: u32,
    to: u32,
}

/// `comm-12 [003] d..2. 12.345: sched_switch: … prev_pid=12 … ==> … next_pid=0 …`
fn switch(line: &str) -> Option<Switch> {
    let (head, tail) = line.split_once(": sched_switch:")?;
    let number = |name: &str| tail.split_once(name)?.1.split(' ').next()?.parse().ok();
    let cpu = head.rsplit_once('[')?.1.split_once(']')?.0.parse().ok()?;
    Some(Switch {
        cpu,
        at: head.rsplit(' ').next()?.parse().ok()?,
        from: number("prev_pid=")?,
        to: number("next_pid=")?,
    })
}

/// How long the threads ran on CPUs that they may not use now, all together; and the longest time from a thread's
/// first run to the last of those.
fn elsewhere(vcpus: &[Vcpu], switches: &[Switch]) -> (f64, f64) {
    let mut running: BTreeMap<u32, f64> = BTreeMap::new();
    let mut first: BTreeMap<u32, f64> = BTreeMap::new();
    let (mut total, mut window) = (0.0, 0.0_f64);
    for switch in switches {
        if vcpus.iter().any(|v| v.tid == switch.to) {
            running.insert(switch.to, switch.at);
            first.entry(switch.to).or_insert(switch.at);
        }
        let Some(vcpu) = vcpus.iter().find(|v| v.tid == switch.from) else { continue };
        let Some(since) = running.remove(&vcpu.tid) else { continue };
        if !vcpu.allowed.iter().any(|cpu| cpu.0 == switch.cpu) {
            total += switch.at - since;
            window = window.max(switch.at - first.get(&vcpu.tid).copied().unwrap_or(since));
        }
    }
    (total, window)
}
