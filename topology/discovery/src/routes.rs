//! Which network interfaces carry the host's default routes.
//!
//! Called once while a tree is read. A route over a bridge, bond or VLAN is carried by the
//! interfaces below it as well.

use std::collections::{BTreeMap, BTreeSet};

use crate::tree::{Tree, TreeError};

const NET: &str = "sys/class/net";
/// No interface is stacked on more.
const MAX_STACK: usize = 1024;
/// The route refuses packets (`RTF_REJECT`).
const REJECT: u32 = 0x200;

/// Interfaces, each with those with a default route that it carries.
#[derive(Debug, Default)]
pub(crate) struct Routes {
    carried: BTreeMap<String, BTreeSet<String>>,
}

impl Routes {
    /// Reads the routing tables.
    ///
    /// # Errors
    /// When a file that is there cannot be read.
    pub(crate) fn read(tree: &Tree) -> Result<Self, TreeError> {
        let mut routed: BTreeSet<String> = BTreeSet::new();
        let table = tree.text("proc/net/route")?.unwrap_or_default();
        routed.extend(table.lines().skip(1).filter_map(version_4).map(str::to_owned));
        let table = tree.text("proc/net/ipv6_route")?.unwrap_or_default();
        routed.extend(table.lines().filter_map(version_6).map(str::to_owned));
        let mut carried: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for interface in routed {
            for below in below(tree, &interface)? {
                carried.entry(below).or_default().insert(interface.clone());
            }
        }
        Ok(Self { carried })
    }

    /// The interfaces with a default route that one of these carries.
    pub(crate) fn over(&self, interfaces: &BTreeSet<String>) -> BTreeSet<String> {
        interfaces.iter().filter_map(|i| self.carried.get(i)).flatten().cloned().collect()
    }
}

/// The interface and all that it is stacked on.
fn below(tree: &Tree, interface: &str) -> Result<BTreeSet<String>, TreeError> {
    let mut left = vec![interface.to_owned()];
    let mut found = BTreeSet::new();
    while let Some(name) = left.pop() {
        if found.len() >= MAX_STACK || name.contains('/') || found.contains(&name) {
            continue;
        }
        let entries = tree.list(&format!("{NET}/{name}"))?;
        left.extend(entries.iter().filter_map(|e| e.strip_prefix("lower_")).map(str::to_owned));
        found.insert(name);
    }
    Ok(found)
}

/// The interface of a default route: `eth0 00000000 0101A8C0 0003 0 0 100 00000000 …`.
fn version_4(line: &str) -> Option<&str> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (interface, destination) = (words.first()?, words.get(1)?);
    let flags = words.get(3).and_then(|f| u32::from_str_radix(f, 16).ok())?;
    let everywhere = *destination == "00000000" && words.get(7).is_none_or(|mask| *mask == "00000000");
    (everywhere && flags & REJECT == 0).then_some(*interface)
}

/// As above; the line starts with the destination and its length, and ends with the interface.
fn version_6(line: &str) -> Option<&str> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (destination, length, flags, interface) =
        (words.first()?, words.get(1)?, words.get(8)?, words.get(9)?);
    let flags = u32::from_str_radix(flags, 16).ok()?;
    let everywhere = destination.bytes().all(|b| b == b'0') && *length == "00";
    (everywhere && flags & REJECT == 0 && *interface != "lo").then_some(*interface)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_default_routes_that_lead_somewhere_count() {
        assert_eq!(version_4("eth0\t00000000\t0101A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0"), Some("eth0"));
        for line in [
            "",
            "eth0 00000000",
            "eth0 0001A8C0 00000000 0001 0 0 100 00FFFFFF 0 0 0",
            "tun0 00000000 0101A8C0 0003 0 0 100 00000080 0 0 0",
            "* 00000000 00000000 0200 0 0 0 00000000 0 0 0",
        ] {
            assert_eq!(version_4(line), None, "{line}");
        }
        let zero = "00000000000000000000000000000000";
        let v6 = |destination: &str, length: &str, flags: &str, interface: &str| {
            format!("{destination} {length} {zero} 00 {zero} 00000400 00000001 00000000 {flags} {interface}")
        };
        assert_eq!(version_6(&v6(zero, "00", "00450003", "eth1")), Some("eth1"));
        assert_eq!(version_6(&v6(zero, "00", "00200200", "eth1")), None);
        assert_eq!(version_6(&v6(zero, "00", "00450003", "lo")), None);
        assert_eq!(version_6(&v6(zero, "08", "00450003", "eth1")), None);
        assert_eq!(version_6(&v6("fe800000000000000000000000000000", "00", "0", "eth1")), None);
    }
}
