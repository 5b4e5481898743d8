//! A lab host is what its shape says, seen from inside.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use pinion_lab::{Files, Lab, Shape};

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
}
