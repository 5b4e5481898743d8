//! The operating system's devices on a PCI function: network interfaces, disks, InfiniBand
//! and DRM devices.

use crate::tree::{Tree, TreeError};

/// Folders whose entries are devices that people know by name.
const CLASSES: [&str; 4] = ["net", "block", "infiniband", "drm"];
/// Disks lie below `ataN/hostN/targetN/N:N:N:N/block`; nothing is deeper.
const MAX_DEPTH: u32 = 6;

/// Names, sorted.
///
/// # Errors
/// When a folder cannot be read.
pub(crate) fn of(tree: &Tree, folder: &str) -> Result<Vec<String>, TreeError> {
    let mut names = Vec::new();
    collect(tree, folder, MAX_DEPTH, &mut names)?;
    names.sort();
    names.dedup();
    Ok(names)
}

fn collect(tree: &Tree, folder: &str, depth: u32, names: &mut Vec<String>) -> Result<(), TreeError> {
    for entry in tree.list(folder)? {
        let path = format!("{folder}/{entry}");
        if CLASSES.contains(&entry.as_str()) {
            names.extend(tree.list(&path)?.into_iter().filter(|name| is_device(name)));
        } else if entry == "nvme" {
            for controller in tree.list(&path)? {
                namespaces(tree, &format!("{path}/{controller}"), &controller, names)?;
            }
        } else if depth > 0 && leads_to_devices(&entry) {
            collect(tree, &path, depth - 1, names)?;
        }
    }
    Ok(())
}

/// The disks of an NVMe controller, or itself where it has none.
fn namespaces(tree: &Tree, folder: &str, controller: &str, names: &mut Vec<String>) -> Result<(), TreeError> {
    let before = names.len();
    let is_disk = |name: &String| name.starts_with(controller) && !name.contains('c');
    names.extend(tree.list(folder)?.into_iter().filter(is_disk).filter(|name| is_device(name)));
    if names.len() == before && is_device(controller) {
        names.push(controller.to_owned());
    }
    Ok(())
}

/// Children of a function on the way to a device: `virtio3`, `ata1`, `host0`, `target0:0:0`,
/// `0:0:0:0`. Functions behind a bridge (`0000:01:00.0`) are not.
fn leads_to_devices(name: &str) -> bool {
    ["virtio", "ata", "host", "target"].iter().any(|prefix| name.starts_with(prefix))
        || (name.split(':').count() == 4 && name.chars().all(|c| c.is_ascii_digit() || c == ':'))
}

fn is_device(name: &str) -> bool {
    name.len() <= 64 && !name.chars().any(char::is_control) && name != "version"
}
