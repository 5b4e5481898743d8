//! What stands above and below the frames: head, legend, distances.

use std::collections::BTreeMap;

use pinion_machine::{Machine, NodeId};

use super::canvas::{Block, Ink, Line, flow};
use super::cores;
use crate::View;
use crate::view::Role;
use crate::words;

/// More nodes than this have their distances summed up.
const MAX_MATRIX: usize = 16;

/// What the machine is.
pub(super) fn head(machine: &Machine, width: usize) -> Block {
    let counts = [
        (machine.packages.len(), "package"),
        (machine.nodes.len(), "node"),
        (machine.l3_domains.len(), "L3 domain"),
        (machine.cores.len(), "core"),
        (machine.cpus.len(), "CPU"),
    ];
    let model = machine.packages.iter().find_map(|p| p.model.as_ref());
    let model = model.map(|m| Line::of(Ink::Bold, words::plain(m)));
    let source = Line::of(Ink::Bold, words::source(&machine.source));
    let counts = counts.iter().filter(|(n, _)| *n > 0).map(|(n, noun)| Line::plain(words::count(*n, noun)));
    let mut block = flow(std::iter::once(source).chain(model).chain(counts), width, " · ");
    let kernel = &machine.kernel;
    let release = kernel.release.as_ref().map(|r| format!("Linux {}", words::plain(r)));
    let lists = [
        ("isolated", &kernel.isolated),
        ("nohz_full", &kernel.nohz_full),
        ("rcu_nocbs", &kernel.rcu_nocbs),
        ("offline", &machine.offline),
    ];
    let lists =
        lists.iter().filter(|(_, cpus)| !cpus.is_empty()).map(|(name, cpus)| format!("{name} {cpus}"));
    let facts = release.into_iter().chain(lists).map(|fact| Line::of(Ink::Dim, fact));
    block.extend(flow(facts, width, " · "));
    block
}

/// What the marks mean: those roles that occur, then the guests.
pub(super) fn legend(machine: &Machine, view: &View, width: usize) -> Block {
    let mut seen: BTreeMap<&str, (Ink, &str)> = BTreeMap::new();
    for cpu in &machine.cpus {
        let role = view.role(cpu.id);
        let (mark, meaning) = match role {
            Role::Housekeeping => ("hk", "housekeeping"),
            Role::Idle(_) => ("-", "kept empty beside a dedicated CPU"),
            Role::Shared(_) => ("~", "shared vCPUs float over it"),
            Role::Isolated => ("○", "isolated, free"),
            Role::Free => ("·", "free"),
            Role::Dedicated(_) | Role::Io(_) => continue,
        };
        seen.insert(mark, (cores::ink(role), meaning));
    }
    let marks = seen
        .into_iter()
        .map(|(mark, (ink, meaning))| Line::of(ink, mark).with(Ink::Dim, format!(" {meaning}")));
    let mut block = flow(marks, width, "   ");
    for (index, guest) in view.guests.iter().enumerate() {
        let letter = Line::of(Ink::Guest(index), words::letters(index));
        block.push(letter.with(Ink::Plain, format!(" {}", words::plain(&guest.name))));
        let notes = guest.notes.iter().map(|note| Line::of(Ink::Dim, note.clone()));
        for mut line in flow(notes, width.saturating_sub(2), " · ") {
            let mut indented = Line::plain("  ");
            std::mem::swap(&mut indented, &mut line);
            line.append(indented);
            block.push(line);
        }
    }
    block
}

/// Distances between nodes; nothing for one node.
pub(super) fn distances(machine: &Machine, width: usize) -> Block {
    let nodes: Vec<NodeId> = machine.nodes.iter().map(|n| n.id).collect();
    if nodes.len() < 2 {
        return Block::new();
    }
    let table = machine.distances.table(&nodes);
    let digits = table.iter().flatten().map(|d| d.to_string().len()).max().unwrap_or(2);
    let label = nodes.iter().map(|id| id.to_string().len()).max().unwrap_or(1);
    let column = digits.max(label) + 1;
    if nodes.len() > MAX_MATRIX || label + 5 + column * nodes.len() > width {
        return summary(&table, width);
    }
    let mut head = Line::of(Ink::Dim, format!("{:<1$}", "distance", label + 5));
    if label + 5 < "distance".len() {
        head = Line::of(Ink::Dim, format!("{:<1$}", "to", label + 5));
    }
    head.push(Ink::Dim, nodes.iter().map(|id| format!("{:>column$}", id.to_string())).collect::<String>());
    let mut block = vec![head];
    for (id, row) in nodes.iter().zip(&table) {
        let mut line = Line::of(Ink::Dim, format!("from {:<label$}", id.to_string()));
        for distance in row {
            let ink = if *distance <= 10 { Ink::Dim } else { Ink::Plain };
            line.push(ink, format!("{distance:>column$}"));
        }
        block.push(line);
    }
    block
}

fn summary(table: &[Vec<u32>], width: usize) -> Block {
    let mut pairs: BTreeMap<u32, usize> = BTreeMap::new();
    for distance in table.iter().flatten() {
        *pairs.entry(*distance).or_default() += 1;
    }
    let title = Line::plain("distances (pairs of nodes)");
    let counts =
        pairs.iter().map(|(distance, n)| Line::plain(distance.to_string()).with(Ink::Dim, format!(" ×{n}")));
    flow(std::iter::once(title).chain(counts), width, " · ")
}
