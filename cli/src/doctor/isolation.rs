//! Isolation: who else runs on dedicated CPUs.

use super::{Check, KernelFiles};

/// Isolated CPUs, the tick, RCU, real-time throttling, interrupts, control groups.
pub(crate) fn checks(files: &KernelFiles) -> Vec<Check> {
    vec![isolated(files), tick(files), callbacks(files), throttling(files), irqbalance(files), cgroups(files)]
}

fn isolated(files: &KernelFiles) -> Check {
    const NAME: &str = "isolated cpus";
    let cpus = files.cpus("sys/devices/system/cpu/isolated");
    if cpus.is_empty() && has_cpusets(files) {
        return Check::holds(
            NAME,
            "none from boot on: each guest's CPUs are isolated while it runs (cgroups)",
        );
    }
    if cpus.is_empty() {
        return Check::lacks(
            NAME,
            "none: other programs may run on dedicated CPUs",
            "boot with systemd.unified_cgroup_hierarchy=1, so that each guest's CPUs can be isolated while it runs, or \
             with isolcpus=managed_irq,domain,LIST",
        );
    }
    Check::holds(NAME, cpus.to_string())
}

fn tick(files: &KernelFiles) -> Check {
    const NAME: &str = "nohz_full";
    let (tickless, isolated) =
        (files.cpus("sys/devices/system/cpu/nohz_full"), files.cpus("sys/devices/system/cpu/isolated"));
    if tickless.is_empty() {
        return Check::lacks(
            NAME,
            "no CPU runs without the scheduler's tick: 100 to 1000 interruptions a second",
            "boot with nohz_full=LIST, the isolated CPUs",
        );
    }
    let ticking = isolated.difference(&tickless);
    if !ticking.is_empty() {
        return Check::lacks(
            NAME,
            format!("{tickless}; isolated CPUs {ticking} still have the tick"),
            "boot with the same list in isolcpus= and nohz_full=",
        );
    }
    Check::holds(NAME, tickless.to_string())
}

fn callbacks(files: &KernelFiles) -> Check {
    const NAME: &str = "rcu_nocbs";
    let cmdline = files.text("proc/cmdline").unwrap_or_default();
    let given = cmdline.split_whitespace().find_map(|w| w.strip_prefix("rcu_nocbs="));
    // nohz_full= implies it (Documentation/timers/no_hz.rst).
    match given {
        Some(list) => Check::holds(NAME, list),
        None if !files.cpus("sys/devices/system/cpu/nohz_full").is_empty() => {
            Check::holds(NAME, "implied by nohz_full")
        }
        None => Check::lacks(
            NAME,
            "RCU callbacks run on every CPU",
            "boot with rcu_nocbs=LIST, the isolated CPUs",
        ),
    }
}

fn throttling(files: &KernelFiles) -> Check {
    const NAME: &str = "rt throttling";
    match files.number("proc/sys/kernel/sched_rt_runtime_us") {
        Some(-1) => Check::holds(NAME, "off"),
        Some(us) => Check::lacks(
            NAME,
            format!("real-time vCPUs are stopped after {us} µs of each period"),
            "`sudo sysctl kernel.sched_rt_runtime_us=-1`",
        ),
        None => Check::holds(NAME, "not in this kernel"),
    }
}

fn irqbalance(files: &KernelFiles) -> Check {
    const NAME: &str = "irqbalance";
    let running = files
        .names("proc")
        .iter()
        .filter(|name| name.bytes().all(|b| b.is_ascii_digit()))
        .any(|pid| files.text(&format!("proc/{pid}/comm")).as_deref() == Some("irqbalance"));
    if running {
        return Check::lacks(
            NAME,
            "runs: it may move interrupts to dedicated CPUs",
            "stop it (`sudo systemctl disable --now irqbalance`), or set IRQBALANCE_BANNED_CPULIST to the dedicated CPUs",
        );
    }
    Check::holds(NAME, "not running")
}

fn has_cpusets(files: &KernelFiles) -> bool {
    let controllers = files.text("sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
    controllers.split_whitespace().any(|c| c == "cpuset")
}

fn cgroups(files: &KernelFiles) -> Check {
    const NAME: &str = "cgroups";
    match files.text("sys/fs/cgroup/cgroup.controllers") {
        Some(controllers) if controllers.split_whitespace().any(|c| c == "cpuset") => {
            Check::holds(NAME, format!("version 2: {controllers}"))
        }
        Some(controllers) => Check::lacks(
            NAME,
            format!("version 2 without cpuset: {controllers}"),
            "boot without cgroup_disable=cpuset",
        ),
        None => Check::lacks(
            NAME,
            "version 1 or none: other tasks may run on guests' CPUs, and a container runtime may reset their affinity",
            "boot with systemd.unified_cgroup_hierarchy=1, or `sudo mount -t cgroup2 none /sys/fs/cgroup`",
        ),
    }
}
