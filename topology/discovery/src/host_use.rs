//! What the host itself uses PCI functions for: file systems, swap, the network, the console.
//!
//! Called once while a tree is read, then for each function. It errs towards use: a function
//! that only looks used is refused with the reason, one that only looks free takes the
//! host's disk away.

use std::collections::{BTreeMap, BTreeSet};

use pinion_machine::{Bdf, HostUse};

use crate::mounts::Mounts;
use crate::pci_path;
use crate::routes::Routes;
use crate::tree::{Tree, TreeError};

const BLOCK: &str = "sys/class/block";
const NET: &str = "sys/class/net";

/// What is known of all functions.
#[derive(Debug)]
pub(crate) struct HostUses {
    mounts: Mounts,
    routes: Routes,
    /// Devices by the function that they hang off, however far below (USB, expanders).
    disks: BTreeMap<Bdf, BTreeSet<String>>,
    interfaces: BTreeMap<Bdf, BTreeSet<String>>,
}

impl HostUses {
    /// Reads what does not belong to a single function.
    ///
    /// # Errors
    /// When a file that is there cannot be read.
    pub(crate) fn read(tree: &Tree) -> Result<Self, TreeError> {
        Ok(Self {
            mounts: Mounts::read(tree)?,
            routes: Routes::read(tree)?,
            disks: by_function(tree, BLOCK)?,
            interfaces: by_function(tree, NET)?,
        })
    }

    /// The uses of the function with this folder and these devices of the operating system.
    ///
    /// # Errors
    /// When a folder cannot be read.
    pub(crate) fn of(
        &self,
        tree: &Tree,
        address: Bdf,
        folder: &str,
        os_devices: &[String],
    ) -> Result<Vec<HostUse>, TreeError> {
        // A driver's own listing counts too: heads of NVMe multipath hang off no function.
        let devices = |by_function: &BTreeMap<Bdf, BTreeSet<String>>| {
            let mut devices = by_function.get(&address).cloned().unwrap_or_default();
            devices.extend(os_devices.iter().cloned());
            devices
        };
        let mut uses: Vec<HostUse> = Vec::new();
        for (device, at) in self.mounts.on(tree, &devices(&self.disks))? {
            uses.push(HostUse::Mounted { device, at });
        }
        let routed = self.routes.over(&devices(&self.interfaces));
        uses.extend(routed.into_iter().map(|interface| HostUse::DefaultRoute { interface }));
        if tree.label(&format!("{folder}/boot_vga")).as_deref() == Some("1") {
            uses.push(HostUse::Console);
        }
        Ok(uses)
    }
}

/// The devices of a class by the last function on the way to them.
fn by_function(tree: &Tree, class: &str) -> Result<BTreeMap<Bdf, BTreeSet<String>>, TreeError> {
    let mut devices: BTreeMap<Bdf, BTreeSet<String>> = BTreeMap::new();
    for name in tree.list(class)? {
        if let Some(address) = pci_path::functions(tree, &format!("{class}/{name}")).last() {
            devices.entry(*address).or_default().insert(name);
        }
    }
    Ok(devices)
}
