//! Brings the vectors of passed-through devices to the CPUs of their guest.
//!
//! Called by the keeper when a guest has set vectors up, and about once a second. Nothing is recorded: a vector
//! vanishes with the process that has the device. It must never move a line that another driver shares.

use std::collections::BTreeSet;
use std::io;

use pinion_interrupts::{Interrupt, Line, Vector};
use pinion_machine::CpuSet;
use pinion_planner::vector_cpu;

use super::host::Host;
use super::notice::{Notice, why};
use super::wish::Wanted;
use crate::settings::record::Setting;

/// Numbers of the interrupts that only devices of guests raise.
pub(super) fn owned(host: &Host, wanted: &Wanted) -> io::Result<BTreeSet<u32>> {
    if wanted.routes.is_empty() {
        return Ok(BTreeSet::new());
    }
    let table = host.irqs.passed_through()?;
    Ok(table.interrupts.iter().filter(|i| is_owned(i, wanted)).map(|i| i.irq).collect())
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
    let cpu = vector_cpu(wanted.routes.get(&vector.address)?, vector.index)?;
    let planned = CpuSet::from_iter([cpu]).to_string();
    let told =
        |why: String| Some(Notice::Unrouted { vector: vector.to_string(), planned: planned.clone(), why });
    if !is_owned(interrupt, wanted) {
        let others: Vec<&str> =
            interrupt.actions.iter().map(String::as_str).filter(|a| *a != vector.to_string()).collect();
        return told(format!("{} shares its line: have the guest's driver use MSI", others.join(", ")));
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
