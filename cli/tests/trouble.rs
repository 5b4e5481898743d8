//! Trouble while a guest is set up or runs: each gives one clear error, and nothing is left behind.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod lab;

use lab::{LONG, QUICK, both, must, on_lab, sh};
use pinion_lab::{Files, Lab, Shape};

/// Says what became of a write to the first disk, if there is one, and stays.
const SCRIPT: &str = "
[ -e /dev/vda ] && { dd if=/dev/zero of=/dev/vda bs=1M count=8 conv=fsync > /dev/null 2>&1; echo \"WRITE $?\"; }
echo STAYING
while true; do sleep 1; done
";

const SPEC: &str = r#"
apiVersion: kubevirt.io/v1
kind: VirtualMachineInstance
metadata: {name: NAME}
spec:
  terminationGracePeriodSeconds: 1
  domain:
    cpu: {cores: CORES, threads: 2, dedicatedCpuPlacement: true, numa: {guestMappingPassthrough: {}}}
    memory: {guest: 128Mi, hugepages: {pageSize: 2Mi}}
    firmware:
      kernelBoot:
        kernelArgs: "quiet tsc=reliable no_timer_check rcupdate.rcu_expedited=1 mitigations=off cryptomgr.notests"
        container: {image: "file:/var/lib/pinion/debian", kernelPath: KERNEL, initrdPath: /initrd}
    devices:
      autoattachPodInterface: false
      disks: [DISK]
  volumes: [VOLUME]
"#;

/// A spec's text.
fn spec(name: &str, cores: u32, kernel: &str, disk: Option<&str>) -> String {
    let volume = disk.map(|path| format!("{{name: data, hostDisk: {{path: {path}, type: Disk}}}}"));
    let disk = disk.map(|_| "{name: data, disk: {bus: virtio}}");
    SPEC.replace("NAME", name)
        .replace("CORES", &cores.to_string())
        .replace("KERNEL", kernel)
        .replace("DISK", disk.unwrap_or_default())
        .replace("VOLUME", &volume.unwrap_or_default())
}

/// Runs a spec that must fail with that code and say those words.
fn fails(lab: &Lab, spec: &str, code: i32, words: &[&str]) {
    lab.put("/vm.yaml", spec.as_bytes(), 0o644).unwrap();
    let output = sh(lab, "pinion run /vm.yaml < /dev/null", LONG);
    assert_eq!(output.code, Some(code), "{}", both(&output));
    let text = both(&output);
    assert!(words.iter().all(|w| text.contains(w)), "{words:?} in {text}");
    nothing_is_left(lab);
}

/// Starts a guest and waits until it stays.
fn start(lab: &Lab, name: &str, spec: &str) {
    lab.put(&format!("/{name}.yaml"), spec.as_bytes(), 0o644).unwrap();
    let run = format!(
        "pinion run /{name}.yaml --metrics 127.0.0.1:9100 > /{name}.out 2> /{name}.log & echo $! > /{name}.pid"
    );
    must(lab, &run, QUICK);
    let wait = format!(
        "for i in $(seq 400); do grep -q STAYING /{name}.out && exit 0; sleep 0.4; done; cat /{name}.log; exit 1"
    );
    must(lab, &wait, LONG);
}

/// Ends a guest, and gives the exit code of its command.
fn stop(lab: &Lab, name: &str) {
    must(lab, &format!("kill $(cat /{name}.pid)"), QUICK);
    nothing_is_left(lab);
}

/// No process, no huge page, no tap device and no CPU is held.
fn nothing_is_left(lab: &Lab) {
    let gone = "for i in $(seq 600); do [ -z \"$(pidof pinion-launcher pinion)\" ] && break; sleep 0.1; done; \
        pidof pinion-launcher pinion | wc -w; \
        cat /sys/devices/system/node/node*/hugepages/hugepages-2048kB/free_hugepages; \
        ls /sys/class/net | grep -c pinion";
    assert_eq!(sh(lab, gone, LONG).text(), "0\n160\n160\n0\n");
    // All dedicated CPUs can be had again: cores 1 to 3.
    lab.put("/all.yaml", spec("all", 3, "/vmlinuz", None).as_bytes(), 0o644).unwrap();
    must(lab, "pinion plan /all.yaml", QUICK);
}

#[test]
fn trouble_gives_one_clear_error_and_leaves_nothing_behind() {
    on_lab("trouble", &Shape::small(), SCRIPT, &Files::new(), |lab| {
        set_up(lab);
        disks(lab);
        neighbours(lab);
        at_once(lab);
        killed(lab);
    });
}

/// What is wrong before anything runs.
fn set_up(lab: &Lab) {
    must(lab, "echo 'not a kernel' > /var/lib/pinion/debian/text; : > /var/lib/pinion/debian/empty", QUICK);
    fails(lab, &spec("a", 1, "/text", None), 1, &["kernel file is text", "give a Linux kernel"]);
    fails(lab, &spec("a", 1, "/empty", None), 1, &["kernel file is empty"]);
    fails(lab, &spec("a", 1, "/absent", None), 1, &["kernelPath", "No such file"]);
    fails(lab, &spec("a", 1, "/vmlinuz", Some("/no/disk.img")), 1, &["\"data\"", "/no/disk.img"]);
    fails(lab, &spec("a", 4, "/vmlinuz", None), 3, &["refused", "SHORT OF"]);
    must(lab, "mv /dev/kvm /dev/away", QUICK);
    fails(lab, &spec("a", 1, "/vmlinuz", None), 1, &["no /dev/kvm"]);
    assert_eq!(sh(lab, "pinion doctor", QUICK).code, Some(1));
    must(
        lab,
        "mv /dev/away /dev/kvm; chmod 600 /dev/kvm; mkdir -p /tmp/of-nobody; chown 65534 /tmp/of-nobody; \
            printf 'root:x:0:0::/:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n' > /etc/passwd",
        QUICK,
    );
    let nobody = "su -s /bin/sh nobody -c";
    let output = sh(lab, &format!("{nobody} 'pinion run /vm.yaml'"), LONG);
    assert_eq!(output.code, Some(1), "{}", both(&output));
    assert!(both(&output).contains("--ledger"), "{}", both(&output));
    let run = format!("{nobody} 'pinion run /vm.yaml --ledger /tmp/of-nobody/ledger.json'");
    let output = sh(lab, &run, LONG);
    assert_eq!(output.code, Some(1), "{}", both(&output));
    assert!(both(&output).contains("may not open /dev/kvm"), "{}", both(&output));
    nothing_is_left(lab);
}

/// A disk that is full, and one that vanishes.
fn disks(lab: &Lab) {
    must(
        lab,
        "mkdir -p /small && mount -t tmpfs -o size=2m tmpfs /small && dd if=/dev/zero of=/small/disk.img bs=1 count=1 \
            seek=67108863 2>/dev/null",
        QUICK,
    );
    start(lab, "full", &spec("full", 1, "/vmlinuz", Some("/small/disk.img")));
    assert_eq!(must(lab, "grep -c 'WRITE 1' /full.out", QUICK), "1\n");
    let errors = must(
        lab,
        "wget -q -O - http://127.0.0.1:9100/metrics | grep '^pinion_vmi_storage_errors_total'",
        QUICK,
    );
    assert!(!errors.trim_end().ends_with(" 0"), "{errors}");
    fails_while_locked(lab);
    stop(lab, "full");
    must(lab, "umount /small", QUICK);
}

/// A second guest that wants the same image.
fn fails_while_locked(lab: &Lab) {
    lab.put("/second.yaml", spec("second", 1, "/vmlinuz", Some("/small/disk.img")).as_bytes(), 0o644)
        .unwrap();
    let output = sh(lab, "pinion run /second.yaml < /dev/null", LONG);
    assert_eq!(output.code, Some(1), "{}", both(&output));
    assert!(both(&output).contains("lock") || both(&output).contains("in use"), "{}", both(&output));
}

/// A second guest that wants the same CPUs, and one of the same name.
fn neighbours(lab: &Lab) {
    start(lab, "first", &spec("first", 3, "/vmlinuz", None));
    lab.put("/second.yaml", spec("second", 1, "/vmlinuz", None).as_bytes(), 0o644).unwrap();
    let output = sh(lab, "pinion run /second.yaml < /dev/null", LONG);
    assert_eq!(output.code, Some(3), "{}", both(&output));
    assert!(output.text().contains("default/first"), "{}", both(&output));
    stop(lab, "first");
}

/// Two that start at the same time: where one gets its CPUs for itself, old kernels move the threads of the other.
fn at_once(lab: &Lab) {
    for name in ["one", "two"] {
        lab.put(&format!("/{name}.yaml"), spec(name, 1, "/vmlinuz", None).as_bytes(), 0o644).unwrap();
    }
    let both = "for n in one two; do pinion run /$n.yaml > /$n.out 2> /$n.log & done; \
        for i in $(seq 300); do grep -q STAYING /one.out && grep -q STAYING /two.out && break; \
        [ $(pidof pinion-launcher | wc -w) = 2 ] || [ $i -lt 30 ] || break; sleep 0.3; done; pinion ps -o wide";
    let guests = must(lab, both, LONG);
    let logs = must(lab, "cat /one.log /two.log", QUICK);
    assert_eq!(guests.matches(" isolated ").count(), 2, "{guests}\n{logs}");
    assert_eq!(logs.matches("verdict holds").count(), 2, "{logs}");
    must(lab, "killall pinion", QUICK);
    nothing_is_left(lab);
}

/// Killed at each step: the command, and the launcher.
fn killed(lab: &Lab) {
    lab.put("/vm.yaml", spec("killed", 2, "/vmlinuz", None).as_bytes(), 0o644).unwrap();
    for victim in ["pinion", "pinion-launcher"] {
        for delay in ["0.05", "0.2", "0.6", "1.5", "4"] {
            let kill = format!(
                "pinion run /vm.yaml > /dev/null 2>&1 < /dev/null & until pidof {victim} > /dev/null; do :; done; \
                    sleep {delay}; kill -9 $(pidof {victim})"
            );
            must(lab, &kill, QUICK);
            nothing_is_left(lab);
        }
    }
}
