//! The picture as text.

mod canvas;
mod cores;
mod node;
mod tables;

use canvas::{Block, Ink, Line, beside, framed, render};
use pinion_machine::Machine;

use crate::outline::{Part, Section, outline};
use crate::{Style, View, words};

const MIN_WIDTH: usize = 40;
const MAX_WIDTH: usize = 200;
/// A node's frame is not made narrower than this to put another beside it.
const MIN_NODE: usize = 38;

pub(crate) fn draw(machine: &Machine, view: &View, style: Style) -> String {
    let width = style.width.clamp(MIN_WIDTH, MAX_WIDTH);
    let outline = outline(machine, view);
    let mut block = tables::head(machine, width);
    for section in &outline.sections {
        block.extend(section_block(section, view, width));
    }
    if !outline.loose.is_empty() {
        block.push(Line::of(Ink::Dim, "devices near no node in particular"));
        block.extend(node::devices(&outline.loose, view, width));
    }
    block.extend(tables::distances(machine, width));
    block.extend(tables::legend(machine, view, width));
    render(block, Style { width, ..style })
}

/// A section: its nodes side by side, in a frame where it has a title.
fn section_block(section: &Section<'_>, view: &View, width: usize) -> Block {
    let framed_section = !section.title.is_empty();
    let inner = if framed_section { width.saturating_sub(4) } else { width };
    let parts: Vec<&Part<'_>> = section.nodes.iter().collect();
    let cpu = cores::cpu_width(&parts, view);
    let most = ((inner + 1) / (MIN_NODE + 1)).clamp(1, 4);
    // As even as the rows allow: four nodes are two and two rather than three and one.
    let columns = parts.len().max(1).div_ceil(parts.len().div_ceil(most).max(1));
    // What does not divide evenly goes to the first columns.
    let (column, rest) = ((inner + 1) / columns - 1, (inner + 1) % columns);
    let wide = |at: usize| column + usize::from(at < rest);
    let mut block = Block::new();
    for row in parts.chunks(columns) {
        let insides: Vec<Block> = (0..)
            .zip(row)
            .map(|(at, part)| node::inside(part, view, wide(at).saturating_sub(4), cpu))
            .collect();
        let height = insides.iter().map(Vec::len).max().unwrap_or(0);
        let frames = (0..).zip(row).zip(insides);
        let frames = frames.map(|((at, part), inside)| {
            let title = Line::of(Ink::Bold, title(part));
            framed(&title, inside, wide(at), height)
        });
        block.extend(beside(frames.collect()));
    }
    if framed_section {
        return framed(&Line::of(Ink::Bold, section.title.clone()), block, width, 0);
    }
    block
}

fn title(part: &Part<'_>) -> String {
    let cpus = part.cpus();
    if cpus.is_empty() {
        part.title.clone()
    } else {
        format!("{} · {}", part.title, words::count(cpus.len(), "CPU"))
    }
}
