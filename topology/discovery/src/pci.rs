//! PCI functions of a tree.

use pinion_machine::{Bdf, MediatedDevice, NodeId, PciFunction, PciLink, Subsystem};

use crate::config_space::ConfigSpace;
use crate::host_use::HostUses;
use crate::tree::{Tree, TreeError};
use crate::{bars, os_devices, pci_path, sriov};

const DEVICES: &str = "sys/bus/pci/devices";

/// All functions; one that vanishes while being read is left out.
///
/// # Errors
/// When a file is malformed.
pub(crate) fn read(tree: &Tree) -> Result<Vec<PciFunction>, TreeError> {
    let uses = HostUses::read(tree)?;
    let mut functions = Vec::new();
    for name in tree.list(DEVICES)? {
        let Ok(address) = name.parse::<Bdf>() else { continue };
        functions.extend(function(tree, address, &format!("{DEVICES}/{name}"), &uses)?);
    }
    Ok(functions)
}

fn function(
    tree: &Tree,
    address: Bdf,
    folder: &str,
    uses: &HostUses,
) -> Result<Option<PciFunction>, TreeError> {
    let ids = (id16(tree, folder, "vendor")?, id16(tree, folder, "device")?);
    let (Some(vendor), Some(device)) = ids else { return Ok(None) };
    let (os_devices, mediated_types) = (os_devices::of(tree, folder)?, mediated_types(tree, folder)?);
    let ConfigSpace { msi_vectors, msix_vectors, acs, ats } = ConfigSpace::of(tree, folder);
    Ok(Some(PciFunction {
        address,
        vendor,
        device,
        class: tree.hex(&format!("{folder}/class"))?.unwrap_or(0),
        node: node(tree, folder)?,
        iommu_group: tree.link_name(&format!("{folder}/iommu_group")).and_then(|g| g.parse().ok()),
        driver: tree.link_name(&format!("{folder}/driver")),
        link: link(tree, folder),
        reset_methods: reset_methods(tree, folder),
        uses: uses.of(tree, address, folder, &os_devices)?,
        os_devices,
        subsystem: subsystem(tree, folder)?,
        root_port: pci_path::root_port(tree, folder, address),
        bars: bars::of(tree, folder)?,
        msi_vectors,
        msix_vectors,
        acs,
        ats,
        sriov: sriov::of(tree, folder)?,
        mediated_devices: if mediated_types.is_empty() {
            Vec::new()
        } else {
            mediated_devices(tree, folder)?
        },
        mediated_types,
    }))
}

/// Functions without subsystem ids (bridges) say zero.
fn subsystem(tree: &Tree, folder: &str) -> Result<Option<Subsystem>, TreeError> {
    let ids = (id16(tree, folder, "subsystem_vendor")?, id16(tree, folder, "subsystem_device")?);
    let (Some(vendor), Some(device)) = ids else { return Ok(None) };
    Ok((ids != (Some(0), Some(0))).then_some(Subsystem { vendor, device }))
}

fn mediated_types(tree: &Tree, folder: &str) -> Result<Vec<String>, TreeError> {
    let names = tree.list(&format!("{folder}/mdev_supported_types"))?;
    Ok(names.into_iter().filter(|name| !name.chars().any(char::is_control)).collect())
}

/// Each has a folder in that of its function, whose driver has types of them.
fn mediated_devices(tree: &Tree, folder: &str) -> Result<Vec<MediatedDevice>, TreeError> {
    let device = |name: String| {
        let (id, folder) = (name.parse().ok()?, format!("{folder}/{name}"));
        Some(MediatedDevice {
            id,
            type_id: tree.link_name(&format!("{folder}/mdev_type"))?,
            type_name: tree.label(&format!("{folder}/mdev_type/name")),
            iommu_group: tree.link_name(&format!("{folder}/iommu_group")).and_then(|g| g.parse().ok()),
        })
    };
    Ok(tree.list(folder)?.into_iter().filter_map(device).collect())
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

/// Kernels before 5.15 do not say how, only that they can.
fn reset_methods(tree: &Tree, folder: &str) -> Vec<String> {
    match tree.label(&format!("{folder}/reset_method")) {
        Some(methods) => methods.split_whitespace().map(str::to_owned).collect(),
        None if tree.is_file(&format!("{folder}/reset_method")) => Vec::new(),
        None if tree.is_file(&format!("{folder}/reset")) => vec!["unnamed".to_owned()],
        None => Vec::new(),
    }
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
