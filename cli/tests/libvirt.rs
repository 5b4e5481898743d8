//! Guests on QEMU, through libvirt, with the same specs, plans and certificates.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod lab;
#[path = "lab/libvirt.rs"]
mod libvirt;

use lab::{LONG, QUICK, both, must, on_lab, sh};
use pinion_lab::{Attach, Cache, DebianDisk, Files, Lab, Shape};
use serde_json::Value;

const SCRIPT: &str = r#"
if grep -q drive /proc/cmdline; then
    modprobe nvme
    for i in $(seq 100); do [ -b /dev/nvme0n1 ] && break; sleep 0.2; done
    for d in /sys/bus/pci/devices/*; do
        [ $(cat $d/class) = 0x010802 ] && echo "PCI $(cat $d/vendor):$(cat $d/device) node $(cat $d/numa_node)"
    done
    echo "READ $(head -c 13 /dev/nvme0n1)"
    echo written-by-guest | dd of=/dev/nvme0n1 bs=4096 seek=3 conv=sync,fsync 2>/dev/null
    echo "INTERRUPTS $(grep nvme /proc/interrupts | awk '{ for (i = 2; i <= 7; i++) n += $i } END { print (n > 0 ? "some" : "none") }')"
    echo WAITING
    sleep 1000
fi
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

/// The drive on node 1 of the two-socket shape.
const DRIVE: &str = "0000:31:00.0";

const WITH_DRIVE: &str = r#"
apiVersion: kubevirt.io/v1
kind: VirtualMachineInstance
metadata: {name: drive}
spec:
  terminationGracePeriodSeconds: 1
  domain:
    cpu: {cores: 3, threads: 2, dedicatedCpuPlacement: true, numa: {guestMappingPassthrough: {}}}
    memory: {guest: 192Mi, hugepages: {pageSize: 2Mi}}
    firmware:
      kernelBoot:
        kernelArgs: "quiet drive"
        container: {image: "file:/var/lib/pinion/debian", kernelPath: /vmlinuz, initrdPath: /initrd}
    devices:
      autoattachPodInterface: false
      hostDevices: [{name: drive, deviceName: example.com/drive}]
"#;

const NAMES: &str = "
apiVersion: pinion.dev/v1alpha1
kind: DeviceResources
resources: [{name: example.com/drive, select: [{class: \"0108\", node: 1}]}]
";

/// A drive of the host behind the bridge of its cell: used, its interrupts where they are planned, and given back.
#[test]
fn a_drive_of_the_host_is_used_by_a_guest_on_qemu() {
    let Some(files) = libvirt::files(Files::new()) else { return };
    on_lab("libvirt-drive", &Shape::two_socket(), SCRIPT, &files, |lab| {
        libvirt::start(lab);
        drive(lab);
    });
}

fn drive(lab: &Lab) {
    let device = format!("/dev/$(ls /sys/bus/pci/devices/{DRIVE}/nvme/*/ | grep -o 'nvme[0-9]*n[0-9]*')");
    must(lab, &format!("printf from-the-host | dd of={device} conv=sync 2>/dev/null; sync"), QUICK);
    lab.put("/tmp/names.yaml", NAMES.as_bytes(), 0o644).unwrap();
    lab.put("/tmp/vm.yaml", WITH_DRIVE.as_bytes(), 0o644).unwrap();
    let run = "chroot /host pinion run /tmp/vm.yaml --backend libvirt --bind --devices /tmp/names.yaml \
        --certificate /tmp/cert.json --audit-interval 1 > /console 2> /log & echo $! > /pid";
    must(lab, run, QUICK);
    wait(lab, "WAITING");
    let console = must(lab, "cat /console", QUICK);
    for line in ["PCI 0x1b36:0x0010 node 1", "READ from-the-host", "INTERRUPTS some"] {
        assert!(console.contains(line), "{line}: {console}");
    }
    must(
        lab,
        "for i in $(seq 150); do grep -q '\"verdict\": \"holds\"' /tmp/cert.json && grep -q '\"vectors\"' /tmp/cert.json && exit 0; \
            sleep 0.1; done; cat /tmp/cert.json /log; exit 1",
        QUICK,
    );
    let certificate = json(&must(lab, "cat /tmp/cert.json", QUICK));
    assert_eq!(certificate["devices"][0]["address"], DRIVE, "{certificate:#}");
    let end = "kill $(cat /pid); for i in $(seq 600); do kill -0 $(cat /pid) 2>/dev/null || exit 0; sleep 0.1; done; exit 1";
    must(lab, end, LONG);
    let back = format!(
        "[ $(basename $(readlink /sys/bus/pci/devices/{DRIVE}/driver)) = nvme ] && sleep 1; \
        dd if={device} bs=4096 skip=3 count=1 2>/dev/null | tr -d '\\0'"
    );
    assert_eq!(must(lab, &back, QUICK).trim(), "written-by-guest");
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

/// Debian's own image by its own boot loader, with graphics and what else only QEMU has.
const ON_FIRMWARE: &str = "
apiVersion: kubevirt.io/v1
kind: VirtualMachineInstance
metadata: {name: debian}
spec:
  terminationGracePeriodSeconds: 1
  domain:
    memory: {guest: 512Mi}
    firmware: {serial: from-the-spec, bootloader: {bios: {}}}
    cpu: {features: [{name: pcid, policy: optional}]}
    clock: {timezone: Europe/Berlin}
    devices:
      autoattachGraphicsDevice: true
      inputs: [{name: pointer, type: tablet, bus: usb}]
      watchdog: {name: dog, i6300esb: {action: poweroff}}
      disks: [{name: root, bootOrder: 1, disk: {bus: virtio}}, {name: seed, cdrom: {bus: sata}}]
  volumes:
    - {name: root, hostDisk: {path: /dev/vdb, type: Disk}}
    - {name: seed, cloudInitNoCloud: {userData: x}}
";

/// Firmware under emulation inside emulation takes its time: up to the guest's first process, and no further.
#[test]
fn debian_starts_on_qemu_by_its_boot_loader_with_a_picture() {
    let Some(files) = libvirt::files(Files::new()) else { return };
    let disk = match DebianDisk::of_debian(&Cache::of_user()) {
        Ok(disk) => disk,
        Err(e) => {
            println!("skipped: {e}");
            return;
        }
    };
    let vnc = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/lab/vnc.py");
    let files = files.with_disk(disk.image(), Attach::Snapshot).with("/vnc.py", vnc);
    on_lab("libvirt-firmware", &Shape::one_node(1792), "", &files, |lab| {
        libvirt::start(lab);
        lab.put("/tmp/vm.yaml", ON_FIRMWARE.as_bytes(), 0o644).unwrap();
        must(lab, "chroot /host pinion run /tmp/vm.yaml > /console 2> /log & echo $! > /pid", QUICK);
        picture(lab);
        wait(lab, "Run /init as init process");
        let log = must(lab, "cat /log", QUICK);
        assert!(log.contains("on QEMU, through libvirt: spec.domain.cpu.features: natively"), "{log}");
        let document = must(lab, "chroot /host virsh dumpxml default_debian", QUICK);
        assert!(document.contains("from-the-spec") && document.contains("i6300esb"), "{document}");
        let end = "kill $(cat /pid); sleep 2; kill $(cat /pid); \
            for i in $(seq 600); do kill -0 $(cat /pid) 2>/dev/null || exit 0; sleep 0.1; done; exit 1";
        must(lab, end, LONG);
        assert_eq!(
            must(lab, "pidof qemu-system-x86_64 | wc -w; ls /run/pinion/libvirt | wc -l", QUICK),
            "0\n0\n"
        );
    });
}

fn wait(lab: &Lab, says: &str) {
    let script = format!(
        "for i in $(seq 2700); do grep -q '{says}' /console && exit 0; kill -0 $(cat /pid) || break; sleep 0.1; done; \
         tail -c 3000 /console; cat /log; tail -5 /host/var/log/libvirt/qemu/*.log; exit 1"
    );
    let output = sh(lab, &script, LONG * 2);
    assert!(output.success(), "{says}: {}", both(&output));
}

/// Looks at the VNC server until its screen shows something: text of the firmware, of GRUB or of the kernel.
fn picture(lab: &Lab) {
    let take = "for i in $(seq 200); do S=$(ls /run/pinion/libvirt/*/vnc.sock 2>/dev/null) && \
        chroot /host python3 /vnc.py $S /tmp/picture.ppm 2>/tmp/vnc.log && \
        [ $(tail -c +16 /tmp/picture.ppm | tr -d '\\0' | head -c 2000 | wc -c) -ge 2000 ] && exit 0; \
        kill -0 $(cat /pid) || break; sleep 0.3; done; cat /tmp/vnc.log /log; exit 1";
    must(lab, &format!("cp /vnc.py /host/vnc.py; {take}"), LONG);
    let picture = lab.get("/tmp/picture.ppm").unwrap();
    let (header, pixels) = picture.split_at(picture.iter().position(|b| *b == b'\n').unwrap() + 1);
    let numbers: Vec<usize> =
        String::from_utf8_lossy(header).split_whitespace().filter_map(|n| n.parse().ok()).collect();
    let [width, height, 255] = numbers.as_slice() else { panic!("{header:?}") };
    assert!(*width >= 320 && *height >= 200, "{width}×{height}");
    assert_eq!(pixels.len(), width * height * 3);
    let lit = pixels.chunks(3).filter(|p| p.iter().any(|c| *c > 64)).count();
    println!("{width}×{height}, {lit} pixels are lit");
    assert!((500..width * height).contains(&lit), "{lit} pixels are lit");
}
