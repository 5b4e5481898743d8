//! `pinion ps`: the guests of this host.

use jiff::Timestamp;
use pinion_endpoint::guest::{GuestRequest, GuestStatus};
use pinion_node_agent::{Isolation, Keeper, Ledger};
use serde::Serialize;

use super::Guest;
use crate::arguments::{DeviceFormat, PsOptions};
use crate::failure::Failure;
use crate::output;
use crate::table::Table;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    name: String,
    pid: i32,
    cpus: pinion_machine::CpuSet,
    since: Timestamp,
    isolation: Isolation,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<GuestStatus>,
}

#[derive(Serialize)]
struct List {
    items: Vec<Row>,
}

/// Prints them.
///
/// # Errors
/// When the ledger cannot be read.
pub(crate) fn run(options: &PsOptions) -> Result<(), Failure> {
    let keeper = Keeper::new(&Ledger::at(&options.ledger));
    let row = |guest: Guest| Row {
        name: guest.owner().to_owned(),
        pid: guest.pid(),
        cpus: guest.entry.holding.cpus.clone(),
        since: guest.entry.since,
        isolation: keeper.isolation(guest.pid()),
        status: guest.ask(&GuestRequest::Status).ok(),
    };
    let items: Vec<Row> = Guest::all(&options.ledger)?.into_iter().map(row).collect();
    match options.output {
        DeviceFormat::Json => output::document("GuestList", &List { items }),
        DeviceFormat::Text | DeviceFormat::Wide if items.is_empty() => {
            eprintln!("No guest runs on this host.");
            Ok(())
        }
        DeviceFormat::Text => output::text(&text(&items, false)),
        DeviceFormat::Wide => output::text(&text(&items, true)),
    }
}

fn text(items: &[Row], wide: bool) -> String {
    let mut heads = vec!["NAME", "PHASE", "VERDICT", "CPUS", "ISOLATION", "AGE"];
    if wide {
        heads.extend(["PID", "VCPUS", "MEMORY", "CHECKS", "DRIFT", "LONGEST WAIT"]);
    }
    let mut table = Table::new(&heads);
    for row in items {
        let status = row.status.clone().unwrap_or_default();
        let or = |text: String, other: &str| if text.is_empty() { other.to_owned() } else { text };
        let mut cells = vec![
            row.name.clone(),
            match status.paused {
                Some(_) => "Paused".to_owned(),
                None => or(status.phase, "silent"),
            },
            or(status.verdict.unwrap_or_default(), "-"),
            or(row.cpus.to_string(), "shared"),
            row.isolation.to_string(),
            age(row.since),
        ];
        if wide {
            cells.push(row.pid.to_string());
            cells.push(status.vcpus.to_string());
            cells.push(format!("{} MiB", status.memory_bytes >> 20));
            cells.push(status.checks.to_string());
            cells.push(status.drift_total.values().sum::<u64>().to_string());
            cells.push(format!("{:.3} ms", status.longest_wait_ns as f64 / 1e6));
        }
        table.row(cells);
    }
    table.picture(0)
}

/// How long ago, as `kubectl` writes it.
fn age(since: Timestamp) -> String {
    let seconds = Timestamp::now().duration_since(since).as_secs().max(0);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_short() {
        let ago = |s| age(Timestamp::now().checked_sub(std::time::Duration::from_secs(s)).unwrap());
        assert_eq!(ago(150), "2m");
        assert_eq!(ago(8000), "2h");
        assert_eq!(ago(400_000), "4d");
    }
}
