//! What `pinion run` tells the person at the terminal, on standard error: standard output is the
//! guest's console.

use std::error::Error;
use std::time::Duration;

use pinion_launcher::certificate::Verdict;
use pinion_launcher::{BackendKind, Event};
use pinion_node_agent::{Isolation, Notice, NoticeText, Rebound};
use pinion_planner::Placement;

use crate::backend::Chosen;
use crate::plan;

/// The plan of each guest.
pub(super) fn started(placements: &[&Placement]) {
    for placement in placements {
        eprint!("{}", plan::summary(placement));
    }
}

/// What runs a guest, where it is not our own virtual machine monitor.
pub(super) fn backend(name: &str, chosen: &Chosen) {
    if chosen.backend == BackendKind::Libvirt {
        let because = chosen.because.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
        eprintln!("{name}: on QEMU, through {}{because}", chosen.backend);
    }
}

/// An event of a guest.
pub(super) fn event(name: &str, event: &Event) {
    let line = match event {
        Event::Phase { phase, took_ns } => format!("{phase} ready after {:?}", rounded(*took_ns)),
        Event::Armed => "armed: threads on their CPUs, pages on their nodes".to_owned(),
        Event::Verified { verdict, items, mismatches } => verified(*verdict, *items, mismatches),
        Event::Running => "running".to_owned(),
        Event::Drifted { what } => format!("drifted: {what}"),
        Event::Repaired { what, failure: None } => format!("put back: {what}"),
        Event::Repaired { what, failure: Some(why) } => format!("cannot be put back: {what}: {why}"),
        Event::PowerButton { grace_seconds } => {
            format!("power button pressed; force follows after {grace_seconds} s")
        }
        // The host's part in it is told where it goes wrong.
        // Single drifts and repairs are told.
        Event::Vectors | Event::Judged { .. } => return,
        Event::Warning { what } => format!("warning: {what}"),
        Event::Ended { end } => end.sentence(),
    };
    eprintln!("{name}: {line}");
}

fn verified(verdict: Verdict, items: usize, mismatches: &[String]) -> String {
    let mut text = format!("verified: {items} items read back, verdict {verdict}");
    for mismatch in mismatches {
        text.push_str("\n  ");
        text.push_str(mismatch);
    }
    text
}

/// Microseconds are enough.
fn rounded(ns: u64) -> Duration {
    Duration::from_micros(ns / 1000)
}

/// Something that could not be done about a guest.
pub(super) fn warning(name: &str, error: &(dyn Error + 'static)) {
    eprintln!("{name}: warning: {}", pinion_launcher::chain(error));
}

/// Something about the host's settings.
pub(super) fn notice(notice: &Notice) {
    let kind = if notice.is_warning() { "warning: " } else { "" };
    eprintln!("host: {kind}{notice}");
}

/// Something about the host that the agent told.
pub(super) fn notice_text(notice: &NoticeText) {
    eprintln!("host: {}{}", if notice.warning { "warning: " } else { "" }, notice.text);
}

/// How far a guest's CPUs are its own.
pub(super) fn isolated(name: &str, isolation: Isolation) {
    eprintln!("{name}: {isolation}: {}", super::hosting::meaning(isolation));
}

/// A device that was bound.
pub(super) fn bound(rebound: &Rebound) {
    eprintln!("host: device {} was bound: {}", rebound.address, rebound.change());
}

/// A launcher that a signal ended.
pub(super) fn killed(name: &str, signal: i32) {
    eprintln!("{name}: its launcher was killed by signal {signal}; nothing of the guest is left");
}
