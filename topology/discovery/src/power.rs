//! Governors and idle states of a tree.

use std::collections::BTreeMap;

use pinion_machine::{CpuId, CpuSet, Power};

use crate::tree::{Tree, TreeError};

/// Power facts of the CPUs that have any.
///
/// # Errors
/// When a file is malformed.
pub(crate) fn read(tree: &Tree, online: &CpuSet) -> Result<BTreeMap<CpuId, Power>, TreeError> {
    let mut known = BTreeMap::new();
    for cpu in online.iter() {
        let folder = format!("sys/devices/system/cpu/cpu{cpu}");
        let power = Power {
            governor: tree.label(&format!("{folder}/cpufreq/scaling_governor")),
            idle_states: idle_states(tree, &format!("{folder}/cpuidle"))?,
        };
        if power != Power::default() {
            known.insert(cpu, power);
        }
    }
    Ok(known)
}

/// Enabled idle states by name, with their exit latency in microseconds.
fn idle_states(tree: &Tree, folder: &str) -> Result<BTreeMap<String, u32>, TreeError> {
    let mut states = BTreeMap::new();
    for index in tree.numbered(folder, "state")? {
        let state = format!("{folder}/state{index}");
        if tree.parse::<u64>(&format!("{state}/disable"), "0 or 1")?.is_some_and(|off| off != 0) {
            continue;
        }
        let latency = tree.parse::<u32>(&format!("{state}/latency"), "microseconds")?;
        let name = tree.label(&format!("{state}/name")).unwrap_or_else(|| format!("state{index}"));
        if let Some(latency) = latency {
            states.insert(name, latency);
        }
    }
    Ok(states)
}
