//! A node: memory, huge pages, cores, devices.

use pinion_machine::{Node, PageSize, PciFunction};

use super::canvas::{Block, Ink, Line, flow};
use super::cores;
use crate::View;
use crate::outline::Part;
use crate::words;

/// More devices than this are counted instead.
const MAX_DEVICES: usize = 10;
/// Columns of a bar.
const BAR: u64 = 8;

/// What is inside a node's frame.
pub(super) fn inside(part: &Part<'_>, view: &View, width: usize, cpu: usize) -> Block {
    let mut block = Block::new();
    if let Some(node) = part.node {
        block.extend(memory(node, view, width));
    }
    if part.is_large() {
        let cores: usize = part.domains.iter().map(|d| d.cores.len()).sum();
        let l3 = part.domains.iter().filter(|d| d.l3.is_some()).count();
        block.push(Line::of(
            Ink::Dim,
            format!("{}, {}", words::count(cores, "core"), words::count(l3, "L3 domain")),
        ));
        block.extend(cores::lists(part, view));
    } else {
        block.extend(cores::domains(&part.domains, view, width, cpu));
    }
    block.extend(devices(&part.devices, view, width));
    if !part.more.is_empty() {
        block.push(Line::of(Ink::Bold, words::more(&part.more)));
    }
    block
}

fn memory(node: &Node, view: &View, width: usize) -> Block {
    let mut block = Block::new();
    if node.memory_bytes == 0 {
        return vec![Line::of(Ink::Dim, "no memory")];
    }
    let pooled = node.huge_pages.iter().map(|p| p.total.saturating_mul(p.page_size.bytes()));
    let ordinary = node.memory_bytes.saturating_sub(pooled.fold(0, u64::saturating_add));
    let free = node.available_bytes.saturating_sub(view.promised_on(node.id, None));
    let of = format!("{} free", words::part_of(free, ordinary));
    block.extend(amount(node, view, None, (ordinary, free), &of, width));
    for pool in node.huge_pages.iter().filter(|p| p.total > 0) {
        let size = pool.page_size;
        let promised = view.promised_on(node.id, Some(size)) / size.bytes();
        let free = pool.free.saturating_sub(promised);
        let of = format!("{free} of {} free", pool.total);
        let bytes = |pages: u64| pages.saturating_mul(size.bytes());
        block.extend(amount(node, view, Some(size), (bytes(pool.total), bytes(free)), &of, width));
    }
    block
}

/// A bar, the amount, and who holds how much.
fn amount(
    node: &Node,
    view: &View,
    pool: Option<PageSize>,
    (total, free): (u64, u64),
    of: &str,
    width: usize,
) -> Block {
    let name = pool.map_or_else(|| "mem".to_owned(), |size| size.to_string());
    let held = view.held_on(node.id, pool);
    let share = |bytes: u64| {
        let part = (u128::from(bytes) * u128::from(BAR)).div_ceil(u128::from(total.max(1)));
        usize::try_from(part).unwrap_or(usize::MAX)
    };
    let mut line = Line::of(Ink::Plain, format!("{name:<4}"));
    let mut left = share(u64::MAX).min(usize::try_from(BAR).unwrap_or(0));
    let used = share(total.saturating_sub(free)).min(left);
    let mut guests_left = used;
    for (guest, bytes) in &held {
        let part = share(*bytes).min(guests_left);
        line.push(Ink::Guest(*guest), "█".repeat(part));
        guests_left -= part;
        left -= part;
    }
    line.push(Ink::Dim, "▒".repeat(guests_left));
    left -= guests_left;
    line.push(Ink::Dim, "░".repeat(left));
    line.push(Ink::Plain, format!(" {of}"));
    let holders = held.iter().map(|(guest, bytes)| {
        Line::of(Ink::Guest(*guest), format!("{} {}", words::letters(*guest), words::bytes(*bytes)))
    });
    flow(std::iter::once(line).chain(holders), width, " · ")
}

/// Devices, those that guests hold first.
pub(super) fn devices(functions: &[&PciFunction], view: &View, width: usize) -> Block {
    let mut block = Block::new();
    for function in functions.iter().take(MAX_DEVICES) {
        let holder = view.device(function.address);
        let mark = holder.map(words::letters).unwrap_or_default();
        let mut line = Line::of(Ink::Dim, "▪ ").with(Ink::Plain, function.address.to_string());
        line.push(Ink::Plain, format!(" {} {}", words::class(function.class), words::device_name(function)));
        if let Some(group) = function.iommu_group {
            line.push(Ink::Dim, format!(" · group {group}"));
        }
        if let Some(link) = function.link {
            let degraded = link.speed < link.max_speed || link.width < link.max_width;
            let at_best = format!(" of x{} {}", link.max_width, gts(link.max_speed));
            let best = if degraded { at_best } else { String::new() };
            line.push(Ink::Dim, format!(" · x{} {}{best} GT/s", link.width, gts(link.speed)));
        }
        let taken = mark.chars().count() + 3;
        if let Some(guest) = holder {
            let mut fitted =
                if line.width() + taken > width { line.fit(width.saturating_sub(taken)) } else { line };
            fitted.push(Ink::Guest(guest), format!(" ◀ {mark}"));
            line = fitted;
        }
        block.push(line);
    }
    if functions.len() > MAX_DEVICES {
        block.push(Line::of(Ink::Dim, format!("▪ {} more devices", functions.len() - MAX_DEVICES)));
    }
    block
}

fn gts(tenths: u32) -> String {
    if tenths.is_multiple_of(10) {
        (tenths / 10).to_string()
    } else {
        format!("{}.{}", tenths / 10, tenths % 10)
    }
}
