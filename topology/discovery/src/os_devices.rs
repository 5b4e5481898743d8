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
    names.extend(tree.list(folder)?.iter().filter_map(|name| disk(name)));
    if names.len() == before && is_device(controller) {
        names.push(controller.to_owned());
    }
    Ok(())
}

/// The disk that people see: `nvme0n1` itself, or the one that path `nvme0c1n1` leads to.
fn disk(name: &str) -> Option<String> {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let (head, namespace) = name.strip_prefix("nvme")?.split_once('n')?;
    let (subsystem, path) = head.split_once('c').unwrap_or((head, "0"));
    let is_disk = digits(subsystem) && digits(path) && digits(namespace) && is_device(name);
    is_disk.then(|| format!("nvme{subsystem}n{namespace}"))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_nvme_multipath_are_told_as_their_disk() {
        assert_eq!(disk("nvme0n1").as_deref(), Some("nvme0n1"));
        assert_eq!(disk("nvme0c1n12").as_deref(), Some("nvme0n12"));
        for name in ["nvme0", "nvme0n1p1", "hwmon3", "ng0n1", "nvmen1", "nvme0cn1", "power"] {
            assert_eq!(disk(name), None, "{name}");
        }
    }
}
