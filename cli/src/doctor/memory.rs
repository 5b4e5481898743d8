//! Memory: huge pages, and what moves or merges pages behind a guest's back.

use super::{Check, KernelFiles};

/// Huge pages, transparent huge pages, page merging, NUMA balancing, swap.
pub(crate) fn checks(files: &KernelFiles) -> Vec<Check> {
    vec![huge_pages(files), transparent(files), merging(files), balancing(files), swap(files)]
}

fn huge_pages(files: &KernelFiles) -> Check {
    const NAME: &str = "huge pages";
    const POOLS: &str = "sys/kernel/mm/hugepages";
    let free: Vec<String> = files
        .names(POOLS)
        .into_iter()
        .filter_map(|name| {
            let kib: u64 = name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
            let free = files.number(&format!("{POOLS}/{name}/free_hugepages"))?;
            (free > 0).then(|| format!("{free} × {} free", size(kib)))
        })
        .collect();
    if free.is_empty() {
        return Check::lacks(
            NAME,
            "none free: specs with memory.hugepages are refused",
            "per node: `echo 1024 | sudo tee /sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages`, \
             or hugepagesz=1G hugepages=N at boot",
        );
    }
    Check::holds(NAME, free.join(", "))
}

fn size(kib: u64) -> String {
    if kib >= 1 << 20 { format!("{} GiB", kib >> 20) } else { format!("{} MiB", kib >> 10) }
}

fn transparent(files: &KernelFiles) -> Check {
    const NAME: &str = "thp";
    match files.choice("sys/kernel/mm/transparent_hugepage/enabled").as_deref() {
        Some("always") => Check::lacks(
            NAME,
            "transparent huge pages: always; khugepaged moves pages while guests run",
            "`echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled`",
        ),
        Some(choice) => Check::holds(NAME, format!("transparent huge pages: {choice}")),
        None => Check::holds(NAME, "transparent huge pages: not in this kernel"),
    }
}

fn merging(files: &KernelFiles) -> Check {
    const NAME: &str = "ksm";
    match files.number("sys/kernel/mm/ksm/run") {
        Some(1) => Check::lacks(
            NAME,
            "same-page merging runs: a write to a merged page stalls its vCPU",
            "`echo 2 | sudo tee /sys/kernel/mm/ksm/run` (unmerges all)",
        ),
        _ => Check::holds(NAME, "same-page merging is off"),
    }
}

fn balancing(files: &KernelFiles) -> Check {
    const NAME: &str = "numa balancing";
    match files.number("proc/sys/kernel/numa_balancing") {
        Some(0) => Check::holds(NAME, "off"),
        None => Check::holds(NAME, "not in this kernel"),
        Some(_) => Check::lacks(
            NAME,
            "on: the kernel unmaps pages of guests to see who uses them",
            "`sudo sysctl kernel.numa_balancing=0`",
        ),
    }
}

fn swap(files: &KernelFiles) -> Check {
    const NAME: &str = "swap";
    match files.text("proc/swaps").map_or(0, |t| t.lines().skip(1).count()) {
        0 => Check::holds(NAME, "none"),
        n => Check::lacks(
            NAME,
            format!(
                "{n} swap device{}: 4 KiB pages of guests may be swapped out",
                if n == 1 { "" } else { "s" }
            ),
            "`sudo swapoff -a`, or give guests huge pages, which are never swapped",
        ),
    }
}
