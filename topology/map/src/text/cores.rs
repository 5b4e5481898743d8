//! Cores as a grid of cells, and long lists of CPUs.

use std::collections::BTreeMap;

use pinion_machine::{Core, CpuId, CpuSet};

use super::canvas::{Block, Ink, Line, beside};
use crate::View;
use crate::outline::{Domain, Part};
use crate::view::Role;
use crate::words;

/// The colour of a role.
pub(super) fn ink(role: Role) -> Ink {
    match role {
        Role::Housekeeping => Ink::Housekeeping,
        Role::Dedicated(guest) | Role::Io(guest) => Ink::Guest(guest),
        Role::Shared(Some(guest)) => Ink::Guest(guest),
        Role::Shared(None) => Ink::Shared,
        Role::Isolated => Ink::Isolated,
        Role::Idle(_) | Role::Free => Ink::Dim,
    }
}

/// The columns that a CPU needs: its number above, its label below.
pub(super) fn cpu_width(parts: &[&Part<'_>], view: &View) -> usize {
    let cpus = parts.iter().filter(|p| !p.is_large()).flat_map(|p| &p.domains).flat_map(|d| &d.cores);
    let width = |cpu: CpuId| cpu.to_string().len().max(view.label(cpu).chars().count());
    cpus.flat_map(|core| core.cpus.iter()).map(width).max().unwrap_or(1)
}

/// The grids of L3 domains, side by side where there is room.
pub(super) fn domains(domains: &[Domain<'_>], view: &View, width: usize, cpu: usize) -> Block {
    let mut rows: Vec<(usize, Vec<Block>)> = Vec::new();
    for domain in domains {
        let mut block = grid(domain, view, width, cpu);
        let wide = block.iter().map(Line::width).max().unwrap_or(0);
        if let Some(l3) = domain.l3 {
            let size = if l3.size_bytes > 0 { words::bytes(l3.size_bytes) } else { String::new() };
            block.insert(0, Line::of(Ink::Dim, format!("L3 {size}")));
        }
        let block: Block = block.into_iter().map(|line| line.fit(wide)).collect();
        match rows.last_mut() {
            Some((used, row)) if *used + 1 + wide <= width => {
                *used += 1 + wide;
                row.push(block);
            }
            _ => rows.push((wide, vec![block])),
        }
    }
    rows.into_iter().flat_map(|(_, row)| beside(row)).collect()
}

/// The grid of a domain's cores: CPU numbers above what runs on them.
fn grid(domain: &Domain<'_>, view: &View, width: usize, cpu: usize) -> Block {
    let threads = domain.cores.iter().map(|core| core.cpus.len()).max().unwrap_or(1);
    let cell = threads * (cpu + 1) + 1;
    let columns = (width.saturating_sub(1) / (cell + 1)).max(1);
    let rows: Vec<&[&Core]> = domain.cores.chunks(columns).collect();
    let mut block = Block::new();
    for (at, row) in rows.iter().enumerate() {
        let above = at.checked_sub(1).and_then(|i| rows.get(i)).map_or(0, |r| r.len());
        block.push(Line::of(Ink::Dim, border(above, row.len(), cell)));
        block.push(cells(row, cell, |id| (Ink::Plain, format!("{:>cpu$}", id.to_string()))));
        block.push(cells(row, cell, |id| (ink(view.role(id)), format!("{:>cpu$}", view.label(id)))));
    }
    let last = rows.last().map_or(0, |row| row.len());
    block.push(Line::of(Ink::Dim, border(last, 0, cell)));
    block
}

fn cells(row: &[&Core], cell: usize, write: impl Fn(CpuId) -> (Ink, String)) -> Line {
    let mut line = Line::of(Ink::Dim, "│");
    for core in row {
        let mut content = Line::default();
        for id in core.cpus.iter() {
            let (ink, text) = write(id);
            content.push(Ink::Plain, " ");
            content.push(ink, text);
        }
        line.append(content.fit(cell));
        line.push(Ink::Dim, "│");
    }
    line
}

/// The border between a row of `above` cells and one of `below`.
fn border(above: usize, below: usize, cell: usize) -> String {
    let columns = above.max(below);
    let mut text = String::new();
    for at in 0..=columns {
        let (first, last) = (at == 0, at == columns);
        let (up, down) = (above > 0 && at <= above, below > 0 && at <= below);
        text.push(match (up, down, first, last) {
            (true, true, true, _) => '├',
            (true, true, _, true) => '┤',
            (true, true, ..) => '┼',
            (true, false, true, _) => '└',
            (true, false, _, true) => '┘',
            (true, false, ..) => '┴',
            (_, _, true, _) => '┌',
            (_, _, _, true) => '┐',
            _ => '┬',
        });
        if !last {
            text.push_str(&"─".repeat(cell));
        }
    }
    text
}

/// CPUs by role, for nodes with too many to draw each.
pub(super) fn lists(part: &Part<'_>, view: &View) -> Block {
    let mut roles: BTreeMap<Role, CpuSet> = BTreeMap::new();
    for cpu in part.cpus().iter() {
        roles.entry(view.role(cpu)).or_default().insert(cpu);
    }
    let line = |(role, cpus): (&Role, &CpuSet)| {
        let name = match role {
            Role::Housekeeping => "housekeeping".to_owned(),
            Role::Dedicated(guest) => words::letters(*guest),
            Role::Io(guest) => format!("{} I/O", words::letters(*guest)),
            Role::Idle(guest) => format!("{} kept empty", words::letters(*guest)),
            Role::Shared(guest) => format!("~{}", guest.map(words::letters).unwrap_or_default()),
            Role::Isolated => "isolated".to_owned(),
            Role::Free => "free".to_owned(),
        };
        let count = words::count(cpus.len(), "CPU");
        Line::of(ink(*role), name).with(Ink::Plain, format!(" {cpus}")).with(Ink::Dim, format!(" ({count})"))
    };
    roles.iter().map(line).collect()
}
