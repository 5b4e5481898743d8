//! A machine from a tree of sysfs and procfs files.

use crate::draft::Draft;
use crate::tree::{Tree, TreeError};
use crate::{cpus, kernel, nodes, pci, power};

/// Reads everything that the tree has.
///
/// # Errors
/// When a file says what it cannot, or no CPU is online.
pub(crate) fn read(tree: &Tree) -> Result<Draft, TreeError> {
    let (online, offline) = cpus::online_and_offline(tree)?;
    let (nodes, distances) = nodes::read(tree, &online)?;
    Ok(Draft {
        cores: cpus::cores(tree, &online)?,
        l3: cpus::l3(tree, &online)?,
        nodes,
        distances,
        pci: pci::read(tree)?,
        kernel: kernel::read(tree, &online.union(&offline))?,
        power: power::read(tree, &online)?,
        models: cpus::models(tree)?,
        online,
        offline,
    })
}
