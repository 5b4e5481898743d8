//! Guests that boot from their own disk image: Debian's, as its own tools make it, raw and qcow2.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

#[path = "lab/console.rs"]
mod console;
#[path = "lab/fat.rs"]
mod fat;
mod lab;

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use fat::fat;
use lab::{LONG, QUICK, both, must, on_lab, sh};
use pinion_lab::{Attach, Cache, DebianDisk, Files, Kernel, Lab, Shape, guest_initrd};
use serde_json::Value;

/// A guest with systemd and cloud-init takes minutes in an emulated guest of an emulated host, and now and then many.
const BOOTED: Duration = LONG.saturating_mul(5);

/// Names the disk, and nothing else of what boots.
const ONLY_A_DISK: &str = "
apiVersion: kubevirt.io/v1
kind: VirtualMachineInstance
metadata: {name: debian}
spec:
  terminationGracePeriodSeconds: 300
  domain:
    memory: {guest: 512Mi}
    devices: {disks: [{name: root, disk: {bus: virtio}}]}
  volumes: [{name: root, hostDisk: {path: /dev/vda, type: Disk}}]
";

/// What cloud-init is told: at the first boot of an instance, upgrade and reboot.
const WITH_SEED: &str = r#"
apiVersion: kubevirt.io/v1
kind: VirtualMachineInstance
metadata: {name: seeded}
spec:
  terminationGracePeriodSeconds: 300
  domain:
    memory: {guest: 512Mi}
    devices: {disks: [{name: seed}, {name: root, bootOrder: 1}]}
  volumes:
    - {name: root, hostDisk: {path: /disk.qcow2, type: Disk}}
    - name: seed
      cloudInitNoCloud:
        userData: |
          #cloud-config
          runcmd:
            - "echo UPGRADING $(uname -r) > /dev/ttyS0"
            - "mv /var/lib/upgrade/* /boot/ && update-grub > /dev/ttyS0 2>&1 && sync && reboot"
"#;

fn disk() -> Option<DebianDisk> {
    match DebianDisk::of_debian(&Cache::of_user()) {
        Ok(disk) => Some(disk),
        Err(e) => {
            println!("skipped: {e}");
            None
        }
    }
}

/// Starts a guest whose files are in `at`.
fn start(lab: &Lab, at: &str, spec: &str) {
    must(lab, &format!("mkdir {at}"), QUICK);
    lab.put(&format!("{at}/vm.yaml"), spec.as_bytes(), 0o644).unwrap();
    let run = "pinion run vm.yaml --certificate cert.json > console 2> log & echo $! > pid";
    must(lab, &format!("cd {at}; {run}"), QUICK);
}

fn wait(lab: &Lab, at: &str, says: &str) {
    console::wait(lab, at, says, BOOTED);
}

/// Waits until a guest is gone, and says how it ended.
fn ended(lab: &Lab, at: &str) -> String {
    let wait = "for i in $(seq 3000); do kill -0 $(cat pid) 2>/dev/null || exec tail -1 log; sleep 0.1; done; exit 1";
    must(lab, &format!("cd {at}; {wait}"), BOOTED)
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

#[test]
fn debian_boots_to_its_login_from_a_spec_that_names_only_the_disk() {
    let Some(disk) = disk() else { return };
    let [old, _] = disk.releases().unwrap();
    let files = Files::new().with_disk(disk.image(), Attach::Snapshot);
    on_lab("disk-raw", &Shape::one_node(1408), "", &files, |lab| {
        let image = json(&must(lab, "pinion image inspect /dev/vda -o json", QUICK));
        assert_eq!(image["bootsDirectly"], true, "{image:#}");
        assert_eq!(image["loader"], "grub", "{image:#}");
        assert_eq!(image["entries"][0]["kernel"], format!("/boot/vmlinuz-{old}"), "{image:#}");
        start(lab, "/raw", ONLY_A_DISK);
        wait(lab, "/raw", &format!("INIT {old}"));
        wait(lab, "/raw", &format!("{old} debian ttyS0"));
        wait(lab, "/raw", "debian login:");
        let certificate = json(&must(lab, "cat /raw/cert.json", QUICK));
        assert_eq!(certificate["verdict"], "holds", "{certificate:#}");
        println!("{}", must(lab, "cat /raw/log", QUICK));
        // systemd shuts down in order when the power button is pressed.
        must(lab, "kill $(cat /raw/pid)", QUICK);
        let last = ended(lab, "/raw");
        assert!(last.contains("the guest powered off"), "{last}");
        assert_eq!(must(lab, "pidof pinion pinion-launcher pinion-image | wc -w", QUICK).trim(), "0");
    });
}

#[test]
fn a_kernel_that_the_guest_upgrades_to_runs_after_its_reboot() {
    let Some(disk) = disk() else { return };
    let [old, new] = disk.releases().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let Some(qcow2) = qcow2(&disk, folder.path()) else { return };
    let files = Files::new().with_disk(qcow2, Attach::Snapshot);
    on_lab("disk-qcow2", &Shape::one_node(1408), "", &files, |lab| {
        must(lab, "ln -s /dev/vda /disk.qcow2", QUICK);
        start(lab, "/qcow2", WITH_SEED);
        wait(lab, "/qcow2", &format!("UPGRADING {old}"));
        wait(lab, "/qcow2", &format!("INIT {new}"));
        wait(lab, "/qcow2", &format!("{new} seeded ttyS0"));
        wait(lab, "/qcow2", "seeded login:");
        println!("{}", must(lab, "cat /qcow2/log", QUICK));
    });
}

/// The image as qcow2, in a file with room for what a guest writes.
fn qcow2(disk: &DebianDisk, folder: &Path) -> Option<std::path::PathBuf> {
    let image = folder.join("disk.qcow2");
    let convert =
        Command::new("qemu-img").args(["convert", "-O", "qcow2"]).arg(disk.image()).arg(&image).status();
    if !convert.is_ok_and(|status| status.success()) {
        println!("skipped: there is no qemu-img");
        return None;
    }
    let length = fs::metadata(&image).unwrap().len();
    File::options()
        .write(true)
        .open(&image)
        .unwrap()
        .set_len(length.next_multiple_of(1 << 20) + (256 << 20))
        .unwrap();
    Some(image)
}

/// A disk with a single EFI system partition, by Debian's own tool.
fn with_esp(esp: &[u8], image: &Path) {
    let mut file = File::create(image).unwrap();
    file.set_len(esp.len() as u64 + (2 << 20)).unwrap();
    let mut sfdisk = Command::new("/sbin/sfdisk").arg("-q").arg(image).stdin(Stdio::piped()).spawn().unwrap();
    let table = b"label: gpt\nstart=2048, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B\n";
    sfdisk.stdin.take().unwrap().write_all(table).unwrap();
    assert!(sfdisk.wait().unwrap().success());
    file.seek(SeekFrom::Start(1 << 20)).unwrap();
    file.write_all(esp).unwrap();
}

#[test]
fn images_of_syslinux_and_of_the_boot_loader_specification_boot_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("initrd");
    guest_initrd("echo ARGUMENTS $(cat /proc/cmdline)", &path).unwrap();
    let kernel = fs::read(Kernel::of_debian(&Cache::of_user()).unwrap().image()).unwrap();
    let initrd = fs::read(path).unwrap();
    let (syslinux, entries) = (folder.path().join("syslinux.img"), folder.path().join("entries.img"));
    let cfg = "DEFAULT a\nLABEL b\n KERNEL /none\nLABEL a\n KERNEL vmlinuz\n APPEND by=syslinux initrd=initrd.img quiet\n";
    let files: [(&str, &[u8]); 3] =
        [("syslinux.cfg", cfg.as_bytes()), ("vmlinuz", &kernel), ("initrd.img", &initrd)];
    fs::write(&syslinux, fat(&files)).unwrap();
    let entry = |version: &str| {
        format!(
            "title Debian {version}\nversion {version}\nlinux /vmlinuz\ninitrd /initrd.img\noptions by=entries version={version} quiet\n"
        )
    };
    let (old, new) = (entry("6.9"), entry("6.10"));
    let files: [(&str, &[u8]); 4] = [
        ("loader/entries/old.conf", old.as_bytes()),
        ("loader/entries/new.conf", new.as_bytes()),
        ("vmlinuz", &kernel),
        ("initrd.img", &initrd),
    ];
    with_esp(&fat(&files), &entries);
    let files = Files::new().with_disk(&syslinux, Attach::Snapshot).with_disk(&entries, Attach::Snapshot);
    on_lab("disk-loaders", &Shape::one_node(1408), "", &files, |lab| {
        for (disk, expected) in [("vda", "by=syslinux"), ("vdb", "by=entries version=6.10")] {
            let spec = ONLY_A_DISK.replace("/dev/vda", &format!("/dev/{disk}")).replace("512Mi", "256Mi");
            let at = format!("/{disk}");
            start(lab, &at, &spec);
            wait(lab, &at, &format!("ARGUMENTS console=ttyS0 {expected}"));
            let last = ended(lab, &at);
            assert!(last.contains("the guest powered off"), "{disk}: {last}");
        }
    });
}

/// What does not boot is refused before anything is held, with one error.
#[test]
fn what_does_not_boot_is_refused_with_its_reason() {
    on_lab("disk-refused", &Shape::one_node(1408), "", &Files::new(), |lab| {
        must(
            lab,
            "dd if=/dev/zero of=/empty.img bs=1M count=4 2>/dev/null; cp /empty.img /xfs.img; \
            printf XFSB | dd of=/xfs.img conv=notrunc 2>/dev/null; : > /none.img",
            QUICK,
        );
        for (image, expected) in [
            (
                "/empty.img",
                "no boot configuration that can be read; not looked into: the disk holds nothing known",
            ),
            ("/xfs.img", "not looked into: the disk holds XFS"),
            ("/none.img", "is empty"),
            ("/absent.img", "No such file"),
        ] {
            lab.put("/vm.yaml", ONLY_A_DISK.replace("/dev/vda", image).as_bytes(), 0o644).unwrap();
            let output = sh(lab, "pinion run /vm.yaml", QUICK);
            assert_eq!(output.code, Some(2), "{}", both(&output));
            let said = output.error_text();
            assert_eq!(said.lines().count(), 1, "{said}");
            assert!(said.contains("volume \"root\"") && said.contains(expected), "{said}");
            assert!(!sh(lab, "test -e /run/pinion/ledger.json", QUICK).success());
        }
    });
}
