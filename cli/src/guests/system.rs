//! `pinion guest`: the system inside a guest, as the agent in it says. What it says is the guest's word: it is shown
//! without control characters.

use std::io::Write;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use pinion_endpoint::guest::{AgentRequest, GuestRequest};
use pinion_endpoint::guest_os::{Executed, GuestFileSystem, GuestInterface, GuestOs, GuestUser};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Guest;
use crate::arguments::{ExecOptions, NameOptions, ReportFormat, ShownOptions, SystemCommand, SystemOptions};
use crate::failure::Failure;
use crate::output;
use crate::table::Table;
use crate::wrap::plain;

/// How long an agent may take, beyond what it is asked to wait for.
const AGENT_WITHIN: Duration = Duration::from_secs(75);
/// Where there is nothing to show.
const NONE: &str = "-";

/// A list as KubeVirt has it.
#[derive(Serialize)]
struct List<T> {
    items: Vec<T>,
}

/// Runs the command.
///
/// # Errors
/// Where there is no such guest, or its agent does not answer.
pub(crate) fn run(options: &SystemOptions) -> Result<(), Failure> {
    match &options.command {
        SystemCommand::Os(shown) => os(shown),
        SystemCommand::Interfaces(shown) => interfaces(shown),
        SystemCommand::Filesystems(shown) => file_systems(shown),
        SystemCommand::Users(shown) => users(shown),
        SystemCommand::Ping(of) => {
            ask::<Value>(of, AgentRequest::Ping, Duration::ZERO)?;
            println!("its agent answers");
            Ok(())
        }
        SystemCommand::Freeze(of) => counted(of, AgentRequest::Freeze, "frozen"),
        SystemCommand::Thaw(of) => counted(of, AgentRequest::Thaw, "thawed"),
        SystemCommand::Exec(options) => execute(options),
    }
}

fn ask<A: DeserializeOwned>(of: &NameOptions, request: AgentRequest, more: Duration) -> Result<A, Failure> {
    Guest::named(of)?.ask_within(&GuestRequest::Agent { request }, AGENT_WITHIN.saturating_add(more))
}

fn os(shown: &ShownOptions) -> Result<(), Failure> {
    let os: GuestOs = ask(&shown.of, AgentRequest::Os, Duration::ZERO)?;
    if shown.output == ReportFormat::Json {
        return output::document("GuestOs", &os);
    }
    let rows = [
        ("system", &os.pretty_name),
        ("kernel", &os.kernel_release),
        ("machine", &os.machine),
        ("host name", &os.hostname),
        ("time zone", &os.timezone),
        ("agent", &os.guest_agent_version),
    ];
    let line = |(name, value): (&str, &String)| format!("{name:<10} {}\n", or_none(value));
    output::text(&rows.into_iter().map(line).collect::<String>())
}

fn interfaces(shown: &ShownOptions) -> Result<(), Failure> {
    let items: Vec<GuestInterface> = ask(&shown.of, AgentRequest::Interfaces, Duration::ZERO)?;
    list(shown, "GuestInterfaceList", items, &["NAME", "MAC", "ADDRESSES"], |i| {
        vec![i.interface_name.clone(), i.mac.clone(), i.ip_addresses.join(" ")]
    })
}

fn file_systems(shown: &ShownOptions) -> Result<(), Failure> {
    let items: Vec<GuestFileSystem> = ask(&shown.of, AgentRequest::FileSystems, Duration::ZERO)?;
    let size = |bytes: Option<u64>| bytes.map(pinion_map::bytes).unwrap_or_default();
    list(shown, "GuestFileSystemList", items, &["DISK", "MOUNTED ON", "TYPE", "USED", "SIZE"], |f| {
        vec![
            f.disk_name.clone(),
            f.mount_point.clone(),
            f.file_system_type.clone(),
            size(f.used_bytes),
            size(f.total_bytes),
        ]
    })
}

fn users(shown: &ShownOptions) -> Result<(), Failure> {
    let items: Vec<GuestUser> = ask(&shown.of, AgentRequest::Users, Duration::ZERO)?;
    list(shown, "GuestUserList", items, &["USER", "DOMAIN", "SINCE"], |u| {
        let since = SignedDuration::try_from_secs_f64(u.login_time).and_then(Timestamp::from_duration);
        let since = since.map(|t| t.to_string()).unwrap_or_default();
        vec![u.user_name.clone(), u.domain.clone().unwrap_or_default(), since]
    })
}

fn list<T: Serialize>(
    shown: &ShownOptions,
    kind: &str,
    items: Vec<T>,
    heads: &[&str],
    cells: impl Fn(&T) -> Vec<String>,
) -> Result<(), Failure> {
    if shown.output == ReportFormat::Json {
        return output::document(kind, &List { items });
    }
    if items.is_empty() {
        eprintln!("There are none.");
        return Ok(());
    }
    let mut table = Table::new(heads);
    for item in &items {
        table.row(cells(item).iter().map(|cell| or_none(cell)).collect::<Vec<_>>());
    }
    output::text(&table.picture(0))
}

fn or_none(text: &str) -> String {
    if text.is_empty() { NONE.to_owned() } else { plain(text).to_string() }
}

fn counted(of: &NameOptions, request: AgentRequest, done: &str) -> Result<(), Failure> {
    let count: u64 = ask(of, request, Duration::ZERO)?;
    println!("{count} file systems {done}");
    Ok(())
}

fn execute(options: &ExecOptions) -> Result<(), Failure> {
    let within = Duration::from_secs(options.timeout);
    let request = AgentRequest::Exec { command: options.command.clone(), timeout_seconds: options.timeout };
    let done: Executed = ask(&options.of, request, within)?;
    // As a program's own output: somebody may want it byte for byte.
    std::io::stdout().write_all(done.stdout.as_bytes()).map_err(Failure::failed)?;
    std::io::stderr().write_all(done.stderr.as_bytes()).map_err(Failure::failed)?;
    if done.truncated {
        eprintln!("pinion: there was more output than is kept");
    }
    match (done.exit_code, done.signal) {
        (Some(0), _) => Ok(()),
        (Some(code), _) => Err(Failure::Silent(u8::try_from(code).unwrap_or(1))),
        (None, Some(signal)) => {
            eprintln!("pinion: signal {signal} ended the program");
            Err(Failure::Silent(1))
        }
        (None, None) => Err(Failure::Silent(1)),
    }
}
