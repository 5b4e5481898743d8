//! A passed-through NVMe drive: Pinion beside QEMU with VFIO, in one lab host, with the same kernel, initrd, CPUs, memory
//! and drive; and what mapping 1 GiB for DMA takes.
//!
//! Neither guests nor KVM poll before they sleep: the emulated drive answers just when they would give up (200 µs), so that
//! a run were either fast or slow by chance.
//!
//! `cargo bench -p pinion-benches --bench passthrough` runs it. Everything in the lab is emulated, the drive too: only the
//! ratio of what ran side by side says something. Under `cargo test` it does nothing.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a benchmark ends at the first thing that is wrong")]

use std::path::{Path, PathBuf};
use std::process::Command;

use pinion_benches::side_by_side::{self, median, must, release, three};
use pinion_lab::{HugePages, Lab, Shape, guest_initrd_with};

const RUNS: usize = 5;
/// The drive on node 1 of the two-socket shape.
const DRIVE: &str = "0000:31:00.0";

const SCRIPT: &str = "modprobe nvme; for i in $(seq 100); do [ -b /dev/nvme0n1 ] && break; sleep 0.05; done
    random_reads /dev/nvme0n1 2000";

const NAMES: &str = r#"
apiVersion: pinion.dev/v1alpha1
kind: DeviceResources
resources: [{name: example.com/drive, select: [{address: "0000:31:00.0"}]}]
"#;

const PINION: &str = "pinion run /bench.yaml --devices /names.yaml 2> /log";
/// On the CPUs that Pinion gives its guest, 4 and 6 on node 1; and the guest is told that they are its own, as by Pinion
/// and by KubeVirt: it then waits for interrupts otherwise.
/// The drive's interrupts come to CPU 0, where Pinion brings them.
const QEMU: &str = "{ for i in $(seq 100); do sleep 0.3; [ $(grep -c vfio- /proc/interrupts) -ge 3 ] && break; done; \
        for n in $(grep vfio- /proc/interrupts | cut -d: -f1); do echo 0 > /proc/irq/$n/smp_affinity_list; done; } & taskset 0x50 qemu-system-x86_64 -L /firmware -M q35,kernel-irqchip=on -accel kvm -cpu host,kvm-hint-dedicated=on -smp 2 -m 1024 \
    -mem-path /dev/hugepages -mem-prealloc -nodefaults -no-user-config -nographic -serial stdio \
    -device vfio-pci,host=0000:31:00.0,rombar=0 -kernel /var/lib/pinion/debian/vmlinuz -initrd /var/lib/pinion/debian/initrd \
    -append 'console=ttyS0 quiet cpuidle.off=1 panic=-1 reboot=t' -no-reboot 2> /log";

/// Of one run: seconds from the command to the first read, microseconds of the median and of the 99th percentile read.
struct Figures {
    first: f64,
    read: f64,
    late: f64,
}

fn main() {
    if !std::env::args().any(|a| a == "--bench") {
        println!("passthrough: skipped, it runs with `cargo bench` only");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let lab = lab(folder.path());
    let (mut ours, mut theirs, mut mapping) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..RUNS {
        ours.push(measure(&lab, PINION));
        mapping.push(mapping_took(&lab));
        theirs.push(measure(&lab, QEMU));
    }
    println!("a passed-through NVMe drive, {RUNS} runs of each in turn (min, median, max):");
    show("time to the first read, s", &ours, &theirs, |f| f.first);
    show("4 KiB random read, median, µs", &ours, &theirs, |f| f.read);
    show("4 KiB random read, 99th percentile, µs", &ours, &theirs, |f| f.late);
    println!("mapping 1 GiB of 2 MiB pages for DMA, ms: {}", three(&mut mapping));
}

fn show(what: &str, ours: &[Figures], theirs: &[Figures], of: impl Fn(&Figures) -> f64) {
    let mut ours: Vec<f64> = ours.iter().map(&of).collect();
    let mut theirs: Vec<f64> = theirs.iter().map(&of).collect();
    println!("{what}:");
    println!("  pinion run     {}", three(&mut ours));
    println!("  QEMU           {}", three(&mut theirs));
    println!("  ratio of medians {:.2}", median(&ours) / median(&theirs));
}

fn lab(folder: &Path) -> Lab {
    let initrd = folder.join("initrd");
    guest_initrd_with(SCRIPT, &[("/bin/random_reads", &reader())], &initrd).unwrap();
    let mut shape = Shape::two_socket();
    if let Some(node) = shape.nodes.get_mut(1) {
        node.memory_mib = 3072;
        node.huge_pages = vec![HugePages { size_kib: 2048, count: 640 }];
    }
    let lab = side_by_side::lab("passthrough", &shape, &initrd, folder).unwrap();
    let drive = "hostDevices: [{name: drive, deviceName: example.com/drive}]";
    let spec = side_by_side::spec("1Gi", "quiet cpuidle.off=1", drive);
    lab.put("/bench.yaml", spec.as_bytes(), 0o644).unwrap();
    lab.put("/names.yaml", NAMES.as_bytes(), 0o644).unwrap();
    must(&lab, &format!("pinion devices bind {DRIVE}; echo 0 > /sys/module/kvm/parameters/halt_poll_ns"))
        .unwrap();
    lab
}

/// The program that reads, linked statically: the guest has no library.
fn reader() -> PathBuf {
    const TRIPLE: &str = "x86_64-unknown-linux-gnu";
    let folder = release().join("static");
    let built = Command::new("cargo")
        .args([
            "build",
            "--quiet",
            "--release",
            "-p",
            "pinion-benches",
            "--example",
            "random_reads",
            "--target",
            TRIPLE,
        ])
        .env("CARGO_TARGET_DIR", &folder)
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .status();
    assert!(built.unwrap().success());
    folder.join(TRIPLE).join("release/examples/random_reads")
}

fn measure(lab: &Lab, command: &str) -> Figures {
    let script = format!(
        "S=$(cut -d' ' -f1 /proc/uptime); {command} < /dev/null | while read -r line; do case \"$line\" in \
            *FIRST*) echo $S $(cut -d' ' -f1 /proc/uptime);; *READS*) echo ${{line#*READS}};; esac; done"
    );
    let text = must(lab, &script).unwrap_or_default();
    let numbers: Vec<f64> = text.split_whitespace().filter_map(|w| w.parse().ok()).collect();
    match numbers.as_slice() {
        [start, first, read, late] => Figures { first: first - start, read: *read, late: *late },
        _ => {
            println!("{}", must(lab, "cat /log").unwrap());
            panic!("the guest did not read: {text}");
        }
    }
}

/// Milliseconds, of the last start.
fn mapping_took(lab: &Lab) -> f64 {
    let line = must(lab, "sed -n 's/.*dma mapping ready after //p' /log").unwrap();
    let line = line.trim();
    let number = |suffix: &str, per: f64| Some(line.strip_suffix(suffix)?.parse::<f64>().ok()? * per);
    number("ms", 1.0).or_else(|| number("µs", 1e-3)).or_else(|| number("s", 1e3)).unwrap_or(f64::NAN)
}
