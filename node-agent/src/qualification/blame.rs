//! Who caused a gap, by what the kernel traced meanwhile. Pure.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use super::trace::TraceEvent;

/// What the threads that measure are called.
const OWN: &str = "gauge ";
/// Where nothing was traced: the kernel did not know either.
const UNKNOWN: &str = "not in the kernel's trace: firmware, or the hypervisor of this host";

/// A cause, and what it cost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cause {
    /// What: `process stress (77)`, `interrupt 24 (nvme0q1)`, `timer tick` …
    pub what: String,
    /// How many gaps.
    pub count: u64,
    /// The longest, ns.
    pub worst_ns: u64,
    /// All of them, ns.
    pub total_ns: u64,
}

/// Traced events by CPU, ready to be asked.
#[derive(Debug, Default)]
pub struct Blame {
    events: HashMap<u32, Vec<TraceEvent>>,
}

impl Blame {
    /// From what was traced.
    #[must_use]
    pub fn new(events: Vec<TraceEvent>) -> Self {
        let mut by_cpu: HashMap<u32, Vec<TraceEvent>> = HashMap::new();
        for event in events {
            by_cpu.entry(event.cpu).or_default().push(event);
        }
        by_cpu.values_mut().for_each(|events| events.sort_by_key(|e| e.tsc));
        Self { events: by_cpu }
    }

    /// What happened on a CPU in a time; `None` before the first event that the trace still has.
    #[must_use]
    pub fn cause(&self, cpu: u32, from: u64, to: u64) -> Option<String> {
        let events = self.events.get(&cpu)?;
        if events.first().is_none_or(|first| first.tsc > to) {
            return None;
        }
        let begin = events.partition_point(|e| e.tsc < from);
        let during = events.get(begin..)?.iter().take_while(|e| e.tsc <= to);
        let during: Vec<&TraceEvent> = during.collect();
        Some(process(&during, to).or_else(|| interruption(&during)).unwrap_or_else(|| UNKNOWN.to_owned()))
    }
}

/// The process that ran longest, of those that are not ours.
fn process(during: &[&TraceEvent], end: u64) -> Option<String> {
    let mut ran: BTreeMap<String, u64> = BTreeMap::new();
    let switches: Vec<(&TraceEvent, &str, &str)> = during
        .iter()
        .filter(|e| e.name == "sched_switch")
        .filter_map(|e| {
            let (_, next) = e.words.split_once("next_comm=")?;
            let (comm, rest) = next.rsplit_once(" next_pid=")?;
            Some((*e, comm, rest.split(' ').next()?))
        })
        .collect();
    for (index, (event, comm, pid)) in switches.iter().enumerate() {
        if *pid == "0" || comm.starts_with(OWN) {
            continue;
        }
        let until = switches.get(index + 1).map_or(end, |(next, _, _)| next.tsc);
        *ran.entry(format!("process {comm} ({pid})")).or_default() += until.saturating_sub(event.tsc);
    }
    ran.into_iter().max_by_key(|(_, time)| *time).map(|(what, _)| what)
}

/// The weightiest interruption.
fn interruption(during: &[&TraceEvent]) -> Option<String> {
    let field = |e: &TraceEvent, key: &str| {
        e.words.split(' ').find_map(|w| w.strip_prefix(key)).unwrap_or_default().to_owned()
    };
    let weigh = |e: &&TraceEvent| match e.name.as_str() {
        "irq_handler_entry" => Some((0, format!("interrupt {} ({})", field(e, "irq="), field(e, "name=")))),
        "softirq_entry" => {
            let action = field(e, "[action=");
            Some((1, format!("softirq {}", action.trim_end_matches(']'))))
        }
        "nmi_handler" => Some((2, "non-maskable interrupt".to_owned())),
        "local_timer_entry" => Some((3, "timer tick".to_owned())),
        name => name.strip_suffix("_entry").map(|kind| (4, format!("interprocessor interrupt {kind}"))),
    };
    during.iter().copied().filter_map(|e| weigh(&e)).min_by_key(|(weight, _)| *weight).map(|(_, what)| what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(tsc: u64, name: &str, words: &str) -> TraceEvent {
        TraceEvent { cpu: 4, tsc, name: name.into(), words: words.into() }
    }

    fn switch(tsc: u64, from: &str, to: &str) -> TraceEvent {
        let words =
            format!("prev_comm={from} prev_pid=1 prev_prio=120 prev_state=R ==> next_comm={to} next_prio=49");
        event(tsc, "sched_switch", &words.replace(" next_prio", " next_pid=77 next_prio"))
    }

    #[test]
    fn the_process_that_took_the_cpu_is_blamed_before_the_tick_that_let_it() {
        let blame = Blame::new(vec![
            event(900, "local_timer_entry", "vector=236"),
            switch(1000, "gauge 4", "kworker/4:1"),
            switch(1100, "kworker/4:1", "staller"),
            switch(9000, "staller", "gauge 4"),
        ]);
        assert_eq!(blame.cause(4, 890, 9100).as_deref(), Some("process staller (77)"));
        assert_eq!(blame.cause(4, 890, 950).as_deref(), Some("timer tick"));
        assert_eq!(blame.cause(4, 9200, 9300).as_deref(), Some(UNKNOWN));
        assert_eq!(blame.cause(4, 10, 20), None, "before the trace begins");
        assert_eq!(blame.cause(5, 890, 9100), None);
    }

    #[test]
    fn interrupts_are_named() {
        let blame = Blame::new(vec![
            event(10, "call_function_entry", "vector=251"),
            event(11, "softirq_entry", "vec=1 [action=TIMER]"),
            event(20, "irq_handler_entry", "irq=24 name=nvme0q1"),
        ]);
        assert_eq!(blame.cause(4, 5, 10).as_deref(), Some("interprocessor interrupt call_function"));
        assert_eq!(blame.cause(4, 5, 15).as_deref(), Some("softirq TIMER"));
        assert_eq!(blame.cause(4, 5, 25).as_deref(), Some("interrupt 24 (nvme0q1)"));
    }
}
