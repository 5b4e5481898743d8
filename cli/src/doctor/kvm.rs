//! Whether guests can run at all: KVM, and passthrough.

use std::fs::OpenOptions;
use std::io::ErrorKind;

use super::{Check, KernelFiles};

/// KVM and IOMMU.
pub(crate) fn checks(files: &KernelFiles) -> Vec<Check> {
    vec![kvm(files), iommu(files), clock(files)]
}

fn kvm(files: &KernelFiles) -> Check {
    const NAME: &str = "kvm";
    match OpenOptions::new().read(true).write(true).open(files.path("dev/kvm")) {
        Ok(_) => Check::holds(NAME, "/dev/kvm can be opened"),
        Err(e) if e.kind() == ErrorKind::PermissionDenied => Check::fails(
            NAME,
            "/dev/kvm exists, but this user may not open it",
            "join its group: `sudo usermod -aG kvm $USER`, then log in again",
        ),
        Err(e) if e.kind() == ErrorKind::NotFound => missing(NAME, files),
        Err(e) => Check::fails(NAME, format!("/dev/kvm cannot be opened: {e}"), "see `dmesg | grep -i kvm`"),
    }
}

fn missing(name: &'static str, files: &KernelFiles) -> Check {
    let cpuinfo = files.text("proc/cpuinfo").unwrap_or_default();
    let module = |flag: &str| {
        cpuinfo.lines().any(|l| l.starts_with("flags") && l.split_whitespace().any(|f| f == flag))
    };
    let remedy = if module("svm") {
        "load the module: `sudo modprobe kvm-amd`"
    } else if module("vmx") {
        "load the module: `sudo modprobe kvm-intel`"
    } else {
        "switch on virtualisation (AMD-V, Intel VT-x) in the firmware; in a virtual machine, nested virtualisation on \
         its host"
    };
    Check::fails(name, "there is no /dev/kvm", remedy)
}

fn iommu(files: &KernelFiles) -> Check {
    const NAME: &str = "iommu";
    match files.names("sys/kernel/iommu_groups").len() {
        0 => Check::lacks(
            NAME,
            "there are no IOMMU groups: devices cannot be passed through",
            "switch the IOMMU on in the firmware, and boot with intel_iommu=on (Intel) iommu=pt",
        ),
        n => Check::holds(NAME, format!("{n} IOMMU groups")),
    }
}

fn clock(files: &KernelFiles) -> Check {
    const NAME: &str = "clock source";
    match files.text("sys/devices/system/clocksource/clocksource0/current_clocksource").as_deref() {
        Some("tsc") => Check::holds(NAME, "tsc"),
        Some("kvm-clock") => Check::holds(NAME, "kvm-clock: this host is itself a guest"),
        Some(other) => Check::lacks(
            NAME,
            format!("{other}: each look at the clock costs microseconds"),
            "find out why the kernel rejects the TSC: `dmesg | grep -i tsc`",
        ),
        None => Check::lacks(NAME, "unknown", "mount sysfs on /sys"),
    }
}
