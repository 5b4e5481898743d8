//! What a guest in a pod must stay within: the machine and the ledger as they look from inside.
//!
//! Called by `plan` before anything else: after it, nobody knows of more than what was given.

use pinion_machine::{CoreId, Machine};

use crate::{Occupancy, Within};

/// The core of CPUs that were not given: no core has this number.
const NO_CORE: CoreId = CoreId(u32::MAX);

/// The machine with nothing but what was given, and who holds what of it.
///
/// - Cores have the CPUs that were given; where none was, there is no core. Other CPUs stay online, for housekeeping.
/// - Nodes whose memory was not given have none.
/// - CPUs that were given are floated over by no other guest, whatever the ledger says: whoever gave them has taken the
///   others off.
pub(crate) fn narrow(machine: &Machine, occupancy: &Occupancy, within: &Within) -> (Machine, Occupancy) {
    let mut inside = machine.clone();
    for core in &mut inside.cores {
        core.cpus = core.cpus.intersection(&within.cpus);
    }
    inside.cores.retain(|core| !core.cpus.is_empty());
    for cpu in inside.cpus.iter_mut().filter(|cpu| !within.cpus.contains(cpu.id)) {
        cpu.core = NO_CORE;
    }
    for node in inside.nodes.iter_mut().filter(|node| !within.memory.contains(&node.id)) {
        (node.memory_bytes, node.available_bytes) = (0, 0);
        node.huge_pages.clear();
    }
    let mut taken = occupancy.clone();
    if taken.housekeeping.is_disjoint(&machine.online()) {
        taken.housekeeping = Occupancy::default_housekeeping(machine);
    }
    for holding in &mut taken.holdings {
        holding.floating.clear();
        // Siblings of what others hold were given all the same.
        holding.cpus = holding.cpus.intersection(&within.cpus);
    }
    (inside, taken)
}
