//! Holds what was read against what was planned, item by item. Pure.

use jiff::Timestamp;

use super::census::Census;
use super::devices::{self, DeviceObservation};
use super::document::{API_VERSION, CellFacts, Certificate, Check, Item, KIND, Role, ThreadFacts, Verdict};
use super::observe::{MemoryObservation, Observation, Subjects};
use super::plan::{Plan, PlannedCell};

/// When what was read.
#[derive(Clone, Copy, Debug)]
pub struct Reading<'a> {
    /// Counts the checks.
    pub sequence: u64,
    /// When the threads were read.
    pub threads_at: Timestamp,
    /// The threads.
    pub threads: &'a Observation,
    /// When the memory was counted.
    pub memory_at: Timestamp,
    /// The memory.
    pub memory: &'a MemoryObservation,
    /// The interrupts of passed-through devices.
    pub devices: &'a DeviceObservation,
}

/// Writes the certificate of one reading.
#[must_use]
pub fn judge(plan: &Plan, subjects: &Subjects, reading: &Reading<'_>) -> Certificate {
    let mut items = judge_threads(plan, reading.threads);
    let mut cells = Vec::new();
    for cell in &plan.cells {
        match reading.memory.cells.get(&cell.id) {
            Some(Ok(census)) => {
                items.extend(judge_cell(cell, census));
                cells.push(cell_facts(cell, census, subjects));
            }
            Some(Err(reason)) => items.push(unverifiable_cell(cell, reason)),
            None => items.push(unverifiable_cell(cell, "The backend does not say where it lies")),
        }
    }
    items.extend(devices::judge(plan, reading.devices));
    items.extend(plan.locked.then(|| judge_lock(plan, reading.memory)));
    let verdict = items.iter().map(|i| i.verdict).max().unwrap_or(Verdict::Unverifiable);
    let mismatches = items.iter().filter(|i| i.verdict != Verdict::Holds).map(Item::to_string).collect();
    Certificate {
        api_version: API_VERSION.into(),
        kind: KIND.into(),
        name: plan.name.clone(),
        pid: subjects.pid,
        sequence: reading.sequence,
        checked_at: reading.threads_at,
        memory_checked_at: reading.memory_at,
        verdict,
        items,
        mismatches,
        threads: reading.threads.threads.iter().filter_map(|(_, _, facts)| facts.clone()).collect(),
        cells,
        devices: devices::facts(plan, reading.devices),
    }
}

fn judge_threads(plan: &Plan, observation: &Observation) -> Vec<Item> {
    if let Some(reason) = &observation.threads_unreadable {
        let unread = |(role, thread): (&Role, &super::plan::PlannedThread)| Item {
            subject: subject(*role, None),
            check: Check::Cpus,
            planned: thread.cpus.to_string(),
            observed: "unknown".into(),
            verdict: Verdict::Unverifiable,
            reason: Some(reason.clone()),
        };
        return plan.threads.iter().map(unread).collect();
    }
    let mut items = Vec::new();
    // A planned thread that the backend never made.
    for role in plan.threads.keys() {
        if !observation.threads.iter().any(|(found, ..)| found == role) {
            items.push(gone(*role, "never created"));
        }
    }
    for (role, tid, facts) in &observation.threads {
        match facts {
            Some(facts) => items.extend(judge_thread(plan, facts)),
            None => items.push(gone(*role, &format!("thread {tid} has ended"))),
        }
    }
    items
}

fn gone(role: Role, observed: &str) -> Item {
    Item {
        subject: subject(role, None),
        check: Check::Alive,
        planned: "running".into(),
        observed: observed.into(),
        verdict: Verdict::Drifted,
        reason: None,
    }
}

fn judge_thread(plan: &Plan, facts: &ThreadFacts) -> Vec<Item> {
    let Some(planned) = plan.thread_of(facts) else { return Vec::new() };
    let subject = subject(facts.role, Some(facts));
    let agrees = |holds: bool| if holds { Verdict::Holds } else { Verdict::Drifted };
    let item = |check, planned: String, observed: String, verdict| Item {
        subject: subject.clone(),
        check,
        planned,
        observed,
        verdict,
        reason: None,
    };
    // What is left of CPUs that are shared with others is right; a CPU to itself is all or nothing.
    let narrowed = plan.may_narrow
        && planned.cpus.len() > 1
        && !facts.allowed_cpus.is_empty()
        && facts.allowed_cpus.is_subset(&planned.cpus);
    let allowed_agrees = narrowed || facts.allowed_cpus == planned.cpus;
    let mut last = item(
        Check::LastCpu,
        planned.cpus.to_string(),
        facts.last_cpu.to_string(),
        agrees(planned.cpus.contains(facts.last_cpu)),
    );
    if last.verdict == Verdict::Drifted && allowed_agrees && !facts.runnable {
        // The kernel updates it when the thread wakes. A vCPU or I/O thread was born in its place and
        // has no other past; an emulator thread may be one that the kernel made and we moved.
        last.verdict = if facts.role == Role::Emulator { Verdict::Holds } else { Verdict::Unverifiable };
        last.reason = Some("It has slept since its CPUs were set and will wake on them".into());
    }
    let cpus = facts.allowed_cpus.to_string();
    let class = facts.scheduling.to_string();
    vec![
        item(Check::Cpus, planned.cpus.to_string(), cpus, agrees(allowed_agrees)),
        last,
        item(
            Check::Scheduling,
            planned.scheduling.to_string(),
            class,
            agrees(facts.scheduling == planned.scheduling),
        ),
    ]
}

fn subject(role: Role, facts: Option<&ThreadFacts>) -> String {
    match (role, facts) {
        (Role::Vcpu(id) | Role::IoThread(id), _) => format!("{}/{id}", role.as_str()),
        (Role::Emulator, Some(facts)) => format!("{}/{}:{}", role.as_str(), facts.name, facts.tid),
        (Role::Emulator, None) => role.as_str().into(),
    }
}

fn judge_cell(cell: &PlannedCell, census: &Census) -> [Item; 2] {
    let sizes: Vec<_> = census.page_sizes.iter().map(ToString::to_string).collect();
    let right_size = census.page_sizes == [cell.page_size];
    let right_pages = misplaced(cell, census) == 0 && missing(cell, census) == 0;
    let item = |check, planned: String, observed: String, holds: bool| Item {
        subject: format!("cell/{}", cell.id),
        check,
        planned,
        observed,
        verdict: if holds { Verdict::Holds } else { Verdict::Drifted },
        reason: None,
    };
    let planned_pages = format!("{} on node {}", cell.pages(), cell.host_node);
    let observed_sizes = if sizes.is_empty() { "none".into() } else { sizes.join(", ") };
    [
        item(Check::PageSize, cell.page_size.to_string(), observed_sizes, right_size),
        item(Check::Pages, planned_pages, page_text(cell, census), right_pages),
    ]
}

fn page_text(cell: &PlannedCell, census: &Census) -> String {
    let mut parts: Vec<_> =
        census.pages.iter().map(|(node, pages)| format!("{pages} on node {node}")).collect();
    if missing(cell, census) > 0 {
        parts.push(format!("{} missing", missing(cell, census)));
    }
    if parts.is_empty() { "none".into() } else { parts.join(", ") }
}

fn misplaced(cell: &PlannedCell, census: &Census) -> u64 {
    let elsewhere = census.pages.iter().filter(|(node, _)| **node != cell.host_node);
    elsewhere.fold(0, |sum, (_, &pages)| sum.saturating_add(pages))
}

fn missing(cell: &PlannedCell, census: &Census) -> u64 {
    let found = census.pages.values().fold(0u64, |sum, &pages| sum.saturating_add(pages));
    cell.pages().saturating_sub(found)
}

fn cell_facts(cell: &PlannedCell, census: &Census, subjects: &Subjects) -> CellFacts {
    let ranges = subjects.cells.iter().filter(|(id, _)| *id == cell.id).flat_map(|(_, ranges)| ranges);
    CellFacts {
        id: cell.id,
        host_node: cell.host_node,
        page_size_bytes: census.page_sizes.first().copied().unwrap_or(cell.page_size),
        memory_bytes: cell.bytes,
        pages_per_node: census.pages.clone(),
        misplaced_pages: misplaced(cell, census),
        missing_pages: missing(cell, census),
        ranges: ranges.map(|r| (r.start, r.bytes)).collect(),
    }
}

fn unverifiable_cell(cell: &PlannedCell, reason: &str) -> Item {
    Item {
        subject: format!("cell/{}", cell.id),
        check: Check::Pages,
        planned: format!("{} on node {}", cell.pages(), cell.host_node),
        observed: "unknown".into(),
        verdict: Verdict::Unverifiable,
        reason: Some(reason.into()),
    }
}

/// Huge pages are never swapped; ordinary ones count against `VmLck` once locked.
fn judge_lock(plan: &Plan, memory: &MemoryObservation) -> Item {
    let ordinary = plan.cells.iter().filter(|c| !c.page_size.is_huge());
    let needed = ordinary.fold(0u64, |sum, cell| sum.saturating_add(cell.bytes));
    let (observed, verdict, reason) = match memory.locked_bytes {
        Some(locked) if locked >= needed => (format!("{locked} bytes"), Verdict::Holds, None),
        Some(locked) => (format!("{locked} bytes"), Verdict::Drifted, None),
        None => {
            let reason = "The kernel does not tell how much is locked".to_owned();
            ("unknown".into(), Verdict::Unverifiable, Some(reason))
        }
    };
    Item {
        subject: "memory".into(),
        check: Check::Locked,
        planned: format!("at least {needed} bytes"),
        observed,
        verdict,
        reason,
    }
}
