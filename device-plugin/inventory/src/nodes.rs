//! Nodes of single functions, which kernels with VFIO device files have.
//!
//! Source: the kernel's `Documentation/driver-api/vfio.rst`, "VFIO Device cdev".

use std::fs;
use std::path::{Path, PathBuf};

use pinion_device_plugin::{Offer, VfioNodes};
use pinion_machine::Bdf;

/// Of everything that is offered.
pub(crate) fn own(offer: &Offer) -> VfioNodes {
    let functions = offer.resources.iter().flat_map(|o| &o.units).flat_map(|unit| &unit.functions);
    functions.filter_map(|address| Some((*address, node(Path::new("/sys"), *address)?))).collect()
}

fn node(sys: &Path, address: Bdf) -> Option<PathBuf> {
    let folder = sys.join("bus/pci/devices").join(address.to_string()).join("vfio-dev");
    let entry = fs::read_dir(folder).ok()?.next()?.ok()?;
    // Kernels from 6.1 on number functions; the number of a node is there where they have nodes for them too (6.6, if so built).
    entry.path().join("dev").exists().then(|| Path::new("/dev/vfio/devices").join(entry.file_name()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_node_is_named_as_the_kernel_has_numbered_it() {
        let sys = tempfile::tempdir().unwrap();
        let address: Bdf = "31:00.0".parse().unwrap();
        assert_eq!(node(sys.path(), address), None);
        let numbered = sys.path().join("bus/pci/devices/0000:31:00.0/vfio-dev/vfio3");
        fs::create_dir_all(&numbered).unwrap();
        assert_eq!(node(sys.path(), address), None, "a kernel without nodes for functions");
        fs::write(numbered.join("dev"), "510:3\n").unwrap();
        assert_eq!(node(sys.path(), address), Some(PathBuf::from("/dev/vfio/devices/vfio3")));
    }
}
