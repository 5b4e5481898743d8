//! Machines from hwloc XML and synthetic descriptions, and this host by both readers.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::PathBuf;

use pinion_discovery::{DiscoverError, From, discover};
use pinion_machine::{Machine, NodeId, PageSize};

fn synthetic(text: &str) -> Result<Machine, DiscoverError> {
    discover(&From::Synthetic(text.into()))
}

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn cause(error: &DiscoverError) -> String {
    std::error::Error::source(error).unwrap().to_string()
}

#[test]
fn a_description_becomes_a_machine() {
    let text = "pack:2 [numa(memory=34359738368)] l3:2(size=33554432) core:4 pu:2";
    let machine = synthetic(text).unwrap();
    let counts = (machine.packages.len(), machine.nodes.len(), machine.l3_domains.len(), machine.cores.len());
    assert_eq!(counts, (2, 2, 4, 16));
    assert_eq!(machine.cpus.len(), 32);
    assert_eq!(machine.nodes[1].available_bytes, 32 << 30);
    assert_eq!(machine.nodes[1].package.map(|p| p.0), Some(1));
    assert_eq!(machine.l3_domains[3].cpus.to_string(), "24-31");
    assert_eq!(machine.cores[15].cpus.to_string(), "30-31");
    assert_eq!(synthetic(text).unwrap(), machine, "the same each time");
}

#[test]
fn descriptions_that_are_none_are_refused() {
    for text in ["", "pack:x", "cores", "pack:2 [numa core:4 pu:2", "\u{0}"] {
        let message = cause(&synthetic(text).unwrap_err());
        assert!(message.contains("is not an hwloc synthetic description"), "{text:?}: {message}");
    }
    for text in ["pack:99999 core:99999 pu:2", "pack:18446744073709551615 core:2 pu:1"] {
        let message = cause(&synthetic(text).unwrap_err());
        assert!(message.contains("more than 65536 CPUs"), "{text:?}: {message}");
    }
}

#[test]
fn xml_has_memory_pools_distances_and_devices() {
    let machine = discover(&From::Xml(fixture("two-nodes.xml"))).unwrap();
    assert_eq!(machine.cpus.len(), 8);
    assert_eq!(machine.offline.to_string(), "8");
    assert_eq!(machine.nodes.iter().map(|n| n.id.0).collect::<Vec<_>>(), [0, 4]);
    let node = machine.node(NodeId(4)).unwrap();
    assert_eq!(node.memory_bytes, 8 << 30);
    assert_eq!(node.huge_pages.len(), 1);
    assert_eq!((node.huge_pages[0].page_size, node.huge_pages[0].free), (PageSize::MIB2, 1024));
    assert_eq!(node.available_bytes, 6 << 30);
    assert_eq!(machine.distances.between(NodeId(0), NodeId(4)), 21);
    assert_eq!(machine.kernel.release.as_deref(), Some("6.1.0-test"));
    assert_eq!(machine.packages[0].model.as_deref(), Some("Test CPU"));
    let nic = &machine.pci[0];
    assert_eq!((nic.address.to_string().as_str(), nic.vendor, nic.device), ("0000:3b:00.0", 0x8086, 0x1572));
    assert_eq!((nic.class, nic.node), (0x02_0000, Some(NodeId(4))));
    assert_eq!(nic.os_devices, ["enp59s0f0"]);
}

#[test]
fn files_that_are_no_topology_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let bad = dir.path().join("bad.xml");
    let good = std::fs::read(fixture("two-nodes.xml")).unwrap();
    let truncated = &good[..good.len() / 2];
    for content in [&b""[..], b"\xff\xfe\x00binary", b"<xml/>", truncated] {
        std::fs::write(&bad, content).unwrap();
        let message = cause(&discover(&From::Xml(bad.clone())).unwrap_err());
        assert!(message.starts_with(&bad.display().to_string()), "{message}");
    }
    std::fs::File::create(&bad).unwrap().set_len(1 << 30).unwrap();
    let message = cause(&discover(&From::Xml(bad)).unwrap_err());
    assert!(message.contains("is larger than"), "{message}");
    for path in [dir.path().to_owned(), dir.path().join("none.xml"), "/dev/zero".into()] {
        let error = discover(&From::Xml(path.clone())).unwrap_err();
        assert!(cause(&error).contains(&path.display().to_string()));
    }
}

/// hwloc and our own reader look at the same files in different ways; what both know agrees.
#[test]
fn this_host_is_the_same_by_hwloc() {
    use hwlocality::Topology;
    use hwlocality::object::types::ObjectType;
    use hwlocality::topology::builder::BuildFlags;

    if !std::path::Path::new("/sys/devices/system/cpu/cpu0/topology/core_cpus_list").exists() {
        println!("skipped: sysfs does not show the cores here, and hwloc asks the processor instead");
        return;
    }
    let machine = match discover(&From::Host) {
        Ok(machine) => machine,
        Err(error) => {
            println!("skipped: this host has no readable sysfs: {error}");
            return;
        }
    };
    let topology = Topology::builder().with_flags(BuildFlags::INCLUDE_DISALLOWED).unwrap().build().unwrap();
    let count = |ty| topology.objects_with_type(ty).count();
    assert_eq!(machine.cpus.len(), count(ObjectType::PU));
    assert_eq!(machine.cores.len(), count(ObjectType::Core));
    assert_eq!(machine.packages.len(), count(ObjectType::Package).max(1));
    assert_eq!(machine.nodes.len(), count(ObjectType::NUMANode));
    if !machine.l3_domains.is_empty() {
        assert_eq!(machine.l3_domains.len(), count(ObjectType::L3Cache));
    }
}

#[test]
fn the_host_and_its_own_root_as_a_tree_are_the_same_machine() {
    let both = (discover(&From::Host), discover(&From::Sysfs("/".into())));
    let (Ok(mut host), Ok(mut tree)) = both else {
        println!("skipped: this host has no readable sysfs");
        return;
    };
    for machine in [&mut host, &mut tree] {
        machine.source = pinion_machine::Source::Host;
        machine.l3_domains.clear();
        machine.cores.iter_mut().for_each(|core| core.l3 = None);
        for node in &mut machine.nodes {
            // These change while others run.
            node.available_bytes = 0;
            node.memory_bytes = 0;
            node.huge_pages.clear();
        }
    }
    assert_eq!(host, tree);
}

#[test]
fn a_machine_of_thousands_of_cpus_is_read() {
    let machine = synthetic("node:64 core:64 pu:2").unwrap();
    assert_eq!((machine.nodes.len(), machine.cores.len(), machine.cpus.len()), (64, 4096, 8192));
}
