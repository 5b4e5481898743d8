//! Names, amounts and classes in words, safe to print.

use pinion_machine::{NodeId, PciFunction, Source};
use pinion_planner::Placement;

/// A name as printable ASCII: nothing that moves a cursor, and every character one column.
pub(crate) fn plain(name: &str) -> String {
    name.chars().map(|c| if c == ' ' || c.is_ascii_graphic() { c } else { '?' }).take(120).collect()
}

/// The letter of a guest: A to Z, then AA, AB and so on.
pub(crate) fn letters(guest: usize) -> String {
    const ALPHABET: &[u8; 26] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ";
    let letter = |n: usize| ALPHABET.get(n % 26).map_or('?', |b| char::from(*b));
    let mut text = String::from(letter(guest));
    let mut rest = guest / 26;
    while rest > 0 {
        rest -= 1;
        text.insert(0, letter(rest));
        rest /= 26;
    }
    text
}

/// An amount of memory: `62.1 GiB`, `512 MiB`.
#[must_use]
pub fn bytes(amount: u64) -> String {
    const UNITS: [(&str, u32); 4] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let unit = UNITS.iter().find(|(_, shift)| amount >> shift > 0);
    let Some((name, shift)) = unit else { return format!("{amount} B") };
    let tenths = (u128::from(amount) * 10) >> shift;
    if tenths.is_multiple_of(10) || tenths >= 10_000 {
        format!("{} {name}", tenths / 10)
    } else {
        format!("{}.{} {name}", tenths / 10, tenths % 10)
    }
}

/// A part of an amount: `3.5 of 64 GiB`, `512 MiB of 64 GiB`.
pub(crate) fn part_of(part: u64, all: u64) -> String {
    let (part, all) = (bytes(part), bytes(all));
    let number = |text: &str, unit: &str| text.strip_suffix(unit).map(|n| n.trim_end().to_owned());
    let unit = all.rsplit(' ').next().unwrap_or_default();
    let part = number(&part, unit).filter(|_| unit != "B").unwrap_or(part);
    format!("{part} of {all}")
}

/// Nodes that another is drawn for.
pub(crate) fn more(nodes: &[NodeId]) -> String {
    let noun = if nodes.len() == 1 { "node" } else { "nodes" };
    format!("× {} more alike: {noun} {}", nodes.len(), ranges(nodes.iter().map(|id| id.0)))
}

/// A count and its noun.
pub(crate) fn count(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

/// Ids as the kernel writes lists: `0-3,8`.
pub(crate) fn ranges(ids: impl Iterator<Item = u32>) -> String {
    let mut text = String::new();
    let mut ids = ids.peekable();
    while let Some(first) = ids.next() {
        let mut last = first;
        while let Some(next) = ids.next_if(|id| Some(*id) == last.checked_add(1)) {
            last = next;
        }
        let separator = if text.is_empty() { "" } else { "," };
        let end = if last > first { format!("-{last}") } else { String::new() };
        text = format!("{text}{separator}{first}{end}");
    }
    text
}

/// Where a machine was read from.
pub(crate) fn source(source: &Source) -> String {
    match source {
        Source::Host => "this host".to_owned(),
        Source::Xml(path) => plain(path),
        Source::Synthetic(text) => format!("synthetic: {}", plain(text)),
        Source::Sysfs(path) => plain(path),
    }
}

/// Whether a function only joins others: bridges are not drawn.
pub(crate) fn is_bridge(function: &PciFunction) -> bool {
    function.class >> 16 == 0x06
}

/// What a function is, from its class code.
pub(crate) fn class(code: u32) -> &'static str {
    match (code >> 16, (code >> 8) & 0xff) {
        (0x01, 0x08) => "NVMe",
        (0x01, _) => "storage",
        (0x02, 0x07) => "InfiniBand",
        (0x02, _) => "network",
        (0x03, _) => "display",
        (0x04, _) => "multimedia",
        (0x05, _) => "memory",
        (0x07, _) => "serial",
        (0x08, _) => "system",
        (0x0c, 0x03) => "USB",
        (0x0c, _) => "serial bus",
        (0x0d, _) => "wireless",
        (0x0b, _) => "co-processor",
        (0x10, _) => "crypto",
        (0x12, _) => "accelerator",
        _ => "device",
    }
}

/// What the operating system calls a function: its devices, else its driver, else its ids.
pub(crate) fn device_name(function: &PciFunction) -> String {
    if !function.os_devices.is_empty() {
        return plain(&function.os_devices.join(", "));
    }
    let ids = format!("{:04x}:{:04x}", function.vendor, function.device);
    function.driver.as_ref().map_or(ids.clone(), |driver| format!("{ids} {}", plain(driver)))
}

/// What a planned guest gets, apart from its CPUs.
pub(crate) fn notes(placement: &Placement) -> Vec<String> {
    let mut notes = Vec::new();
    for cell in &placement.cells {
        let vcpus = ranges(cell.vcpus.iter().copied());
        let memory = bytes(cell.memory_bytes);
        let (node, page) = (cell.host_node, cell.page_size_bytes);
        notes.push(format!("cell {}: v{vcpus}, {memory} in {page} pages, node {node}", cell.id));
    }
    for thread in &placement.io_threads {
        let disks = plain(&thread.disks.join(", "));
        notes.push(format!("io{}: {disks}, CPUs {}", thread.id, thread.cpus));
    }
    for device in &placement.devices {
        let (name, address, cell) = (plain(&device.name), device.address, device.cell);
        notes.push(format!("{name}: {address}, cell {cell}"));
    }
    notes.push(format!("emulator: CPUs {}", placement.emulator.cpus));
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guests_have_letters() {
        assert_eq!(
            [0, 25, 26, 27, 51, 52, 701, 702].map(letters),
            ["A", "Z", "AA", "AB", "AZ", "BA", "ZZ", "AAA"]
        );
    }

    #[test]
    fn amounts_are_short() {
        let amounts = [0, 1023, 1024, 1536 << 20, 64 << 30, 1000 << 30, 1 << 40, u64::MAX].map(bytes);
        let short = ["0 B", "1023 B", "1 KiB", "1.5 GiB", "64 GiB", "1000 GiB", "1 TiB", "16777215 TiB"];
        assert_eq!(amounts, short);
    }

    #[test]
    fn a_part_has_the_unit_of_the_whole_once() {
        assert_eq!(part_of(3584 << 20, 64 << 30), "3.5 of 64 GiB");
        assert_eq!(part_of(512 << 20, 64 << 30), "512 MiB of 64 GiB");
        assert_eq!(part_of(0, 1 << 30), "0 B of 1 GiB");
    }

    #[test]
    fn names_cannot_move_the_cursor() {
        assert_eq!(plain("a\x1b[2J\nb\u{202e}é"), "a?[2J?b??");
    }

    #[test]
    fn ranges_join_neighbours() {
        assert_eq!(ranges([0, 1, 2, 5, u32::MAX].into_iter()), "0-2,5,4294967295");
    }
}
