//! Guests that run on this host, as commands name them: found in the ledger, asked over their sockets.

mod act;
mod audit;
mod console;
mod inspect;
mod logs;
mod ps;
mod stop;
mod system;

use std::path::Path;
use std::time::Duration;

use pinion_endpoint::guest::GuestRequest;
use pinion_endpoint::{AskError, ask};
use pinion_node_agent::{Ledger, LedgerEntry};
use serde::de::DeserializeOwned;

use crate::arguments::{GuestOptions, NameOptions};
use crate::failure::Failure;

pub(crate) use act::run as act;
pub(crate) use audit::run as audit;
pub(crate) use console::run as console;
pub(crate) use inspect::run as inspect;
pub(crate) use logs::run as logs;
pub(crate) use ps::run as ps;
pub(crate) use stop::run as stop;
pub(crate) use system::run as system;

/// How long a launcher may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(25);

#[derive(Debug, thiserror::Error)]
enum GuestError {
    #[error("No guest {owner:?} runs on this host{}", among(.running))]
    Absent { owner: String, running: Vec<String> },
    #[error(
        "{owner} cannot be asked: it is another user's, is being set up, or was started without a socket"
    )]
    Silent { owner: String, source: AskError },
}

fn among(running: &[String]) -> String {
    if running.is_empty() { String::new() } else { format!(": there are {}", running.join(", ")) }
}

/// A guest that runs.
#[derive(Debug)]
pub(crate) struct Guest {
    ledger: Ledger,
    pub(crate) entry: LedgerEntry,
}

impl Guest {
    /// All of them, in the order they came.
    pub(crate) fn all(ledger: &Path) -> Result<Vec<Self>, Failure> {
        let ledger = Ledger::at(ledger);
        let document = ledger.read().map_err(Failure::failed)?;
        Ok(document.holdings.into_iter().map(|entry| Self { ledger: ledger.clone(), entry }).collect())
    }

    /// The one of a name: `name`, or `namespace/name`.
    pub(crate) fn find(ledger: &Path, namespace: &str, name: &str) -> Result<Self, Failure> {
        let owner = if name.contains('/') { name.to_owned() } else { format!("{namespace}/{name}") };
        let all = Self::all(ledger)?;
        let running = all.iter().map(|g| g.owner().to_owned()).collect();
        let absent = || Failure::invalid(GuestError::Absent { owner: owner.clone(), running });
        all.into_iter().find(|g| g.owner() == owner).ok_or_else(absent)
    }

    /// Those of several names; none where one of them is not there.
    pub(crate) fn find_all(options: &GuestOptions, names: &[String]) -> Result<Vec<Self>, Failure> {
        names.iter().map(|name| Self::find(&options.ledger, &options.namespace, name)).collect()
    }

    /// The one that a command names.
    pub(crate) fn named(options: &NameOptions) -> Result<Self, Failure> {
        Self::find(&options.guests.ledger, &options.guests.namespace, &options.name)
    }

    pub(crate) fn owner(&self) -> &str {
        &self.entry.holding.owner
    }

    pub(crate) const fn pid(&self) -> i32 {
        self.entry.process.pid
    }

    fn socket(&self) -> std::path::PathBuf {
        self.ledger.socket_of(self.pid())
    }

    fn silent(&self, source: AskError) -> Failure {
        match source {
            AskError::Refused(refusal) => Failure::failed(refusal),
            source => Failure::failed(GuestError::Silent { owner: self.owner().to_owned(), source }),
        }
    }

    /// Asks it.
    pub(crate) fn ask<A: DeserializeOwned>(&self, request: &GuestRequest) -> Result<A, Failure> {
        self.ask_within(request, ANSWER_WITHIN)
    }

    /// Asks it what takes so long.
    fn ask_within<A: DeserializeOwned>(
        &self,
        request: &GuestRequest,
        within: Duration,
    ) -> Result<A, Failure> {
        ask(&self.socket(), request, within).map_err(|e| self.silent(e))
    }
}
