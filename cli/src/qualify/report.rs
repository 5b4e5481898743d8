//! The result of a qualification for people.

use std::fmt::Write as _;

use pinion_node_agent::{CpuResult, Phase, Qualification};

use crate::table::Table;

/// Bars of the histogram, columns.
const BAR: f64 = 40.0;
/// As many causes are named for each CPU.
const CAUSES: usize = 5;

pub(super) fn text(result: &Qualification) -> String {
    let mut text = String::new();
    for phase in &result.phases {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{} under load {}", phase.subject, phase.load);
        text.push_str(&figures(phase));
        text.push_str(&histogram(phase));
        for result in &phase.results {
            causes(&mut text, result);
        }
        text.push('\n');
    }
    let class = result.latency_class.as_deref().unwrap_or("none: a gap was longer than 100 ms, or was lost");
    let _ = writeln!(text, "CPUs {} ({}): latency class {class}", result.cpus, result.isolation);
    text
}

fn figures(phase: &Phase) -> String {
    let mut table = Table::new(&["CPU", "SAMPLES", "P50", "P99", "P99.999", "MAX", "LONGER THAN MAX, 95 %"]);
    for result in &phase.results {
        let seconds = result.took_ns as f64 / 1e9;
        table.row([
            result.cpu.to_string(),
            result.samples.to_string(),
            time(result.p50_ns),
            time(result.p99_ns),
            time(result.p99999_ns),
            time(result.max_ns),
            format!("< {:.3} a second", pinion_node_agent::rate_bound(0, seconds)),
        ]);
    }
    table.picture(2)
}

/// Gaps of all CPUs by decade, three bars each.
fn histogram(phase: &Phase) -> String {
    let mut bins = std::collections::BTreeMap::new();
    for result in &phase.results {
        for (cycles, count) in &result.histogram {
            let ns = *cycles as f64 / result.cycles_per_ns.max(f64::MIN_POSITIVE);
            let bin = bin_of(ns);
            let all: &mut u64 = bins.entry(bin).or_default();
            *all = all.saturating_add(*count);
        }
    }
    let most = bins.values().copied().max().unwrap_or(1) as f64;
    let mut table = Table::new(&["UP TO", "GAPS", ""]);
    for (bin, count) in bins {
        let share = (count as f64 + 1.0).ln() / (most + 1.0).ln().max(f64::MIN_POSITIVE);
        table.row([time(upper(bin)), count.to_string(), bar(share)]);
    }
    table.picture(2)
}

/// 1, 2 and 5 of each decade of nanoseconds, counted from 1 ns.
fn bin_of(ns: f64) -> u32 {
    (0u32..60).find(|bin| ns <= upper(*bin)).unwrap_or(60)
}

fn upper(bin: u32) -> f64 {
    let step = [1.0, 2.0, 5.0].get((bin % 3) as usize).copied().unwrap_or(1.0);
    step * 10f64.powi((bin / 3).cast_signed())
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and the bar's width")]
fn bar(share: f64) -> String {
    "#".repeat((share.clamp(0.0, 1.0) * BAR).ceil() as usize)
}

fn causes(text: &mut String, result: &CpuResult) {
    for cause in result.causes.iter().take(CAUSES) {
        let _ = writeln!(
            text,
            "  CPU {}: up to {} by {}, {} times",
            result.cpu,
            time(cause.worst_ns as f64),
            cause.what,
            cause.count
        );
    }
    let counted = [("system management interrupts", result.smi), ("throttlings", result.throttled)];
    for (what, count) in counted.into_iter().filter_map(|(what, n)| Some((what, n.filter(|n| *n > 0)?))) {
        let _ = writeln!(text, "  CPU {}: {count} {what}", result.cpu);
    }
    if let Some(steal) = result.steal_ns.filter(|n| *n > 0) {
        let _ = writeln!(
            text,
            "  CPU {}: {} taken by this host's own hypervisor",
            result.cpu,
            time(steal as f64)
        );
    }
    if result.dropped > 0 {
        let _ = writeln!(
            text,
            "  CPU {}: {} long gaps were lost: measure for a shorter time",
            result.cpu, result.dropped
        );
    }
}

fn time(ns: f64) -> String {
    match ns {
        ns if ns >= 1e9 => format!("{:.2} s", ns / 1e9),
        ns if ns >= 1e6 => format!("{:.2} ms", ns / 1e6),
        ns if ns >= 1e4 => format!("{:.1} µs", ns / 1e3),
        ns => format!("{ns:.0} ns"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bins_are_one_two_and_five() {
        assert_eq!(
            [1.0, 1.5, 2.0, 21.0, 50.0, 51.0].map(|ns| upper(bin_of(ns))),
            [1.0, 2.0, 2.0, 50.0, 50.0, 100.0]
        );
        assert_eq!(time(5_300_000.0), "5.30 ms");
        assert_eq!(bar(0.0), "");
        assert_eq!(bar(1.0).len(), 40);
    }
}
