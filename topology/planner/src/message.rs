//! The sentence of a refusal.

use std::fmt::Write;

use pinion_machine::PageSize;

use crate::demand::Demand;
use crate::{Holder, Nearest, Request, Shortage};

/// `ns/vm does not fit: node 0 has 3 of 8 needed cores free (ns/a holds 4, …); … would fit`.
pub(crate) fn sentence(
    request: &Request,
    demand: &Demand,
    shortages: &[Shortage],
    nearest: Option<&Nearest>,
) -> String {
    let clauses: Vec<String> = shortages.iter().map(|s| clause(s, demand)).collect();
    let mut text = format!("{} does not fit: {}", request.name, clauses.join(", and "));
    if let Some(nearest) = nearest {
        let t = nearest.topology;
        let memory = amount(nearest.memory.bytes, nearest.memory.page_size);
        let cores = plural(u64::from(t.sockets) * u64::from(t.cores), "core");
        let threads = plural(u64::from(t.threads), "thread");
        let _ = write!(text, "; {cores} of {threads} with {memory} would fit now");
    }
    text
}

fn clause(shortage: &Shortage, demand: &Demand) -> String {
    let Shortage { resource, needed, free, held_by, .. } = shortage;
    let place = shortage.node.map_or_else(|| "the machine".to_owned(), |n| format!("node {n}"));
    let is_memory = resource == "memory" || resource.starts_with("hugepages-");
    let held = holders(held_by, |n| if is_memory { amount(n, demand.page) } else { n.to_string() });
    match resource.as_str() {
        "cpus" => format!("{place} has {free} of the {needed} free CPUs needed there{held}"),
        "cores" => {
            let threads = demand.threads;
            format!("{place} has {free} of the {needed} free cores of {threads} threads needed there{held}")
        }
        _ if is_memory => {
            let (free, needed) = (amount(*free, demand.page), amount(*needed, demand.page));
            format!("{place} has {free} free where {needed} are needed{held}")
        }
        names => format!("{place} has {free} of the {needed} free functions that {names} may use{held}"),
    }
}

fn holders(held_by: &[Holder], amount: impl Fn(u64) -> String) -> String {
    let holders: Vec<String> =
        held_by.iter().map(|h| format!("{} holds {}", h.owner, amount(h.amount))).collect();
    if holders.is_empty() { String::new() } else { format!(" ({})", holders.join(", ")) }
}

fn plural(count: u64, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// Bytes for people: pages of a huge size, or MiB of ordinary memory.
fn amount(bytes: u64, page: PageSize) -> String {
    let mib = 1 << 20;
    match page.is_huge() {
        true => format!("{} of {page}", plural(bytes / page.bytes(), "page")),
        false if bytes.is_multiple_of(mib) => format!("{} MiB", bytes / mib),
        false => format!("{bytes} bytes"),
    }
}
