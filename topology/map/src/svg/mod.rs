//! The picture as SVG: one document, no scripts, fonts or links.

mod node;
mod palette;
mod piece;
mod tables;

use piece::{Piece, card, escape, flow, stack};
use pinion_machine::Machine;

use crate::outline::{Section, outline};
use crate::{View, words};

/// Nodes side by side are no wider than this together.
const MAX_WIDTH: u32 = 1360;
/// Nodes in a row.
const COLUMNS: usize = 3;
const MARGIN: u32 = 24;
/// Characters of the title.
const TITLE_LENGTH: usize = 60;

pub(crate) fn draw(machine: &Machine, view: &View) -> String {
    let outline = outline(machine, view);
    let sections: Vec<Piece> = outline.sections.iter().map(|s| section(s, view)).collect();
    let body = flow(&sections, MAX_WIDTH, 16);
    let width = body.width.max(640);
    let mut pieces = vec![head(machine), tables::legend(machine, view, width), body];
    if !outline.loose.is_empty() {
        let title = Piece::text("Devices near no node in particular", palette::HEADING);
        pieces.push(stack(&[title, node::devices(&outline.loose, view)], 6));
    }
    pieces.push(tables::distances(machine));
    document(&stack(&pieces, 18), machine)
}

fn document(picture: &Piece, machine: &Machine) -> String {
    let (width, height) = (picture.width + 2 * MARGIN, picture.height + 2 * MARGIN);
    let mut page = Piece::sized(width, height);
    page.rect((1, 1, width - 2, height - 2), 14, palette::PAGE.0, palette::PAGE.1);
    page.place(MARGIN, MARGIN, picture);
    let title = escape(&format!("Machine: {}", words::source(&machine.source)));
    format!(
        r#"<?xml version="1.0" encoding="UTF-8"?>
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">
<title>{title}</title>
<style>text{{font-family:system-ui,'Segoe UI','DejaVu Sans',Helvetica,Arial,sans-serif}}.b{{font-weight:600}}.m{{font-family:ui-monospace,'DejaVu Sans Mono',Menlo,Consolas,monospace}}</style>
{}</svg>
"#,
        page.body()
    )
}

fn head(machine: &Machine) -> Piece {
    let model = machine.packages.iter().find_map(|p| p.model.as_ref());
    let source = words::source(&machine.source);
    let title = model.map_or_else(|| source.clone(), |model| format!("{} · {source}", words::plain(model)));
    let counts = [
        (machine.packages.len(), "package"),
        (machine.nodes.len(), "node"),
        (machine.l3_domains.len(), "L3 domain"),
        (machine.cores.len(), "core"),
        (machine.cpus.len(), "CPU"),
    ];
    let counts = counts.iter().filter(|(n, _)| *n > 0).map(|(n, noun)| words::count(*n, noun));
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
    let facts: Vec<String> = counts.chain(release).chain(lists).collect();
    let mut short: String = title.chars().take(TITLE_LENGTH).collect();
    if title.chars().count() > TITLE_LENGTH {
        short.push('…');
    }
    stack(
        &[
            Piece::text(&short, palette::TITLE),
            Piece::text(&facts.join(" · ").chars().take(190).collect::<String>(), palette::NOTE),
        ],
        4,
    )
}

fn section(section: &Section<'_>, view: &View) -> Piece {
    let nodes = grid(section, view);
    if section.title.is_empty() {
        return nodes;
    }
    card(&Piece::text(&section.title, palette::HEADING), &nodes, 16, palette::PACKAGE)
}

/// Nodes in rows as even as can be, those of a row of one height.
fn grid(section: &Section<'_>, view: &View) -> Piece {
    let columns = section.nodes.len().max(1).div_ceil(section.nodes.len().div_ceil(COLUMNS).max(1));
    let rows: Vec<Piece> = section
        .nodes
        .chunks(columns)
        .map(|row| {
            let mut insides: Vec<Piece> = row.iter().map(|part| node::inside(part, view)).collect();
            let height = insides.iter().map(|p| p.height).max().unwrap_or(0);
            insides.iter_mut().for_each(|p| p.height = height);
            let cards: Vec<Piece> = row.iter().zip(&insides).map(|(p, i)| node::frame(p, i)).collect();
            flow(&cards, u32::MAX, 14)
        })
        .collect();
    stack(&rows, 14)
}
