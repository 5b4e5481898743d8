//! Discovery: fills in the hardware model from this host, an hwloc XML file, an
//! hwloc synthetic description, or a gathered sysfs tree.
//!
//! Called by the command line and the node agent, on any thread, at start-up and
//! when asked. It reads only; it must never write to the machine, decide anything
//! about placement, or trust what it reads: sysfs files, XML and descriptions are
//! bounded, checked, and named in errors. A file that is not there is a fact that is
//! not known, not an error.

#![forbid(unsafe_code)]

mod bars;
mod config_space;
mod cpus;
mod draft;
mod host_use;
mod hwloc;
mod iommu;
mod kernel;
mod mounts;
mod nodes;
mod os_devices;
mod pci;
mod pci_path;
mod power;
mod routes;
mod source;
mod sriov;
mod sysfs;
mod tree;
mod uevents;

use pinion_machine::{Machine, Source};

pub use hwloc::HwlocError;
pub use source::{From, FromError};
pub use tree::TreeError;
pub use uevents::{Uevent, Uevents};

/// Why a machine could not be read.
#[derive(Debug, thiserror::Error)]
pub enum DiscoverError {
    /// A file of this host or of the gathered tree.
    #[error("Could not read the machine from {from}")]
    Tree {
        /// The source.
        from: From,
        /// What was wrong.
        source: TreeError,
    },
    /// The XML file or the synthetic description.
    #[error("Could not read the machine from {from}")]
    Hwloc {
        /// The source.
        from: From,
        /// What was wrong.
        source: HwlocError,
    },
}

/// Reads anew what of a machine's memory can be had now: bytes that are available, and free huge pages. It costs a few files,
/// where the whole machine costs thousands. What is not read from files stays as it is.
///
/// # Errors
/// When a file is malformed.
pub fn refresh_memory(from: &From, machine: &mut Machine) -> Result<(), DiscoverError> {
    let failed = |source| DiscoverError::Tree { from: from.clone(), source };
    let tree = match from {
        From::Host => tree::Tree::host(),
        From::Sysfs(root) => tree::Tree::gathered(root).map_err(failed)?,
        From::Xml(_) | From::Synthetic(_) => return Ok(()),
    };
    let (nodes, _) = nodes::read(&tree, &machine.online()).map_err(failed)?;
    for read in nodes {
        let Some(known) = machine.nodes.iter_mut().find(|node| node.id == read.id) else { continue };
        known.available_bytes = read.available_bytes;
        known.huge_pages = read.huge_pages;
    }
    Ok(())
}

/// Reads a machine.
///
/// # Errors
/// When the source is not there, is not what it says, or names no CPU at all.
pub fn discover(from: &From) -> Result<Machine, DiscoverError> {
    let tree_error = |source| DiscoverError::Tree { from: from.clone(), source };
    let hwloc_error = |source| DiscoverError::Hwloc { from: from.clone(), source };
    match from {
        From::Host => {
            let mut draft = sysfs::read(&tree::Tree::host()).map_err(tree_error)?;
            if draft.l3.is_empty() {
                // Some hypervisors hide the caches from sysfs and not from CPUID, which hwloc reads.
                draft.l3 = hwloc::host_l3();
            }
            Ok(draft.into_machine(Source::Host))
        }
        From::Sysfs(root) => {
            let tree = tree::Tree::gathered(root).map_err(tree_error)?;
            let draft = sysfs::read(&tree).map_err(tree_error)?;
            Ok(draft.into_machine(Source::Sysfs(root.display().to_string())))
        }
        From::Xml(path) => {
            let draft = hwloc::xml(path).map_err(hwloc_error)?;
            Ok(draft.into_machine(Source::Xml(path.display().to_string())))
        }
        From::Synthetic(text) => {
            let draft = hwloc::synthetic(text).map_err(hwloc_error)?;
            Ok(draft.into_machine(Source::Synthetic(text.clone())))
        }
    }
}
