//! A node: bars of memory, cores in their L3 domains, devices.

use std::collections::BTreeMap;

use pinion_machine::{Core, CpuId, CpuSet, Node, PageSize, PciFunction};

use super::palette;
use super::piece::{Font, Piece, card, flow, stack};
use crate::View;
use crate::outline::{Domain, Part};
use crate::view::Role;
use crate::words;

/// A node's contents are this wide.
pub(super) const WIDTH: u32 = 404;
const CPU: (u32, u32) = (38, 36);
/// More devices than this are counted instead.
const MAX_DEVICES: usize = 12;

/// What is inside the card of a node.
pub(super) fn inside(part: &Part<'_>, view: &View) -> Piece {
    let mut pieces = Vec::new();
    if let Some(node) = part.node {
        pieces.push(memory(node, view));
    }
    if part.is_large() {
        pieces.push(lists(part, view));
    } else {
        let domains: Vec<Piece> = part.domains.iter().map(|d| domain(d, view)).collect();
        pieces.push(flow(&domains, WIDTH, 8));
    }
    pieces.push(devices(&part.devices, view));
    if !part.more.is_empty() {
        pieces.push(Piece::text(&words::more(&part.more), palette::HEADING));
    }
    let mut inside = stack(&pieces, 10);
    inside.width = inside.width.max(WIDTH);
    inside
}

/// The card of a node around what is inside.
pub(super) fn frame(part: &Part<'_>, inside: &Piece) -> Piece {
    let cpus = part.cpus();
    let count =
        if cpus.is_empty() { String::new() } else { format!(" · {}", words::count(cpus.len(), "CPU")) };
    let title = Piece::text(&format!("{}{count}", part.title), palette::HEADING);
    card(&title, inside, 14, palette::NODE)
}

fn memory(node: &Node, view: &View) -> Piece {
    if node.memory_bytes == 0 {
        return Piece::text("no memory", palette::NOTE);
    }
    let sizes = |p: &pinion_machine::HugePagePool| p.total.saturating_mul(p.page_size.bytes());
    let pooled = node.huge_pages.iter().map(sizes).fold(0, u64::saturating_add);
    let ordinary = node.memory_bytes.saturating_sub(pooled);
    let free = node.available_bytes.saturating_sub(view.promised_on(node.id, None));
    let label = format!("{} free", words::part_of(free, ordinary));
    let mut bars = vec![bar(node, view, None, (ordinary, free), &label)];
    for pool in node.huge_pages.iter().filter(|p| p.total > 0) {
        let size = pool.page_size;
        let free = pool.free.saturating_sub(view.promised_on(node.id, Some(size)) / size.bytes());
        let label = format!("{free} of {} pages free", pool.total);
        let bytes = |pages: u64| pages.saturating_mul(size.bytes());
        bars.push(bar(node, view, Some(size), (bytes(pool.total), bytes(free)), &label));
    }
    stack(&bars, 5)
}

/// What guests hold, what others use, what is free; with the amounts beside.
fn bar(node: &Node, view: &View, pool: Option<PageSize>, (total, free): (u64, u64), label: &str) -> Piece {
    const LENGTH: u32 = 130;
    let share = |bytes: u64| {
        let part = u128::from(bytes) * u128::from(LENGTH) / u128::from(total.max(1));
        u32::try_from(part).unwrap_or(LENGTH).min(LENGTH)
    };
    let name = pool.map_or_else(|| "Memory".to_owned(), |size| size.to_string());
    let mut piece = Piece::sized(WIDTH, 16);
    piece.write_text(0, 13, &name, palette::TEXT, "start");
    piece.rect((54, 2, LENGTH, 12), 3, "#e2e8f0", "none");
    let used = share(total.saturating_sub(free));
    piece.rect((54, 2, used, 12), 3, "#94a3b8", "none");
    let mut holders = String::new();
    let mut x = 0;
    for (guest, bytes) in view.held_on(node.id, pool) {
        let part = share(bytes).clamp(2, LENGTH.max(2)).min(used.saturating_sub(x));
        piece.rect((54 + x, 2, part, 12), 3, palette::guest(guest).0, "none");
        x += part;
        let name = view.guests.get(guest).map_or("", |g| g.name.as_str());
        holders.push_str(&format!(
            "\n{} {}: {}",
            words::letters(guest),
            words::plain(name),
            words::bytes(bytes)
        ));
    }
    piece.write_text(54 + LENGTH + 8, 13, label, palette::NOTE, "start");
    let what = pool.map_or_else(|| "ordinary memory".to_owned(), |size| format!("{size} pages"));
    piece.titled(&format!("{what}: {} of {} free{holders}", words::bytes(free), words::bytes(total)))
}

fn domain(domain: &Domain<'_>, view: &View) -> Piece {
    let cores: Vec<Piece> = domain.cores.iter().map(|c| core(c, view)).collect();
    let grid = flow(&cores, WIDTH - 16, 6);
    let Some(l3) = domain.l3 else { return grid };
    let size = if l3.size_bytes > 0 { words::bytes(l3.size_bytes) } else { String::new() };
    let font = Font { size: 11, ..palette::NOTE };
    card(&Piece::text(&format!("L3 {size}"), font), &grid, 8, palette::CACHE)
}

fn core(core: &Core, view: &View) -> Piece {
    let mut piece = Piece::sized(4, CPU.1 + 8);
    let threads = u32::try_from(core.cpus.len()).unwrap_or(0);
    piece.rect((0, 0, threads * (CPU.0 + 4) + 4, CPU.1 + 8), 6, palette::CORE.0, palette::CORE.1);
    for id in core.cpus.iter() {
        piece.place(piece.width, 4, &cpu(id, core, view));
        piece.width += 4;
    }
    piece
}

fn cpu(id: CpuId, core: &Core, view: &View) -> Piece {
    let role = view.role(id);
    let (fill, stroke, ink) = palette::role(role);
    let mut piece = Piece::sized(CPU.0, CPU.1);
    piece.rect((0, 0, CPU.0, CPU.1), 4, fill, stroke);
    piece.write_text(CPU.0 / 2, 13, &id.to_string(), Font { size: 10, fill: ink, class: "m" }, "middle");
    let label = view.label(id);
    let size = if label.chars().count() > 4 { 10 } else { 13 };
    piece.write_text(CPU.0 / 2, 29, &label, Font { size, fill: ink, class: "b" }, "middle");
    piece.titled(&format!("CPU {id} of core {}: {}", core.id, meaning(role, &label, view)))
}

fn meaning(role: Role, label: &str, view: &View) -> String {
    let name = |guest: usize| view.guests.get(guest).map_or(String::new(), |g| words::plain(&g.name));
    match role {
        Role::Housekeeping => "housekeeping".to_owned(),
        Role::Dedicated(guest) => format!("dedicated to {} ({label})", name(guest)),
        Role::Io(guest) => format!("I/O thread of {} ({label})", name(guest)),
        Role::Idle(guest) => format!("kept empty beside {}", name(guest)),
        Role::Shared(Some(guest)) => format!("shared vCPUs of {} float over it", name(guest)),
        Role::Shared(None) => "shared vCPUs of several guests float over it".to_owned(),
        Role::Isolated => "isolated, free".to_owned(),
        Role::Free => "free".to_owned(),
    }
}

/// A bar of the roles in proportion, and their CPUs as lists.
fn lists(part: &Part<'_>, view: &View) -> Piece {
    let mut roles: BTreeMap<Role, CpuSet> = BTreeMap::new();
    for cpu in part.cpus().iter() {
        roles.entry(view.role(cpu)).or_default().insert(cpu);
    }
    let all = roles.values().map(CpuSet::len).sum::<usize>().max(1);
    let mut bar = Piece::sized(WIDTH, 22);
    let mut lines = Vec::new();
    let (mut x, mut rest) = (0, roles.len());
    for (role, cpus) in &roles {
        rest -= 1;
        let (fill, stroke, _) = palette::role(*role);
        let share = u32::try_from(cpus.len() * WIDTH as usize / all).unwrap_or(WIDTH).max(6);
        let share = if rest == 0 { WIDTH.saturating_sub(x) } else { share };
        bar.rect((x, 0, share, 22), 4, fill, stroke);
        x += share;
        let text: String = format!("{}: {cpus}", meaning(*role, "vCPUs", view)).chars().take(56).collect();
        lines.push(Piece::text(&text, palette::NOTE));
    }
    let cores: usize = part.domains.iter().map(|d| d.cores.len()).sum();
    let l3 = part.domains.iter().filter(|d| d.l3.is_some()).count();
    let counts = format!("{}, {}", words::count(cores, "core"), words::count(l3, "L3 domain"));
    bar.width = WIDTH;
    lines.insert(0, bar.titled(&counts));
    lines.insert(1, Piece::text(&counts, palette::TEXT));
    stack(&lines, 4)
}

/// Devices, those that guests hold first.
pub(super) fn devices(functions: &[&PciFunction], view: &View) -> Piece {
    let mut rows: Vec<Piece> = functions.iter().take(MAX_DEVICES).map(|f| device(f, view)).collect();
    if functions.len() > MAX_DEVICES {
        let more = format!("{} more devices", functions.len() - MAX_DEVICES);
        rows.push(Piece::text(&more, palette::NOTE));
    }
    stack(&rows, 4)
}

fn device(function: &PciFunction, view: &View) -> Piece {
    let holder = view.device(function.address);
    let (fill, ink) = holder.map_or(("#f1f5f9", palette::INK), palette::guest);
    let mut piece = Piece::sized(WIDTH, 22);
    piece.rect((0, 0, WIDTH, 22), 11, fill, "none");
    let address = function.address.to_string();
    piece.write_text(12, 15, &address, Font { size: 11, fill: ink, class: "m" }, "start");
    let mark = holder.map(words::letters).unwrap_or_default();
    let (class, name) = (words::class(function.class), words::device_name(function));
    let what: String = format!("{class} {name}").chars().take(34).collect();
    piece.write_text(112, 15, &what, Font { fill: ink, ..palette::TEXT }, "start");
    piece.write_text(WIDTH - 12, 15, &mark, Font { fill: ink, ..palette::HEADING }, "end");
    let mut facts = vec![format!("{address} {class} {name}")];
    facts.push(format!("vendor {:04x}, device {:04x}", function.vendor, function.device));
    facts.extend(function.driver.as_ref().map(|d| format!("driver {}", words::plain(d))));
    facts.extend(function.iommu_group.map(|g| format!("IOMMU group {g}")));
    if let Some(link) = function.link {
        let speed = |tenths: u32| format!("{}.{} GT/s", tenths / 10, tenths % 10);
        let (now, best) = (speed(link.speed), speed(link.max_speed));
        facts.push(format!("link x{} {now}, at best x{} {best}", link.width, link.max_width));
    }
    if !function.reset_methods.is_empty() {
        facts.push(format!("reset by {}", words::plain(&function.reset_methods.join(", "))));
    }
    let guest = holder.and_then(|g| view.guests.get(g));
    facts.extend(guest.map(|g| format!("held by {}", words::plain(&g.name))));
    piece.titled(&facts.join("\n"))
}
