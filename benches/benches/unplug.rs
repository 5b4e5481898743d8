//! Time from a device's end in the kernel to the kubelet's view of it: taken out by the kernel (`remove`), and pulled out of
//! the machine by QEMU. In the lab's cluster, with the plugin in its own image.
//!
//! `cargo bench -p pinion-benches --bench unplug` runs it. The node is emulated, and the kubelet is asked by a program that is
//! started for each question: what that takes alone is told beside it. Under `cargo test` it does nothing.

#![expect(clippy::unwrap_used, reason = "a benchmark ends at the first thing that is wrong")]

use std::time::{Duration, Instant};

use pinion_benches::side_by_side::{elapsed, must, program, three};
use pinion_lab::{Cache, Lab};
use pinion_lab_cluster::{Cluster, ClusterPrograms, Options};
use pinion_oci::Image;

const RUNS: usize = 5;
const WITHIN: Duration = Duration::from_secs(120);
const NAMES: &str = "apiVersion: pinion.dev/v1alpha1\nkind: DeviceResources\nresources:\n\
    - {name: example.com/edu, select: [{vendor: \"1234\", device: \"11e8\", node: 1}]}\n";
/// The device that goes and comes, and QEMU's name of it and of its port.
const DEVICE: &str = "0000:31:00.0";
const PLUG: &str = "device_add edu,id=device6,bus=port6";
const UNPLUG: &str = "device_del device6";

const PREPARE: &str = r#"
at=/run/plugin
mkdir -p $at && ctr -n k8s.io images mount --rw pinion.dev/bench:1 $at > /dev/null
for folder in dev sys proc var/lib/kubelet etc/pinion; do
    mkdir -p $at/$folder && mount --rbind /$folder $at/$folder
done
setsid chroot $at /usr/bin/pinion device-plugin > /var/log/plugin.log 2>&1 < /dev/null &
"#;
/// Whether the kubelet would give the device.
const ASK: &str =
    "ask() { chroot /run/plugin /usr/bin/pinion devices --pods -o json | grep -q '\"0000:31:00.0\"'; }
    now() { cut -d' ' -f1 /proc/uptime; }";
const BIND: &str = "d=/sys/bus/pci/devices/0000:31:00.0
    until [ -e $d ]; do sleep 0.1; done
    echo vfio-pci > $d/driver_override; echo 0000:31:00.0 > /sys/bus/pci/drivers_probe
    until ask; do sleep 0.1; done";
/// From when the kernel has it no more.
const GONE: &str = "while [ -e /sys/bus/pci/devices/0000:31:00.0 ]; do :; done
    S=$(now); while ask; do :; done; echo $S $(now)";

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
    must(node, PREPARE).unwrap();
    script(node, BIND);
    let question = script(node, "S=$(now); ask; ask; ask; ask; ask; echo $S $(now)");
    let question = elapsed(&question).unwrap() / 5.0;
    let mut removed: Vec<f64> = (0..RUNS)
        .map(|_| {
            let said = script(node, &format!("echo 1 > /sys/bus/pci/devices/{DEVICE}/remove; {GONE}"));
            script(node, &format!("echo 1 > /sys/bus/pci/rescan; {BIND}"));
            elapsed(&said).unwrap()
        })
        .collect();
    let mut pulled: Vec<f64> = (0..RUNS).map(|_| pulled(node)).collect();
    println!(
        "from the end of a device to the kubelet's view, seconds (min, median, max) of {RUNS}; a question alone {question:.2} s:"
    );
    println!("  taken out by the kernel {}", three(&mut removed));
    println!("  pulled out by QEMU      {}", three(&mut pulled));
}

fn up(folder: &std::path::Path) -> Cluster {
    let archive = folder.join("pinion.tar");
    let program = program("pinion").unwrap();
    Image::of_program("pinion.dev/bench:1", "/usr/bin/pinion", &program).unwrap().write(&archive).unwrap();
    let mut options = Options::of_nodes(1, folder);
    options.files.push(("/var/lib/pinion/images/pinion.tar".into(), archive));
    Cluster::up(&options, &mut |what, after| println!("{what} after {:.1} s", after.as_secs_f32())).unwrap()
}

fn script(node: &Lab, script: &str) -> String {
    must(node, &format!("{ASK}\n{script}")).unwrap()
}

/// Waits on the node for the device to be gone, while QEMU pulls it out; then puts it back.
fn pulled(node: &Lab) -> f64 {
    node.put("/run/gone", format!("{ASK}\n{GONE}\n").as_bytes(), 0o644).unwrap();
    must(node, "setsid sh /run/gone > /run/result 2>&1 < /dev/null &").unwrap();
    node.monitor(UNPLUG).unwrap();
    let end = Instant::now() + WITHIN;
    let seconds = loop {
        if let Some(seconds) = elapsed(&must(node, "cat /run/result").unwrap()) {
            break seconds;
        }
        assert!(Instant::now() < end, "the device is not pulled out");
        std::thread::sleep(Duration::from_millis(500));
    };
    node.monitor(PLUG).unwrap();
    script(node, BIND);
    seconds
}
