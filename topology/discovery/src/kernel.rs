//! What the kernel of a tree was booted with.

use pinion_machine::{CpuId, CpuSet, KernelFacts};

use crate::cpus::CPU_LIST;
use crate::iommu::{self, Iommu};
use crate::tree::{Tree, TreeError};

/// Reads the facts; `possible` are the CPUs that `all` and `N` of the command line mean.
///
/// # Errors
/// When a list of CPUs in sysfs is malformed.
pub(crate) fn read(tree: &Tree, possible: &CpuSet) -> Result<KernelFacts, TreeError> {
    let command_line = tree.text("proc/cmdline")?.unwrap_or_default();
    let booted = |name: &str| parameter(&command_line, name).and_then(|v| boot_list(v, possible));
    let nohz_full = match list(tree, "sys/devices/system/cpu/nohz_full")? {
        Some(cpus) => cpus,
        None => booted("nohz_full").unwrap_or_default(),
    };
    let isolated = match list(tree, "sys/devices/system/cpu/isolated")? {
        Some(cpus) => cpus,
        None => booted("isolcpus").unwrap_or_default(),
    };
    // Isolated partitions of cgroup v2, which sysfs does not list.
    let partitions = list(tree, "sys/fs/cgroup/cpuset.cpus.isolated")?.unwrap_or_default();
    // Every CPU without a tick is without callbacks as well.
    let rcu_nocbs = booted("rcu_nocbs").unwrap_or_default().union(&nohz_full);
    let isolated = isolated.union(&partitions);
    let Iommu { present, remaps_interrupts } = iommu::read(tree)?;
    Ok(KernelFacts {
        release: release(tree),
        isolated,
        nohz_full,
        rcu_nocbs,
        iommu: present,
        interrupt_remapping: remaps_interrupts,
    })
}

/// `Linux version 6.1.0 (…` where `uname -r` was not gathered.
fn release(tree: &Tree) -> Option<String> {
    tree.label("proc/sys/kernel/osrelease").or_else(|| {
        let version = tree.label("proc/version")?;
        version.strip_prefix("Linux version ")?.split_whitespace().next().map(str::to_owned)
    })
}

/// A list in sysfs; the kernel prints a missing mask as `(null)`.
fn list(tree: &Tree, path: &str) -> Result<Option<CpuSet>, TreeError> {
    match tree.text(path)? {
        Some(text) if text == "(null)" => Ok(Some(CpuSet::new())),
        Some(text) => text.parse().map(Some).map_err(|_| tree.malformed(path, &text, CPU_LIST)),
        None => Ok(None),
    }
}

/// The value of the last parameter of that name.
fn parameter<'a>(command_line: &'a str, name: &str) -> Option<&'a str> {
    let words = command_line.split_whitespace().take_while(|word| *word != "--");
    words.filter_map(|word| word.strip_prefix(name)?.strip_prefix('=')).last()
}

/// A list as the kernel's boot parameters have it: flags before it, `all`, `N` for the
/// last CPU, and `first-last:used/group`. `None` where it is none of that.
fn boot_list(text: &str, possible: &CpuSet) -> Option<CpuSet> {
    let last = possible.iter().last()?.0;
    let flag = |part: &&str| part.starts_with(|c: char| c.is_ascii_lowercase()) && *part != "all";
    let mut cpus = CpuSet::new();
    for part in text.split(',').skip_while(flag).filter(|p| !p.is_empty()) {
        if part == "all" {
            cpus.extend(possible.iter());
            continue;
        }
        let number = |t: &str| if t == "N" { Some(last) } else { t.parse::<u32>().ok() };
        let (range, stride) = part.split_once(':').map_or((part, None), |(r, s)| (r, Some(s)));
        let (from, to) = match range.split_once('-') {
            Some((from, to)) => (number(from)?, number(to)?),
            None => (number(range)?, number(range)?),
        };
        let (used, group) = match stride.map(|s| s.split_once('/')) {
            Some(pair) => pair.and_then(|(u, g)| Some((u.parse::<u32>().ok()?, g.parse::<u32>().ok()?)))?,
            None => (1, 1),
        };
        if group == 0 || used > group || from > to {
            return None;
        }
        let wanted = |cpu: &u32| (cpu - from) % group < used;
        // Nothing beyond the last CPU exists, whatever the text says.
        cpus.extend((from..=to.min(last)).filter(wanted).map(CpuId));
    }
    Some(cpus)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boot(text: &str) -> Option<String> {
        boot_list(text, &"0-15".parse().unwrap()).map(|cpus| cpus.to_string())
    }

    #[test]
    fn boot_lists_are_read_as_the_kernel_reads_them() {
        assert_eq!(boot("2-5,8").as_deref(), Some("2-5,8"));
        assert_eq!(boot("managed_irq,domain,1-3").as_deref(), Some("1-3"));
        assert_eq!(boot("all").as_deref(), Some("0-15"));
        assert_eq!(boot("8-N").as_deref(), Some("8-15"));
        assert_eq!(boot("0-15:2/8").as_deref(), Some("0-1,8-9"));
        assert_eq!(boot("0-4294967295").as_deref(), Some("0-15"));
    }

    #[test]
    fn boot_lists_that_are_none_are_unknown() {
        for text in ["x", "5-2", "0-7:3/0", "0-7:9/8", "1-2-3", "-1"] {
            assert!(boot(text).is_none_or(|cpus| cpus.is_empty()), "{text}");
        }
    }

    #[test]
    fn the_last_parameter_before_the_dashes_counts() {
        let line = "a nohz_full=1 nohz_full=2 xnohz_full=5 -- nohz_full=3";
        assert_eq!(parameter(line, "nohz_full"), Some("2"));
        assert_eq!(parameter(line, "nohz"), None);
    }
}
