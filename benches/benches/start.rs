//! Time to a guest's init: Pinion beside QEMU's `microvm`, in one lab host, with the same kernel, initrd, CPUs
//! and memory; and what a start costs beyond populating memory, and beyond the guest's own memory.
//!
//! `cargo bench -p pinion-benches --bench start` runs it. Everything in the lab is emulated: only the ratio of
//! what ran side by side says something. Under `cargo test` it does nothing.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a benchmark ends at the first thing that is wrong")]

use std::path::Path;

use pinion_benches::side_by_side::{self, LONG, median, three};
use pinion_lab::{Lab, Shape, guest_initrd};

const RUNS: usize = 5;

/// Prints nanoseconds from start to `GUEST-READY`.
const PINION: &str = "pinion run /bench.yaml 2> /log";
const QEMU: &str = "taskset 0xc qemu-system-x86_64 -L /firmware -M microvm,isa-serial=on,pit=off,pic=off,rtc=off \
    -accel kvm -cpu host -smp 2 -m 256 -mem-path /dev/hugepages -mem-prealloc -nodefaults -no-user-config -nographic \
    -serial stdio -kernel /var/lib/pinion/debian/vmlinuz -initrd /var/lib/pinion/debian/initrd \
    -append 'console=ttyS0 quiet panic=-1 reboot=t' -no-reboot 2> /log";

fn main() {
    if !std::env::args().any(|a| a == "--bench") {
        println!("start: skipped, it runs with `cargo bench` only");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let lab = lab(folder.path());
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        ours.push(ready(&lab, PINION));
        theirs.push(ready(&lab, QEMU));
    }
    println!("time to the guest's init, seconds (min, median, max) of {RUNS}:");
    println!("  pinion run     {}", three(&mut ours));
    println!("  QEMU microvm   {}", three(&mut theirs));
    println!("  ratio of medians {:.2}", median(&ours) / median(&theirs));
    phases(&lab);
    overhead(&lab);
}

fn lab(folder: &Path) -> Lab {
    let initrd = folder.join("initrd");
    guest_initrd("[ -n \"$(grep stay /proc/cmdline)\" ] && sleep 60; true", &initrd).unwrap();
    let lab = side_by_side::lab("bench", &Shape::two_socket(), &initrd, folder).unwrap();
    for (path, arguments) in [("/bench.yaml", "quiet"), ("/stay.yaml", "quiet stay")] {
        lab.put(path, side_by_side::spec("256Mi", arguments, "").as_bytes(), 0o644).unwrap();
    }
    lab
}

/// Seconds from the start of a command to its guest's `GUEST-READY`, on the lab's own clock.
fn ready(lab: &Lab, command: &str) -> f64 {
    let script = format!(
        "S=$(cut -d' ' -f1 /proc/uptime); {command} < /dev/null | while read -r line; do case \"$line\" in \
            *GUEST-READY*) echo $S $(cut -d' ' -f1 /proc/uptime);; esac; done"
    );
    let output = lab.sh(&script, LONG).unwrap();
    let text = output.text();
    side_by_side::elapsed(&text).unwrap_or_else(|| {
        println!("{}", lab.sh("cat /log", LONG).unwrap().text());
        panic!("the guest did not come up: {text}")
    })
}

/// Phases of the last start.
fn phases(lab: &Lab) {
    assert!(lab.sh(&format!("{PINION} > /dev/null < /dev/null"), LONG).unwrap().success());
    println!("phases of a start (memory is the population of 256 MiB):");
    print!("{}", lab.sh("sed -n 's/.*bench: \\(.* ready after .*\\)/  \\1/p' /log", LONG).unwrap().text());
}

/// The launcher's memory: huge pages of the guest are not part of it.
fn overhead(lab: &Lab) {
    let script = "pinion run /stay.yaml > /out 2>&1 < /dev/null & for i in $(seq 600); do grep -q GUEST-READY /out && \
        break; sleep 0.1; done; P=$(pidof pinion-launcher); \
        grep -E 'VmRSS|RssAnon|RssFile' /proc/$P/status; grep -E '^Pss:' /proc/$P/smaps_rollup; kill -9 $(pidof pinion)";
    println!("the launcher's own memory, one guest of 256 MiB in huge pages:");
    print!("{}", lab.sh(script, LONG).unwrap().text());
}
