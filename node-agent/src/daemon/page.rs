//! The agent's pages: metrics, health, and the machine as it is now.
//!
//! Runs on the pages' thread. Nothing that comes from outside gets into a page unescaped.

use std::fmt::Write as _;

use pinion_endpoint::Page;
use pinion_endpoint::guest::GuestStatus;
use pinion_interrupts::IrqFiles;
use pinion_machine::Machine;
use pinion_map::View;

use super::exposition::{Scrape, expose};
use super::gather::{Node, Usage, node_name};
use super::status::{GuestRow, NodeStatus, Told};

const HTML: &str = "text/html; charset=utf-8";
const SVG: &str = "image/svg+xml; charset=utf-8";
const JSON: &str = "application/json";
/// How many of the last notices are shown.
const SHOWN: usize = 12;

/// The page of a path, if there is one.
pub(super) fn page(node: &Node, path: &str) -> Option<Page> {
    match path {
        "/" => Some(Page::new(HTML, whole(node))),
        "/live" => Some(Page::new(HTML, live(node))),
        "/machine.svg" => Some(Page::new(SVG, picture(&*node.machine()?, &node.status()))),
        "/status" => Some(Page::new(JSON, serde_json::to_string(&node.status()).ok()?)),
        "/metrics" => Some(metrics(node)),
        "/healthz" => Some(Page::new(Page::TEXT, "ok\n".into())),
        "/readyz" => Some(readiness(node)),
        _ => None,
    }
}

fn metrics(node: &Node) -> Page {
    let status = node.status();
    let guests = node.guest_metrics(&status);
    let machine = node.machine();
    let occupancy = machine.as_deref().map(|machine| Node::occupancy(machine, &status));
    let scrape = Scrape {
        node: node_name(),
        status: &status,
        machine: machine.as_deref().zip(occupancy.as_ref()),
        guests,
        usage: Usage::now(),
        published: node.published.as_deref(),
    };
    match expose(&scrape) {
        Some(text) => Page::new(Page::METRICS, text),
        None => Page { healthy: false, ..Page::new(Page::TEXT, "The metrics cannot be written\n".into()) },
    }
}

/// Whether guests can be given what they are promised.
fn readiness(node: &Node) -> Page {
    let unreadable = node.ledger.read().err().map(|e| format!("{e}\n"));
    match unreadable {
        None => Page::new(Page::TEXT, "ok\n".into()),
        Some(text) => Page { healthy: false, ..Page::new(Page::TEXT, text) },
    }
}

/// What a page shows.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a> {
    /// The machine, where it can be read.
    pub machine: Option<&'a Machine>,
    /// How the node is.
    pub status: &'a NodeStatus,
    /// Its guests, and what each says of itself.
    pub guests: &'a [(GuestRow, Option<GuestStatus>)],
}

fn whole(node: &Node) -> String {
    let status = node.status();
    let (machine, guests) = (node.machine(), node.guests(&status));
    html(&node_name(), Shown { machine: machine.as_deref(), status: &status, guests: &guests })
}

/// The whole page of a node. It needs nothing from outside but the node's own `/live`.
#[must_use]
pub fn html(name: &str, shown: Shown<'_>) -> String {
    include_str!("page.html").replace("NODE", &escaped(name)).replace("LIVE", &body(shown))
}

fn picture(machine: &Machine, status: &NodeStatus) -> String {
    pinion_map::svg(machine, &View::of(machine, &Node::occupancy(machine, status)))
}

fn live(node: &Node) -> String {
    let status = node.status();
    let (machine, guests) = (node.machine(), node.guests(&status));
    body(Shown { machine: machine.as_deref(), status: &status, guests: &guests })
}

fn body(shown: Shown<'_>) -> String {
    let status = shown.status;
    let mut html = String::from("<div class=\"machine\">");
    match shown.machine.map(|machine| picture(machine, status)) {
        Some(svg) => html.push_str(svg.find("<svg").and_then(|at| svg.get(at..)).unwrap_or(&svg)),
        None => html.push_str("<p class=\"bad\">The machine cannot be read.</p>"),
    }
    html.push_str("</div>");
    guests(&mut html, shown.guests);
    vectors(&mut html, status);
    host(&mut html, status);
    measured(&mut html, status);
    told(&mut html, &status.told);
    html
}

fn guests(html: &mut String, guests: &[(GuestRow, Option<GuestStatus>)]) {
    html.push_str("<h2>Guests</h2>");
    if guests.is_empty() {
        html.push_str("<p class=\"none\">None runs.</p>");
        return;
    }
    let heads =
        ["Guest", "Process", "Phase", "Verdict", "CPUs", "Isolation", "Longest wait", "Does not hold"];
    let rows = guests.iter().map(|(row, status)| {
        let verdict = status.as_ref().and_then(|s| s.verdict.clone()).unwrap_or_default();
        let class = if verdict == "holds" { "good" } else { "bad" };
        let silent = || ("does not answer".to_owned(), String::new(), String::new());
        let (phase, wait, wrong) = status.as_ref().map_or_else(silent, |s| {
            let wait = format!("{:.3} ms", s.longest_wait_ns as f64 / 1e6);
            (s.phase.clone(), wait, s.mismatches.join("; "))
        });
        vec![
            cell(&row.owner),
            cell(&row.pid.to_string()),
            cell(&phase),
            format!("<td class=\"{class}\">{}</td>", escaped(&verdict)),
            cell(&row.cpus.to_string()),
            cell(row.isolation.as_str()),
            cell(&wait),
            cell(&wrong),
        ]
    });
    table(html, &heads, rows);
}

fn vectors(html: &mut String, status: &NodeStatus) {
    if status.guests.iter().all(|g| g.devices.is_empty()) {
        return;
    }
    html.push_str("<h2>Interrupts of devices</h2>");
    let files = IrqFiles::default();
    let table_of = files.passed_through().unwrap_or_default();
    let mut rows = Vec::new();
    for interrupt in &table_of.interrupts {
        let Some(vector) = interrupt.vectors().next() else { continue };
        let guest = status.guests.iter().find(|g| g.devices.contains(&vector.address));
        let owner = guest.map_or("", |g| g.owner.as_str());
        let where_to = files.affinity(interrupt.irq).map(|a| a.effective.to_string()).unwrap_or_default();
        rows.push(vec![
            cell(&vector.to_string()),
            cell(owner),
            cell(&interrupt.irq.to_string()),
            cell(&where_to),
        ]);
    }
    table(html, &["Vector", "Guest", "Interrupt", "Comes to CPU"], rows.into_iter());
}

fn host(html: &mut String, status: &NodeStatus) {
    html.push_str("<h2>Host</h2>");
    let tally = &status.tally;
    let sum = |of: &std::collections::BTreeMap<&'static str, u64>| of.values().sum::<u64>().to_string();
    let rows = [
        ("Settings that are changed for guests", status.changed.to_string()),
        ("Changed by others meanwhile", sum(&tally.drifts)),
        ("Of them, put back", sum(&tally.repairs)),
        ("Left to others for a while", tally.left_alone.to_string()),
        ("Cannot be changed", tally.refused.to_string()),
    ];
    table(html, &["What", "How many"], rows.into_iter().map(|(what, n)| vec![cell(what), cell(&n)]));
}

fn measured(html: &mut String, status: &NodeStatus) {
    html.push_str("<h2>Latency</h2>");
    let Some(qualification) = &status.qualification else {
        html.push_str(
            "<p class=\"none\">Not measured, or measured on another kernel: <code>pinion qualify</code>.</p>",
        );
        return;
    };
    let class = qualification.latency_class.as_deref().unwrap_or("none");
    // Writing to a String cannot fail.
    let _ = write!(
        html,
        "<p>Class {}, measured on CPUs {} at {:.0}.</p>",
        escaped(class),
        qualification.cpus,
        qualification.measured_at
    );
    let micros = |ns: f64| format!("{:.1} µs", ns / 1000.0);
    let mut rows = Vec::new();
    for phase in &qualification.phases {
        for result in &phase.results {
            let worst = result.causes.first().map(|c| c.what.clone()).unwrap_or_default();
            rows.push(vec![
                cell(&result.cpu.to_string()),
                cell(&phase.subject),
                cell(&phase.load),
                cell(&micros(result.p99999_ns)),
                cell(&micros(result.max_ns)),
                cell(&worst),
            ]);
        }
    }
    let heads = ["CPU", "Measured by", "Load", "P99.999", "Max", "Worst cause"];
    table(html, &heads, rows.into_iter());
}

fn told(html: &mut String, told: &[Told]) {
    html.push_str("<h2>Told</h2>");
    if told.is_empty() {
        html.push_str("<p class=\"none\">Nothing.</p>");
        return;
    }
    let rows = told.iter().rev().take(SHOWN).map(|t| {
        let class = if t.notice.warning { "bad" } else { "none" };
        vec![
            cell(&format!("{:.0}", t.at)),
            format!("<td class=\"{class}\">{}</td>", escaped(&t.notice.reason)),
            cell(&t.notice.text),
        ]
    });
    table(html, &["When", "Reason", "What"], rows);
}

fn table(html: &mut String, heads: &[&str], rows: impl Iterator<Item = Vec<String>>) {
    html.push_str("<div class=\"wide\"><table><tr>");
    for head in heads {
        // Writing to a String cannot fail.
        let _ = write!(html, "<th>{}</th>", escaped(head));
    }
    html.push_str("</tr>");
    for row in rows {
        let _ = write!(html, "<tr>{}</tr>", row.concat());
    }
    html.push_str("</table></div>");
}

fn cell(text: &str) -> String {
    format!("<td>{}</td>", escaped(text))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Ledger;

    #[test]
    fn pages_are_there_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let node = Node::new(Ledger::at(folder.path().join("ledger.json")), None);
        let whole = page(&node, "/").unwrap();
        assert!(whole.text.contains("<svg") && whole.text.contains("None runs."), "{}", whole.text);
        let outside = whole.text.replace("http://www.w3.org/", "");
        assert!(
            !outside.contains("http://") && !outside.contains("https://"),
            "it needs nothing from outside"
        );
        assert!(page(&node, "/metrics").unwrap().text.contains("pinion_agent_info{"));
        assert!(page(&node, "/readyz").unwrap().healthy);
        std::fs::write(folder.path().join("ledger.json"), "{").unwrap();
        assert!(!page(&node, "/readyz").unwrap().healthy);
        assert_eq!(page(&node, "/etc/passwd"), None);
    }

    #[test]
    fn what_comes_from_outside_is_text() {
        assert_eq!(escaped("<b a=\"&\">"), "&lt;b a=&quot;&amp;&quot;&gt;");
    }
}
