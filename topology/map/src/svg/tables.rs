//! The legend and the table of distances.

use std::collections::BTreeMap;

use pinion_machine::{Machine, NodeId};

use super::palette;
use super::piece::{Font, Piece, flow, stack};
use crate::View;
use crate::view::Role;
use crate::words;

/// More nodes than this have their distances summed up.
const MAX_MATRIX: usize = 16;

/// Roles that occur, and guests.
pub(super) fn legend(machine: &Machine, view: &View, width: u32) -> Piece {
    let mut roles: BTreeMap<&str, (Role, &str)> = BTreeMap::new();
    for cpu in &machine.cpus {
        let role = view.role(cpu.id);
        let (label, meaning) = match role {
            Role::Housekeeping => ("hk", "housekeeping"),
            Role::Io(_) => ("io", "I/O thread"),
            Role::Idle(_) => ("-", "kept empty beside a dedicated CPU"),
            Role::Shared(_) => ("~", "shared vCPUs float over it"),
            Role::Isolated => ("○", "isolated, free"),
            Role::Free => ("·", "free"),
            Role::Dedicated(_) => continue,
        };
        roles.entry(meaning).or_insert((role, label));
    }
    let marks = roles.into_iter().map(|(meaning, (role, label))| {
        let (fill, stroke, ink) = palette::role(role);
        swatch(label, (fill, stroke, ink), meaning)
    });
    let guests = view.guests.iter().enumerate().map(|(index, guest)| {
        let (fill, ink) = palette::guest(index);
        let head = swatch(&words::letters(index), (fill, fill, ink), &words::plain(&guest.name));
        let notes = guest.notes.iter().map(|note| {
            let mut line = Piece::default();
            line.place(34, 0, &Piece::text(note, palette::NOTE));
            line
        });
        let lines: Vec<Piece> = std::iter::once(head).chain(notes).collect();
        stack(&lines, 3)
    });
    let marks = flow(&marks.collect::<Vec<_>>(), width, 18);
    let guests = flow(&guests.collect::<Vec<_>>(), width, 28);
    stack(&[marks, guests], 12)
}

fn swatch(label: &str, (fill, stroke, ink): (&str, &str, &'static str), meaning: &str) -> Piece {
    let mut piece = Piece::sized(0, 22);
    piece.rect((1, 1, 26, 20), 4, fill, stroke);
    piece.write_text(14, 15, label, Font { size: 12, fill: ink, class: "b" }, "middle");
    piece.place(34, 3, &Piece::text(meaning, palette::TEXT));
    piece
}

/// Distances between nodes, the farther the darker; nothing for one node.
pub(super) fn distances(machine: &Machine) -> Piece {
    const CELL: (u32, u32) = (36, 22);
    let nodes: Vec<NodeId> = machine.nodes.iter().map(|n| n.id).collect();
    if nodes.len() < 2 {
        return Piece::default();
    }
    let table = machine.distances.table(&nodes);
    let title = Piece::text("Distances between nodes", palette::HEADING);
    if nodes.len() > MAX_MATRIX {
        let mut pairs: BTreeMap<u32, usize> = BTreeMap::new();
        for distance in table.iter().flatten() {
            *pairs.entry(*distance).or_default() += 1;
        }
        let counts: Vec<String> = pairs
            .iter()
            .take(24)
            .map(|(distance, n)| format!("{distance}: {}", words::count(*n, "pair")))
            .collect();
        return stack(&[title, Piece::text(&counts.join(" · "), palette::NOTE)], 6);
    }
    let farthest = table.iter().flatten().copied().max().unwrap_or(10).max(11);
    let mut grid = Piece::default();
    let font = Font { size: 12, fill: palette::MUTED, class: "m" };
    let at =
        |index: usize, step: u32| u32::try_from(index).unwrap_or(0).saturating_add(1).saturating_mul(step);
    for (row, (from, distances)) in nodes.iter().zip(&table).enumerate() {
        let y = at(row, CELL.1);
        grid.write_text(at(row, CELL.0) + CELL.0 / 2, 15, &from.to_string(), font, "middle");
        grid.write_text(CELL.0 / 2, y + 15, &from.to_string(), font, "middle");
        for (column, (to, distance)) in nodes.iter().zip(distances).enumerate() {
            let shade = u64::from(distance.saturating_sub(10)) * 5 / u64::from(farthest - 10);
            let fill = match shade {
                _ if *distance <= 10 => "#ffffff",
                0 | 1 => "#dbeafe",
                2 => "#bfdbfe",
                3 => "#93c5fd",
                4 => "#7ab3fb",
                _ => "#60a5fa",
            };
            let mut cell = Piece::sized(CELL.0 - 2, CELL.1 - 2);
            cell.rect((0, 0, CELL.0 - 2, CELL.1 - 2), 3, fill, "#cbd5e1");
            let font = Font { size: 12, fill: palette::INK, class: "m" };
            cell.write_text(CELL.0 / 2 - 1, 14, &distance.to_string(), font, "middle");
            grid.place(
                at(column, CELL.0),
                y,
                &cell.titled(&format!("from node {from} to node {to}: {distance}")),
            );
        }
    }
    stack(&[title, grid], 6)
}
