//! `cargo xtask demo`: the example VM on a virtual two-socket host, from plan to metrics.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use pinion_lab::{Cache, Files, Kernel, Lab, Shape, guest_initrd};

use crate::lab::stream;
use crate::setup;
use crate::workspace::{cargo, output, root, target};

/// What the guest does: shows what it sees, and powers off.
const SCRIPT: &str = r#"
echo "hello from $(uname -sr), $(nproc) CPUs"
for n in /sys/devices/system/node/node[0-9]*; do
    echo "${n##*/}: CPUs $(cat $n/cpulist), distances $(cat $n/distance), $(awk '/MemTotal/ {print $4 " " $5}' $n/meminfo)"
done
echo "CPU 0 and its sibling: $(cat /sys/devices/system/cpu/cpu0/topology/thread_siblings_list)"
for d in /sys/block/vd*; do echo "disk ${d##*/}: $(cat $d/size) sectors, serial '$(cat $d/serial)'"; done
modprobe nvme 2>/dev/null
for i in $(seq 50); do [ -b /dev/nvme0n1 ] && break; sleep 0.2; done
echo "drive of the host: $(cat /sys/class/nvme/nvme0/model) on node $(cat /sys/class/nvme/nvme0/device/numa_node), it says: $(head -c 21 /dev/nvme0n1)"
grep nvme /proc/interrupts | awk '{ for (i = 2; i <= 9; i++) n += $i; print "interrupts of " $NF ": " n; n = 0 }' | sort -k 4 -n -r | head -n 3
sleep 3
"#;

/// What is shown, and how.
const SCENES: [(&str, &str); 6] = [
    ("The machine", "pinion topology"),
    ("What it has and lacks", "pinion doctor"),
    (
        "Its devices",
        "D=$(ls /sys/bus/pci/devices/0000:51:00.0/nvme/*/ | grep -o 'nvme[0-9]*n[0-9]*'); \
            printf 'greetings from node 3' | dd of=/dev/$D conv=sync 2>/dev/null; pinion devices",
    ),
    ("The plan", "pinion plan /root/passthrough.yaml --devices /root/devices.yaml"),
    (
        "The guest: its console, and what Pinion says of it",
        "pinion run /root/passthrough.yaml --bind --devices /root/devices.yaml --certificate /root/certificate.json --metrics 127.0.0.1:9090 \
            --audit-interval 1 2>&1 & P=$!; while kill -0 $P 2>/dev/null; do \
            wget -q -O /root/now http://127.0.0.1:9090/metrics 2>/dev/null && mv /root/now /root/metrics; \
            grep -q msix /root/certificate.json 2>/dev/null && cp /root/certificate.json /root/running.json; sleep 1; \
            done; wait $P",
    ),
    (
        "The certificate, and some of the metrics",
        "grep -v -e '{$' -e '}' /root/running.json | head -n 12; echo ...; \
            grep -A 5 'subject.: .device/' /root/running.json | grep -v -e check -e '--' -e '}' -e '{'; echo ...; \
            grep -e ^pinion_vmi_thread_cpu_info -e ^pinion_vmi_memory_pages -e ^pinion_vmi_certificate_verdict \
            -e ^kubevirt_vmi_vcpu_delay -e ^pinion_vmi_device /root/metrics",
    ),
];

/// Builds Pinion, boots the lab, and shows it.
pub(crate) fn demo() -> Result<()> {
    setup::setup()?;
    println!("building Pinion…");
    let began = Instant::now();
    let status =
        cargo(&["build", "--locked", "--release", "-p", "pinion-cli", "-p", "pinion-launcher"]).status()?;
    if !status.success() {
        bail!("Pinion does not build");
    }
    println!("built in {:.0} s", began.elapsed().as_secs_f32());
    let began = Instant::now();
    let folder = target().join("demo");
    std::fs::create_dir_all(&folder)?;
    let initrd = folder.join("initrd");
    guest_initrd(SCRIPT, &initrd)?;
    println!("booting a virtual two-socket host…");
    let lab = Lab::boot("demo", &Shape::two_socket(), &files(&folder, &initrd)?)?;
    println!("the host is up after {:.0} s", lab.boot_time().as_secs_f32());
    for (title, script) in SCENES {
        println!("\n━━━ {title}\n");
        let done = stream(&lab, &["sh", "-c", script], Duration::from_secs(150))?;
        if !done.success() {
            bail!("that ended with exit code {:?}", done.code);
        }
    }
    println!("\nThe demo took {:.0} s after the build.", began.elapsed().as_secs_f32());
    Ok(())
}

fn files(folder: &Path, initrd: &Path) -> Result<Files> {
    let kernel = Kernel::of_debian(&Cache::of_user())?;
    let mut files = Files::new()
        .with("/var/lib/pinion/debian/vmlinuz", kernel.image())
        .with("/var/lib/pinion/debian/initrd", initrd)
        .with("/root/passthrough.yaml", root().join("manifests/examples/passthrough.yaml"))
        .with("/root/devices.yaml", root().join("manifests/examples/devices.yaml"));
    for name in ["pinion", "pinion-launcher"] {
        let slim = folder.join(name);
        let program = target().join("release").join(name);
        output(std::process::Command::new("strip").arg("-o").arg(&slim).arg(&program))?;
        files = files.with_program(Path::new("/usr/bin").join(name), &slim)?;
    }
    Ok(files)
}
