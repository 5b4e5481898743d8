//! Whether an IOMMU translates for devices, and whether it remaps their interrupts.
//!
//! Called once while a tree is read. What the tree does not tell is `None`, never a guess.

use crate::tree::{Tree, TreeError};

/// What is known of the IOMMU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Iommu {
    /// Whether one is on.
    pub(crate) present: Option<bool>,
    /// Whether it remaps interrupts.
    pub(crate) remaps_interrupts: Option<bool>,
}

/// Reads both.
///
/// # Errors
/// When a folder or file cannot be read.
pub(crate) fn read(tree: &Tree) -> Result<Iommu, TreeError> {
    // A tree without any classes was gathered without them.
    let present =
        if tree.is_dir("sys/class") { Some(!tree.list("sys/class/iommu")?.is_empty()) } else { None };
    let interrupts = tree.text("proc/interrupts")?;
    let remapped = interrupts.map(|text| text.lines().any(is_remapped));
    let remaps_interrupts = remapped.filter(|remapped| *remapped || present == Some(true));
    Ok(Iommu { present, remaps_interrupts })
}

/// Whether the chip of a line of `/proc/interrupts` remaps: ` 24:  0  7  IR-PCI-MSI 65536-edge  ahci`.
fn is_remapped(line: &str) -> bool {
    let after_label = line.split_whitespace().skip(1);
    let mut after_counts = after_label.skip_while(|word| word.bytes().all(|b| b.is_ascii_digit()));
    after_counts.next().is_some_and(|chip| chip.starts_with("IR-"))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn facts(iommu: Option<&str>, interrupts: Option<&str>) -> (Option<bool>, Option<bool>) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        fs::create_dir_all(root.join("sys/devices/system/cpu")).unwrap();
        fs::create_dir_all(root.join("proc")).unwrap();
        if let Some(name) = iommu {
            fs::create_dir_all(root.join("sys/class/iommu").join(name)).unwrap();
        }
        if let Some(text) = interrupts {
            fs::write(root.join("proc/interrupts"), text).unwrap();
        }
        let found = read(&Tree::gathered(root).unwrap()).unwrap();
        (found.present, found.remaps_interrupts)
    }

    const PLAIN: &str =
        "      CPU0  CPU1\n 24:  0  7  PCI-MSI-0000:00:1f.2  0-edge  IR-named\nNMI:  0  0  Non\n";

    #[test]
    fn a_chip_that_remaps_is_seen() {
        let remapped = PLAIN.replace("PCI-MSI", "IR-PCI-MSI");
        assert_eq!(facts(Some("dmar0"), Some(&remapped)), (Some(true), Some(true)));
        assert_eq!(facts(Some("dmar0"), Some(PLAIN)), (Some(true), Some(false)));
        assert_eq!(facts(Some("dmar0"), None), (Some(true), None));
    }

    #[test]
    fn without_an_iommu_nothing_is_said_of_interrupts() {
        assert_eq!(facts(Some(""), Some(PLAIN)), (Some(false), None));
        assert_eq!(facts(None, Some(PLAIN)), (None, None), "sys/class was not gathered");
    }
}
