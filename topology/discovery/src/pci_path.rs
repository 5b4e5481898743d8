//! Where a device hangs: the PCI functions in the path that its sysfs link points to, such
//! as `../../../devices/pci0000:3a/0000:3a:00.0/0000:3b:00.0/nvme/nvme0/nvme0n1`.

use pinion_machine::Bdf;

use crate::tree::Tree;

/// The functions on the way to a device, from its root bus down. A root bus may itself hang
/// below a function (Intel VMD): only those below the last one count.
pub(crate) fn functions(tree: &Tree, link: &str) -> Vec<Bdf> {
    let parts = tree.link_parts(link);
    let Some(bus) = parts.iter().rposition(|part| is_root_bus(part)) else { return Vec::new() };
    parts.iter().skip(bus + 1).map_while(|part| part.parse().ok()).collect()
}

/// The root port of a function; `None` for one on the root bus itself.
pub(crate) fn root_port(tree: &Tree, link: &str, address: Bdf) -> Option<Bdf> {
    functions(tree, link).first().copied().filter(|first| *first != address)
}

/// `pci0000:3a`.
fn is_root_bus(part: &str) -> bool {
    let hex = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_hexdigit());
    let numbers = part.strip_prefix("pci").and_then(|rest| rest.split_once(':'));
    numbers.is_some_and(|(domain, bus)| hex(domain) && hex(bus))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(target: &str) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("sys/devices/system/cpu")).unwrap();
        std::os::unix::fs::symlink(target, dir.path().join("sys/x")).unwrap();
        let tree = Tree::gathered(dir.path()).unwrap();
        functions(&tree, "sys/x").iter().map(Bdf::to_string).collect()
    }

    #[test]
    fn functions_are_in_the_order_of_the_path() {
        let path = "../devices/pci0000:3a/0000:3a:00.0/0000:3b:00.0/nvme/nvme0/nvme0n1";
        assert_eq!(found(path), ["0000:3a:00.0", "0000:3b:00.0"]);
        let behind_vmd = "../devices/pci0000:00/0000:00:0e.0/pci10000:00/10000:00:02.0/10000:01:00.0";
        assert_eq!(found(behind_vmd), ["10000:00:02.0", "10000:01:00.0"]);
        assert!(found("../devices/virtual/net/lo").is_empty());
        assert!(found("../devices/pci:/0000:3a:00.0").is_empty());
    }
}
