//! Time from a device's end in the kernel to the kubelet's view of it: taken out by the kernel (`remove`), and pulled out of
//! the machine by QEMU. In the lab's cluster, with the plugin in its own image.
//!
//! `cargo bench -p pinion-benches --bench unplug` runs it. The node is emulated, and the kubelet is asked by a program that is
//! started for each question: what that takes alone is told beside it. Under `cargo test` it does nothing.

#![expect(clippy::unwrap_used, reason = "a benchmark ends at the first thing that is wrong")]

use std::time::{Duration, Instant};

use pinion_benches::side_by_side::{elapsed, must, program, three};
use pinion_lab::{Cache, Lab};
use pinion_lab_cluster::{Cluster, ClusterPrograms, Options, unpacked};
use pinion_oci::Image;

const RUNS: usize = 5;
const WITHIN: Duration = Duration::from_secs(120);
const NAMES: &str = "apiVersion: pinion.dev/v1alpha1\nkind: DeviceResources\nresources:\n\
    - {name: example.com/edu, select: [{vendor: \"1234\", device: \"11e8\", node: 1}]}\n";
/// The devices of that name, with QEMU's names. What QEMU has pulled out stays out.
const DEVICES: [(&str, &str); 2] = [("0000:31:00.0", "device6"), ("0000:32:00.0", "device7")];

const IMAGE: &str = "pinion.dev/bench:1";
const PLUGIN: &str =
    "setsid chroot /run/plugin /usr/bin/pinion device-plugin > /var/log/plugin.log 2>&1 < /dev/null &";
/// Whether the kubelet would give the device `$a`.
const ASK: &str =
    "ask() { chroot /run/plugin /usr/bin/pinion devices --pods -o json | grep -q \"\\\"$a\\\"\"; }
    now() { cut -d' ' -f1 /proc/uptime; }
    d=/sys/bus/pci/devices/$a";
const BIND: &str = "until [ -e $d ]; do sleep 0.1; done
    echo vfio-pci > $d/driver_override; echo $a > /sys/bus/pci/drivers_probe
    until ask; do sleep 0.1; done";
/// From when the kernel has it no more.
const GONE: &str = "while [ -e $d ]; do :; done; S=$(now); while ask; do :; done; echo $S $(now)";

fn main() {
    if !std::env::args().any(|a| a == "--bench") {
        println!("unplug: skipped, it runs with `cargo bench` only");
        return;
    }
    if !ClusterPrograms::are_ready(&Cache::of_user()) {
        println!("unplug: skipped, Kubernetes is not built here: `cargo xtask setup --cluster` builds it");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let cluster = up(folder.path());
    let node = &cluster.nodes()[0];
    must(node, "mkdir -p /etc/pinion").unwrap();
    node.put("/etc/pinion/devices.yaml", NAMES.as_bytes(), 0o644).unwrap();
    must(node, &format!("{}{PLUGIN}", unpacked(IMAGE, "/run/plugin"))).unwrap();
    DEVICES.iter().for_each(|(address, _)| drop(script(node, address, BIND)));
    let [(first, _), _] = DEVICES;
    let question = script(node, first, "S=$(now); ask; ask; ask; ask; ask; echo $S $(now)");
    let question = elapsed(&question).unwrap() / 5.0;
    let mut removed: Vec<f64> = (0..RUNS)
        .map(|_| {
            let said = script(node, first, &format!("echo 1 > $d/remove; {GONE}"));
            script(node, first, &format!("echo 1 > /sys/bus/pci/rescan; {BIND}"));
            elapsed(&said).unwrap()
        })
        .collect();
    let mut pulled: Vec<f64> = DEVICES.iter().map(|(address, name)| pulled(node, address, name)).collect();
    println!(
        "from the end of a device to the kubelet's view, seconds (min, median, max); a question alone {question:.2} s:"
    );
    println!("  taken out by the kernel {}", three(&mut removed));
    println!("  pulled out by QEMU      {}", three(&mut pulled));
}

fn up(folder: &std::path::Path) -> Cluster {
    let archive = folder.join("pinion.tar");
    let program = program("pinion").unwrap();
    Image::of_program(IMAGE, "/usr/bin/pinion", &program).unwrap().write(&archive).unwrap();
    let mut options = Options::of_nodes(1, folder);
    options.files.push(("/var/lib/pinion/images/pinion.tar".into(), archive));
    Cluster::up(&options, &mut |what, after| println!("{what} after {:.1} s", after.as_secs_f32())).unwrap()
}

fn script(node: &Lab, address: &str, script: &str) -> String {
    must(node, &format!("a={address}\n{ASK}\n{script}")).unwrap()
}

/// Waits on the node for the device to be gone, while QEMU pulls it out.
fn pulled(node: &Lab, address: &str, name: &str) -> f64 {
    node.put("/run/gone", format!("a={address}\n{ASK}\n{GONE}\n").as_bytes(), 0o644).unwrap();
    must(node, "setsid sh /run/gone > /run/result 2>&1 < /dev/null &").unwrap();
    node.monitor(&format!("device_del {name}")).unwrap();
    let end = Instant::now() + WITHIN;
    loop {
        if let Some(seconds) = elapsed(&must(node, "cat /run/result").unwrap()) {
            return seconds;
        }
        assert!(Instant::now() < end, "the device is not pulled out");
        std::thread::sleep(Duration::from_millis(500));
    }
}
