//! A lab host is what its shape says, seen from inside.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use pinion_lab::{Device, Files, Lab, Shape, Stream};

const QUICK: Duration = Duration::from_secs(20);

fn read(lab: &Lab, path: &str) -> String {
    let output = lab.sh(&format!("cat {path}"), QUICK).unwrap();
    assert!(output.success(), "{path}: {}", output.error_text());
    output.text()
}

#[test]
fn a_two_socket_host_has_its_nodes_siblings_devices_and_kvm() {
    let lab = Lab::boot("two-socket", &Shape::two_socket(), &Files::new()).unwrap();
    println!("up in {:?}", lab.boot_time());
    assert_eq!(read(&lab, "/sys/devices/system/node/online"), "0-3\n");
    assert_eq!(read(&lab, "/sys/devices/system/node/node0/distance"), "10 12 32 32\n");
    assert_eq!(read(&lab, "/sys/devices/system/node/node2/cpulist"), "8-11\n");
    assert_eq!(read(&lab, "/sys/devices/system/cpu/cpu5/topology/thread_siblings_list"), "4-5\n");
    for node in 0..4 {
        let pool = format!("/sys/devices/system/node/node{node}/hugepages/hugepages-2048kB/free_hugepages");
        assert_eq!(read(&lab, &pool), "256\n");
    }
    let drives = "for d in /sys/bus/pci/devices/*; do \
        [ $(cat $d/class) = 0x010802 ] && echo $(cat $d/numa_node) $(readlink $d/iommu_group | wc -l); done; true";
    assert_eq!(lab.sh(drives, QUICK).unwrap().text(), "1 1\n3 1\n");
    assert!(lab.sh("test -c /dev/kvm", QUICK).unwrap().success());
    assert_eq!(read(&lab, "/sys/module/kvm_amd/parameters/nested").trim(), "1");
    passthrough(&lab);
    lab.power_off(QUICK).unwrap();
}

/// Each device behind a port is alone in its IOMMU group, and can be given to VFIO.
fn passthrough(lab: &Lab) {
    let script = "for d in /sys/bus/pci/devices/*; do \
        case $(cat $d/class) in 0x060400) continue;; esac; \
        [ $(cat $d/numa_node) -ge 0 ] && echo $(cat $d/numa_node) $(cat $d/class) $(ls $d/iommu_group/devices | wc -l); \
        done | sort";
    let expected = "0 0x00ff00 1\n1 0x010802 1\n2 0x020000 1\n3 0x010802 1\n3 0x030000 1\n";
    assert_eq!(lab.sh(script, QUICK).unwrap().text(), expected);
    let script = "d=$(ls -d /sys/bus/pci/devices/0000:31:00.0) || exit 1; \
        echo vfio-pci > $d/driver_override && echo 0000:31:00.0 > $d/driver/unbind && \
        echo 0000:31:00.0 > /sys/bus/pci/drivers_probe && basename $(readlink $d/driver) && \
        test -c /dev/vfio/$(basename $(readlink $d/iommu_group)) && echo group";
    let done = lab.sh(script, QUICK).unwrap();
    assert_eq!(done.text(), "vfio-pci\ngroup\n", "{}", done.error_text());
}

#[test]
fn commands_give_their_exit_code_output_and_limit() {
    let lab = Lab::boot("commands", &Shape::small(), &Files::new()).unwrap();
    let output = lab.sh("echo out; echo err >&2; exit 7", QUICK).unwrap();
    assert_eq!((output.code, output.text(), output.error_text()), (Some(7), "out\n".into(), "err\n".into()));
    let output = lab.sh("kill -9 $$", QUICK).unwrap();
    assert_eq!((output.code, output.signal), (None, Some(9)));
    let output = lab.sh("sleep 60 & sleep 60", Duration::from_millis(300)).unwrap();
    assert!(output.timed_out);
    assert_eq!(lab.sh("pidof sleep | wc -w", QUICK).unwrap().text(), "0\n");
    lab.put("/tmp/file", b"\0bytes\xff", 0o600).unwrap();
    assert_eq!(lab.get("/tmp/file").unwrap(), b"\0bytes\xff");
    assert!(lab.get("/nowhere").unwrap_err().to_string().contains("read \"/nowhere\""));
    assert!(lab.run(&["/no/such/program"], QUICK).is_err());
    let mut seen = Vec::new();
    let mut see =
        |stream: Stream, bytes: &[u8]| seen.push((stream, String::from_utf8_lossy(bytes).into_owned()));
    lab.run_streaming(&["sh", "-c", "echo one; sleep 1; echo two >&2"], QUICK, &mut see).unwrap();
    assert_eq!(seen, [(Stream::Output, "one\n".into()), (Stream::Errors, "two\n".into())]);
    let large: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    lab.put("/tmp/large", &large, 0o600).unwrap();
    assert_eq!(lab.get("/tmp/large").unwrap(), large);
}

#[test]
fn a_host_of_another_shape_has_what_it_says() {
    let mut shape = Shape::small();
    shape.sockets = 1;
    shape.cores = 3;
    shape.threads = 1;
    shape.nodes[1].has_cpus = false;
    shape.nodes[1].huge_pages.clear();
    shape.distances = vec![vec![10, 40], vec![40, 10]];
    shape.kernel_arguments = "isolcpus=2 nohz_full=2".into();
    shape.nodes[1].devices =
        vec![Device::Edu, Device::PciTestdev, Device::Ivshmem, Device::VirtioGpu, Device::BochsDisplay];
    let lab = Lab::boot("shape", &shape, &Files::new()).unwrap();
    assert_eq!(read(&lab, "/sys/devices/system/cpu/online"), "0-2\n");
    assert_eq!(read(&lab, "/sys/devices/system/cpu/isolated"), "2\n");
    assert_eq!(read(&lab, "/sys/devices/system/node/has_cpu"), "0\n");
    assert_eq!(read(&lab, "/sys/devices/system/node/node1/distance"), "40 10\n");
    // A port and a device for each of five.
    let count = lab.sh("cat /sys/bus/pci/devices/*/numa_node | grep -c '^1$'", QUICK).unwrap().text();
    assert_eq!(count, "10\n");
}

#[test]
fn a_disk_of_debian_is_made_once() {
    match pinion_lab::DebianDisk::of_debian(&pinion_lab::Cache::of_user()) {
        Ok(disk) => {
            assert!(disk.image().is_file() && disk.releases().unwrap()[0] != disk.releases().unwrap()[1])
        }
        Err(e) => println!("skipped: {e}"),
    }
}

#[test]
fn a_root_with_libvirt_is_made_once() {
    match pinion_lab::LibvirtRoot::of_debian(&pinion_lab::Cache::of_user()) {
        Ok(root) => assert!(root.image().is_file()),
        Err(e) => println!("skipped: {e}"),
    }
}
