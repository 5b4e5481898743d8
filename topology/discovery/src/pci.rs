//! PCI functions of a tree.

use pinion_machine::{Bdf, NodeId, PciFunction, PciLink};

use crate::os_devices;
use crate::tree::{Tree, TreeError};

const DEVICES: &str = "sys/bus/pci/devices";

/// All functions; one that vanishes while being read is left out.
///
/// # Errors
/// When a file is malformed.
pub(crate) fn read(tree: &Tree) -> Result<Vec<PciFunction>, TreeError> {
    let mut functions = Vec::new();
    for name in tree.list(DEVICES)? {
        let Ok(address) = name.parse::<Bdf>() else { continue };
        let folder = format!("{DEVICES}/{name}");
        let ids = (id16(tree, &folder, "vendor")?, id16(tree, &folder, "device")?);
        let (Some(vendor), Some(device)) = ids else { continue };
        functions.push(PciFunction {
            address,
            vendor,
            device,
            class: tree.hex(&format!("{folder}/class"))?.unwrap_or(0),
            node: node(tree, &folder)?,
            iommu_group: tree.link_name(&format!("{folder}/iommu_group")).and_then(|g| g.parse().ok()),
            driver: tree.link_name(&format!("{folder}/driver")),
            link: link(tree, &folder),
            reset_methods: reset_methods(tree, &folder),
            os_devices: os_devices::of(tree, &folder)?,
            ..PciFunction::default()
        });
    }
    Ok(functions)
}

fn id16(tree: &Tree, folder: &str, file: &str) -> Result<Option<u16>, TreeError> {
    let path = format!("{folder}/{file}");
    let Some(id) = tree.hex(&path)? else { return Ok(None) };
    u16::try_from(id).map(Some).map_err(|_| tree.malformed(&path, &format!("{id:#x}"), "a 16-bit id"))
}

/// Minus one is what the kernel says where the firmware does not.
fn node(tree: &Tree, folder: &str) -> Result<Option<NodeId>, TreeError> {
    let id = tree.parse::<i64>(&format!("{folder}/numa_node"), "a node")?;
    Ok(id.and_then(|id| u32::try_from(id).ok()).map(NodeId))
}

fn link(tree: &Tree, folder: &str) -> Option<PciLink> {
    let width = |file| tree.label(&format!("{folder}/{file}"))?.parse::<u32>().ok();
    let speed = |file| speed(&tree.label(&format!("{folder}/{file}"))?);
    Some(PciLink {
        speed: speed("current_link_speed")?,
        width: width("current_link_width")?,
        max_speed: speed("max_link_speed")?,
        max_width: width("max_link_width")?,
    })
}

/// `8.0 GT/s PCIe`, in tenths; `None` for `Unknown`.
fn speed(text: &str) -> Option<u32> {
    let number = text.split_whitespace().next()?;
    let (whole, tenths) = number.split_once('.').unwrap_or((number, "0"));
    let tenths = tenths.get(..1)?.parse::<u32>().ok()?;
    whole.parse::<u32>().ok()?.checked_mul(10)?.checked_add(tenths)
}

fn reset_methods(tree: &Tree, folder: &str) -> Vec<String> {
    let methods = tree.label(&format!("{folder}/reset_method")).unwrap_or_default();
    methods.split_whitespace().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_speeds_are_tenths() {
        assert_eq!(speed("8.0 GT/s PCIe"), Some(80));
        assert_eq!(speed("2.5 GT/s PCIe"), Some(25));
        assert_eq!(speed("16 GT/s"), Some(160));
        for text in ["Unknown", "", "8.", "x.5", "4294967295.0 GT/s", "8.é"] {
            assert_eq!(speed(text), None, "{text}");
        }
    }
}
