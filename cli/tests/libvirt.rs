//! Guests on QEMU, through libvirt, with the same specs, plans and certificates.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod lab;
#[path = "lab/libvirt.rs"]
mod libvirt;

use lab::{LONG, QUICK, both, must, on_lab, sh};
use pinion_lab::{Files, Lab, Shape};
use serde_json::Value;

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
    cpu: {sockets: 2, cores: 1, threads: 2, dedicatedCpuPlacement: true, numa: {guestMappingPassthrough: {}}}
    memory: {guest: 256Mi, hugepages: {pageSize: 2Mi}}
    ioThreadsPolicy: supplementalPool
    ioThreads: {supplementalPoolThreadCount: 1}
    firmware:
      kernelBoot:
        kernelArgs: quiet
        container: {image: "file:/var/lib/pinion/debian", kernelPath: /vmlinuz, initrdPath: /initrd}
    devices:
      rng: {}
      autoattachPodInterface: false
      interfaces: [{name: lan, bridge: {}, macAddress: "02:00:00:00:00:07"}]
      disks:
        - {name: data, serial: data-1, disk: {bus: virtio}}
        - {name: seed, disk: {bus: virtio}}
  networks: [{name: lan, multus: {networkName: tap7}}]
  volumes:
    - {name: data, hostDisk: {path: /var/lib/pinion/data.img, type: Disk}}
    - {name: seed, cloudInitNoCloud: {userData: "from-the-spec"}}
"#;

const PREPARE: &str = "
    cd /var/lib/pinion
    printf 'first-disk' > data.img && dd if=/dev/zero of=data.img bs=1M count=1 seek=1 2>/dev/null
    tunctl -t tap7 && ip addr add 10.9.8.1/24 dev tap7 && ip link set tap7 up";

fn start(lab: &Lab, spec: &str, says: &str) {
    lab.put("/tmp/vm.yaml", spec.as_bytes(), 0o644).unwrap();
    let run = "chroot /host pinion run /tmp/vm.yaml --backend libvirt --certificate /tmp/cert.json \
        --metrics 127.0.0.1:9100 --audit-interval 1 > /console 2> /log & echo $! > /pid";
    must(lab, run, QUICK);
    let wait = format!(
        "for i in $(seq 1400); do grep -q '{says}' /console && exit 0; kill -0 $(cat /pid) || break; sleep 0.1; done; \
         cat /console /log; tail -30 /host/var/log/libvirt/qemu/*.log; exit 1"
    );
    let output = sh(lab, &wait, LONG);
    assert!(output.success(), "{}", both(&output));
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

fn lines<'a>(text: &'a str, kind: &str) -> Vec<&'a str> {
    text.lines().filter_map(|l| l.trim_end().strip_prefix(kind)).map(str::trim).collect()
}

#[test]
fn a_guest_on_qemu_is_what_its_spec_says_and_where_its_plan_says() {
    let Some(files) = libvirt::files(Files::new()) else { return };
    on_lab("libvirt", &Shape::two_socket(), SCRIPT, &files, |lab| {
        libvirt::start(lab);
        must(lab, PREPARE, QUICK);
        start(lab, SPEC, "WAITING");
        inside(&must(lab, "cat /console", QUICK));
        outside(lab);
        moved_thread(lab);
        end(lab);
    });
}

fn inside(console: &str) {
    assert_eq!(lines(console, "CPU "), ["0 0 0 0-1", "1 0 0 0-1", "2 1 0 2-3", "3 1 0 2-3"], "{console}");
    assert_eq!(lines(console, "NODE "), ["0 0-3 10"], "{console}");
    assert_eq!(lines(console, "DISK ").first(), Some(&"vda data-1 0 first-disk"), "{console}");
    assert_eq!(lines(console, "WROTE "), ["vda"], "{console}");
    assert!(lines(console, "RNG ")[0].starts_with("virtio_rng"), "{console}");
    assert_eq!(lines(console, "MAC "), ["02:00:00:00:00:07"], "{console}");
    assert_eq!(lines(console, "PING "), ["works"], "{console}");
}

/// The kernel's word on QEMU's process against the plan.
fn outside(lab: &Lab) {
    let certificate = json(&must(lab, "cat /tmp/cert.json", QUICK));
    assert_eq!(certificate["verdict"], "holds", "{certificate:#}");
    let pid = must(lab, "pidof qemu-system-x86_64", QUICK);
    let pid = pid.trim();
    assert_eq!(certificate["pid"].to_string(), pid);
    let threads = certificate["threads"].as_array().unwrap();
    let of = |role: &str| threads.iter().filter(|t| t["role"] == role).collect::<Vec<_>>();
    assert_eq!((of("vcpu").len(), of("ioThread").len()), (4, 1));
    for thread in of("vcpu").iter().chain(&of("ioThread")) {
        let status =
            must(lab, &format!("grep Cpus_allowed_list /proc/{pid}/task/{}/status", thread["tid"]), QUICK);
        let allowed = status.split_whitespace().last().unwrap().to_owned();
        assert_eq!(json(&format!("[{allowed}]")), thread["allowedCpus"]);
    }
    let cell = &certificate["cells"][0];
    let maps = must(lab, &format!("grep huge /proc/{pid}/numa_maps"), QUICK);
    assert!(maps.contains(&format!("N{}=128", cell["hostNode"])), "{maps}");
    let ledger = json(&must(lab, "cat /run/pinion/ledger.json", QUICK));
    assert_eq!(ledger["holdings"][0]["owner"], "default/two-cells", "{ledger:#}");
    let metrics = must(lab, "wget -q -O - http://127.0.0.1:9100/metrics", QUICK);
    for metric in ["kubevirt_vmi_vcpu_seconds_total", "kubevirt_vmi_storage_write_traffic_bytes_total"] {
        assert!(metrics.contains(metric), "{metric}: {metrics}");
    }
    let verdict =
        metrics.lines().find(|l| l.starts_with("pinion_vmi_certificate_verdict") && l.contains("\"holds\""));
    assert!(verdict.unwrap().ends_with(" 1"), "{metrics}");
}

/// An emulator thread that somebody moves is seen as it is, then put back.
fn moved_thread(lab: &Lab) {
    must(
        lab,
        "T=$(pidof qemu-system-x86_64); taskset -p 1 $T || exit 1; for i in $(seq 100); do \
            grep -q '^default/two-cells: drifted: emulator' /log && grep -q 'put back' /log && exit 0; sleep 0.2; done; \
            cat /log; exit 1",
        QUICK * 2,
    );
}

/// The guest ends by itself, and nothing of it is left.
fn end(lab: &Lab) {
    let end = "(echo | nc -l -p 99 &) ; for i in $(seq 600); do kill -0 $(cat /pid) 2>/dev/null || break; sleep 0.1; done; \
        tail -1 /log; cat /sys/devices/system/node/node*/hugepages/hugepages-2048kB/free_hugepages; \
        grep -c owner /run/pinion/ledger.json; pidof pinion pinion-launcher-libvirt qemu-system-x86_64 | wc -w; \
        ls /run/pinion/libvirt | wc -l; chroot /host virsh -q list --all | wc -l";
    let output = sh(lab, end, LONG).text();
    let expected = "default/two-cells: the guest powered off\n256\n256\n256\n256\n0\n0\n0\n0\n";
    assert_eq!(output, expected);
    let data = must(lab, "dd if=/var/lib/pinion/data.img bs=512 skip=8 count=1 2>/dev/null | head -1", QUICK);
    assert_eq!(data.trim_end_matches(['\n', '\0']), "written-by-guest");
}

/// QEMU killed, the launcher killed, no libvirt: each ends in one clear error, and nothing is left.
#[test]
fn what_goes_wrong_around_a_guest_on_qemu_is_told_once_and_leaves_nothing() {
    let Some(files) = libvirt::files(Files::new()) else { return };
    on_lab("libvirt-trouble", &Shape::small(), "echo WAITING; sleep 1000", &files, |lab| {
        libvirt::start(lab);
        let spec = &include_str!("lab/one-core.yaml").replace("NAME", "one-core");
        let left = "for i in $(seq 300); do kill -0 $(cat /pid) 2>/dev/null || break; sleep 0.1; done; tail -1 /log; \
            for i in $(seq 100); do [ -z \"$(pidof qemu-system-x86_64)\" ] && break; sleep 0.1; done; \
            grep -c owner /run/pinion/ledger.json; pidof qemu-system-x86_64 pinion-launcher-libvirt | wc -w; \
            chroot /host virsh -q list --all | wc -l; cat /sys/devices/system/node/node*/hugepages/hugepages-2048kB/free_hugepages";
        let free = "\n0\n0\n0\n160\n160\n";
        start(lab, spec, "WAITING");
        must(lab, "kill -9 $(pidof qemu-system-x86_64)", QUICK);
        let told = sh(lab, left, LONG).text();
        assert!(told.starts_with("default/") && told.contains("QEMU") && told.ends_with(free), "{told}");
        // The domain is its launcher's.
        start(lab, spec, "WAITING");
        must(lab, "kill -9 $(pidof pinion-launcher-libvirt)", QUICK);
        let told = sh(lab, left, LONG).text();
        assert!(told.contains("its launcher was killed by signal 9") && told.ends_with(free), "{told}");
        // A guest outlives the daemon.
        start(lab, spec, "WAITING");
        must(
            lab,
            "kill -9 $(pidof libvirtd); sleep 3; kill -0 $(cat /pid) && pidof qemu-system-x86_64",
            QUICK,
        );
        must(
            lab,
            "chroot /host libvirtd -d; for i in $(seq 100); do chroot /host virsh -q list | grep -q running && exit 0; sleep 0.2; done; exit 1",
            QUICK * 2,
        );
        must(lab, "kill $(cat /pid); sleep 1; kill $(cat /pid); true", QUICK);
        let told = sh(lab, left, LONG).text();
        assert!(told.ends_with(free), "{told}{}", must(lab, "cat /log", QUICK));
        must(
            lab,
            "kill -9 $(pidof libvirtd); rm -f /run/libvirt/libvirt-sock /run/libvirt/virtqemud-sock",
            QUICK,
        );
        let refused = sh(lab, "chroot /host pinion run /tmp/vm.yaml --backend libvirt", QUICK);
        assert_eq!(refused.code, Some(1), "{}", both(&refused));
        assert!(
            refused.error_text().contains("Cannot reach libvirt at qemu:///system"),
            "{}",
            both(&refused)
        );
    });
}
