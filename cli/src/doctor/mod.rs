//! `pinion doctor`: what this host has and lacks for deterministic guests.
//!
//! Each check reads the kernel's own files below a root (so that tests can give it
//! a host of their own) and says what it found, what that costs and what to do.
//! It changes nothing.

mod check;
mod isolation;
mod kernel_files;
mod knobs;
mod kvm;
mod memory;
mod power;

use serde::Serialize;

use crate::arguments::{DoctorOptions, ReportFormat};
use crate::failure::Failure;
use crate::output;
pub(crate) use check::{Check, Verdict};
pub(crate) use kernel_files::KernelFiles;

/// What `-o json` prints.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    can_run: bool,
    checks: Vec<Check>,
}

/// Runs all checks on this host.
///
/// # Errors
/// [`Failure::Silent`] with exit code 1 when a guest could not run here.
pub(crate) fn run(options: &DoctorOptions) -> Result<(), Failure> {
    let checks = examine(&KernelFiles::of_host());
    let can_run = checks.iter().all(|c| c.verdict != Verdict::Fails);
    match options.output {
        ReportFormat::Json => output::document("Diagnosis", &Report { can_run, checks })?,
        ReportFormat::Text => output::text(&picture(&checks, can_run, output::width()))?,
    }
    if can_run { Ok(()) } else { Err(Failure::Silent(1)) }
}

/// All checks, in the order of what matters first.
fn examine(files: &KernelFiles) -> Vec<Check> {
    let mut checks = kvm::checks(files);
    checks.extend(memory::checks(files));
    checks.extend(isolation::checks(files));
    checks.extend(power::checks(files));
    checks.extend(knobs::checks(files));
    checks
}

fn picture(checks: &[Check], can_run: bool, width: usize) -> String {
    let mut text = String::new();
    for check in checks {
        text.push_str(&check.picture(width));
    }
    let lacks = checks.iter().filter(|c| c.verdict == Verdict::Lacks).count();
    let closing = match (can_run, lacks) {
        (false, _) => "A guest cannot run here: see the lines marked ✗.".to_owned(),
        (true, 0) => "Guests can run here, and nothing known disturbs them.".to_owned(),
        (true, n) => {
            format!("Guests can run here; {n} thing{} may disturb them.", if n == 1 { "" } else { "s" })
        }
    };
    text.push_str(&format!("\n{closing}\n"));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(files: &[(&str, &str)]) -> (tempfile::TempDir, KernelFiles) {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let files = KernelFiles::below(root.path());
        (root, files)
    }

    fn verdict(checks: &[Check], name: &str) -> Verdict {
        checks.iter().find(|c| c.name == name).unwrap_or_else(|| panic!("no check {name}")).verdict
    }

    #[test]
    fn a_host_without_kvm_cannot_run_guests() {
        let (_root, files) = host(&[("proc/cpuinfo", "flags : fpu svm\n")]);
        let checks = examine(&files);
        assert_eq!(verdict(&checks, "kvm"), Verdict::Fails);
        assert!(picture(&checks, false, 80).contains("cannot run here"));
    }

    #[test]
    fn a_tuned_host_has_nothing_to_complain_about() {
        let (_root, files) = host(&[
            ("dev/kvm", ""),
            ("proc/cpuinfo", "flags : fpu vmx\n"),
            ("sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "512\n"),
            ("sys/kernel/mm/transparent_hugepage/enabled", "always madvise [never]\n"),
            ("sys/kernel/mm/ksm/run", "0\n"),
            ("proc/sys/kernel/numa_balancing", "0\n"),
            ("proc/sys/kernel/sched_rt_runtime_us", "-1\n"),
            ("proc/swaps", "Filename Type Size Used Priority\n"),
            ("sys/devices/system/cpu/isolated", "2-3\n"),
            ("sys/devices/system/cpu/nohz_full", "2-3\n"),
            ("proc/cmdline", "isolcpus=2-3 nohz_full=2-3 rcu_nocbs=2-3\n"),
            ("proc/irq/default_smp_affinity", "3\n"),
            ("sys/kernel/iommu_groups/0/type", "DMA\n"),
            ("sys/devices/system/cpu/cpu2/cpufreq/scaling_governor", "performance\n"),
            ("sys/devices/system/clocksource/clocksource0/current_clocksource", "tsc\n"),
            ("sys/fs/cgroup/cgroup.controllers", "cpuset cpu memory hugetlb\n"),
            ("proc/sys/vm/stat_interval", "120\n"),
            ("proc/sys/vm/compaction_proactiveness", "0\n"),
            ("proc/sys/kernel/nmi_watchdog", "0\n"),
            ("proc/sys/kernel/timer_migration", "1\n"),
            ("sys/kernel/mm/transparent_hugepage/khugepaged/defrag", "0\n"),
            ("sys/devices/virtual/workqueue/cpumask", "3\n"),
            ("proc/sys/kernel/version", "#1 SMP PREEMPT_RT\n"),
        ]);
        let checks = examine(&files);
        let bad: Vec<_> = checks.iter().filter(|c| c.verdict != Verdict::Holds).collect();
        assert!(bad.is_empty(), "{bad:#?}");
    }

    #[test]
    fn a_switch_that_is_off_says_what_it_would_remove() {
        let (_root, files) = host(&[("proc/sys/vm/stat_interval", "1\n")]);
        let checks = examine(&files);
        let check = checks.iter().find(|c| c.name == "stat interval").unwrap();
        assert_eq!(check.verdict, Verdict::Lacks);
        assert!(
            check.finding.contains("need 10") && check.finding.contains("statistics"),
            "{}",
            check.finding
        );
    }

    #[test]
    fn hostile_kernel_files_do_not_stop_the_examination() {
        let (_root, files) = host(&[
            ("proc/sys/kernel/sched_rt_runtime_us", "many\n"),
            ("sys/kernel/mm/hugepages/hugepages-xkB/free_hugepages", "\u{fffd}"),
            ("sys/devices/system/cpu/isolated", "5-2"),
        ]);
        assert!(!examine(&files).is_empty());
    }

    #[test]
    fn a_narrow_terminal_is_respected() {
        let (_root, files) = host(&[]);
        let checks = examine(&files);
        let text = picture(&checks, false, 50);
        // A path that is longer than a line stays whole, so that it can be copied.
        let fits = |l: &str| l.chars().count() <= 50 || l.split_whitespace().count() == 1;
        assert!(text.lines().all(fits), "{text}");
    }
}
