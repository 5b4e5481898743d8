//! Gathered sysfs trees of machines that differ from what one expects.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod tree;

use pinion_discovery::{DiscoverError, From, discover};
use pinion_machine::{CpuId, DieId, Machine, NodeId, PackageId, PageSize};
use tree::{CpuFiles, Tree};

fn read(tree: &Tree) -> Machine {
    discover(&From::Sysfs(tree.root().to_owned())).unwrap()
}

fn refusal(tree: &Tree) -> String {
    let error = discover(&From::Sysfs(tree.root().to_owned())).unwrap_err();
    assert!(matches!(error, DiscoverError::Tree { .. }));
    std::error::Error::source(&error).unwrap().to_string()
}

#[test]
fn two_packages_with_smt_read_whole() {
    let tree = Tree::new();
    tree.online("0-7", "0-7");
    for cpu in 0..8 {
        let first = cpu % 4;
        tree.cpu(
            cpu,
            &CpuFiles {
                package: first / 2,
                die: 0,
                siblings: &format!("{first},{}", first + 4),
                l3: if first < 2 { "0-1,4-5" } else { "2-3,6-7" },
            },
        );
        tree.file(&format!("sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor"), "performance");
        tree.idle_state(cpu, 0, "POLL", 0, true);
        tree.idle_state(cpu, 1, "C1", 2, true);
        tree.idle_state(cpu, 2, "C6", 290, false);
    }
    tree.node(0, "0-1,4-5", 8 << 20, "10 21");
    tree.node(1, "2-3,6-7", 8 << 20, "21 10");
    tree.pool(1, 2048, 512, 500);
    tree.pool(1, 1_048_576, 4, 1);
    tree.file("proc/cpuinfo", "processor\t: 0\nmodel name\t: Test CPU\nphysical id\t: 0\n\nprocessor : 1\nphysical id : 1\nmodel name : Other");
    tree.file("proc/cmdline", "ro rcu_nocbs=4-N quiet");
    tree.file("proc/sys/kernel/osrelease", "6.1.0-test\n");
    tree.file("sys/devices/system/cpu/isolated", "2-3\n");
    tree.file("sys/devices/system/cpu/nohz_full", "(null)\n");
    tree.file("sys/fs/cgroup/cpuset.cpus.isolated", "7\n");
    let machine = read(&tree);
    assert_eq!(machine.cores.len(), 4);
    assert_eq!(machine.cores[1].cpus.to_string(), "1,5");
    assert_eq!(machine.cores[1].die, Some(DieId(0)));
    assert_eq!(machine.l3_domains.len(), 2);
    assert_eq!(machine.l3_domains[1].cpus.to_string(), "2-3,6-7");
    assert_eq!(machine.l3_domains[1].size_bytes, 32 << 20);
    assert_eq!(machine.packages[1].cpus.to_string(), "2-3,6-7");
    assert_eq!(machine.packages[0].model.as_deref(), Some("Test CPU"));
    assert_eq!(machine.distances.between(NodeId(0), NodeId(1)), 21);
    let node = machine.node(NodeId(1)).unwrap();
    assert_eq!(node.package, Some(PackageId(1)));
    assert_eq!(node.memory_bytes, 8 << 30);
    let pools: Vec<_> = node.huge_pages.iter().map(|p| (p.page_size, p.total, p.free)).collect();
    assert_eq!(pools, [(PageSize::MIB2, 512, 500), (PageSize::GIB1, 4, 1)]);
    let power = machine.cpu(CpuId(5)).unwrap().power.as_ref().unwrap();
    assert_eq!(power.governor.as_deref(), Some("performance"));
    assert_eq!(
        power.idle_states.iter().map(|(n, l)| (n.as_str(), *l)).collect::<Vec<_>>(),
        [("C1", 2), ("POLL", 0)]
    );
    assert_eq!(machine.kernel.isolated.to_string(), "2-3,7");
    assert_eq!(machine.kernel.nohz_full.to_string(), "");
    assert_eq!(machine.kernel.rcu_nocbs.to_string(), "4-7");
    assert_eq!(machine.kernel.release.as_deref(), Some("6.1.0-test"));
}

#[test]
fn what_can_be_had_counts_free_memory_and_most_of_the_file_cache() {
    let tree = Tree::new();
    tree.online("0", "0");
    let kib = |name: &str, kib: u64| format!("Node 0 {name}: {kib} kB\n");
    let lines = [("MemTotal", 8_000_000), ("MemFree", 1_000_000), ("Active(file)", 600_000)];
    let more = [("Inactive(file)", 400_000), ("SReclaimable", 200_000), ("Shmem", 900_000)];
    let text: String = lines.iter().chain(&more).map(|(name, amount)| kib(name, *amount)).collect();
    tree.file("sys/devices/system/node/node0/meminfo", &text);
    tree.file("sys/devices/system/node/node0/cpulist", "0");
    tree.file("proc/meminfo", "MemTotal: 16000000 kB\n");
    // The node has half of the memory, so its low watermark is 5/4 of half of 80000 kB.
    tree.file("proc/sys/vm/min_free_kbytes", "80000");
    let available = (1_000_000 - 50_000) + (1_000_000 - 50_000) + (200_000 - 50_000);
    assert_eq!(read(&tree).nodes[0].available_bytes, available * 1024);
}

#[test]
fn nodes_are_sparse_many_and_some_lack_cpus_or_memory() {
    let tree = Tree::new();
    tree.online("0-69", "0-69");
    let ids: Vec<u32> = (0..70).map(|n| n * 3).collect();
    let far = ids.iter().map(|_| "254").collect::<Vec<_>>().join(" ");
    for (index, id) in (0..).zip(&ids) {
        tree.cpu(index, &CpuFiles { package: index, die: 0, siblings: &index.to_string(), l3: "" });
        let cpus = if index == 5 { String::new() } else { index.to_string() };
        tree.node(*id, &cpus, if index == 6 { 0 } else { 1 << 20 }, &far);
    }
    let machine = read(&tree);
    assert_eq!(machine.nodes.len(), 70);
    assert_eq!(machine.node(NodeId(15)).unwrap().cpus.to_string(), "");
    assert_eq!(machine.node(NodeId(15)).unwrap().package, None);
    assert_eq!(machine.node(NodeId(18)).unwrap().memory_bytes, 0);
    assert_eq!(machine.cpu(CpuId(5)).unwrap().node, None);
    assert_eq!(machine.cpu(CpuId(69)).unwrap().node, Some(NodeId(207)));
    assert_eq!(machine.distances.between(NodeId(0), NodeId(207)), 254);
}

#[test]
fn cpu_0_may_be_offline_and_cores_may_have_four_threads() {
    let tree = Tree::new();
    tree.online("1-7", "0-7");
    for cpu in 1..8 {
        let siblings = if cpu < 4 { "1-3" } else { "4-7" };
        tree.cpu(cpu, &CpuFiles { package: 0, die: 0, siblings, l3: "" });
    }
    let machine = read(&tree);
    assert_eq!(machine.offline.to_string(), "0");
    let cores: Vec<String> = machine.cores.iter().map(|c| format!("{}: {}", c.id, c.cpus)).collect();
    assert_eq!(cores, ["1: 1-3", "4: 4-7"]);
    assert_eq!(machine.nodes.len(), 1, "a kernel without NUMA has one node");
    assert_eq!(machine.nodes[0].cpus.to_string(), "1-7");
}

#[test]
fn packages_may_share_a_node_and_numbers_may_go_round() {
    let tree = Tree::new();
    tree.online("0-3", "0-3");
    for cpu in 0..4 {
        tree.cpu(cpu, &CpuFiles { package: cpu % 2 * 7, die: 0, siblings: &cpu.to_string(), l3: "" });
    }
    tree.node(0, "0-3", 1 << 20, "10");
    let machine = read(&tree);
    assert_eq!(
        machine.packages.iter().map(|p| (p.id.0, p.cpus.to_string())).collect::<Vec<_>>(),
        [(0, "0,2".to_owned()), (7, "1,3".to_owned())]
    );
    assert_eq!(machine.nodes[0].package, None);
}

#[test]
fn a_tree_of_nothing_but_the_online_list_is_a_machine() {
    let tree = Tree::new();
    tree.file("sys/devices/system/cpu/online", "0-1");
    let machine = read(&tree);
    assert_eq!(machine.cores.len(), 2);
    assert_eq!(machine.packages.len(), 1);
    assert!(machine.pci.is_empty() && machine.l3_domains.is_empty());
}

#[test]
fn boot_parameters_stand_in_for_lists_that_were_not_gathered() {
    let tree = Tree::new();
    tree.online("0-7", "0-7");
    tree.file("proc/cmdline", "isolcpus=managed_irq,domain,2-3 nohz_full=4-N");
    tree.file("proc/version", "Linux version 6.1.0-9-amd64 (debian) #1 SMP\n");
    let machine = read(&tree);
    assert_eq!(machine.kernel.release.as_deref(), Some("6.1.0-9-amd64"));
    assert_eq!(machine.kernel.isolated.to_string(), "2-3");
    assert_eq!(machine.kernel.nohz_full.to_string(), "4-7");
    assert_eq!(machine.kernel.rcu_nocbs.to_string(), "4-7");
}

#[test]
fn pci_functions_have_their_facts() {
    let tree = Tree::new();
    tree.online("0", "0");
    tree.node(0, "0", 1 << 20, "10");
    let nic = tree.pci("0000:3b:00.0", "0x8086", "0x1572", "0x020000", "0");
    for (name, text) in [
        ("current_link_speed", "8.0 GT/s PCIe"),
        ("current_link_width", "4"),
        ("max_link_speed", "16.0 GT/s PCIe"),
        ("max_link_width", "16"),
        ("reset_method", "flr bus"),
        ("net/enp59s0f0/address", "x"),
        ("0000:3c:00.0/net/behind_a_bridge/address", "x"),
    ] {
        tree.file(&format!("{nic}/{name}"), text);
    }
    tree.link(&format!("{nic}/driver"), "../../../bus/pci/drivers/ixgbe");
    tree.link(&format!("{nic}/iommu_group"), "../../../kernel/iommu_groups/42");
    let disk = tree.pci("10000:01:00.1", "0x1af4", "0x1042", "0x018000", "-1");
    tree.file(&format!("{disk}/virtio3/block/vda/size"), "1");
    tree.file(&format!("{disk}/current_link_speed"), "Unknown");
    let nvme = tree.pci("0000:02:00.0", "0x144d", "0xa808", "0x010802", "9");
    tree.file(&format!("{nvme}/nvme/nvme0/nvme0n1/size"), "1");
    let sata = tree.pci("0000:03:00.0", "0x8086", "0x2922", "0x010601", "0");
    tree.file(&format!("{sata}/ata1/host0/target0:0:0/0:0:0:0/block/sda/size"), "1");
    let machine = read(&tree);
    let function = |address: &str| machine.pci.iter().find(|f| f.address.to_string() == address).unwrap();
    let nic = function("0000:3b:00.0");
    assert_eq!((nic.vendor, nic.device, nic.class), (0x8086, 0x1572, 0x02_0000));
    assert_eq!(
        (nic.node, nic.iommu_group, nic.driver.as_deref()),
        (Some(NodeId(0)), Some(42), Some("ixgbe"))
    );
    assert_eq!(nic.os_devices, ["enp59s0f0"]);
    assert_eq!(nic.reset_methods, ["flr", "bus"]);
    let link = nic.link.unwrap();
    assert_eq!((link.speed, link.width, link.max_speed, link.max_width), (80, 4, 160, 16));
    let disk = function("10000:01:00.1");
    assert_eq!((disk.node, disk.link, disk.iommu_group), (None, None, None));
    assert_eq!(disk.os_devices, ["vda"]);
    assert_eq!(function("0000:02:00.0").os_devices, ["nvme0n1"]);
    assert_eq!(function("0000:02:00.0").node, None, "there is no node 9");
    assert_eq!(function("0000:03:00.0").os_devices, ["sda"]);
    assert!(machine.pci.is_sorted_by_key(|f| f.address));
}

#[test]
fn hostile_files_are_named() {
    for (file, text) in [
        ("sys/devices/system/cpu/online", "0-4294967295"),
        ("sys/devices/system/cpu/isolated", "zero"),
        ("sys/devices/system/cpu/cpu0/topology/core_cpus_list", "3-1"),
        ("sys/devices/system/cpu/cpu0/topology/physical_package_id", "99999999999999999999"),
        ("sys/devices/system/cpu/cpu0/cache/index3/size", "18446744073709551615K"),
        ("sys/devices/system/cpu/cpu0/cpuidle/state0/latency", "-1"),
        ("sys/devices/system/node/node0/cpulist", "\u{0}"),
        ("sys/devices/system/node/node0/meminfo", "Node 0 MemTotal: 18446744073709551615 kB"),
        ("sys/devices/system/node/node0/distance", "10 20 30"),
        ("sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages", "many"),
        ("sys/bus/pci/devices/0000:3b:00.0/vendor", "0x12345"),
        ("sys/bus/pci/devices/0000:3b:00.0/class", "display"),
        ("sys/bus/pci/devices/0000:3b:00.0/numa_node", "near"),
        ("proc/sys/vm/min_free_kbytes", "-5"),
    ] {
        let tree = Tree::new();
        tree.online("0", "0");
        tree.cpu(0, &CpuFiles { package: 0, die: 0, siblings: "0", l3: "0" });
        tree.node(0, "0", 1 << 20, "10");
        tree.pci("0000:3b:00.0", "0x8086", "0x1572", "0x020000", "0");
        tree.file(file, text);
        let message = refusal(&tree);
        assert!(message.starts_with(&tree.root().join(file).display().to_string()), "{message}");
    }
}

#[test]
fn a_tree_without_cpus_is_refused() {
    let tree = Tree::new();
    tree.online("", "0-3");
    assert!(refusal(&tree).contains("no online CPU"));
    let error = discover(&From::Sysfs("/nonexistent/tree".into())).unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.starts_with("/nonexistent/tree has no sys/devices/system/cpu"), "{source}");
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 64, failure_persistence: None, ..Default::default() })]

    /// Whatever a file says, the answer is a machine or an error that names a file of the tree.
    #[test]
    fn any_text_in_any_file_is_read_or_refused(which in 0..FILES.len(), text in "\\PC{0,40}|[0-9,:/-]{0,20}") {
        let tree = Tree::new();
        tree.online("0-1", "0-3");
        tree.cpu(0, &CpuFiles { package: 0, die: 0, siblings: "0-1", l3: "0-1" });
        tree.node(0, "0-1", 1 << 20, "10");
        let function = tree.pci("0000:3b:00.0", "0x8086", "0x1572", "0x020000", "0");
        tree.file(&format!("{function}/current_link_speed"), "8.0 GT/s");
        tree.file(FILES[which], &text);
        match discover(&From::Sysfs(tree.root().to_owned())) {
            Ok(machine) => {
                let cores: usize = machine.cores.iter().map(|c| c.cpus.len()).sum();
                proptest::prop_assert_eq!(cores, machine.cpus.len());
                proptest::prop_assert!(!machine.cpus.is_empty());
            }
            Err(error) => {
                let source = std::error::Error::source(&error).unwrap().to_string();
                proptest::prop_assert!(source.contains(&tree.root().display().to_string()), "{}", source);
            }
        }
    }
}

const FILES: [&str; 14] = [
    "sys/devices/system/cpu/online",
    "sys/devices/system/cpu/present",
    "sys/devices/system/cpu/isolated",
    "sys/devices/system/cpu/cpu0/topology/core_cpus_list",
    "sys/devices/system/cpu/cpu0/cache/index3/shared_cpu_list",
    "sys/devices/system/cpu/cpu0/cache/index3/size",
    "sys/devices/system/node/node0/cpulist",
    "sys/devices/system/node/node0/meminfo",
    "sys/devices/system/node/node0/distance",
    "sys/bus/pci/devices/0000:3b:00.0/numa_node",
    "sys/bus/pci/devices/0000:3b:00.0/max_link_speed",
    "proc/cmdline",
    "proc/cpuinfo",
    "proc/sys/kernel/osrelease",
];
