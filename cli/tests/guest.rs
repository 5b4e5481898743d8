//! A guest of 2 cells × 2 cores × 2 threads with huge pages, two disks and a tap device: what it sees
//! from inside, what the host sees from outside, and what the certificate says; by each backend.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

#[path = "lab/forced.rs"]
mod forced;
mod lab;
#[path = "lab/libvirt.rs"]
mod libvirt;

use lab::{LONG, QUICK, both, must, on_lab, sh};
use pinion_lab::{Files, Lab, Shape};
use serde_json::Value;

/// Prints what the guest sees, then waits until the host says over the network that it may end.
const SCRIPT: &str = r#"
for c in /sys/devices/system/cpu/cpu[0-9]*; do
    echo "CPU ${c##*cpu} $(cat $c/topology/physical_package_id) $(cat $c/topology/core_id) $(cat $c/topology/thread_siblings_list)"
done
for n in /sys/devices/system/node/node[0-9]*; do
    echo "NODE ${n##*node} $(cat $n/cpulist) $(cat $n/distance)"
done
for d in /sys/block/vd*; do
    echo "DISK ${d##*/} $(cat $d/serial) $(cat $d/ro) $(head -c 16 /dev/${d##*/} | tr -d '\0')"
done
echo written-by-guest | dd of=/dev/vda bs=512 seek=8 conv=sync,fsync 2>/dev/null && echo "WROTE vda"
dd if=/dev/zero of=/dev/vdb bs=512 count=1 2>/dev/null && echo "WROTE vdb"
grep -a -q CIDATA /dev/vdc && echo "SEED $(grep -a -o from-the-spec /dev/vdc)"
echo "RNG $(cat /sys/class/misc/hw_random/rng_current 2>/dev/null)"
ip link set eth0 up && ip addr add 10.9.8.2/24 dev eth0
echo "MAC $(cat /sys/class/net/eth0/address)"
ping -c 1 -w 20 10.9.8.1 > /dev/null && echo "PING works"
echo WAITING
while ! nc -w 1 10.9.8.1 99 < /dev/null > /dev/null 2>&1; do sleep 1; done
"#;

const SPEC: &str = r#"
apiVersion: kubevirt.io/v1
kind: VirtualMachineInstance
metadata: {name: two-cells}
spec:
  terminationGracePeriodSeconds: 1
  domain:
    cpu: {sockets: 2, cores: 2, threads: 2, dedicatedCpuPlacement: true, numa: {guestMappingPassthrough: {}}}
    memory: {guest: 256Mi, hugepages: {pageSize: 2Mi}}
    ioThreadsPolicy: supplementalPool
    ioThreads: {supplementalPoolThreadCount: 1}
    firmware:
      kernelBoot:
        kernelArgs: "quiet tsc=reliable no_timer_check rcupdate.rcu_expedited=1 mitigations=off cryptomgr.notests"
        container: {image: "file:/var/lib/pinion/debian", kernelPath: /vmlinuz, initrdPath: /initrd}
    devices:
      rng: {}
      autoattachPodInterface: false
      interfaces: [{name: lan, bridge: {}, macAddress: "02:00:00:00:00:07"}]
      disks:
        - {name: data, serial: data-1, disk: {bus: virtio}}
        - {name: base, serial: base-1, disk: {bus: virtio, readonly: true}}
        - {name: seed, disk: {bus: virtio}}
  networks: [{name: lan, multus: {networkName: tap7}}]
  volumes:
    - {name: data, hostDisk: {path: /var/lib/pinion/data.img, type: Disk}}
    - {name: base, hostDisk: {path: /var/lib/pinion/base.img, type: Disk}}
    - {name: seed, cloudInitNoCloud: {userData: "from-the-spec"}}
"#;

const PREPARE: &str = "
    cd /var/lib/pinion
    printf 'first-disk' > data.img && dd if=/dev/zero of=data.img bs=1M count=1 seek=1 2>/dev/null
    printf 'second-disk' > base.img && dd if=/dev/zero of=base.img bs=1M count=1 seek=1 2>/dev/null
    tunctl -t tap7 && ip addr add 10.9.8.1/24 dev tap7 && ip link set tap7 up";

/// Starts the guest in the background and waits until it has said `WAITING`.
fn start(lab: &Lab) {
    lab.put("/vm.yaml", SPEC.as_bytes(), 0o644).unwrap();
    must(lab, PREPARE, QUICK);
    let run = "pinion run /vm.yaml --certificate /cert.json --metrics 127.0.0.1:9100 --audit-interval 1 \
        > /console 2> /log & echo $! > /pid";
    must(lab, run, QUICK);
    let wait = "for i in $(seq 350); do grep -q WAITING /console && exit 0; kill -0 $(cat /pid) || break; \
        sleep 0.4; done; cat /console /log; exit 1";
    let output = sh(lab, wait, LONG);
    assert!(output.success(), "{}", both(&output));
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

fn lines<'a>(text: &'a str, kind: &str) -> Vec<&'a str> {
    text.lines().filter_map(|l| l.trim_end().strip_prefix(kind)).map(str::trim).collect()
}

#[test]
fn a_guest_is_what_its_spec_says_from_inside_and_where_its_plan_says_from_outside() {
    on_lab("guest", &Shape::two_socket(), SCRIPT, &Files::new(), |lab| {
        all(lab, "pinion-launcher");
    });
}

#[test]
fn the_same_guest_on_qemu_is_what_its_spec_says_and_where_its_plan_says() {
    let Some(files) = libvirt::files(Files::new()) else { return };
    on_lab("guest-libvirt", &Shape::two_socket(), SCRIPT, &files, |lab| {
        libvirt::start(lab);
        forced::force(lab);
        all(lab, QEMU);
        let left = must(lab, "ls /run/pinion/libvirt | wc -l; virsh -q list --all | wc -l", QUICK);
        assert_eq!(left, "0\n0\n");
    });
}

/// The program whose process is the guest, where libvirt starts it.
const QEMU: &str = "qemu-system-x86_64";

fn all(lab: &Lab, program: &str) {
    start(lab);
    let plan = json(&must(lab, "pinion plan /vm.yaml -o json --ledger /none", QUICK));
    inside(&must(lab, "cat /console", QUICK), &plan);
    outside(lab, program);
    metrics(lab);
    changed_thread(lab, program);
    end(lab);
}

/// Topology, distances, disks, seed, network and random numbers as the guest sees them.
fn inside(console: &str, plan: &Value) {
    let cpus = lines(console, "CPU ");
    let expected = [
        "0 0 0 0-1",
        "1 0 0 0-1",
        "2 0 1 2-3",
        "3 0 1 2-3",
        "4 1 0 4-5",
        "5 1 0 4-5",
        "6 1 1 6-7",
        "7 1 1 6-7",
    ];
    assert_eq!(cpus, expected, "{console}");
    let distance = plan["cells"][0]["distances"][1].as_u64().unwrap();
    let nodes = [format!("0 0-3 10 {distance}"), format!("1 4-7 {distance} 10")];
    assert_eq!(lines(console, "NODE "), nodes, "{console}");
    let disks = lines(console, "DISK ");
    assert_eq!(
        disks.get(..2),
        Some(["vda data-1 0 first-disk", "vdb base-1 1 second-disk"].as_slice()),
        "{console}"
    );
    assert_eq!(disks.len(), 3, "{console}");
    assert_eq!(lines(console, "WROTE "), ["vda"], "{console}");
    assert_eq!(lines(console, "SEED "), ["from-the-spec"], "{console}");
    assert_eq!(lines(console, "MAC "), ["02:00:00:00:00:07"], "{console}");
    assert_eq!(lines(console, "PING "), ["works"], "{console}");
}

/// Affinity, pages and the certificate against the plan.
fn outside(lab: &Lab, program: &str) {
    let certificate = json(&must(lab, "cat /cert.json", QUICK));
    assert_eq!(certificate["verdict"], "holds", "{certificate:#}");
    assert_eq!(certificate["mismatches"].as_array().unwrap().len(), 0);
    let threads = certificate["threads"].as_array().unwrap();
    let of = |role: &str| threads.iter().filter(|t| t["role"] == role).collect::<Vec<_>>();
    assert_eq!(of("vcpu").len(), 8);
    assert_eq!(of("ioThread").len(), 1);
    let pid = must(lab, &format!("pidof {program}"), QUICK);
    let pid = pid.trim();
    assert_eq!(certificate["pid"].to_string(), pid);
    let mut taken = Vec::new();
    for thread in of("vcpu").iter().chain(&of("ioThread")) {
        let status =
            must(lab, &format!("grep Cpus_allowed_list /proc/{pid}/task/{}/status", thread["tid"]), QUICK);
        let allowed = status.split_whitespace().last().unwrap().to_owned();
        assert_eq!(json(&format!("[{allowed}]")), thread["allowedCpus"], "one CPU each");
        assert!(!taken.contains(&allowed), "{allowed} is given out twice");
        taken.push(allowed);
    }
    let maps = must(lab, &format!("grep huge /proc/{pid}/numa_maps"), QUICK);
    for cell in certificate["cells"].as_array().unwrap() {
        let node = cell["hostNode"].as_u64().or_else(|| cell["plannedNode"].as_u64());
        let node = node.unwrap_or_else(|| panic!("{cell:#}"));
        assert!(maps.contains(&format!("bind:{node}")) && maps.contains(&format!("N{node}=64")), "{maps}");
    }
    let ledger = json(&must(lab, "cat /run/pinion/ledger.json", QUICK));
    assert_eq!(ledger["holdings"][0]["owner"], "default/two-cells", "{ledger:#}");
    let second = sh(lab, "sed s/two-cells/second/ /vm.yaml | pinion plan - ", QUICK);
    assert_eq!(second.code, Some(3), "{}", both(&second));
    assert!(second.text().contains("default/two-cells"), "{}", both(&second));
}

fn metrics(lab: &Lab) {
    let text = must(lab, "wget -q -O - http://127.0.0.1:9100/metrics", QUICK);
    for metric in
        ["kubevirt_vmi_vcpu_seconds_total", "pinion_vmi_thread_cpu_info", "pinion_vmi_misplaced_pages"]
    {
        assert!(text.contains(metric), "{metric}: {text}");
    }
    let verdict =
        text.lines().find(|l| l.starts_with("pinion_vmi_certificate_verdict") && l.contains("\"holds\""));
    assert!(verdict.unwrap().ends_with(" 1"), "{text}");
}

/// Nobody can move a vCPU's thread where the guest's CPUs are a partition; another that somebody moves is seen as it is,
/// then put back.
fn changed_thread(lab: &Lab, program: &str) {
    let moved = if program == QEMU {
        "T=$(pidof qemu-system-x86_64); taskset -p 1 $T || exit 1"
    } else {
        "L=$(pidof pinion-launcher); for t in /proc/$L/task/*; do grep -q 'vcpu 3' $t/comm && T=${t##*/}; \
            grep -q '^emulator' $t/comm && E=${t##*/}; done; taskset -p 1 $T && exit 1; taskset -p 1 $E || exit 1"
    };
    let seen = "for i in $(seq 100); do grep -q '^default/two-cells: drifted' /log && exit 0; sleep 0.2; done; cat /log; exit 1";
    must(lab, &format!("{moved}; {seen}"), QUICK * 2);
    must(
        lab,
        "for i in $(seq 100); do grep -q 'put back' /log && break; sleep 0.2; done; sleep 2; \
            grep -q '\"verdict\": \"holds\"' /cert.json",
        QUICK * 2,
    );
}

/// The guest ends by itself, and nothing of it is left.
fn end(lab: &Lab) {
    let end = "(echo | nc -l -p 99 &) ; for i in $(seq 600); do kill -0 $(cat /pid) 2>/dev/null || break; sleep 0.1; done; \
        tail -1 /log; cat /sys/devices/system/node/node*/hugepages/hugepages-2048kB/free_hugepages; \
        grep -c owner /run/pinion/ledger.json; pidof pinion pinion-launcher pinion-launcher-libvirt qemu-system-x86_64 | wc -w";
    let output = sh(lab, end, LONG).text();
    let expected = "default/two-cells: the guest powered off\n256\n256\n256\n256\n0\n0\n";
    assert_eq!(output, expected);
    let data = must(lab, "dd if=/var/lib/pinion/data.img bs=512 skip=8 count=1 2>/dev/null | head -1", QUICK);
    assert_eq!(data.trim_end_matches(['\n', '\0']), "written-by-guest");
}
