//! Which block devices hold mounted file systems or swap space, and what is stacked on what.
//!
//! Called once while a tree is read; [`crate::host_use`] asks for each function. The tables
//! of the kernel are taken as they are: lines that make no sense are passed over.

use std::collections::{BTreeMap, BTreeSet};

use crate::tree::{Tree, TreeError};

const BLOCK: &str = "sys/class/block";
/// Mounted file systems of this process, and of the first one, which sees the host's.
const TABLES: [&str; 2] = ["proc/self/mountinfo", "proc/1/mountinfo"];
/// No disk has more partitions, volumes and arrays on it.
const MAX_STACK: usize = 4096;
/// Of what is mounted in hundreds of places (a container host), that many are told.
const MAX_PLACES: usize = 16;

/// Where block devices are mounted, by the kernel's name of the device.
#[derive(Debug, Default)]
pub(crate) struct Mounts {
    places: BTreeMap<String, BTreeSet<String>>,
}

/// One line of a table.
#[derive(Debug, PartialEq, Eq)]
struct Mount {
    /// `259:2`.
    number: String,
    /// Which folder of the file system is mounted.
    root: String,
    at: String,
    source: String,
}

impl Mounts {
    /// Reads the tables.
    ///
    /// # Errors
    /// When a file that is there cannot be read.
    pub(crate) fn read(tree: &Tree) -> Result<Self, TreeError> {
        let names = Names::read(tree)?;
        let mut mounts = Vec::new();
        for table in TABLES {
            mounts.extend(tree.text(table)?.unwrap_or_default().lines().filter_map(parse));
        }
        let mut places: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        // A file system that is mounted whole is told by that, not by the folders of it that are bound elsewhere.
        for whole in [true, false] {
            let mut found: Vec<(String, String)> = Vec::new();
            for mount in mounts.iter().filter(|m| (m.root == "/") == whole) {
                let name = names.by_number.get(&mount.number).or_else(|| names.of_source(&mount.source));
                found.extend(name.map(|name| (name.clone(), mount.at.clone())));
            }
            found.retain(|(name, _)| !places.contains_key(name));
            for (name, at) in found {
                places.entry(name).or_default().insert(at);
            }
        }
        for line in tree.text("proc/swaps")?.unwrap_or_default().lines().skip(1) {
            let source = line.split_whitespace().next().map(unescaped);
            if let Some(name) = source.and_then(|s| names.of_source(&s).cloned()) {
                places.entry(name).or_default().insert("swap".into());
            }
        }
        let mut mounts = Self { places };
        mounts.spread(tree)?;
        Ok(mounts)
    }

    /// A btrfs of several devices is mounted by one of them.
    fn spread(&mut self, tree: &Tree) -> Result<(), TreeError> {
        for id in tree.list("sys/fs/btrfs")? {
            let members = tree.list(&format!("sys/fs/btrfs/{id}/devices"))?;
            let places = members.iter().filter_map(|m| self.places.get(m)).flatten();
            let places: BTreeSet<String> = places.filter(|at| *at != "swap").cloned().collect();
            for member in members {
                self.places.entry(member).or_default().extend(places.iter().cloned());
            }
        }
        Ok(())
    }

    /// What is mounted of these devices, of their partitions, and of all that is stacked on
    /// them: the device and where, sorted.
    ///
    /// # Errors
    /// When a folder cannot be read.
    pub(crate) fn on(
        &self,
        tree: &Tree,
        disks: &BTreeSet<String>,
    ) -> Result<Vec<(String, String)>, TreeError> {
        let mut found = Vec::new();
        for device in stacked(tree, disks)? {
            let places = self.places.get(&device).into_iter().flatten().take(MAX_PLACES);
            found.extend(places.map(|at| (device.clone(), at.clone())));
        }
        Ok(found)
    }
}

/// The disks, their partitions, and what holds any of them (device mapper, md, bcache).
fn stacked(tree: &Tree, disks: &BTreeSet<String>) -> Result<BTreeSet<String>, TreeError> {
    let mut left: Vec<String> = disks.iter().cloned().collect();
    let mut found = BTreeSet::new();
    while let Some(device) = left.pop() {
        if found.len() >= MAX_STACK || found.contains(&device) {
            continue;
        }
        let folder = format!("{BLOCK}/{device}");
        left.extend(tree.list(&format!("{folder}/holders"))?);
        let children = tree.list(&folder)?.into_iter().filter(|name| name.starts_with(&device));
        left.extend(children.filter(|name| tree.is_file(&format!("{folder}/{name}/partition"))));
        found.insert(device);
    }
    Ok(found)
}

/// Names of block devices, by what the tables call them.
#[derive(Debug, Default)]
struct Names {
    by_number: BTreeMap<String, String>,
    by_mapper_name: BTreeMap<String, String>,
}

impl Names {
    fn read(tree: &Tree) -> Result<Self, TreeError> {
        let mut names = Self::default();
        for name in tree.list(BLOCK)? {
            if let Some(mapper) = tree.label(&format!("{BLOCK}/{name}/dm/name")) {
                names.by_mapper_name.insert(mapper, name.clone());
            }
            // A disk whose number was not gathered is still found by its name.
            let number = tree.label(&format!("{BLOCK}/{name}/dev")).unwrap_or_else(|| name.clone());
            names.by_number.insert(number, name);
        }
        Ok(names)
    }

    /// The device of `/dev/nvme0n1p2` or `/dev/mapper/vg-root`.
    fn of_source(&self, source: &str) -> Option<&String> {
        let name = source.strip_prefix("/dev/")?;
        let mapped = name.strip_prefix("mapper/").and_then(|name| self.by_mapper_name.get(name));
        mapped.or_else(|| self.by_number.values().find(|known| *known == name))
    }
}

/// `36 35 259:2 / /home rw,noatime shared:1 - ext4 /dev/nvme0n1p2 rw`.
fn parse(line: &str) -> Option<Mount> {
    let (mount, file_system) = line.split_once(" - ")?;
    let mut words = mount.split(' ').skip(2);
    Some(Mount {
        number: words.next()?.to_owned(),
        root: unescaped(words.next()?),
        at: unescaped(words.next()?),
        source: unescaped(file_system.split(' ').nth(1)?),
    })
}

/// The kernel writes spaces and backslashes in paths as `\040` and `\134`. What else it
/// escapes are control characters, which people should not be shown.
fn unescaped(path: &str) -> String {
    path.replace("\\040", " ").replace("\\134", "\\").chars().filter(|c| !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_table_are_read() {
        let line = "36 35 259:2 / /my\\040home rw,noatime shared:1 master:2 - ext4 /dev/nvme0n1p2 rw";
        let mount = parse(line).unwrap();
        assert_eq!((mount.number.as_str(), mount.at.as_str()), ("259:2", "/my home"));
        assert_eq!((mount.root.as_str(), mount.source.as_str()), ("/", "/dev/nvme0n1p2"));
        for line in ["", "36 35", "36 35 0:1 / /x rw -", " - ", "36 35 0:1 / /x rw - ext4"] {
            assert_eq!(parse(line), None, "{line}");
        }
    }
}
