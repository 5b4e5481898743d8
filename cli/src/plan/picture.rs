//! A placement and a refusal, for people.

use pinion_machine::CpuSet;
use pinion_planner::{Placement, Refusal, Shortage};

use crate::table::Table;

/// A placement: cells, vCPUs, I/O threads, emulator threads, devices.
pub(crate) fn summary(placement: &Placement) -> String {
    let bytes: u64 = placement.cells.iter().map(|c| c.memory_bytes).sum();
    let mut text = format!(
        "{}: {} on {}, {} in {}\n",
        placement.name,
        count(placement.vcpus.len(), "vCPU"),
        kind(placement),
        size(bytes),
        count(placement.cells.len(), "cell"),
    );
    text.push_str(&cells(placement).picture(2));
    text.push_str(&vcpus(placement).picture(2));
    if !placement.io_threads.is_empty() {
        text.push_str(&io_threads(placement).picture(2));
    }
    if !placement.devices.is_empty() {
        text.push_str(&devices(placement).picture(2));
    }
    text.push_str(&format!("  emulator threads on CPUs {}\n", placement.emulator.cpus));
    text
}

fn kind(placement: &Placement) -> String {
    let cpus: CpuSet = placement.vcpus.iter().flat_map(|v| v.allowed().iter().collect::<Vec<_>>()).collect();
    let dedicated = placement.vcpus.iter().all(|v| v.cpu.is_some());
    format!("{} CPUs {cpus}", if dedicated { "dedicated" } else { "shared" })
}

fn cells(placement: &Placement) -> Table {
    let mut table = Table::new(&["CELL", "HOST NODE", "MEMORY", "PAGES", "VCPUS", "DISTANCES"]);
    for cell in &placement.cells {
        let pages = cell.memory_bytes / cell.page_size_bytes.bytes();
        table.row([
            cell.id.to_string(),
            cell.host_node.to_string(),
            size(cell.memory_bytes),
            format!("{pages} × {}", cell.page_size_bytes),
            numbers(&cell.vcpus),
            cell.distances.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
        ]);
    }
    table
}

fn vcpus(placement: &Placement) -> Table {
    let mut table = Table::new(&["VCPU", "SOCKET", "CORE", "THREAD", "CELL", "CPU", "CLASS"]);
    for vcpu in &placement.vcpus {
        let class = if vcpu.realtime { "FIFO 1" } else { "" };
        table.row([
            vcpu.id.to_string(),
            vcpu.socket.to_string(),
            vcpu.core.to_string(),
            vcpu.thread.to_string(),
            vcpu.cell.to_string(),
            vcpu.allowed().to_string(),
            class.to_owned(),
        ]);
    }
    table
}

fn io_threads(placement: &Placement) -> Table {
    let mut table = Table::new(&["IO THREAD", "CPUS", "DISKS"]);
    for thread in &placement.io_threads {
        table.row([thread.id.to_string(), thread.cpus.to_string(), thread.disks.join(",")]);
    }
    table
}

fn devices(placement: &Placement) -> Table {
    let mut table = Table::new(&["DEVICE", "ADDRESS", "GROUP", "HOST NODE", "CELL", "INTERRUPTS"]);
    for device in &placement.devices {
        let number = |n: Option<u32>| n.map_or_else(|| "-".to_owned(), |n| n.to_string());
        table.row([
            device.name.clone(),
            device.address.to_string(),
            number(device.iommu_group),
            number(device.host_node.map(|n| n.0)),
            device.cell.to_string(),
            format!("CPUs {}", device.interrupt_cpus),
        ]);
    }
    table
}

/// A refusal: what is short, where, who holds it, and what would fit.
pub(crate) fn explain(refusal: &Refusal) -> String {
    let mut text = format!("{}: refused: {}\n", refusal.name, refusal.message);
    let mut table = Table::new(&["SHORT OF", "NODE", "NEEDED", "FREE", "HELD BY"]);
    for shortage in &refusal.shortages {
        let held: Vec<_> = shortage
            .held_by
            .iter()
            .map(|h| format!("{} ({})", h.owner, amount(shortage, h.amount)))
            .collect();
        table.row([
            shortage.resource.clone(),
            shortage.node.map_or_else(|| "all".to_owned(), |n| n.to_string()),
            amount(shortage, shortage.needed),
            amount(shortage, shortage.free),
            if held.is_empty() { "-".to_owned() } else { held.join(", ") },
        ]);
    }
    text.push_str(&table.picture(2));
    if let Some(nearest) = &refusal.nearest {
        let shape = nearest.topology;
        text.push_str(&format!(
            "  what would fit now: sockets: {}, cores: {}, threads: {}, with {} of memory\n",
            shape.sockets,
            shape.cores,
            shape.threads,
            size(nearest.memory.bytes),
        ));
    }
    text
}

fn amount(shortage: &Shortage, amount: u64) -> String {
    let bytes = shortage.resource == "memory" || shortage.resource.starts_with("hugepages");
    if bytes { size(amount) } else { amount.to_string() }
}

fn numbers(numbers: &[u32]) -> String {
    let set: CpuSet = numbers.iter().copied().map(pinion_machine::CpuId).collect();
    set.to_string()
}

fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// Bytes in the largest binary unit that divides them.
pub(crate) fn size(bytes: u64) -> String {
    match bytes {
        0 => "0".to_owned(),
        b if b % (1 << 30) == 0 => format!("{} GiB", b >> 30),
        b if b % (1 << 20) == 0 => format!("{} MiB", b >> 20),
        b if b % (1 << 10) == 0 => format!("{} KiB", b >> 10),
        b => format!("{b} B"),
    }
}
