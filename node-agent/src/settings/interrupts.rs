//! Brings the vectors of passed-through devices to the CPUs of their guest.
//!
//! Called by the keeper when a guest has set vectors up, and about once a second. Nothing is recorded of MSI and MSI-X:
//! such a vector vanishes with the process that has the device. A legacy line stays, and is a setting of the host that
//! the survey changes and gives back. It must never move a line that another driver shares.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use pinion_interrupts::{Interrupt, Line, Vector, VectorKind};
use pinion_machine::CpuSet;
use pinion_planner::vector_cpu;

use super::host::Host;
use super::notice::{Notice, why};
use super::wish::Wanted;
use crate::settings::record::Setting;

/// Interrupts that only devices of guests raise, by number.
#[derive(Debug, Default)]
pub(super) struct Owned {
    /// MSI and MSI-X.
    pub(super) vectors: BTreeSet<u32>,
    /// Legacy lines, and the CPU that each should come to, as its file takes it.
    pub(super) lines: BTreeMap<u32, String>,
}

impl Owned {
    pub(super) fn of(host: &Host, wanted: &Wanted) -> io::Result<Self> {
        let mut owned = Self::default();
        if wanted.routes.is_empty() {
            return Ok(owned);
        }
        for interrupt in host.irqs.passed_through()?.interrupts.iter().filter(|i| is_owned(i, wanted)) {
            match line(interrupt).map(|vector| planned(wanted, vector)) {
                Some(Some(cpu)) => drop(owned.lines.insert(interrupt.irq, cpu)),
                Some(None) => {}
                None => drop(owned.vectors.insert(interrupt.irq)),
            }
        }
        Ok(owned)
    }
}

/// The legacy line of a device, if it is one.
fn line(interrupt: &Interrupt) -> Option<Vector> {
    interrupt.vectors().find(|v| v.kind == VectorKind::Intx)
}

fn planned(wanted: &Wanted, vector: Vector) -> Option<String> {
    let cpu = vector_cpu(wanted.routes.get(&vector.address)?, vector.index)?;
    Some(CpuSet::from_iter([cpu]).to_string())
}

fn is_owned(interrupt: &Interrupt, wanted: &Wanted) -> bool {
    let routed =
        |action: &String| action.parse::<Vector>().is_ok_and(|v| wanted.routes.contains_key(&v.address));
    !interrupt.actions.is_empty() && interrupt.actions.iter().all(routed)
}

/// Moves the vectors that are not where they should be, and tells those that cannot be moved.
pub(super) fn route(host: &Host, wanted: &Wanted) -> Vec<Notice> {
    if wanted.routes.is_empty() {
        return Vec::new();
    }
    // Without the table, the certificate says what is unknown.
    let Ok(table) = host.irqs.passed_through() else { return Vec::new() };
    table.interrupts.iter().filter_map(|interrupt| route_one(host, wanted, interrupt)).collect()
}

fn route_one(host: &Host, wanted: &Wanted, interrupt: &Interrupt) -> Option<Notice> {
    let vector = interrupt.vectors().find(|v| wanted.routes.contains_key(&v.address))?;
    let planned = planned(wanted, vector)?;
    let told =
        |why: String| Some(Notice::Unrouted { vector: vector.to_string(), planned: planned.clone(), why });
    if !is_owned(interrupt, wanted) {
        let others: Vec<&str> =
            interrupt.actions.iter().map(String::as_str).filter(|a| *a != vector.to_string()).collect();
        return told(format!("{} shares its line: have the guest's driver use MSI", others.join(", ")));
    }
    if line(interrupt).is_some() {
        return None;
    }
    let setting = Setting::Interrupt { irq: interrupt.irq };
    let placed = match host.read(&setting) {
        Ok(now) if now == planned => return None,
        Ok(_) => host.write(&setting, &planned),
        Err(e) => Err(e),
    };
    match placed {
        // Given up meanwhile.
        Err(_) if !host.irqs.path(Line::Number(interrupt.irq)).exists() => None,
        Err(e) => told(why(&e)),
        Ok(()) => None,
    }
}
