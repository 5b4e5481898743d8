//! The node's metrics as Prometheus text, with those of its guests. Pure but for the clock.

use std::collections::BTreeMap;
use std::path::Path;

use pinion_machine::Machine;
use pinion_planner::{HoldingState, Occupancy};
use prometheus::{CounterVec, GaugeVec, Opts, Registry, TextEncoder};

use super::gather::Usage;
use super::published::{PublishOutcome, Published};
use super::status::{GuestRow, NodeStatus};
use crate::facts::rooms;
use crate::partition::Isolation;
use crate::qualification::{LATENCY_CLASSES_NS, Qualification, class_name};

/// Causes that drift is counted by.
const CAUSES: [&str; 7] = ["cgroup", "interrupt", "power", "workqueue", "network", "knob", "hugePages"];
/// Kinds of events.
const EVENTS: [&str; 3] = ["write", "process", "machine"];

/// A metric of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeMetric {
    /// Its name; a counter's ends in `_total`.
    pub name: &'static str,
    /// What it says.
    pub help: &'static str,
    /// Its labels.
    pub labels: &'static [&'static str],
}

const fn metric(name: &'static str, help: &'static str, labels: &'static [&'static str]) -> NodeMetric {
    NodeMetric { name, help, labels }
}

/// All metrics of the node.
pub const METRICS: [NodeMetric; 25] = [
    metric("pinion_agent_info", "The agent's version; always 1.", &["version", "node"]),
    metric("pinion_agent_cpu_seconds_total", "CPU time that the agent has used.", &[]),
    metric("pinion_agent_resident_bytes", "Memory that the agent uses.", &[]),
    metric("pinion_agent_silent_guests", "Guests that did not answer this scrape.", &[]),
    metric(
        "pinion_agent_publishes_total",
        "What was published to the API server; absent outside a cluster.",
        &["outcome"],
    ),
    metric("pinion_agent_published_timestamp_seconds", "When something was last stored there.", &[]),
    metric("pinion_node_guests", "Guests that hold something, by how far they are.", &["state"]),
    metric("pinion_node_ledger_generation", "Counts the changes of who holds what.", &[]),
    metric("pinion_node_cpus", "Online CPUs by role: housekeeping, dedicated or free.", &["role"]),
    metric("pinion_node_free_cores", "Cores of a NUMA node of which no CPU is taken.", &["numa_node"]),
    metric("pinion_node_huge_pages", "Huge pages of a NUMA node.", &["numa_node", "size_bytes"]),
    metric("pinion_node_free_huge_pages", "Of them, those that nobody uses.", &["numa_node", "size_bytes"]),
    metric("pinion_node_settings_changed", "Settings of the host that are not as before the guests.", &[]),
    metric("pinion_node_settings_left_alone", "Settings that others change again and again.", &[]),
    metric("pinion_node_settings_refused", "Settings that the kernel does not let be changed.", &[]),
    metric(
        "pinion_node_drift_total",
        "Settings that others had changed, by what they are about.",
        &["cause"],
    ),
    metric("pinion_node_repairs_total", "Of them, those that were put back.", &["cause"]),
    metric(
        "pinion_node_events_total",
        "What the kernel told: writes, ends of processes, hardware.",
        &["kind"],
    ),
    metric("pinion_node_profile_info", "The profile that is applied; always 1.", &["profile"]),
    metric("pinion_node_profile_obstacles", "What of the profile cannot be applied now.", &[]),
    metric(
        "pinion_node_latency_class_seconds",
        "The latency class that was measured; absent once it has expired.",
        &[],
    ),
    metric(
        "pinion_node_gap_seconds",
        "Gaps of a CPU that was measured, by quantile.",
        &["cpu", "subject", "load", "quantile"],
    ),
    metric("pinion_node_qualified_timestamp_seconds", "When the node was measured last.", &[]),
    metric(
        "pinion_vmi_isolation_info",
        "How far a guest's CPUs are its own; always 1.",
        &["namespace", "name", "isolation"],
    ),
    metric("pinion_vmi_dedicated_cpus", "CPUs that are dedicated to a guest.", &["namespace", "name"]),
];

/// `docs/node-metrics.md`.
#[must_use]
pub fn metrics_page() -> String {
    let mut page = "# Metrics of a node\n\nThe node agent serves them at `/metrics` of its `--listen` address, with those \
        of every guest ([which](metrics.md)) in the same scrape.\n\n| metric | kind | labels | what it says |\n\
        | --- | --- | --- | --- |\n"
        .to_owned();
    for metric in METRICS {
        let kind = if metric.name.ends_with("_total") { "counter" } else { "gauge" };
        let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        page.push_str(&format!("| `{}` | {kind} | {} | {} |\n", metric.name, labels.join(", "), metric.help));
    }
    page
}

type Samples = BTreeMap<&'static str, Vec<(Vec<String>, f64)>>;

/// What the text is made of.
pub(super) struct Scrape<'a> {
    pub(super) node: String,
    pub(super) status: &'a NodeStatus,
    pub(super) machine: Option<(&'a Machine, &'a Occupancy)>,
    pub(super) guests: Vec<(GuestRow, Option<String>)>,
    pub(super) usage: Usage,
    pub(super) published: Option<&'a Published>,
}

/// The text of all metrics; `None` where the library refuses them.
pub(super) fn expose(scrape: &Scrape<'_>) -> Option<String> {
    let mut samples = Samples::new();
    let mut add = |name: &'static str, labels: &[&str], value: f64| {
        let labels = labels.iter().map(ToString::to_string).collect();
        samples.entry(name).or_default().push((labels, value));
    };
    let status = scrape.status;
    add("pinion_agent_info", &[env!("CARGO_PKG_VERSION"), &scrape.node], 1.0);
    add("pinion_agent_cpu_seconds_total", &[], scrape.usage.cpu.as_secs_f64());
    add("pinion_agent_resident_bytes", &[], number(scrape.usage.resident_bytes));
    let silent = scrape.guests.iter().filter(|(_, text)| text.is_none()).count();
    add("pinion_agent_silent_guests", &[], number(silent));
    for (state, label) in [(HoldingState::Reserved, "reserved"), (HoldingState::Committed, "committed")] {
        add(
            "pinion_node_guests",
            &[label],
            number(status.guests.iter().filter(|g| g.state == state).count()),
        );
    }
    add("pinion_node_ledger_generation", &[], number(status.generation));
    add("pinion_node_settings_changed", &[], number(status.changed));
    add("pinion_node_settings_left_alone", &[], number(status.tally.left_alone));
    add("pinion_node_settings_refused", &[], number(status.tally.refused));
    for cause in CAUSES {
        let of = |tally: &BTreeMap<&'static str, u64>| number(tally.get(cause).copied().unwrap_or(0));
        add("pinion_node_drift_total", &[cause], of(&status.tally.drifts));
        add("pinion_node_repairs_total", &[cause], of(&status.tally.repairs));
    }
    for kind in EVENTS {
        add("pinion_node_events_total", &[kind], number(status.events.get(kind).copied().unwrap_or(0)));
    }
    for guest in &status.guests {
        let (namespace, name) = guest.owner.split_once('/').unwrap_or(("", &guest.owner));
        for isolation in Isolation::ALL.into_iter().filter(|i| *i == guest.isolation) {
            add("pinion_vmi_isolation_info", &[namespace, name, isolation.as_str()], 1.0);
        }
        add("pinion_vmi_dedicated_cpus", &[namespace, name], number(guest.cpus.len()));
    }
    add("pinion_node_profile_info", &[&status.profile], 1.0);
    add("pinion_node_profile_obstacles", &[], number(status.profile_obstacles.len()));
    if let Some(published) = scrape.published {
        for outcome in PublishOutcome::ALL {
            add("pinion_agent_publishes_total", &[outcome.as_str()], number(published.total(outcome)));
        }
        if let Some(last) = published.last() {
            add("pinion_agent_published_timestamp_seconds", &[], number(last.as_second()));
        }
    }
    if let Some(qualification) = &status.qualification {
        add_qualification(&mut add, qualification);
    }
    if let Some((machine, occupancy)) = scrape.machine {
        add_machine(&mut add, machine, occupancy);
    }
    let own = encode(&samples)?;
    let guests = scrape.guests.iter().filter_map(|(row, text)| Some((row.owner.as_str(), text.as_deref()?)));
    Some(merge(&own, guests))
}

fn add_qualification(add: &mut impl FnMut(&'static str, &[&str], f64), qualification: &Qualification) {
    let name = qualification.latency_class.as_deref();
    let class = LATENCY_CLASSES_NS.into_iter().find(|ns| Some(class_name(*ns).as_str()) == name);
    if let Some(ns) = class {
        add("pinion_node_latency_class_seconds", &[], number(ns) / 1e9);
    }
    add("pinion_node_qualified_timestamp_seconds", &[], number(qualification.measured_at.as_second()));
    for phase in &qualification.phases {
        for result in &phase.results {
            let cpu = result.cpu.to_string();
            let gaps = [
                ("0.5", result.p50_ns),
                ("0.99", result.p99_ns),
                ("0.99999", result.p99999_ns),
                ("1", result.max_ns),
            ];
            for (quantile, ns) in gaps {
                add("pinion_node_gap_seconds", &[&cpu, &phase.subject, &phase.load, quantile], ns / 1e9);
            }
        }
    }
}

fn add_machine(add: &mut impl FnMut(&'static str, &[&str], f64), machine: &Machine, occupancy: &Occupancy) {
    let housekeeping = occupancy.housekeeping.intersection(&machine.online());
    let (dedicated, free) = (occupancy.dedicated(), occupancy.free(machine));
    for (role, cpus) in [("housekeeping", &housekeeping), ("dedicated", &dedicated), ("free", &free)] {
        add("pinion_node_cpus", &[role], number(cpus.len()));
    }
    for (node, room) in machine.nodes.iter().zip(rooms(machine, occupancy, Path::new("/"))) {
        let id = node.id.to_string();
        add("pinion_node_free_cores", &[&id], number(room.free_cores));
        for pages in &node.huge_pages {
            let size = pages.page_size.bytes();
            let free = room.free_huge_pages.get(&size).copied().unwrap_or(0);
            add("pinion_node_huge_pages", &[&id, &size.to_string()], number(pages.total));
            add("pinion_node_free_huge_pages", &[&id, &size.to_string()], number(free));
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "metrics are floating point")]
fn number(n: impl TryInto<u64>) -> f64 {
    n.try_into().unwrap_or(u64::MAX) as f64
}

fn encode(samples: &Samples) -> Option<String> {
    let registry = Registry::new();
    for metric in METRICS {
        let Some(values) = samples.get(metric.name) else { continue };
        let options = Opts::new(metric.name, metric.help);
        if metric.name.ends_with("_total") {
            let family = CounterVec::new(options, metric.labels).ok()?;
            for (labels, value) in values {
                family.get_metric_with_label_values(labels).ok()?.inc_by(*value);
            }
            registry.register(Box::new(family)).ok()?;
        } else {
            let family = GaugeVec::new(options, metric.labels).ok()?;
            for (labels, value) in values {
                family.get_metric_with_label_values(labels).ok()?.set(*value);
            }
            registry.register(Box::new(family)).ok()?;
        }
    }
    TextEncoder::new().encode_to_string(&registry.gather()).ok()
}

/// One text of the node's and its guests'. Of what a guest says, only samples about itself come through.
pub fn merge<'a>(own: &str, guests: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let mut families: BTreeMap<String, (Vec<String>, Vec<String>)> = BTreeMap::new();
    for (owner, text) in guests {
        let (namespace, name) = owner.split_once('/').unwrap_or(("", owner));
        let (namespace, name) = (format!("namespace=\"{namespace}\""), format!("name=\"{name}\""));
        let mut family = String::new();
        for line in text.lines() {
            if let Some(head) = line.strip_prefix("# HELP ").or_else(|| line.strip_prefix("# TYPE ")) {
                family = head.split(' ').next().unwrap_or_default().to_owned();
                let known = family.starts_with("kubevirt_vmi_") || family.starts_with("pinion_vmi_");
                if known {
                    let (heads, _) = families.entry(family.clone()).or_default();
                    if heads.len() < 2 && !heads.iter().any(|h| h == line) {
                        heads.push(line.to_owned());
                    }
                }
            } else if is_about(line, &family, &namespace, &name)
                && let Some((_, samples)) = families.get_mut(&family)
            {
                samples.push(line.to_owned());
            }
        }
    }
    let mut text = own.to_owned();
    for (heads, samples) in families.into_values().filter(|(_, samples)| !samples.is_empty()) {
        for line in heads.iter().chain(&samples) {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

/// Whether a line is a sample of a family, and of this guest.
fn is_about(line: &str, family: &str, namespace: &str, name: &str) -> bool {
    let Some((metric, rest)) = line.split_once('{') else { return false };
    let Some((labels, value)) = rest.rsplit_once('}') else { return false };
    let of_family = metric.strip_prefix(family);
    let has = |wanted: &str| labels.split(',').any(|l| l == wanted);
    of_family.is_some_and(|s| ["", "_bucket", "_sum", "_count"].contains(&s))
        && has(namespace)
        && has(name)
        && value.trim().parse::<f64>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documentation_is_up_to_date() {
        let page = include_str!("../../../docs/node-metrics.md");
        let repeat = "cargo run -q -p pinion-node-agent --example metrics > docs/node-metrics.md";
        assert!(page == metrics_page(), "{repeat}");
    }

    const GUEST: &str = "# HELP kubevirt_vmi_info Info.\n# TYPE kubevirt_vmi_info gauge\n\
        kubevirt_vmi_info{name=\"a\",namespace=\"default\",phase=\"Running\"} 1\n";

    #[test]
    fn guests_are_told_once_per_family() {
        let other = GUEST.replace("\"a\"", "\"b\"");
        let text = merge("own 1\n", [("default/a", GUEST), ("default/b", other.as_str())].into_iter());
        assert_eq!(text.matches("# TYPE kubevirt_vmi_info gauge").count(), 1, "{text}");
        assert_eq!(text.matches("kubevirt_vmi_info{").count(), 2);
        assert!(text.starts_with("own 1\n"));
    }

    #[test]
    fn a_guest_speaks_of_itself_only() {
        let lies = "# TYPE pinion_node_guests gauge\npinion_node_guests{name=\"a\",namespace=\"default\"} 7\n\
            # TYPE kubevirt_vmi_info gauge\nkubevirt_vmi_info{name=\"b\",namespace=\"default\"} 1\n\
            kubevirt_vmi_info{name=\"a\",namespace=\"default\"} many\nup 1\nkubevirt_vmi_info}{ 1\n\
            kubevirt_vmi_info{x=\"name=\\\"a\\\"\",namespace=\"default\"} 1\n";
        let text = merge("", [("default/a", lies)].into_iter());
        assert_eq!(text, "");
    }

    #[test]
    fn an_idle_node_has_every_metric_that_needs_no_guest() {
        let (machine, status) = (pinion_planner::Shape::new(2, 2).build(), NodeStatus::default());
        let occupancy = super::super::gather::Node::occupancy(&machine, &status);
        let published = Published::default();
        published.count(PublishOutcome::Stored);
        let scrape = Scrape {
            node: "n".into(),
            status: &status,
            machine: Some((&machine, &occupancy)),
            guests: vec![],
            usage: Usage::default(),
            published: Some(&published),
        };
        let text = expose(&scrape).unwrap();
        let unmeasured = ["latency_class", "gap_seconds", "qualified"];
        let of_guests = |m: &&NodeMetric| {
            m.name.starts_with("pinion_vmi_") || unmeasured.iter().any(|part| m.name.contains(part))
        };
        let pages = machine.nodes.iter().any(|n| !n.huge_pages.is_empty());
        for metric in METRICS.iter().filter(|m| !of_guests(m) && (pages || !m.name.contains("huge_pages"))) {
            assert!(text.contains(&format!("# TYPE {} ", metric.name)), "{}\n{text}", metric.name);
        }
    }
}
