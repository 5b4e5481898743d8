//! Volumes of a guest in a pod, by the launcher on a host where their folders are made by hand: the guest boots from a
//! container disk, writes to it, reboots, and finds what it wrote; the image stays as it was.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

#[path = "lab/console.rs"]
mod console;
#[path = "lab/fat.rs"]
mod fat;
mod lab;

use std::fs;

use lab::{LONG, QUICK, must, on_lab};
use pinion_lab::{Attach, Cache, Files, Kernel, Lab, Shape, guest_initrd};
use serde_json::{Value, json};

const SYSLINUX: &str = "DEFAULT a\nLABEL a\n KERNEL vmlinuz\n APPEND quiet initrd=initrd.img\n";

/// Says what its disks hold; at the first boot writes to the one that it booted from, and reboots.
const GUEST: &str = "
at() { dd if=$1 bs=512 skip=$2 count=1 2>/dev/null | tr -d '\\000'; }
has() { grep -q \"$2\" $1 && echo HAS $2; }
if [ \"$(at /dev/vda 100000)\" = written ]; then
    echo BOOT second
else
    echo BOOT first
    has /dev/vdb config-2
    has /dev/vdb FROM-A-SECRET
    echo SIZE $(cat /sys/class/block/vdc/size)
    has /dev/vdd cfgdata
    has /dev/vdd A-WORD
    echo BELOW $(at /dev/vde 0)
    printf changed | dd of=/dev/vde conv=notrunc,fsync 2>/dev/null
    printf written | dd of=/dev/vda bs=512 seek=100000 conv=notrunc,fsync 2>/dev/null
    sync
    reboot -f
    sleep 1000
fi
";

/// What the pod of such a guest has.
const POD: &str = "mkdir -p /pod/images/root/disk /pod/volumes/seed /pod/volumes/word /pod/volumes/base /pod/scratch; \
    cat /dev/vda > /pod/images/root/disk/disk.img; printf FROM-A-SECRET > /pod/volumes/seed/userdata; \
    printf A-WORD > /pod/volumes/word/key; printf %-1024s below > /pod/volumes/base/disk.img; \
    md5sum /pod/images/root/disk/disk.img /pod/volumes/base/disk.img > /pod/sums";

fn spec() -> Value {
    let disks = ["root", "seed", "empty", "word", "base"].map(|name| json!({"name": name}));
    json!({
        "apiVersion": "pinion.dev/v1alpha1", "kind": "LaunchSpec",
        "instance": {
            "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance", "metadata": {"name": "guest"},
            "spec": {"domain": {"devices": {"disks": disks}}, "volumes": [
                {"name": "root", "containerDisk": {"image": "example.com/disk"}},
                {"name": "seed", "cloudInitConfigDrive": {"secretRef": {"name": "seed"}}},
                {"name": "empty", "emptyDisk": {"capacity": "64Mi"}},
                {"name": "word", "secret": {"secretName": "word"}},
                {"name": "base", "ephemeral": {"persistentVolumeClaim": {"claimName": "base"}}},
            ]},
        },
        "placement": {
            "name": "default/guest", "generation": 1, "emulator": {"cpus": [0]}, "ioThreads": [], "devices": [],
            "vcpus": [{"id": 0, "socket": 0, "core": 0, "thread": 0, "cell": 0, "cpus": [0]}],
            "cells": [{
                "id": 0, "hostNode": 0, "memoryBytes": 256 << 20, "pageSizeBytes": 4096, "vcpus": [0],
                "distances": [10],
            }],
        },
        "podVolumes": {"root": "/pod", "devices": "/pod/devices"},
        "console": "log", "audit": {"intervalSeconds": 3600, "repair": false},
    })
}

fn start(lab: &Lab, at: &str) {
    must(lab, &format!("mkdir {at}"), QUICK);
    lab.put(&format!("{at}/spec.json"), spec().to_string().as_bytes(), 0o600).unwrap();
    let run = "pinion-launcher --spec-fd 0 < spec.json > console 2> log & echo $! > pid";
    must(lab, &format!("cd {at}; {run}"), QUICK);
}

#[test]
fn what_a_guest_writes_to_a_container_disk_is_there_until_it_ends() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("initrd");
    guest_initrd(GUEST, &path).unwrap();
    let kernel = fs::read(Kernel::of_debian(&Cache::of_user()).unwrap().image()).unwrap();
    let disk = folder.path().join("disk.img");
    let files: [(&str, &[u8]); 3] = [
        ("syslinux.cfg", SYSLINUX.as_bytes()),
        ("vmlinuz", &kernel),
        ("initrd.img", &fs::read(path).unwrap()),
    ];
    fs::write(&disk, fat::fat(&files)).unwrap();
    let files = Files::new().with_disk(&disk, Attach::Snapshot);
    on_lab("volumes", &Shape::one_node(1408), "", &files, |lab| {
        must(lab, POD, QUICK);
        for at in ["/one", "/two"] {
            start(lab, at);
            let said = [
                "BOOT first",
                "HAS config-2",
                "HAS FROM-A-SECRET",
                "SIZE 131072",
                "HAS cfgdata",
                "HAS A-WORD",
            ];
            for says in said.into_iter().chain(["BELOW below", "BOOT second"]) {
                console::wait(lab, at, says, LONG);
            }
            let ended = "for i in $(seq 600); do kill -0 $(cat pid) 2>/dev/null || exec cat log; sleep 0.1; done; exit 1";
            let last = must(lab, &format!("cd {at}; {ended}"), LONG);
            assert!(last.contains("the guest powered off"), "{last}");
            must(lab, "md5sum -c /pod/sums", QUICK);
            assert_eq!(must(lab, "ls -A /pod/scratch", QUICK).trim(), "", "nothing has a name there");
        }
    });
}
