//! The base address registers of a PCI function, from its `resource` file.
//!
//! Called for each function while a tree is read. Registers that the host left unassigned
//! are left out: a guest could not use them either.

use pinion_machine::{PciBar, PciBarKind};

use crate::tree::{Tree, TreeError};

/// Lines beyond are the expansion ROM, and windows of bridges.
const REGISTERS: u8 = 6;

const PORTS: u64 = 0x100;
const MEMORY: u64 = 0x200;
const PREFETCHABLE: u64 = 0x2000;
const MEMORY_64: u64 = 0x10_0000;
/// The firmware gave it no address, and the kernel found none.
const UNSET: u64 = 0x2000_0000;

/// By index. The upper half of a 64-bit register has none of its own.
///
/// # Errors
/// When the file is malformed.
pub(crate) fn of(tree: &Tree, folder: &str) -> Result<Vec<PciBar>, TreeError> {
    let path = format!("{folder}/resource");
    let Some(text) = tree.text(&path)? else { return Ok(Vec::new()) };
    let mut bars = Vec::new();
    for (index, line) in (0..REGISTERS).zip(text.lines()) {
        match parse(index, line) {
            Some(bar) => bars.extend(bar),
            None => {
                return Err(tree.malformed(&path, line, "the first and last address of a BAR, and flags"));
            }
        }
    }
    Ok(bars)
}

/// `None` for no such line, `Some(None)` for a register that is not there.
fn parse(index: u8, line: &str) -> Option<Option<PciBar>> {
    let mut numbers = line.split_whitespace().map(|n| u64::from_str_radix(n.strip_prefix("0x")?, 16).ok());
    let (first, last, flags) = (numbers.next()??, numbers.next()??, numbers.next()??);
    let kind = match flags {
        f if f & UNSET != 0 => return Some(None),
        f if f & PORTS != 0 => PciBarKind::Ports,
        f if f & MEMORY == 0 => return Some(None),
        f if f & MEMORY_64 != 0 => PciBarKind::Memory64,
        _ => PciBarKind::Memory32,
    };
    let size_bytes = last.checked_sub(first)?.checked_add(1)?;
    Some(Some(PciBar { index, size_bytes, kind, prefetchable: flags & PREFETCHABLE != 0 }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bar(line: &str) -> Option<(u64, PciBarKind, bool)> {
        parse(0, line).unwrap().map(|b| (b.size_bytes, b.kind, b.prefetchable))
    }

    #[test]
    fn registers_are_told_apart() {
        let line = |first: u64, last: u64, flags: u64| format!("{first:#018x} {last:#018x} {flags:#018x}");
        assert_eq!(bar(&line(0xe000, 0xe01f, 0x4_0101)), Some((32, PciBarKind::Ports, false)));
        assert_eq!(
            bar(&line(0xf000_0000, 0xf0ff_ffff, 0x4_0200)),
            Some((16 << 20, PciBarKind::Memory32, false))
        );
        let large = line(0x20_0000_0000, 0x3f_ffff_ffff, 0x14_220c);
        assert_eq!(bar(&large), Some((128 << 30, PciBarKind::Memory64, true)));
        assert_eq!(bar(&line(0, 0, 0)), None);
        assert_eq!(bar(&line(0, 0xffff, 0x2014_0200)), None, "no address was found for it");
    }

    #[test]
    fn lines_that_are_none_are_refused() {
        for line in ["", "0x0", "1 2 0x200", "0x2 0x1 0x200", "0x0 0xffffffffffffffff 0x200", "0x0 0x1 0xg"] {
            assert_eq!(parse(0, line), None, "{line}");
        }
    }
}
