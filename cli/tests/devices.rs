//! `pinion devices` on gathered trees: what it lists, and how.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

/// A host with a bridge, a disk that it uses, a free network card and a pass-through GPU.
fn host() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    write(root, "sys/devices/system/cpu/online", "0-3");
    write(root, "sys/class/iommu/dmar0/uevent", "");
    write(root, "proc/interrupts", " 24: 1 2 IR-PCI-MSI 1-edge nvme0q0\n");
    function(root, "0000:3a:00.0", "0x060400", 1, "pcieport");
    let disk = function(root, "0000:3b:00.0", "0x010802", 42, "nvme");
    write(root, &format!("{disk}/nvme/nvme0/nvme0n1/size"), "1");
    write(root, "sys/class/block/nvme0n1/dev", "259:0");
    write(root, "proc/self/mountinfo", "22 1 259:0 / /data rw - ext4 /dev/nvme0n1 rw\n");
    function(root, "0000:5e:00.0", "0x020000", 43, "i40e");
    function(root, "0000:86:00.0", "0x030200", 44, "vfio-pci");
    folder
}

fn function(root: &Path, address: &str, class: &str, group: u32, driver: &str) -> String {
    let folder = format!("sys/bus/pci/devices/{address}");
    for (name, text) in
        [("vendor", "0x8086"), ("device", "0x1572"), ("class", class), ("reset_method", "flr bus")]
    {
        write(root, &format!("{folder}/{name}"), text);
    }
    symlink(format!("../../../bus/pci/drivers/{driver}"), root.join(&folder).join("driver")).unwrap();
    symlink(format!("../../../kernel/iommu_groups/{group}"), root.join(&folder).join("iommu_group")).unwrap();
    folder
}

fn write(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn devices(root: &Path, format: &str) -> Vec<u8> {
    let from = format!("sysfs:{}", root.display());
    let arguments = ["devices", "--from", &from, "-o", format];
    let output = Command::new(env!("CARGO_BIN_EXE_pinion")).args(arguments).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

#[test]
fn every_device_but_bridges_has_a_line_and_its_state() {
    let host = host();
    let text = String::from_utf8(devices(host.path(), "text")).unwrap();
    let state = |address: &str| text.lines().find(|l| l.starts_with(address)).unwrap().to_owned();
    assert!(state("0000:3b:00.0").ends_with("in use"), "{text}");
    assert!(state("0000:5e:00.0").ends_with("free"), "{text}");
    assert!(state("0000:86:00.0").ends_with("ready"), "{text}");
    assert!(!text.contains("0000:3a:00.0"), "{text}");
    assert!(text.contains("\n  → `sudo umount /data`, and take it out of /etc/fstab\n"), "{text}");
    assert!(String::from_utf8(devices(host.path(), "wide")).unwrap().contains("flr,bus"));
}

#[test]
fn the_document_says_what_can_be_done_with_each() {
    let host = host();
    let list: serde_json::Value = serde_json::from_slice(&devices(host.path(), "json")).unwrap();
    assert_eq!((&list["apiVersion"], &list["kind"]), (&"pinion.dev/v1alpha1".into(), &"DeviceList".into()));
    assert_eq!((&list["iommu"], &list["interruptRemapping"]), (&true.into(), &true.into()));
    let items = list["items"].as_array().unwrap();
    assert_eq!(items.len(), 3);
    let (disk, card, gpu) = (&items[0], &items[1], &items[2]);
    assert_eq!((&disk["assignable"], &disk["obstacles"][0]["reason"]), (&false.into(), &"InUse".into()));
    assert!(disk["obstacles"][0]["remedy"].as_str().unwrap().contains("umount /data"));
    assert_eq!(disk["uses"][0]["at"], "/data");
    assert_eq!((&card["assignable"], &card["binding"]["state"]), (&true.into(), &"unbound".into()));
    assert_eq!(card["binding"]["members"][0]["driver"], "i40e");
    assert_eq!(card["groupMembers"], serde_json::json!(["0000:5e:00.0"]));
    assert_eq!((&gpu["binding"]["state"], &gpu["iommuGroup"]), (&"ready".into(), &44.into()));
}

#[test]
fn formats_that_do_not_exist_are_refused_with_those_that_do() {
    let output = Command::new(env!("CARGO_BIN_EXE_pinion")).args(["devices", "-o", "yaml"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2));
    assert!(said.contains("text, wide, json"), "{said}");
}
