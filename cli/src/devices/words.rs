//! Short words for what a function is made of.

use pinion_machine::{PciBar, PciBarKind, PciFunction, PciLink, Sriov};

/// What stands where nothing is known or there is nothing.
pub(super) const NONE: &str = "-";

/// What a function is, from its class code.
pub(super) const fn class(code: u32) -> &'static str {
    match (code >> 16, (code >> 8) & 0xff) {
        (0x01, 0x04) => "raid",
        (0x01, 0x06) => "sata",
        (0x01, 0x07) => "sas",
        (0x01, 0x08) => "nvme",
        (0x01, _) => "storage",
        (0x02, 0x00) => "ethernet",
        (0x02, 0x07) => "infiniband",
        (0x02, _) => "network",
        (0x03, 0x00) => "vga",
        (0x03, 0x02) => "3d",
        (0x03, _) => "display",
        (0x04, 0x01 | 0x03) => "audio",
        (0x04, _) => "multimedia",
        (0x05, _) => "memory",
        (0x07, _) => "serial",
        (0x08, _) => "system",
        (0x09, _) => "input",
        (0x0b, _) => "processor",
        (0x0c, 0x03) => "usb",
        (0x0c, 0x04) => "fibre",
        (0x0c, 0x05) => "smbus",
        (0x0c, _) => "bus",
        (0x0d, _) => "wireless",
        (0x10, _) => "crypto",
        (0x11, _) => "signals",
        (0x12, _) => "accelerator",
        _ => "other",
    }
}

/// `0:16Mi 2:128Gi* 4:256B`; an asterisk for what may be prefetched, `io` for ports.
pub(super) fn bars(bars: &[PciBar]) -> String {
    let told = bars.iter().map(|bar| {
        let ports = if bar.kind == PciBarKind::Ports { "io" } else { "" };
        let prefetchable = if bar.prefetchable { "*" } else { "" };
        format!("{}:{}{ports}{prefetchable}", bar.index, bytes(bar.size_bytes))
    });
    or_none(told.collect::<Vec<_>>().join(" "))
}

/// BARs are powers of two.
fn bytes(count: u64) -> String {
    let units = [(40, "Ti"), (30, "Gi"), (20, "Mi"), (10, "Ki")];
    let unit = units.iter().find(|(shift, _)| count >> shift > 0 && count.is_multiple_of(1 << shift));
    unit.map_or_else(|| format!("{count}B"), |(shift, name)| format!("{}{name}", count >> shift))
}

/// `33 msi-x`; a function with both uses MSI-X.
pub(super) fn vectors(function: &PciFunction) -> String {
    match (function.msix_vectors, function.msi_vectors) {
        (Some(vectors), _) => format!("{vectors} msi-x"),
        (None, Some(vectors)) => format!("{vectors} msi"),
        (None, None) => NONE.to_owned(),
    }
}

/// `8.0x4 of 16.0x16`: GT/s and lanes, now and at best.
pub(super) fn link(link: Option<PciLink>) -> String {
    let told = |speed: u32, width: u32| format!("{}.{}x{width}", speed / 10, speed % 10);
    link.map_or(NONE.to_owned(), |l| {
        format!("{} of {}", told(l.speed, l.width), told(l.max_speed, l.max_width))
    })
}

/// `2 of 64` virtual functions, or whose it is.
pub(super) fn sriov(sriov: Option<&Sriov>) -> String {
    match sriov {
        Some(Sriov::Physical { most, functions }) => format!("{} of {most}", functions.len()),
        Some(Sriov::Virtual { parent }) => format!("of {parent}"),
        None => NONE.to_owned(),
    }
}

/// The text, or the mark for nothing.
pub(super) fn or_none(text: String) -> String {
    if text.is_empty() { NONE.to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_are_told_by_size_and_kind() {
        let bar = |index, size_bytes, kind, prefetchable| PciBar { index, size_bytes, kind, prefetchable };
        let all = [
            bar(0, 16 << 20, PciBarKind::Memory32, false),
            bar(2, 128 << 30, PciBarKind::Memory64, true),
            bar(4, 256, PciBarKind::Ports, false),
            bar(5, 0x1800, PciBarKind::Memory32, false),
        ];
        assert_eq!(bars(&all), "0:16Mi 2:128Gi* 4:256Bio 5:6Ki");
        assert_eq!(bars(&[]), "-");
        assert_eq!(bytes(u64::MAX), "18446744073709551615B");
    }

    #[test]
    fn links_say_what_they_are_and_could_be() {
        let narrow = PciLink { speed: 80, width: 4, max_speed: 25, max_width: 16 };
        assert_eq!(link(Some(narrow)), "8.0x4 of 2.5x16");
        assert_eq!(link(None), "-");
    }
}
