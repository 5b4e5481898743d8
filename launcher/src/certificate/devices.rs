//! Where the interrupts of passed-through devices come, held against the placement.
//!
//! Called by the auditor and the judgement on the launcher's main thread. Reads `/proc`; must never move
//! an interrupt: whoever has the privilege does.

use pinion_interrupts::{Affinity, IrqFiles, Vector, VectorKind};
use pinion_planner::vector_cpu;

use super::document::{Check, DeviceFacts, Item, VectorFacts, Verdict};
use super::plan::{Plan, PlannedDevice};

/// A vector as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedVector {
    /// Its number on the host.
    pub irq: u32,
    /// The device, and its number there.
    pub vector: Vector,
    /// Where it may come and does.
    pub affinity: Affinity,
    /// How often it came.
    pub count: u64,
    /// Whether the reading before had it already.
    pub seen_before: bool,
}

/// The vectors of all passed-through devices.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceObservation {
    /// Vectors that are in use.
    pub vectors: Vec<ObservedVector>,
    /// Why they could not be read, where they could not.
    pub unreadable: Option<String>,
}

/// Reads the vectors of the plan's devices.
#[must_use]
pub fn observe_devices(plan: &Plan, files: &IrqFiles, before: &DeviceObservation) -> DeviceObservation {
    let table = match files.passed_through() {
        Ok(table) => table,
        Err(e) => {
            let unreadable = Some(format!("Cannot read /proc/interrupts: {e}"));
            return DeviceObservation { vectors: Vec::new(), unreadable };
        }
    };
    let ours = |v: &Vector| plan.devices.iter().any(|d| d.address == v.address);
    let mut vectors = Vec::new();
    for interrupt in &table.interrupts {
        let Some(vector) = interrupt.vectors().find(ours) else { continue };
        // Given up between the two readings.
        let Ok(affinity) = files.affinity(interrupt.irq) else { continue };
        let seen_before = before.vectors.iter().any(|v| (v.irq, v.vector) == (interrupt.irq, vector));
        let count = interrupt.total();
        vectors.push(ObservedVector { irq: interrupt.irq, vector, affinity, count, seen_before });
    }
    vectors.sort_by_key(|v| (v.vector, v.irq));
    DeviceObservation { vectors, unreadable: None }
}

/// One item for each vector; one for a device that has none yet.
pub(super) fn judge(plan: &Plan, observation: &DeviceObservation) -> Vec<Item> {
    plan.devices.iter().flat_map(|device| judge_device(device, observation)).collect()
}

fn judge_device(device: &PlannedDevice, observation: &DeviceObservation) -> Vec<Item> {
    if device.interrupt_cpus.is_empty() {
        return Vec::new();
    }
    let item = |observed: &str, verdict, reason| Item {
        subject: format!("device/{}", device.name),
        check: Check::Interrupts,
        planned: device.interrupt_cpus.to_string(),
        observed: observed.to_owned(),
        verdict,
        reason,
    };
    if let Some(why) = &observation.unreadable {
        return vec![item("unknown", Verdict::Unverifiable, Some(why.clone()))];
    }
    let vectors: Vec<Item> = of(device, observation).map(|vector| judge_vector(device, vector)).collect();
    if vectors.is_empty() {
        return vec![item("no vector is in use", Verdict::Holds, None)];
    }
    vectors
}

fn judge_vector(device: &PlannedDevice, observed: &ObservedVector) -> Item {
    let ObservedVector { irq, vector, affinity, seen_before, .. } = observed;
    let planned = vector_cpu(&device.interrupt_cpus, vector.index);
    let right = affinity.effective.iter().all(|cpu| Some(cpu) == planned);
    let (verdict, reason) = match (right, seen_before) {
        (true, _) => (Verdict::Holds, None),
        // The guest's driver makes vectors when it likes; they are brought to their place right after.
        (false, false) => (Verdict::Unverifiable, Some("It is new and on its way there".to_owned())),
        (false, true) => (Verdict::Drifted, None),
    };
    Item {
        subject: format!("device/{}/{}/{} (interrupt {irq})", device.name, kind(vector.kind), vector.index),
        check: Check::Interrupts,
        planned: planned.map(|cpu| cpu.to_string()).unwrap_or_default(),
        observed: affinity.effective.to_string(),
        verdict,
        reason,
    }
}

/// What is known of each device.
pub(super) fn facts(plan: &Plan, observation: &DeviceObservation) -> Vec<DeviceFacts> {
    let vector = |device: &PlannedDevice, v: &ObservedVector| VectorFacts {
        kind: kind(v.vector.kind).to_owned(),
        index: v.vector.index,
        irq: v.irq,
        planned_cpu: vector_cpu(&device.interrupt_cpus, v.vector.index),
        effective_cpus: v.affinity.effective.clone(),
        count: v.count,
    };
    let facts = |device: &PlannedDevice| DeviceFacts {
        name: device.name.clone(),
        address: device.address,
        interrupt_cpus: device.interrupt_cpus.clone(),
        vectors: of(device, observation).map(|v| vector(device, v)).collect(),
    };
    plan.devices.iter().map(facts).collect()
}

fn of<'a>(
    device: &PlannedDevice,
    observation: &'a DeviceObservation,
) -> impl Iterator<Item = &'a ObservedVector> {
    let address = device.address;
    observation.vectors.iter().filter(move |v| v.vector.address == address)
}

const fn kind(kind: VectorKind) -> &'static str {
    match kind {
        VectorKind::Msix => "msix",
        VectorKind::Msi => "msi",
        VectorKind::Intx => "intx",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;

    use pinion_machine::CpuSet;

    use super::*;

    fn plan(cpus: &str) -> Plan {
        let device = |name: &str, address: &str| PlannedDevice {
            name: name.into(),
            address: address.parse().unwrap(),
            interrupt_cpus: cpus.parse().unwrap(),
        };
        Plan {
            name: "default/a".into(),
            threads: BTreeMap::new(),
            helpers: &[],
            may_narrow: false,
            emulator: CpuSet::new(),
            cells: vec![],
            locked: false,
            devices: vec![device("drive", "0000:31:00.0"), device("idle", "0000:32:00.0")],
        }
    }

    fn verdicts(plan: &Plan, observation: &DeviceObservation) -> Vec<(String, String, String, Verdict)> {
        let row = |i: Item| (i.subject, i.planned, i.observed, i.verdict);
        judge(plan, observation).into_iter().map(row).collect()
    }

    #[test]
    fn vectors_are_held_against_their_turn_and_new_ones_are_given_time() {
        let proc = tempfile::tempdir().unwrap();
        let irq = |number: u32, effective: &str| {
            let folder = proc.path().join(format!("irq/{number}"));
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("smp_affinity_list"), "0-7\n").unwrap();
            fs::write(folder.join("effective_affinity_list"), format!("{effective}\n")).unwrap();
        };
        let table = "CPU0 CPU1\n 40: 1 2 IR-PCI-MSI 1-edge vfio-msix[0](0000:31:00.0)\n \
            41: 0 5 IR-PCI-MSI 2-edge vfio-msix[1](0000:31:00.0)\n 42: 9 9 IR-PCI-MSI 3-edge eth0\n";
        fs::write(proc.path().join("interrupts"), table).unwrap();
        irq(40, "0");
        irq(41, "5");
        let files = IrqFiles::below(proc.path());
        let plan = plan("0,8");
        let first = observe_devices(&plan, &files, &DeviceObservation::default());
        let row = |subject: &str, planned: &str, observed: &str, verdict| {
            (subject.to_owned(), planned.to_owned(), observed.to_owned(), verdict)
        };
        let zero = row("device/drive/msix/0 (interrupt 40)", "0", "0", Verdict::Holds);
        let one = |verdict| row("device/drive/msix/1 (interrupt 41)", "8", "5", verdict);
        let idle = row("device/idle", "0,8", "no vector is in use", Verdict::Holds);
        assert_eq!(verdicts(&plan, &first), [zero.clone(), one(Verdict::Unverifiable), idle.clone()]);
        let second = observe_devices(&plan, &files, &first);
        assert_eq!(verdicts(&plan, &second), [zero, one(Verdict::Drifted), idle]);
        let facts = facts(&plan, &second);
        assert_eq!(facts.iter().map(|f| f.vectors.len()).collect::<Vec<_>>(), [2, 0]);
        assert_eq!((facts[0].vectors[1].irq, facts[0].vectors[1].count), (41, 5));
    }

    #[test]
    fn nothing_is_claimed_of_what_was_not_planned_or_cannot_be_read() {
        let nowhere = tempfile::tempdir().unwrap();
        let observe = |plan: &Plan| {
            observe_devices(plan, &IrqFiles::below(nowhere.path()), &DeviceObservation::default())
        };
        assert!(judge(&plan(""), &observe(&plan(""))).is_empty());
        let unread = verdicts(&plan("3"), &observe(&plan("3")));
        assert!(unread.iter().all(|(.., verdict)| *verdict == Verdict::Unverifiable), "{unread:?}");
    }
}
