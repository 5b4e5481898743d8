//! What `/proc/interrupts` says: per interrupt the count on each CPU, the chip and who asked for it.
//!
//! Called by the shield, for names, and by the routes, for the vectors of
//! passed-through devices. The text holds names that drivers chose, so nothing
//! in it may make this module fail: a line that cannot be read is left out.

use std::fmt;
use std::str::FromStr;

use pinion_machine::{Bdf, CpuId};

/// What raises the interrupt of a passed-through device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum VectorKind {
    /// MSI-X.
    Msix,
    /// MSI.
    Msi,
    /// A legacy line.
    Intx,
}

/// A vector of a device that VFIO drives, as VFIO names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vector {
    /// The device.
    pub address: Bdf,
    /// What raises it.
    pub kind: VectorKind,
    /// Which of the device's vectors; a legacy line is 0.
    pub index: u32,
}

impl fmt::Display for Vector {
    /// As in `/proc/interrupts`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, index, .. } = self;
        match self.kind {
            VectorKind::Msix => write!(f, "vfio-msix[{index}]({address})"),
            VectorKind::Msi => write!(f, "vfio-msi[{index}]({address})"),
            VectorKind::Intx => write!(f, "vfio-intx({address})"),
        }
    }
}

/// The name is not one that VFIO gives.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a vector of a passed-through device such as vfio-msix[0](0000:3b:00.0)")]
pub struct VectorError(pub String);

impl FromStr for Vector {
    type Err = VectorError;

    fn from_str(name: &str) -> Result<Self, VectorError> {
        let parse = || -> Option<Self> {
            let (head, address) = name.strip_prefix("vfio-")?.strip_suffix(')')?.split_once('(')?;
            let (kind, index) = match head.strip_suffix(']').and_then(|h| h.split_once('[')) {
                Some(("msix", index)) => (VectorKind::Msix, index.parse().ok()?),
                Some(("msi", index)) => (VectorKind::Msi, index.parse().ok()?),
                Some(_) => return None,
                None if head == "intx" => (VectorKind::Intx, 0),
                None => return None,
            };
            Some(Self { address: address.parse().ok()?, kind, index })
        };
        parse().ok_or_else(|| VectorError(name.to_owned()))
    }
}

/// One numbered interrupt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interrupt {
    /// Its number.
    pub irq: u32,
    /// How often it came, in the order of [`Table::cpus`].
    pub counts: Vec<u64>,
    /// The chip, its number there and how it is triggered.
    pub chip: String,
    /// Who asked for it; several where a line is shared, none where nobody did.
    pub actions: Vec<String>,
}

impl Interrupt {
    /// How often it came on all CPUs.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// The names of all who asked for it, or the chip where nobody did.
    #[must_use]
    pub fn name(&self) -> String {
        if self.actions.is_empty() { self.chip.clone() } else { self.actions.join(", ") }
    }

    /// Its actions that are vectors of passed-through devices.
    pub fn vectors(&self) -> impl Iterator<Item = Vector> + '_ {
        self.actions.iter().filter_map(|action| action.parse().ok())
    }
}

/// What was in `/proc/interrupts`. Interrupts without a number (`NMI`, `LOC`) are left out:
/// they belong to their CPU and cannot be moved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// The CPUs that are counted: those online.
    pub cpus: Vec<CpuId>,
    /// The numbered interrupts in the order of the text.
    pub interrupts: Vec<Interrupt>,
}

impl Table {
    /// Reads the whole text.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        Self::parse_where(text, |_, _| true)
    }

    /// Reads only the lines that `wanted` accepts by number and text: the counts of hundreds of CPUs
    /// on thousands of lines take milliseconds to read, those of a few lines do not.
    #[must_use]
    pub fn parse_where(text: &str, wanted: impl Fn(u32, &str) -> bool) -> Self {
        let mut lines = text.lines();
        let cpus: Vec<CpuId> = lines.next().map(header).unwrap_or_default();
        let interrupts = lines
            .filter_map(|line| {
                let (label, rest) = line.split_once(':')?;
                let irq = label.trim().parse().ok()?;
                wanted(irq, rest).then(|| interrupt(irq, rest, cpus.len()))
            })
            .collect();
        Self { cpus, interrupts }
    }

    /// The interrupt of that number.
    #[must_use]
    pub fn get(&self, irq: u32) -> Option<&Interrupt> {
        self.interrupts.iter().find(|i| i.irq == irq)
    }
}

fn header(line: &str) -> Vec<CpuId> {
    line.split_whitespace().map_while(|word| Some(CpuId(word.strip_prefix("CPU")?.parse().ok()?))).collect()
}

fn interrupt(irq: u32, text: &str, cpus: usize) -> Interrupt {
    let mut rest = text.trim();
    let mut counts = Vec::new();
    while counts.len() < cpus {
        let (word, after) = word(rest);
        let Ok(count) = word.parse() else { break };
        counts.push(count);
        rest = after;
    }
    let (chip, actions) = chip_and_actions(rest);
    let actions = actions.split(", ").map(str::trim).filter(|a| !a.is_empty()).map(str::to_owned).collect();
    Interrupt { irq, counts, chip: chip.to_owned(), actions }
}

/// Splits at the end of the chip's own text: `IR-PCI-MSI 2097152-edge`, `GICv3  27 Level`, `XT-PIC`.
fn chip_and_actions(text: &str) -> (&str, &str) {
    let (_, mut rest) = word(text);
    let after_name = rest;
    // A chip's name may have a space in it; none has more than a few words.
    for _ in 0..4 {
        let (word_here, after) = word(rest);
        let (number, trigger) = word_here.split_once('-').unwrap_or((word_here, ""));
        if !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()) {
            let (next, after_next) = word(after);
            let separate = trigger.is_empty() && matches!(next, "Level" | "Edge");
            return split_before(text, if separate { after_next } else { after });
        }
        rest = after;
    }
    split_before(text, after_name)
}

/// `rest` is the end of `text`.
fn split_before<'a>(text: &'a str, rest: &'a str) -> (&'a str, &'a str) {
    let chip = text.get(..text.len().saturating_sub(rest.len())).unwrap_or(text);
    (chip.trim(), rest)
}

/// The first word, and what follows it without leading space.
fn word(text: &str) -> (&str, &str) {
    let text = text.trim_start();
    let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    (word, rest.trim_start())
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use proptest::prelude::*;

    use super::*;

    const SAMPLE: &str = "\
            CPU0       CPU1       CPU3
   0:         37          0          0  IR-IO-APIC    2-edge      timer
   9:          1          2          3  IR-IO-APIC    9-fasteoi   acpi
  16:          0          0          0  IO-APIC  16-fasteoi   vfio-intx(0000:00:1b.0), ehci_hcd:usb1
 128:          7          0          9  IR-PCI-MSI 2097152-edge      vfio-msix[0](0000:04:00.0)
 129:          0          0          0  IR-PCI-MSIX-0000:3b:00.0    3-edge      vfio-msix[3](0000:3b:00.0)
 130:          0          0          0  GICv3  27 Level     arch_timer
 131:          0          5          0  XT-PIC      cascade
 132:          0          0          0  dummy   44
 133:          0          0          0  ITS-MSI 524288 Edge      mlx5_comp0@pci:0000:01:00.0
 NMI:          1          1          1   Non-maskable interrupts
 LOC:     553454     554545     553454   Local timer interrupts
 ERR:          0
";

    #[test]
    fn numbered_interrupts_are_read() {
        let table = Table::parse(SAMPLE);
        assert_eq!(table.cpus, [CpuId(0), CpuId(1), CpuId(3)]);
        let names: Vec<_> =
            table.interrupts.iter().map(|i| (i.irq, i.chip.as_str(), i.actions.join("|"))).collect();
        let expected = [
            (0, "IR-IO-APIC    2-edge", "timer"),
            (9, "IR-IO-APIC    9-fasteoi", "acpi"),
            (16, "IO-APIC  16-fasteoi", "vfio-intx(0000:00:1b.0)|ehci_hcd:usb1"),
            (128, "IR-PCI-MSI 2097152-edge", "vfio-msix[0](0000:04:00.0)"),
            (129, "IR-PCI-MSIX-0000:3b:00.0    3-edge", "vfio-msix[3](0000:3b:00.0)"),
            (130, "GICv3  27 Level", "arch_timer"),
            (131, "XT-PIC", "cascade"),
            (132, "dummy   44", ""),
            (133, "ITS-MSI 524288 Edge", "mlx5_comp0@pci:0000:01:00.0"),
        ];
        assert_eq!(names, expected.map(|(irq, chip, names)| (irq, chip, names.to_owned())));
        assert_eq!(table.get(128).map(|i| (i.counts.clone(), i.total())), Some((vec![7, 0, 9], 16)));
        assert_eq!(table.get(132).map(Interrupt::name), Some("dummy   44".to_owned()));
    }

    #[test]
    fn vfio_names_are_vectors() {
        for (name, kind, index) in [
            ("vfio-msix[3](0000:3b:00.0)", VectorKind::Msix, 3),
            ("vfio-msi[0](0000:3b:00.0)", VectorKind::Msi, 0),
            ("vfio-intx(0000:3b:00.0)", VectorKind::Intx, 0),
        ] {
            let vector: Vector = name.parse().unwrap();
            assert_eq!((vector.kind, vector.index, vector.to_string().as_str()), (kind, index, name));
        }
        for name in
            ["vfio-msix(0000:3b:00.0)", "vfio-intx[1](0000:3b:00.0)", "vfio-msi[0](x)", "vfio-", "eth0"]
        {
            assert_eq!(name.parse::<Vector>(), Err(VectorError(name.to_owned())));
        }
    }

    #[test]
    fn hundreds_of_columns_are_counted() {
        let mut text = String::from("     ");
        (0..768).for_each(|cpu| write!(text, "{:<11}", format!("CPU{cpu}")).unwrap());
        text.push_str("\n 300: ");
        (0..768).for_each(|cpu| write!(text, "{cpu:>10} ").unwrap());
        text.push_str("IR-PCI-MSI 12582912-edge      nvme0q1\n");
        let table = Table::parse(&text);
        assert_eq!(table.cpus.len(), 768);
        assert_eq!(table.get(300).map(|i| (i.total(), i.name())), Some((294_528, "nvme0q1".into())));
        assert!(Table::parse_where(&text, |_, line| line.contains("vfio-")).interrupts.is_empty());
    }

    #[test]
    fn counts_beyond_the_word_do_not_overflow() {
        let table = Table::parse(&format!("CPU0 CPU1\n1: {0} {0} chip 1-edge x", u64::MAX));
        assert_eq!(table.get(1).map(Interrupt::total), Some(u64::MAX));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,200}", line in "[ 0-9a-zA-Z:\\-,\\[\\]()\n\t]{0,200}") {
            let _ = Table::parse(&text);
            let _ = Table::parse(&format!("CPU0 CPU1\n 5: {line}"));
            let _ = line.parse::<Vector>();
        }

        #[test]
        fn vectors_round_trip(domain: u32, bus: u8, device in 0u8..32, function in 0u8..8, index: u32) {
            let address = Bdf::new(domain, bus, device, function).unwrap();
            for kind in [VectorKind::Msix, VectorKind::Msi] {
                let vector = Vector { address, kind, index };
                prop_assert_eq!(vector.to_string().parse(), Ok(vector));
            }
        }
    }
}
