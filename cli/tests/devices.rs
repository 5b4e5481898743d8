//! Devices of the host in a guest of two cells: a drive that it reads and writes, and a device whose
//! registers, DMA and place can be checked byte by byte. Used from inside, and given back at the end; by each backend.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

#[path = "lab/forced.rs"]
mod forced;
mod lab;
#[path = "lab/libvirt.rs"]
mod libvirt;

use lab::{LONG, QUICK, both, must, on_lab, sh};
use pinion_lab::{Files, Lab, Shape};

/// The drive on node 1 and QEMU's `edu` on node 0 of the two-socket shape.
const DRIVE: &str = "0000:31:00.0";
const EDU: &str = "0000:21:00.0";

/// What the guest does with them. Memory at 32 MiB is left out of Linux's, for DMA to be looked at.
const SCRIPT: &str = r#"
grep -q stay /proc/cmdline && { echo STAYING; sleep 600; }
modprobe nvme
for i in $(seq 100); do [ -b /dev/nvme0n1 ] && break; sleep 0.2; done
for d in /sys/bus/pci/devices/*; do
    echo "PCI $(cat $d/vendor):$(cat $d/device) node $(cat $d/numa_node)"
done
echo "READ $(head -c 13 /dev/nvme0n1)"
echo written-by-guest | dd of=/dev/nvme0n1 bs=4096 seek=3 conv=sync,fsync 2>/dev/null
echo 3 > /proc/sys/vm/drop_caches
echo "BACK $(dd if=/dev/nvme0n1 bs=4096 skip=3 count=1 2>/dev/null | tr -d '\0')"
echo "INTERRUPTS $(grep nvme /proc/interrupts | awk '{ for (i = 2; i <= 7; i++) n += $i } END { print (n > 0 ? "some" : "none") }')"
rmmod nvme && modprobe nvme
for i in $(seq 100); do [ -b /dev/nvme0n1 ] && break; sleep 0.2; done
echo "AGAIN $(head -c 13 /dev/nvme0n1)"
edu=$(grep -l 0x11e8 /sys/bus/pci/devices/*/device); edu=${edu%/device}
bar=$(head -n 1 $edu/resource | cut -d ' ' -f 1)
at() { printf '0x%x' $((bar + $1)); }
printf '\006\000' | dd of=$edu/config bs=1 seek=4 conv=notrunc 2>/dev/null
devmem $(at 4) 32 0x12345678
echo "EDU $(devmem $(at 0) 32) $(devmem $(at 4) 32)"
dma() {
    devmem $(at 0x80) 32 $1; devmem $(at 0x88) 32 $2; devmem $(at 0x90) 32 8; devmem $(at 0x98) 32 $3
    for i in $(seq 50); do [ $(($(devmem $(at 0x98) 32) & 1)) = 0 ] && break; sleep 0.1; done
}
devmem 0x2000000 32 0xc0ffee11; devmem 0x2000004 32 0x5eed5eed
dma 0x2000000 0x40000 1
dma 0x40000 0x2001000 3
echo "DMA $(devmem 0x2001000 32) $(devmem 0x2001004 32)"
"#;

const SPEC: &str = r#"
apiVersion: kubevirt.io/v1
kind: VirtualMachineInstance
metadata: {name: devices}
spec:
  domain:
    cpu: {cores: 3, threads: 2, dedicatedCpuPlacement: true, numa: {guestMappingPassthrough: {}}}
    memory: {guest: 192Mi, hugepages: {pageSize: 2Mi}}
    firmware:
      kernelBoot:
        kernelArgs: "quiet iomem=relaxed memmap=64K$0x2000000 tsc=reliable no_timer_check rcupdate.rcu_expedited=1 mitigations=off cryptomgr.notests"
        container: {image: "file:/var/lib/pinion/debian", kernelPath: /vmlinuz, initrdPath: /initrd}
    devices:
      autoattachPodInterface: false
      hostDevices:
        - {name: drive, deviceName: example.com/drive}
        - {name: edu, deviceName: example.com/edu}
"#;

const NAMES: &str = r#"
apiVersion: pinion.dev/v1alpha1
kind: DeviceResources
resources:
- name: example.com/drive
  select: [{class: "0108", node: 1}]
- name: example.com/edu
  select: [{vendor: "1234", device: "11e8"}]
- name: example.com/none
  select: [{address: "0000:99:00.0"}]
"#;

fn bind(lab: &Lab) {
    let bound = must(lab, &format!("pinion devices bind {DRIVE} {EDU}"), QUICK);
    assert!(bound.contains(&format!("{DRIVE}: nvme → vfio-pci")), "{bound}");
    let again = must(lab, &format!("pinion devices bind {DRIVE}"), QUICK);
    assert!(again.starts_with("nothing to do"), "{again}");
}

fn refused(lab: &Lab, command: &str, code: i32, says: &str) {
    let output = sh(lab, command, QUICK);
    assert_eq!(output.code, Some(code), "`{command}`: {}", both(&output));
    assert!(both(&output).contains(says), "`{command}`: {}", both(&output));
}

#[test]
fn devices_of_the_host_are_used_by_a_guest_in_the_right_cells() {
    on_lab("devices", &Shape::two_socket(), SCRIPT, &Files::new(), |lab| {
        all(lab, "pinion-launcher");
        offered(lab);
    });
}

#[test]
fn devices_of_the_host_are_used_by_a_guest_on_qemu_in_the_right_cells() {
    let Some(files) = libvirt::files(Files::new()) else { return };
    on_lab("devices-libvirt", &Shape::two_socket(), SCRIPT, &files, |lab| {
        libvirt::start(lab);
        forced::force(lab);
        all(lab, "pinion-launcher-libvirt");
    });
}

/// `program` is the launcher's.
fn all(lab: &Lab, program: &str) {
    lab.put("/vm.yaml", SPEC.as_bytes(), 0o644).unwrap();
    lab.put("/names.yaml", NAMES.as_bytes(), 0o644).unwrap();
    let drive = format!("echo /dev/$(ls /sys/bus/pci/devices/{DRIVE}/nvme/*/ | grep -o 'nvme[0-9]*n[0-9]*')");
    let drive = must(lab, &drive, QUICK);
    must(lab, &format!("printf from-the-host | dd of={} conv=sync 2>/dev/null; sync", drive.trim()), QUICK);

    refused(lab, "pinion run /vm.yaml", 2, "stands for no device of this machine");
    refused(lab, "pinion run /vm.yaml --devices /names.yaml", 2, "not bound to vfio-pci");
    refused(
        lab,
        "sed s,com/edu,com/none, /vm.yaml | pinion run --devices /names.yaml -",
        2,
        "hostDevices[1]",
    );
    refused(lab, &format!("pinion devices bind {DRIVE} 99:00.0"), 2, "0000:99:00.0");
    must(lab, &format!("[ $(basename $(readlink /sys/bus/pci/devices/{DRIVE}/driver)) = nvme ]"), QUICK);
    bind(lab);
    let output = sh(lab, "pinion run /vm.yaml --devices /names.yaml --certificate /cert.json", LONG);
    let text = both(&output);
    assert_eq!(output.code, Some(0), "{text}");
    for line in [
        "PCI 0x1b36:0x0010 node 1",
        "PCI 0x1234:0x11e8 node 0",
        "READ from-the-host",
        "BACK written-by-guest",
        "INTERRUPTS some",
        "AGAIN from-the-host",
        "EDU 0x010000ED 0xEDCBA987",
        "DMA 0xC0FFEE11 0x5EED5EED",
    ] {
        assert!(output.text().contains(line), "{line}: {text}");
    }
    given_back(lab);
    taken_back(lab, program);
}

/// The host takes one device back while a guest has it; then the launcher is killed, and the other is free.
fn taken_back(lab: &Lab, program: &str) {
    bind(lab);
    let start = "sed 's/quiet/quiet stay/' /vm.yaml > /stay.yaml
        pinion run /stay.yaml --devices /names.yaml --audit-interval 1 > /console 2> /log & echo $! > /pid
        for i in $(seq 300); do grep -q STAYING /console && exit 0; sleep 0.4; done; cat /console /log; exit 1";
    must(lab, start, LONG);
    must(lab, &format!("echo {EDU} > /sys/bus/pci/devices/{EDU}/driver/unbind"), QUICK);
    let told = format!(
        "for i in $(seq 100); do grep -q 'device {EDU}: the host took it back' /log && exit 0; sleep 0.1; done; cat /log; exit 1"
    );
    must(lab, &told, QUICK);
    must(lab, &format!("kill -0 $(cat /pid) && kill -9 $(pidof {program})"), QUICK);
    must(
        lab,
        "for i in $(seq 100); do kill -0 $(cat /pid) 2>/dev/null || exit 0; sleep 0.1; done; exit 1",
        QUICK,
    );
    given_back(lab);
    let free =
        must(lab, "cat /sys/devices/system/node/node*/hugepages/hugepages-2048kB/free_hugepages", QUICK);
    assert!(free.lines().all(|pages| pages == "256"), "{free}");
}

/// What the device plugin offers follows the host: a driver that takes a device, a device that goes and comes, and the file of
/// names. There is no kubelet here.
fn offered(lab: &Lab) {
    let start = "mkdir /plugins && cp /names.yaml /followed.yaml
        pinion device-plugin --kubelet /plugins --devices /followed.yaml 2> /plugin.log & echo $! > /plugin.pid
        for i in $(seq 100); do grep -q 'ready: /plugins' /plugin.log && break; sleep 0.2; done
        for name in devices.kubevirt.io@kvm devices.kubevirt.io@tun devices.kubevirt.io@vhost-net pinion.dev@agent \
            example.com@drive; do
            for i in $(seq 100); do [ -e /plugins/pinion-$name.sock ] && break; sleep 0.2; done
        done; ls /plugins";
    let sockets = must(lab, start, QUICK);
    let names = ["kvm", "tun", "vhost-net"].map(|name| format!("pinion-devices.kubevirt.io@{name}.sock"));
    for name in names
        .iter()
        .map(String::as_str)
        .chain(["pinion-pinion.dev@agent.sock", "pinion-example.com@drive.sock"])
    {
        assert!(sockets.contains(name), "{name}: {sockets}");
    }
    let said = |line: &str, count: u32| {
        let script = format!(
            "for i in $(seq 100); do [ $(grep -c '{line}' /plugin.log) -ge {count} ] && exit 0; sleep 0.2; done; \
             cat /plugin.log; exit 1"
        );
        must(lab, &script, QUICK);
    };
    said("example.com/edu: device .* cannot be given: .* is bound to no driver, not to vfio-pci", 1);
    must(lab, &format!("pinion devices bind {EDU}"), QUICK);
    said("example.com/edu: device .* can be given", 1);
    must(lab, &format!("echo 1 > /sys/bus/pci/devices/{EDU}/remove"), QUICK);
    said("example.com/edu: device .* is gone from the machine", 1);
    must(lab, "echo 1 > /sys/bus/pci/rescan", QUICK);
    said("example.com/edu: device .* is bound to no driver", 2);
    must(lab, "sed -i 's/select/selct/' /followed.yaml", QUICK);
    said("/followed.yaml is not followed, what it said before holds: line 5", 1);
    said("line [0-9]*, column 3: resources.[0-9]..selct: unknown field, did you mean \"select\"?", 3);
    let metrics = must(lab, "wget -q -O - http://127.0.0.1:9181/metrics", QUICK);
    for line in [
        "pinion_device_plugin_devices{health=\"Healthy\",resource=\"devices.kubevirt.io/kvm\"} 1000",
        "pinion_device_plugin_devices{health=\"Unhealthy\",resource=\"example.com/edu\"} 1",
        "pinion_device_plugin_health_changes_total{cause=\"Gone\",resource=\"example.com/edu\"} 1",
        "pinion_device_plugin_file_followed 0",
    ] {
        assert!(metrics.lines().any(|l| l == line), "{line}: {metrics}");
    }
    let ready = sh(lab, "wget -q -O - http://127.0.0.1:9181/readyz", QUICK);
    assert!(!ready.success(), "no kubelet knows of it");
    let end = "kill $(cat /plugin.pid); for i in $(seq 50); do kill -0 $(cat /plugin.pid) 2>/dev/null || break; sleep 0.2; done; \
        ls /plugins | wc -l";
    assert_eq!(must(lab, end, QUICK), "0\n");
}

/// The drivers of the host take the devices again, and what the guest wrote is there.
fn given_back(lab: &Lab) {
    let bound = must(lab, &format!("pinion devices unbind {DRIVE} {EDU}"), QUICK);
    assert!(bound.contains(&format!("{DRIVE}: vfio-pci → nvme")), "{bound}");
    let back = format!(
        "cd /sys/bus/pci/devices; for i in $(seq 50); do
         d=$(ls {DRIVE}/nvme/*/ 2>/dev/null | grep -o 'nvme[0-9]*n[0-9]*'); [ -n \"$d\" ] && break; sleep 0.2; done
         dd if=/dev/$d bs=4096 skip=3 count=1 2>/dev/null | tr -d '\\0'"
    );
    assert_eq!(must(lab, &back, QUICK).trim(), "written-by-guest");
    assert_eq!(must(lab, "grep -c vfio /proc/interrupts; true", QUICK).trim(), "0");
}
