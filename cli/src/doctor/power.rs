//! Power: what makes a CPU slow to wake up.

use std::collections::BTreeMap;

use super::{Check, KernelFiles};

/// Exit latency above which an idle state is reported, microseconds.
const SLOW_WAKE_UP_US: i64 = 10;

const CPUS: &str = "sys/devices/system/cpu";

/// Governors and idle states.
pub(crate) fn checks(files: &KernelFiles) -> Vec<Check> {
    let cpus: Vec<String> = files
        .names(CPUS)
        .into_iter()
        .filter(|n| {
            n.strip_prefix("cpu").is_some_and(|d| !d.is_empty() && d.bytes().all(|b| b.is_ascii_digit()))
        })
        .collect();
    vec![governors(files, &cpus), idle_states(files, &cpus)]
}

fn governors(files: &KernelFiles, cpus: &[String]) -> Check {
    const NAME: &str = "governor";
    let mut count: BTreeMap<String, usize> = BTreeMap::new();
    for governor in
        cpus.iter().filter_map(|cpu| files.text(&format!("{CPUS}/{cpu}/cpufreq/scaling_governor")))
    {
        *count.entry(governor).or_default() += 1;
    }
    if count.is_empty() {
        return Check::holds(NAME, "the kernel does not scale frequencies here");
    }
    let text = count.iter().map(|(g, n)| format!("{g} on {n} CPUs")).collect::<Vec<_>>().join(", ");
    if count.keys().all(|g| g == "performance") {
        return Check::holds(NAME, text);
    }
    Check::lacks(
        NAME,
        text,
        "`echo performance | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor`",
    )
}

fn idle_states(files: &KernelFiles, cpus: &[String]) -> Check {
    const NAME: &str = "idle states";
    let mut worst: Option<(i64, String)> = None;
    for cpu in cpus {
        let folder = format!("{CPUS}/{cpu}/cpuidle");
        for state in files.names(&folder) {
            let read = |file: &str| files.number(&format!("{folder}/{state}/{file}"));
            let (Some(latency), Some(0)) = (read("latency"), read("disable")) else { continue };
            if worst.as_ref().is_none_or(|(l, _)| latency > *l) {
                worst = Some((latency, files.text(&format!("{folder}/{state}/name")).unwrap_or(state)));
            }
        }
    }
    match worst {
        None => Check::holds(NAME, "the kernel does not choose idle states here"),
        Some((us, name)) if us <= SLOW_WAKE_UP_US => {
            Check::holds(NAME, format!("deepest is {name}, {us} µs to wake up"))
        }
        Some((us, name)) => Check::lacks(
            NAME,
            format!("{name} takes {us} µs to wake up"),
            "boot with processor.max_cstate=1 intel_idle.max_cstate=1, or hold /dev/cpu_dma_latency at 0",
        ),
    }
}
