//! What only guests on QEMU, through libvirt, have: firmware, graphics, an agent inside; and what goes wrong around them.
//! The rest is in the tests that every backend passes.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

#[path = "lab/console.rs"]
mod console;
mod lab;
#[path = "lab/libvirt.rs"]
mod libvirt;

use lab::{LONG, QUICK, both, must, on_lab, sh};
use pinion_lab::{Attach, Cache, DebianDisk, Emulator, Files, Lab, Shape};

/// With `fill`, writes more than its disk has room for; then says that it lives.
const SCRIPT: &str = "
    if grep -q fill /proc/cmdline; then
        echo FILLING
        dd if=/dev/zero of=/dev/vda bs=64k count=96 conv=fsync 2>/dev/null && echo FILLED || echo FAILED
    fi
    echo WAITING
    while :; do echo TICK; sleep 0.2; done";

const ONE_CORE: &str = include_str!("lab/one-core.yaml");

/// Waits until nobody is left; then prints the last word, and what is held.
const LEFT: &str = "for i in $(seq 1500); do kill -0 $(cat /pid) 2>/dev/null || break; sleep 0.1; done; tail -1 /log; \
    for i in $(seq 100); do [ -z \"$(pidof qemu-system-x86_64)\" ] && break; sleep 0.1; done; \
    grep -c owner /run/pinion/ledger.json; pidof qemu-system-x86_64 pinion-launcher-libvirt | wc -w; \
    virsh -q list --all | wc -l; ls /run/pinion/libvirt | wc -l; \
    cat /sys/devices/system/node/node*/hugepages/hugepages-2048kB/free_hugepages";
const NOTHING: &str = "\n0\n0\n0\n0\n160\n160\n";
/// On a host without huge pages.
const NOTHING_SMALL: &str = "\n0\n0\n0\n0\n0\n";

/// Whatever the spec says; and looked after often.
const LIBVIRT: &str = "--backend libvirt --audit-interval 1";

/// Starts a guest, and waits until its console says something.
fn start(lab: &Lab, flags: &str, spec: &str, says: &str) {
    lab.put("/vm.yaml", spec.as_bytes(), 0o644).unwrap();
    let run = format!("pinion run /vm.yaml {flags} > /console 2> /log & echo $! > /pid");
    must(lab, &run, QUICK);
    wait(lab, says);
}

fn wait(lab: &Lab, says: &str) {
    console::wait(lab, "/", says, LONG * 4);
}

/// QEMU killed, the launcher killed, no libvirt: each ends in one clear error, and nothing is left.
#[test]
fn what_goes_wrong_around_a_guest_on_qemu_is_told_once_and_leaves_nothing() {
    let Some(files) = libvirt::files(Files::new()) else { return };
    on_lab("libvirt-trouble", &Shape::small(), SCRIPT, &files, |lab| {
        libvirt::start(lab);
        let spec = &ONE_CORE.replace("NAME", "one-core");
        start(lab, LIBVIRT, spec, "WAITING");
        must(lab, "kill -9 $(pidof qemu-system-x86_64)", QUICK);
        let told = sh(lab, LEFT, LONG).text();
        assert!(told.starts_with("default/") && told.contains("QEMU") && told.ends_with(NOTHING), "{told}");
        // The domain is its launcher's.
        start(lab, LIBVIRT, spec, "WAITING");
        must(lab, "kill -9 $(pidof pinion-launcher-libvirt)", QUICK);
        let told = sh(lab, LEFT, LONG).text();
        assert!(told.contains("its launcher was killed by signal 9") && told.ends_with(NOTHING), "{told}");
        no_memory(lab);
        no_daemon(lab, spec);
    });
}

/// What the host has no room for is refused before anything is started; and QEMU's end while it takes its memory is
/// told.
fn no_memory(lab: &Lab) {
    let spec = ONE_CORE.replace("NAME", "large").replace("128Mi", "64Gi");
    lab.put("/vm.yaml", spec.as_bytes(), 0o644).unwrap();
    let refused = sh(lab, "pinion run /vm.yaml --backend libvirt", QUICK);
    assert_eq!(refused.code, Some(3), "{}", both(&refused));
    let spec = "{apiVersion: kubevirt.io/v1, kind: VirtualMachineInstance, metadata: {name: squeezed}, \
        spec: {domain: {memory: {guest: 160Mi}, devices: {autoattachPodInterface: false}, firmware: {kernelBoot: {container: \
        {image: 'file:/var/lib/pinion/debian', kernelPath: /vmlinuz, initrdPath: /initrd}}}}}}";
    lab.put("/vm.yaml", spec.as_bytes(), 0o644).unwrap();
    must(lab, "echo 64M > /sys/fs/cgroup/machine/memory.max", QUICK);
    let ended = sh(lab, "pinion run /vm.yaml --backend libvirt 2>&1 | tee /log; true > /pid", LONG);
    assert!(ended.text().contains("default/squeezed: "), "{}", both(&ended));
    assert!(
        ended.text().contains("libvirt does not start the guest") || ended.text().contains("QEMU"),
        "{}",
        both(&ended)
    );
    let told = sh(lab, LEFT, LONG).text();
    assert!(told.ends_with(NOTHING), "{told}");
    must(lab, "echo max > /sys/fs/cgroup/machine/memory.max", QUICK);
}

/// A guest outlives the daemon; without one, none starts.
fn no_daemon(lab: &Lab, spec: &str) {
    start(lab, LIBVIRT, spec, "WAITING");
    must(lab, "kill -9 $(pidof libvirtd); sleep 3; kill -0 $(cat /pid) && pidof qemu-system-x86_64", QUICK);
    must(
        lab,
        "/usr/sbin/libvirtd -d; for i in $(seq 100); do virsh -q list | grep -q running && exit 0; sleep 0.2; done; exit 1",
        QUICK * 2,
    );
    must(lab, "kill $(cat /pid); sleep 1; kill $(cat /pid); true", QUICK);
    let told = sh(lab, LEFT, LONG).text();
    assert!(told.ends_with(NOTHING), "{told}{}", must(lab, "cat /log", QUICK));
    must(
        lab,
        "kill -9 $(pidof libvirtd); rm -f /run/libvirt/libvirt-sock /run/libvirt/virtqemud-sock",
        QUICK,
    );
    let refused = sh(lab, "pinion run /vm.yaml --backend libvirt", QUICK);
    assert_eq!(refused.code, Some(1), "{}", both(&refused));
    assert!(refused.error_text().contains("Cannot reach libvirt at qemu:///system"), "{}", both(&refused));
}

/// Ends a guest by force, and looks that nothing is left of it.
fn end(lab: &Lab) {
    must(lab, "kill $(cat /pid); sleep 1; kill $(cat /pid); true", QUICK);
    let told = sh(lab, LEFT, LONG).text();
    let nothing = [NOTHING, NOTHING_SMALL].iter().any(|nothing| told.ends_with(nothing));
    assert!(nothing, "{told}{}", must(lab, "cat /log", QUICK));
}

#[test]
fn guests_are_imported_paused_and_reset_and_a_full_disk_stops_them() {
    let Some(files) = libvirt::files(Files::new()) else { return };
    on_lab("libvirt", &Shape::small(), SCRIPT, &files, |lab| {
        libvirt::start(lab);
        imported(lab);
        paused(lab);
        full(lab);
    });
}

/// The storage of a guest's disk is full: it stands still or sees an error, as its spec says, and goes on.
fn full(lab: &Lab) {
    let full = "mkdir -p /small && mount -t tmpfs -o size=4m none /small && truncate -s 8M /small/data.img";
    must(lab, full, QUICK);
    let disk = |policy: &str| {
        ONE_CORE.replace("NAME", "full").replace("quiet", "quiet fill").replace(
            "devices: {autoattachPodInterface: false}",
            &format!("devices: {{autoattachPodInterface: false, disks: [{{name: data{policy}}}]}}"),
        ) + "  volumes: [{name: data, hostDisk: {path: /small/data.img, type: Disk}}]\n"
    };
    start(lab, LIBVIRT, &disk(", errorPolicy: stop"), "FILLING");
    let stands = "for i in $(seq 300); do pinion ps | grep -q Paused && grep -q 'it is paused: a disk of it has failed' /log && exit 0; \
        sleep 0.1; done; pinion ps; cat /log; exit 1";
    must(lab, stands, QUICK * 2);
    assert!(!must(lab, "cat /console", QUICK).contains("FILLED"));
    must(lab, "mount -o remount,size=16m /small && pinion unpause full", QUICK);
    wait(lab, "FILLED");
    wait(lab, "TICK");
    end(lab);
    must(
        lab,
        "rm /small/data.img && mount -o remount,size=4m /small && truncate -s 8M /small/data.img",
        QUICK,
    );
    start(lab, LIBVIRT, &disk(""), "FAILED");
    wait(lab, "TICK");
    end(lab);
}

/// Paused, it does nothing; reset, it starts anew: with either backend.
fn paused(lab: &Lab) {
    for backend in ["native", "libvirt"] {
        start(
            lab,
            &format!("--backend {backend} --audit-interval 1"),
            &ONE_CORE.replace("NAME", "one-core"),
            "TICK",
        );
        pause(lab);
        assert_eq!(must(lab, "pinion reset one-core", QUICK), "default/one-core reset\n");
        must(
            lab,
            "for i in $(seq 600); do [ $(grep -c WAITING /console) = 2 ] && exit 0; sleep 0.1; done; exit 1",
            LONG,
        );
        let absent = sh(lab, "pinion guest ping one-core", QUICK * 2);
        let says =
            if backend == "native" { "no channel to a guest agent" } else { "is qemu-guest-agent running" };
        assert_eq!(absent.code, Some(1), "{}", both(&absent));
        assert!(absent.error_text().contains(says), "{}", both(&absent));
        assert_eq!(sh(lab, "pinion pause one-core other", QUICK).code, Some(2), "nothing is paused then");
        assert!(must(lab, "pinion ps", QUICK).contains("Running"));
        end(lab);
    }
}

fn pause(lab: &Lab) {
    let script = "pinion pause one-core && pinion ps | grep -q Paused || exit 1
        sleep 0.5; A=$(grep -c TICK /console); sleep 1; B=$(grep -c TICK /console); [ $A = $B ] || { echo ticks $A $B; exit 1; }
        pinion inspect one-core | grep -q 'somebody has paused it' || exit 1
        pinion unpause one-core && pinion ps | grep -q Running || exit 1
        for i in $(seq 100); do [ $(grep -c TICK /console) -gt $B ] && exit 0; sleep 0.1; done; exit 1";
    must(lab, script, QUICK * 2);
}

/// As somebody else's tools have defined it.
const OLD: &str = "<domain type='kvm'><name>old</name><memory unit='MiB'>192</memory><vcpu>1</vcpu>\
    <os><type arch='x86_64' machine='q35'>hvm</type><kernel>/var/lib/pinion/debian/vmlinuz</kernel>\
    <initrd>/var/lib/pinion/debian/initrd</initrd><cmdline>quiet console=ttyS0</cmdline></os>\
    <features><acpi/><apic/></features><devices>\
    <disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='/var/lib/pinion/old.img'/>\
    <target dev='vda' bus='virtio'/></disk><console type='pty'/><memballoon model='none'/></devices></domain>";

/// A domain that libvirt has: its spec is written, and runs.
fn imported(lab: &Lab) {
    lab.put("/old.xml", OLD.as_bytes(), 0o644).unwrap();
    must(lab, "truncate -s 4M /var/lib/pinion/old.img; virsh -q define /old.xml", QUICK);
    let spec = must(lab, "pinion import old 2> /notes && virsh -q undefine old", QUICK);
    let notes = must(lab, "cat /notes", QUICK);
    assert!(notes.contains("spec.domain.firmware.uuid"), "{notes}");
    start(lab, "", &spec, "WAITING");
    assert!(must(lab, "pinion ps", QUICK).contains("default/old"), "{spec}");
    end(lab);
    let absent = sh(lab, "pinion import nobody", QUICK);
    assert_eq!((absent.code, absent.text().as_str()), (Some(2), ""), "{}", both(&absent));
}

/// A host with libvirt, and Debian's image as its second disk; `None` with the reason printed.
fn with_debian() -> Option<Files> {
    let disk = DebianDisk::of_debian(&Cache::of_user()).inspect_err(|e| println!("skipped: {e}")).ok()?;
    Some(libvirt::files(Files::new())?.with_disk(disk.image(), Attach::Snapshot))
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

#[test]
fn debian_starts_on_qemu_by_its_boot_loader_with_a_picture_and_its_agent_answers() {
    let Some(files) = with_debian() else { return };
    let vnc = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/lab/vnc.py");
    let files = files.with("/vnc.py", vnc);
    on_lab("libvirt-bios", &Shape::one_node(1792), "", &files, |lab| {
        libvirt::start(lab);
        shown(lab);
        whole(lab, ["bios: {}", "tpm: {}"], "CLOUD-INIT /dev/tpm0 /dev/ttyS0");
    });
}

/// No further than the picture: text on a screen takes an emulated guest of an emulated host minutes.
fn shown(lab: &Lab) {
    lab.put("/tmp/vm.yaml", ON_FIRMWARE.as_bytes(), 0o644).unwrap();
    must(lab, "pinion run /tmp/vm.yaml > /console 2> /log & echo $! > /pid", QUICK);
    picture(lab);
    let log = must(lab, "cat /log", QUICK);
    assert!(log.contains("on QEMU, through libvirt: spec.domain.cpu.features: natively"), "{log}");
    let document = must(lab, "virsh dumpxml default_debian", QUICK);
    assert!(document.contains("from-the-spec") && document.contains("i6300esb"), "{document}");
    let end = "kill $(cat /pid); sleep 2; kill $(cat /pid); \
        for i in $(seq 600); do kill -0 $(cat /pid) 2>/dev/null || exit 0; sleep 0.1; done; exit 1";
    must(lab, end, LONG);
    assert_eq!(
        must(lab, "pidof qemu-system-x86_64 | wc -w; ls /run/pinion/libvirt | wc -l", QUICK),
        "0\n0\n"
    );
}

/// With a channel to its agent, and without graphics, whose text would take the guest minutes. What is special is put in
/// place of `FIRMWARE` and `DEVICES`.
const WITH_AGENT: &str = r#"
apiVersion: kubevirt.io/v1
kind: VirtualMachineInstance
metadata: {name: whole}
spec:
  terminationGracePeriodSeconds: 300
  domain:
    memory: {guest: 640Mi}
    firmware: {bootloader: {FIRMWARE}}
    devices:
      DEVICES
      disks: [{name: root, bootOrder: 1}, {name: seed}]
  volumes:
    - {name: root, hostDisk: {path: /dev/vdb, type: Disk}}
    - name: seed
      cloudInitNoCloud:
        userData: |
          #cloud-config
          bootcmd: ["echo CLOUD-INIT $(ls -d /dev/tpm0 /dev/ttyS0 /sys/firmware/efi 2> /dev/null) > /dev/ttyS0"]
"#;

/// From the firmware to the power button; `has` is what cloud-init finds in it.
fn whole(lab: &Lab, [firmware, devices]: [&str; 2], has: &str) {
    let spec = WITH_AGENT.replace("FIRMWARE", firmware).replace("DEVICES", devices);
    start(lab, "", &spec, "INIT");
    wait(lab, has);
    let log = must(lab, "cat /log", QUICK);
    assert!(log.contains("on QEMU, through libvirt: spec.domain."), "{log}");
    agent(lab);
    must(lab, "kill $(cat /pid)", QUICK);
    let told = sh(lab, LEFT, LONG * 2).text();
    assert_eq!(told, format!("default/whole: the guest powered off{NOTHING_SMALL}"));
}

/// Debian's QEMU 7.2, where the lab has no better one, ends with an assertion where a guest of its guest writes CR8 while an interrupt is
/// pending and that write is not intercepted, as at the end of each interrupt of EFI firmware. KVM intercepts it where the
/// interrupt controller is QEMU's: slower, and all else is the same.
const WITHOUT_CR8: &str = "
    mkdir -p /usr/emulator && mv /usr/bin/qemu-system-x86_64 /usr/emulator/
    printf '#!/bin/sh\\nexec /usr/emulator/qemu-system-x86_64 \"$@\" -machine kernel-irqchip=off -global host-x86_64-cpu.kvm-asyncpf-int=off\\n' > /usr/bin/qemu-system-x86_64
    chmod +x /usr/bin/qemu-system-x86_64";

#[test]
fn debian_starts_on_qemu_by_efi_and_its_agent_answers() {
    let Some(files) = with_debian() else { return };
    on_lab("libvirt-efi", &Shape::one_node(1792), "", &files, |lab| {
        libvirt::start(lab);
        if !Emulator::is_cached(&Cache::of_user()) {
            must(lab, WITHOUT_CR8, QUICK);
        }
        // Without a TPM: with one, the firmware hashes kernel and initrd for it, which takes minutes here.
        whole(lab, ["efi: {secureBoot: false}", "rng: {}"], "CLOUD-INIT /dev/ttyS0 /sys/firmware/efi");
    });
}

/// What the agent says and does.
fn agent(lab: &Lab) {
    let ask = |what: &str| must(lab, &format!("pinion guest {what} whole"), LONG);
    must(lab, "for i in $(seq 200); do pinion guest ping whole && exit 0; sleep 1; done; exit 1", LONG * 2);
    let os = ask("os");
    assert!(os.contains("Debian GNU/Linux 12") && os.contains("x86_64"), "{os}");
    let systems = ask("filesystems");
    assert!(systems.contains("ext4") && systems.contains("/boot/efi"), "{systems}");
    assert!(ask("filesystems -o json").contains("\"mountPoint\": \"/\""));
    let frozen = ask("freeze");
    assert!(frozen.ends_with("file systems frozen\n"), "{frozen}");
    assert_eq!(ask("thaw"), frozen.replace("frozen", "thawed"));
    ask("interfaces");
    ask("users");
    let ran = sh(lab, "pinion guest exec whole -- sh -c 'echo to-$0; echo beside >&2; exit 7' inside", LONG);
    assert_eq!(
        (ran.code, ran.text().as_str(), ran.error_text().as_str()),
        (Some(7), "to-inside\n", "beside\n")
    );
}

/// Looks at the VNC server until its screen shows something: text of the firmware, of GRUB or of the kernel.
fn picture(lab: &Lab) {
    let take = "for i in $(seq 200); do S=$(ls /run/pinion/libvirt/*/vnc.sock 2>/dev/null) && \
        python3 /vnc.py $S /tmp/picture.ppm 2>/tmp/vnc.log && \
        [ $(tail -c +16 /tmp/picture.ppm | tr -d '\\0' | head -c 2000 | wc -c) -ge 2000 ] && exit 0; \
        kill -0 $(cat /pid) || break; sleep 0.3; done; cat /tmp/vnc.log /log; exit 1";
    must(lab, take, LONG);
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
