//! PCI functions of gathered trees: what they are made of, and what the host uses them for.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[expect(dead_code, reason = "other tests need whole machines")]
mod tree;

use pinion_discovery::{From, discover};
use pinion_machine::{Bdf, HostUse, Machine, PciBarKind, PciFunction, Sriov};
use tree::Tree;

const NVME: &str = "../../../devices/pci0000:3a/0000:3a:00.0/0000:3b:00.0";

fn tree() -> Tree {
    let tree = Tree::new();
    tree.online("0", "0");
    tree
}

/// A function as sysfs has it: its folder is a link into `sys/devices`.
fn function(tree: &Tree, path: &str, class: &str) -> String {
    let address = path.rsplit('/').next().unwrap();
    let real = path.replace("../../../", "sys/");
    for (name, text) in [("vendor", "0x144d"), ("device", "0xa808"), ("class", class)] {
        tree.file(&format!("{real}/{name}"), text);
    }
    std::fs::create_dir_all(tree.root().join("sys/bus/pci/devices")).unwrap();
    tree.link(&format!("sys/bus/pci/devices/{address}"), path);
    real
}

/// A device of a class below a function: its folder in the class is a link as well.
fn device(tree: &Tree, class: &str, real: &str) -> String {
    let name = real.rsplit('/').next().unwrap();
    tree.file(&format!("{real}/uevent"), "");
    std::fs::create_dir_all(tree.root().join(format!("sys/class/{class}"))).unwrap();
    tree.link(&format!("sys/class/{class}/{name}"), &real.replace("sys/", "../../"));
    real.to_owned()
}

fn read(tree: &Tree) -> Machine {
    discover(&From::Sysfs(tree.root().to_owned())).unwrap()
}

fn find(machine: &Machine, address: &str) -> PciFunction {
    machine.pci.iter().find(|f| f.address.to_string() == address).unwrap().clone()
}

fn mounted(device: &str, at: &str) -> HostUse {
    HostUse::Mounted { device: device.into(), at: at.into() }
}

#[test]
fn registers_vectors_and_ports_are_read() {
    let tree = tree();
    let real = function(&tree, NVME, "0x010802");
    let none = "0x0000000000000000 0x0000000000000000 0x0000000000000000\n";
    let lines = ["0x00000000f0000000 0x00000000f0003fff 0x0000000000140204\n", none, none, none];
    let rest = ["0x000000000000e000 0x000000000000e0ff 0x0000000000040101\n", none, "0xrom"];
    tree.file(&format!("{real}/resource"), &[lines.concat(), rest.concat()].concat());
    let mut config = vec![0u8; 4096];
    config[0x06] = 0x10;
    config[0x34] = 0x50;
    config[0x50..0x54].copy_from_slice(&[0x11, 0, 32, 0]);
    std::fs::write(tree.root().join(format!("{real}/config")), config).unwrap();
    tree.file(&format!("{real}/subsystem_vendor"), "0x144d");
    tree.file(&format!("{real}/subsystem_device"), "0xa801");
    tree.file(&format!("{real}/mdev_supported_types/nvidia-63/name"), "x");
    function(&tree, "../../../devices/pci0000:3a/0000:3a:00.0", "0x060400");
    let machine = read(&tree);
    let nvme = find(&machine, "0000:3b:00.0");
    let bars: Vec<_> = nvme.bars.iter().map(|b| (b.index, b.size_bytes, b.kind)).collect();
    assert_eq!(bars, [(0, 16384, PciBarKind::Memory64), (4, 256, PciBarKind::Ports)]);
    assert_eq!((nvme.msi_vectors, nvme.msix_vectors), (None, Some(33)));
    assert_eq!(nvme.root_port.unwrap().to_string(), "0000:3a:00.0");
    assert_eq!(nvme.subsystem.map(|s| (s.vendor, s.device)), Some((0x144d, 0xa801)));
    assert_eq!(nvme.mediated_types, ["nvidia-63"]);
    assert_eq!(find(&machine, "0000:3a:00.0").root_port, None);
    assert!(nvme.uses.is_empty() && nvme.reset_methods.is_empty());
}

#[test]
fn mediated_devices_are_known_by_their_function_and_type() {
    let tree = tree();
    let real = function(&tree, NVME, "0x030200");
    let kind = format!("{real}/mdev_supported_types/nvidia-222");
    tree.file(&format!("{kind}/name"), "GRID T4-1B");
    let (one, other) = ("83c12a25-5f5e-4d4c-9d15-b2a5e7e7a2c1", "0a5f5e25-83c1-4d4c-9d15-b2a5e7e7a2c1");
    for id in [one, other] {
        tree.file(&format!("{real}/{id}/uevent"), "");
        tree.link(&format!("{real}/{id}/mdev_type"), "../mdev_supported_types/nvidia-222");
    }
    tree.link(&format!("{real}/{one}/iommu_group"), "../../../../../kernel/iommu_groups/77");
    tree.file(&format!("{real}/not-a-uuid/mdev_type/name"), "x");
    let found = find(&read(&tree), "0000:3b:00.0").mediated_devices;
    let told: Vec<_> = found.iter().map(|d| (d.id.to_string(), d.type_id.as_str(), d.iommu_group)).collect();
    assert_eq!(told, [(other.to_owned(), "nvidia-222", None), (one.to_owned(), "nvidia-222", Some(77))]);
    assert_eq!(found[0].type_name.as_deref(), Some("GRID T4-1B"));
}

#[test]
fn virtual_functions_and_their_parent_know_each_other() {
    let tree = tree();
    let parent = function(&tree, NVME, "0x020000");
    tree.file(&format!("{parent}/sriov_totalvfs"), "64");
    let child = function(&tree, "../../../devices/pci0000:3a/0000:3a:00.0/0000:3b:10.0", "0x020000");
    tree.link(&format!("{parent}/virtfn0"), "../0000:3b:10.0");
    tree.link(&format!("{child}/physfn"), "../0000:3b:00.0");
    tree.file(&format!("{child}/reset"), "");
    let machine = read(&tree);
    let address = |text: &str| text.parse::<Bdf>().unwrap();
    let functions = vec![address("3b:10.0")];
    assert_eq!(find(&machine, "0000:3b:00.0").sriov, Some(Sriov::Physical { most: 64, functions }));
    let child = find(&machine, "0000:3b:10.0");
    assert_eq!(child.sriov, Some(Sriov::Virtual { parent: address("3b:00.0") }));
    assert_eq!(child.reset_methods, ["unnamed"], "a kernel that does not say how");
}

#[test]
fn disks_are_used_by_their_partitions_and_what_is_stacked_on_them() {
    let tree = tree();
    let real = function(&tree, NVME, "0x010802");
    let disk = device(&tree, "block", &format!("{real}/nvme/nvme0/nvme0n1"));
    tree.file(&format!("{disk}/dev"), "259:0");
    for (partition, number) in [("nvme0n1p1", "259:1"), ("nvme0n1p2", "259:2"), ("nvme0n1p3", "259:3")] {
        let real = device(&tree, "block", &format!("{disk}/{partition}"));
        tree.file(&format!("{real}/dev"), number);
        tree.file(&format!("{real}/partition"), "1");
    }
    let volume = device(&tree, "block", "sys/devices/virtual/block/dm-0");
    tree.file(&format!("{volume}/dev"), "253:0");
    tree.file(&format!("{volume}/dm/name"), "vg-root");
    tree.file(&format!("{disk}/nvme0n1p2/holders/dm-0/x"), "");
    tree.file(
        "proc/self/mountinfo",
        "22 1 253:0 / / rw - ext4 /dev/root rw\n\
         23 22 259:1 / /boot/efi rw - vfat /dev/nvme0n1p1 rw\n\
         24 22 253:0 /srv /bound rw - ext4 /dev/root rw\n\
         25 22 0:5 / /proc rw - proc proc rw\nnonsense\n",
    );
    tree.file("proc/swaps", "Filename Type Size Used Priority\n/dev/nvme0n1p3 partition 1 0 -2\n");
    let uses = find(&read(&tree), "0000:3b:00.0").uses;
    assert_eq!(uses, [mounted("dm-0", "/"), mounted("nvme0n1p1", "/boot/efi"), mounted("nvme0n1p3", "swap")]);
}

#[test]
fn disks_behind_usb_and_multipath_and_of_btrfs_are_found() {
    let tree = tree();
    let usb = function(&tree, NVME, "0x0c0330");
    let stick =
        device(&tree, "block", &format!("{usb}/usb1/1-1/1-1:1.0/host6/target6:0:0/6:0:0:0/block/sda"));
    tree.file(&format!("{stick}/dev"), "8:0");
    let nvme = function(&tree, "../../../devices/pci0000:00/0000:00:04.0", "0x010802");
    tree.file(&format!("{nvme}/nvme/nvme1/nvme0c1n1/uevent"), "");
    let head = device(&tree, "block", "sys/devices/virtual/nvme-subsystem/nvme-subsys0/nvme0n1");
    tree.file(&format!("{head}/dev"), "259:0");
    tree.file("sys/fs/btrfs/0-0/devices/sda/x", "");
    tree.file("sys/fs/btrfs/0-0/devices/nvme0n1/x", "");
    tree.file("proc/self/mountinfo", "22 1 0:31 /@ /data rw - btrfs /dev/sda rw\n");
    let machine = read(&tree);
    assert_eq!(find(&machine, "0000:3b:00.0").uses, [mounted("sda", "/data")]);
    assert_eq!(find(&machine, "0000:00:04.0").uses, [mounted("nvme0n1", "/data")]);
}

#[test]
fn routes_over_a_bridge_are_carried_by_its_interface() {
    let tree = tree();
    let real = function(&tree, NVME, "0x020000");
    device(&tree, "net", &format!("{real}/net/eth0"));
    let bridge = device(&tree, "net", "sys/devices/virtual/net/br0");
    tree.link(&format!("{bridge}/lower_eth0"), "../eth0");
    let idle = function(&tree, "../../../devices/pci0000:00/0000:00:04.0", "0x020000");
    device(&tree, "net", &format!("{idle}/virtio2/net/eth1"));
    let vga = function(&tree, "../../../devices/pci0000:00/0000:00:05.0", "0x030000");
    tree.file(&format!("{vga}/boot_vga"), "1\n");
    let header = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\n";
    tree.file("proc/net/route", &format!("{header}br0\t00000000\t0101A8C0\t0003\t0\t0\t0\t00000000\n"));
    let machine = read(&tree);
    let route = HostUse::DefaultRoute { interface: "br0".into() };
    assert_eq!(find(&machine, "0000:3b:00.0").uses, [route]);
    assert!(find(&machine, "0000:00:04.0").uses.is_empty());
    assert_eq!(find(&machine, "0000:00:05.0").uses, [HostUse::Console]);
}

#[test]
fn an_iommu_and_what_it_remaps_are_seen() {
    let tree = tree();
    tree.file("sys/class/iommu/dmar0/x", "");
    tree.file("proc/interrupts", "     CPU0\n 24:  3  IR-PCI-MSI 1-edge ahci\n");
    let kernel = read(&tree).kernel;
    assert_eq!((kernel.iommu, kernel.interrupt_remapping), (Some(true), Some(true)));
}

#[test]
fn hostile_files_of_functions_are_named() {
    for (file, text) in [
        ("resource", "0x2 0x1 0x200\n"),
        ("resource", "many"),
        ("sriov_totalvfs", "70000"),
        ("subsystem_vendor", "0x12345"),
    ] {
        let tree = tree();
        let real = function(&tree, NVME, "0x010802");
        tree.file(&format!("{real}/subsystem_device"), "0x1");
        tree.file(&format!("{real}/{file}"), text);
        let error = discover(&From::Sysfs(tree.root().to_owned())).unwrap_err();
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.contains(&format!("0000:3b:00.0/{file} says")), "{source}");
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 64, failure_persistence: None, ..Default::default() })]

    /// Whatever the kernel's tables say, the machine is read.
    #[test]
    fn any_table_is_read(
        which in 0..TABLES.len(),
        text in "(\\PC{0,40}|[0-9a-f:/ \n-]{0,80}|259:0 / /x - /dev/sda){0,3}",
    ) {
        let tree = tree();
        let real = function(&tree, NVME, "0x010802");
        device(&tree, "block", &format!("{real}/nvme/nvme0/nvme0n1"));
        tree.file(TABLES[which], &text);
        proptest::prop_assert_eq!(read(&tree).pci.len(), 1);
    }
}

const TABLES: [&str; 5] =
    ["proc/self/mountinfo", "proc/swaps", "proc/net/route", "proc/net/ipv6_route", "proc/interrupts"];
