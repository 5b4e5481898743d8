//! QEMU's guest agent: what it is told, and what its answers say, by its own names (`qga/qapi-schema.json`).
//!
//! Called on threads that may wait, never on the session's. An answer is the guest's word: it is bounded, read
//! leniently, and nothing on the host is decided by it.

use std::error::Error;
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use pinion_endpoint::guest::AgentRequest;
use pinion_endpoint::guest_os::{Executed, GuestFileSystem, GuestInterface, GuestOs, GuestUser};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::backend::BackendError;

/// How long the agent may take for an answer, and for flushing file systems.
const ANSWERED_WITHIN: Duration = Duration::from_secs(10);
const FROZEN_WITHIN: Duration = Duration::from_secs(60);
/// The agent has no word for the end of a program: it is asked.
const LOOK_EACH: Duration = Duration::from_millis(100);
/// Characters of a text, entries of a list, and bytes of a program's output that are told.
const LONGEST_TEXT: usize = 256;
const LONGEST_LIST: usize = 256;
const LONGEST_OUTPUT: usize = 1 << 20;

/// The way to the agent inside one guest.
pub trait AgentChannel {
    /// Sends a command, and waits for what it returns.
    ///
    /// # Errors
    /// When no agent answers in time, or it refuses.
    fn command(&self, command: &Value, within: Duration) -> Result<Value, BackendError>;
}

/// Why the agent inside a guest is of no use.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The backend has no way to it.
    #[error(
        "This guest has no channel to a guest agent: it runs on our own virtual machine monitor; --backend libvirt \
         has one"
    )]
    NoChannel,
    /// It does not answer, or refuses.
    #[error("The guest agent does not do {command:?}: is qemu-guest-agent running in the guest?")]
    Unanswered {
        /// By the agent's name.
        command: &'static str,
        /// What the backend says.
        source: Box<dyn Error + Send + Sync>,
    },
    /// It says something else than agreed.
    #[error("The guest agent's answer to {command:?} makes no sense")]
    Malformed {
        /// By the agent's name.
        command: &'static str,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// A program inside still runs.
    #[error("The program in the guest still runs after {seconds} s, as process {pid} there; nothing ends it")]
    StillRuns {
        /// Its number in the guest.
        pid: i64,
        /// Waited so long.
        seconds: u64,
    },
    /// No program was named.
    #[error("No program to run in the guest was named")]
    NoProgram,
}

impl AgentError {
    /// A stable word for it.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::NoChannel => "AgentNotSupported",
            Self::Unanswered { .. } => "AgentNotConnected",
            Self::Malformed { .. } => "AgentAnswerMalformed",
            Self::StillRuns { .. } => "AgentTimeout",
            Self::NoProgram => "Malformed",
        }
    }
}

/// Asks the agent, and gives the answer as the request says.
///
/// # Errors
/// [`AgentError`].
pub fn ask(channel: Option<&dyn AgentChannel>, request: &AgentRequest) -> Result<Value, AgentError> {
    let agent = Agent(channel.ok_or(AgentError::NoChannel)?);
    match request {
        AgentRequest::Ping => agent.command("guest-ping", &Value::Null, ANSWERED_WITHIN).map(|_| Value::Null),
        AgentRequest::Os => Ok(json!(agent.os()?)),
        AgentRequest::Interfaces => Ok(json!(agent.interfaces()?)),
        AgentRequest::FileSystems => Ok(json!(agent.file_systems()?)),
        AgentRequest::Users => Ok(json!(agent.users()?)),
        AgentRequest::Freeze => agent.counted("guest-fsfreeze-freeze"),
        AgentRequest::Thaw => agent.counted("guest-fsfreeze-thaw"),
        AgentRequest::Exec { command, timeout_seconds } => {
            Ok(json!(agent.execute(command, Duration::from_secs(*timeout_seconds))?))
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct Info {
    version: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct HostName {
    host_name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct OsInfo {
    name: String,
    id: String,
    pretty_name: String,
    version: String,
    version_id: String,
    kernel_release: String,
    kernel_version: String,
    machine: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct TimeZone {
    zone: Option<String>,
    offset: i64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct Interface {
    name: String,
    hardware_address: String,
    ip_addresses: Vec<Address>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct Address {
    ip_address: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct FileSystem {
    name: String,
    mountpoint: String,
    #[serde(rename = "type")]
    kind: String,
    used_bytes: Option<u64>,
    total_bytes: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct User {
    user: String,
    domain: Option<String>,
    login_time: f64,
}

#[derive(Debug, Deserialize)]
struct Started {
    pid: i64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct Status {
    exited: bool,
    exitcode: Option<i32>,
    signal: Option<i32>,
    out_data: String,
    err_data: String,
    out_truncated: bool,
    err_truncated: bool,
}

struct Agent<'a>(&'a dyn AgentChannel);

impl Agent<'_> {
    fn command(
        &self,
        command: &'static str,
        arguments: &Value,
        within: Duration,
    ) -> Result<Value, AgentError> {
        let told = match arguments {
            Value::Null => json!({ "execute": command }),
            arguments => json!({ "execute": command, "arguments": arguments }),
        };
        self.0.command(&told, within).map_err(|source| AgentError::Unanswered { command, source })
    }

    fn answer_within<T: DeserializeOwned>(
        &self,
        command: &'static str,
        arguments: &Value,
        within: Duration,
    ) -> Result<T, AgentError> {
        let answer = self.command(command, arguments, within)?;
        serde_json::from_value(answer).map_err(|source| AgentError::Malformed { command, source })
    }

    fn answer<T: DeserializeOwned>(&self, command: &'static str, arguments: &Value) -> Result<T, AgentError> {
        self.answer_within(command, arguments, ANSWERED_WITHIN)
    }

    fn counted(&self, command: &'static str) -> Result<Value, AgentError> {
        self.answer_within(command, &Value::Null, FROZEN_WITHIN).map(|count: u64| json!(count))
    }

    /// Agents of old systems lack some of the commands: what they do not say is empty.
    fn os(&self) -> Result<GuestOs, AgentError> {
        let info: Info = self.answer("guest-info", &Value::Null)?;
        let os: OsInfo = self.answer("guest-get-osinfo", &Value::Null).unwrap_or_default();
        let host: HostName = self.answer("guest-get-host-name", &Value::Null).unwrap_or_default();
        let zone: TimeZone = self.answer("guest-get-timezone", &Value::Null).unwrap_or_default();
        let timezone = format!("{}, {}", zone.zone.unwrap_or_else(|| "UTC".to_owned()), zone.offset);
        Ok(GuestOs {
            guest_agent_version: short(info.version),
            hostname: short(host.host_name),
            name: short(os.name),
            id: short(os.id),
            pretty_name: short(os.pretty_name),
            version: short(os.version),
            version_id: short(os.version_id),
            kernel_release: short(os.kernel_release),
            kernel_version: short(os.kernel_version),
            machine: short(os.machine),
            timezone: short(timezone),
        })
    }

    fn interfaces(&self) -> Result<Vec<GuestInterface>, AgentError> {
        let found: Vec<Interface> = self.answer("guest-network-get-interfaces", &Value::Null)?;
        let told = |i: Interface| {
            let mut addresses: Vec<String> =
                i.ip_addresses.into_iter().take(LONGEST_LIST).map(|a| short(a.ip_address)).collect();
            addresses.sort_by_key(|a| a.starts_with("fe80:"));
            GuestInterface {
                interface_name: short(i.name),
                mac: short(i.hardware_address),
                ip_addresses: addresses,
            }
        };
        Ok(found.into_iter().filter(|i| i.name != "lo").take(LONGEST_LIST).map(told).collect())
    }

    fn file_systems(&self) -> Result<Vec<GuestFileSystem>, AgentError> {
        let found: Vec<FileSystem> = self.answer("guest-get-fsinfo", &Value::Null)?;
        let told = |f: FileSystem| GuestFileSystem {
            disk_name: short(f.name),
            mount_point: short(f.mountpoint),
            file_system_type: short(f.kind),
            used_bytes: f.used_bytes,
            total_bytes: f.total_bytes,
        };
        Ok(found.into_iter().take(LONGEST_LIST).map(told).collect())
    }

    fn users(&self) -> Result<Vec<GuestUser>, AgentError> {
        let found: Vec<User> = self.answer("guest-get-users", &Value::Null)?;
        let told = |u: User| GuestUser {
            user_name: short(u.user),
            domain: u.domain.map(short),
            login_time: u.login_time,
        };
        Ok(found.into_iter().take(LONGEST_LIST).map(told).collect())
    }

    fn execute(&self, command: &[String], within: Duration) -> Result<Executed, AgentError> {
        let (program, arguments) = command.split_first().ok_or(AgentError::NoProgram)?;
        let began = Instant::now();
        let start = json!({ "path": program, "arg": arguments, "capture-output": true });
        let Started { pid } = self.answer("guest-exec", &start)?;
        loop {
            let status: Status = self.answer("guest-exec-status", &json!({ "pid": pid }))?;
            if status.exited {
                return Ok(executed(status));
            }
            if began.elapsed() >= within {
                return Err(AgentError::StillRuns { pid, seconds: within.as_secs() });
            }
            thread::sleep(LOOK_EACH);
        }
    }
}

fn executed(status: Status) -> Executed {
    let (stdout, more) = decoded(&status.out_data);
    let (stderr, more_errors) = decoded(&status.err_data);
    let truncated = status.out_truncated || status.err_truncated || more || more_errors;
    Executed { exit_code: status.exitcode, signal: status.signal, stdout, stderr, truncated }
}

/// Text of what the agent sends as base64, and whether there was more of it.
fn decoded(text: &str) -> (String, bool) {
    let bytes = BASE64_STANDARD.decode(text).unwrap_or_default();
    let told = bytes.get(..LONGEST_OUTPUT).unwrap_or(&bytes);
    (String::from_utf8_lossy(told).into_owned(), told.len() < bytes.len())
}

fn short(text: String) -> String {
    if text.chars().nth(LONGEST_TEXT).is_none() { text } else { text.chars().take(LONGEST_TEXT).collect() }
}

#[cfg(test)]
mod tests;
