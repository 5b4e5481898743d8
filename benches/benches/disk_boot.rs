//! Time from the command to the guest's init for a Debian disk image: Pinion, which starts the image's kernel
//! directly, beside QEMU with SeaBIOS and with OVMF, which start GRUB. In one lab host, in turn, with the same image. OVMF
//! needs the lab's own QEMU: Debian's ends with an assertion (`tcg_handle_interrupt`) where a guest of its guest writes
//! CR8 while an interrupt is pending, as EFI firmware does.
//!
//! `cargo bench -p pinion-benches --bench disk_boot` runs it. Everything in the lab is emulated: only the ratio of
//! what ran side by side says something. Under `cargo test` it does nothing.

#![expect(clippy::unwrap_used, reason = "a benchmark ends at the first thing that is wrong")]

use std::path::Path;
use std::time::Duration;

use pinion_benches::side_by_side::{self, Hosts, LONG, median, must, three};
use pinion_lab::{Attach, Cache, DebianDisk, Emulator, Files, Lab, Shape, debian_program};

const RUNS: usize = 5;
/// Lab hosts that are booted at most.
const HOSTS: usize = 4;
/// Firmware under emulation inside emulation takes minutes.
const WITHIN: Duration = Duration::from_secs(500);

const PINION: &str = "pinion run /bench.yaml 2> /log";
/// What is added for a firmware stands where `FIRMWARE` does.
const QEMU: &str = "TMPDIR=/tmp taskset 0xc qemu-system-x86_64 -L /firmware -M q35 -accel kvm -cpu host -smp 1 -m 512 \
    -nodefaults -no-user-config -nographic -serial stdio -snapshot FIRMWARE \
    -drive if=virtio,format=raw,file=/dev/vda 2> /log";
const OVMF: &str = "-drive if=pflash,unit=0,format=raw,readonly=on,file=/firmware/OVMF_CODE.fd \
    -drive if=pflash,unit=1,format=raw,file=/firmware/OVMF_VARS.fd";

const SPEC: &str = "
apiVersion: kubevirt.io/v1
kind: VirtualMachineInstance
metadata: {name: bench}
spec:
  domain:
    memory: {guest: 512Mi}
    devices: {disks: [{name: root}]}
  volumes: [{name: root, hostDisk: {path: /dev/vda, type: Disk}}]
";

/// What the first process says.
const INIT: &str = "INIT 6";

fn main() {
    if !std::env::args().any(|a| a == "--bench") {
        println!("disk_boot: skipped, it runs with `cargo bench` only");
        return;
    }
    let disk = DebianDisk::of_debian(&Cache::of_user()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut hosts = Hosts::new(HOSTS, || lab(&disk, folder.path()));
    let [seabios, ovmf] = ["", OVMF].map(|firmware| QEMU.replace("FIRMWARE", firmware));
    let mut ways = vec![("pinion run", PINION), ("QEMU, SeaBIOS", &seabios)];
    if Emulator::is_cached(&Cache::of_user()) {
        ways.push(("QEMU, OVMF", &ovmf));
    } else {
        println!("QEMU, OVMF: skipped, the lab has no QEMU of its own (`cargo xtask test` builds it)");
    }
    let mut times = vec![Vec::new(); ways.len()];
    for _ in 0..RUNS {
        for ((name, command), times) in ways.iter().zip(&mut times) {
            let seconds = hosts.measure(name, |lab| init(lab, command)).unwrap();
            println!("{name}: {seconds:.2} s");
            times.push(seconds);
        }
    }
    println!("time to init from a Debian disk image, seconds (min, median, max) of {RUNS}:");
    for ((name, _), times) in ways.iter().zip(&mut times) {
        println!("  {name:<14} {}", three(times));
    }
    let ours = times.first().map_or(f64::NAN, |t| median(t));
    for ((name, _), times) in ways.iter().zip(&times).skip(1) {
        println!("  {name}: {:.1} times as long", median(times) / ours);
    }
    println!("phases of the last start:");
    let lab = hosts.lab();
    must(lab, "pinion run /bench.yaml > /out 2> /log & for i in $(seq 900); do grep -q running /log && break; sleep 0.1; done; kill -9 $(pidof pinion-launcher)").unwrap();
    print!("{}", must(lab, "sed -n 's/.*bench: \\(.* ready after .*\\)/  \\1/p' /log").unwrap());
}

fn lab(disk: &DebianDisk, folder: &Path) -> Lab {
    let initrd = folder.join("initrd");
    pinion_lab::guest_initrd("true", &initrd).unwrap();
    let shape = Shape::one_node(2048);
    let mut files = Files::new().with_disk(disk.image(), Attach::Snapshot);
    let firmware = Emulator::is_cached(&Cache::of_user()).then_some(["OVMF_CODE.fd", "OVMF_VARS.fd"]);
    for name in firmware.into_iter().flatten() {
        let file = debian_program(&Cache::of_user(), "ovmf", &format!("usr/share/OVMF/{name}")).unwrap();
        files = files.with(Path::new("/firmware").join(name), file);
    }
    let lab = side_by_side::lab_with("bench-disk", &shape, &initrd, folder, files).unwrap();
    lab.put("/bench.yaml", SPEC.as_bytes(), 0o644).unwrap();
    lab
}

/// Seconds from the start of a command to its guest's init, on the lab's own clock; then the guest is killed. Else what
/// was printed.
fn init(lab: &Lab, command: &str) -> Result<f64, String> {
    let script = format!(
        "mkdir -p /var/tmp; S=$(cut -d' ' -f1 /proc/uptime); {command} < /dev/null > /out & P=$!
         while kill -0 $P 2> /dev/null && ! grep -q '{INIT}' /out; do sleep 0.05; done
         E=$(cut -d' ' -f1 /proc/uptime)
         killall -9 pinion-launcher qemu-system-x86_64 2> /dev/null; sleep 1; grep -q '{INIT}' /out && echo $S $E"
    );
    let output = lab.sh(&script, WITHIN).map_err(|e| e.to_string())?;
    let said =
        || lab.sh("tail -c 2000 /out; cat /log", LONG).map_or_else(|e| e.to_string(), |said| said.text());
    side_by_side::elapsed(&output.text()).ok_or_else(said)
}
