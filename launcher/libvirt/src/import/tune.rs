//! Where threads and memory were, and what of that a spec says: dedicated CPUs, real time, the host's nodes.
//!
//! Numbers of the host's CPUs and nodes are the planner's to choose, on a host that need not be the one that the
//! document was written for.

use std::collections::{BTreeMap, BTreeSet};

use pinion_api::{Cpu, GuestMappingPassthrough, InstanceSpec, Numa, Realtime};

use super::cpu::ANEW;
use super::source::{Part, quoted};
use super::words::as_list;

/// Most pins that are read: more than there can be vCPUs.
const MOST_PINS: usize = 1024;
/// Priority that a real-time vCPU has.
const PRIORITY: u32 = 1;

pub(super) fn tune(domain: Part<'_>, spec: &mut InstanceSpec) {
    let vcpus = spec.topology().vcpus();
    let Some(cpu) = spec.domain.cpu.as_mut() else { return };
    if let Some(tune) = domain.child("cputune") {
        let pins = vcpu_pins(tune);
        if is_dedicated(&pins, vcpus) {
            tune.gives("spec.domain.cpu.dedicatedCpuPlacement");
            cpu.dedicated_cpu_placement = Some(true);
        }
        emulator(tune, &pins, cpu);
        io_threads(tune);
        realtime(tune, vcpus, cpu);
    }
    nodes(domain, cpu);
}

/// What each vCPU is pinned to.
fn vcpu_pins(tune: Part<'_>) -> BTreeMap<u32, BTreeSet<u32>> {
    let mut pins = BTreeMap::new();
    let mut first = None;
    for pin in tune.children("vcpupin").take(MOST_PINS) {
        first.get_or_insert(pin);
        if let (Some(vcpu), Some(cpus)) = (pin.number::<u32>("vcpu"), pin.cpus("cpuset")) {
            pins.insert(vcpu, cpus);
        }
    }
    if let Some(first) = first {
        let all: BTreeSet<u32> = pins.values().flatten().copied().collect();
        first.note(format!("the vCPUs were on CPUs {}: {ANEW}", as_list(&all)));
    }
    pins
}

/// Whether each vCPU has a CPU, and no two the same.
fn is_dedicated(pins: &BTreeMap<u32, BTreeSet<u32>>, vcpus: u32) -> bool {
    let mut taken = BTreeSet::new();
    let alone = |cpus: &BTreeSet<u32>| cpus.len() == 1 && cpus.iter().all(|cpu| taken.insert(*cpu));
    (0..vcpus).all(|vcpu| pins.contains_key(&vcpu)) && pins.values().all(alone)
}

fn emulator(tune: Part<'_>, pins: &BTreeMap<u32, BTreeSet<u32>>, cpu: &mut Cpu) {
    let Some(pin) = tune.child("emulatorpin") else { return };
    let Some(cpus) = pin.cpus("cpuset") else { return };
    pin.note(format!(
        "it was on CPUs {}: emulator threads live on the host's housekeeping CPUs",
        as_list(&cpus)
    ));
    let apart = pins.values().all(|own| own.is_disjoint(&cpus));
    if apart && cpu.dedicated_cpu_placement == Some(true) {
        pin.gives("spec.domain.cpu.isolateEmulatorThread");
        cpu.isolate_emulator_thread = Some(true);
    }
}

fn io_threads(tune: Part<'_>) {
    let mut pins = tune.children("iothreadpin").take(MOST_PINS).inspect(Part::whole);
    if let Some(first) = pins.next() {
        let count = 1 + pins.count();
        first.note(format!("I/O threads ({count}) were pinned: {ANEW}; ioThreadsPolicy: supplementalPool gives each a CPU of its own"));
    }
}

fn realtime(tune: Part<'_>, vcpus: u32, cpu: &mut Cpu) {
    let mut realtime = BTreeSet::new();
    let mut first = None;
    for class in tune.children("vcpusched").take(MOST_PINS) {
        let scheduler = class.attribute("scheduler").unwrap_or_default();
        let (Some(named), priority) = (class.cpus("vcpus"), class.number::<u32>("priority")) else {
            continue;
        };
        if !["fifo", "rr"].contains(&scheduler) {
            class.note(format!("the scheduling class {} is not carried over", quoted(scheduler)));
            continue;
        }
        if scheduler == "rr" {
            class.note("real-time vCPUs are SCHED_FIFO");
        }
        if priority.is_some_and(|priority| priority != PRIORITY) {
            class.note_attribute("priority", format!("real-time vCPUs have priority {PRIORITY}"));
        }
        first.get_or_insert(class);
        realtime.extend(named.into_iter().filter(|vcpu| *vcpu < vcpus));
    }
    let Some(first) = first.filter(|_| !realtime.is_empty()) else { return };
    first.gives("spec.domain.cpu.realtime");
    let all = u32::try_from(realtime.len()).is_ok_and(|count| count == vcpus);
    cpu.realtime = Some(Realtime { mask: (!all).then(|| as_list(&realtime)) });
    if cpu.dedicated_cpu_placement != Some(true) {
        first.note("real-time vCPUs need CPUs of their own: dedicatedCpuPlacement is set, which the pins did not ask for");
        cpu.dedicated_cpu_placement = Some(true);
    }
    pass_nodes_through(first, cpu);
}

fn pass_nodes_through(from: Part<'_>, cpu: &mut Cpu) {
    from.gives("spec.domain.cpu.numa");
    cpu.numa = Some(Numa { guest_mapping_passthrough: Some(GuestMappingPassthrough {}) });
}

/// The guest's cells, and the host's nodes that they were on.
fn nodes(domain: Part<'_>, cpu: &mut Cpu) {
    if let Some(tune) = domain.child("numatune") {
        let nodes = tune.children("memory").chain(tune.children("memnode")).take(MOST_PINS);
        let nodes: Vec<&str> = nodes.filter_map(|part| part.attribute("nodeset")).collect();
        tune.leave(format!("memory was on nodes {}: {ANEW}", quoted(&nodes.join(" "))));
    }
    let Some(numa) = domain.child("cpu").and_then(|element| element.child("numa")) else { return };
    let cells = numa.children("cell").count();
    numa.whole();
    if cells < 2 {
        return;
    }
    if cpu.dedicated_cpu_placement == Some(true) {
        numa.note(format!(
            "the guest had {cells} cells: it has one for each of the host's nodes that it is placed on"
        ));
        pass_nodes_through(numa, cpu);
    } else {
        numa.note(format!(
            "the guest had {cells} cells: without dedicated CPUs it has one where it fits on one node of the host"
        ));
    }
}
