//! The desk with a folder for a host, for fuzzing: requests are answered as the daemon answers them.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::Arc;

use pinion_discovery::From;
use pinion_endpoint::{Peer, Refusal};
use serde_json::Value;

use super::authority::Authority;
use super::desk::Desk;
use super::tend::Tended;
use super::watch::Watched;
use crate::drivers::PciBus;
use crate::ledger::Ledger;
use crate::pod::PodSources;
use crate::settings::{Host, Keeper};

/// An agent that nobody listens for.
#[derive(Debug)]
pub struct FakeAgent {
    desk: Option<Desk>,
    ledger: Ledger,
}

impl FakeAgent {
    /// One whose ledger, host and devices are in a folder.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        let ledger = Ledger::at(folder.join("run/ledger.json"));
        let keeper = Keeper::of(&ledger, Host::at(folder), PciBus::at(folder.join("pci")));
        let desk = Watched::new().ok().map(|watched| Desk {
            ledger: ledger.clone(),
            keeper,
            authority: Authority { uid: 1, group: Some(4243) },
            pods: Self::pods(folder),
            status: Arc::default(),
            watched,
            tended: Tended::new(
                ["profile.yaml", "profile.json"].map(|name| folder.join(name)),
                folder.join("qualification.json"),
            ),
            told: VecDeque::new(),
            events: BTreeMap::new(),
            has_routes: false,
        });
        Self { desk, ledger }
    }

    /// Where it learns of pods: below its folder, but for the machine, which has four cores.
    #[must_use]
    pub fn pods(folder: &Path) -> PodSources {
        PodSources {
            proc: folder.join("proc"),
            cgroups: folder.join("sys/fs/cgroup"),
            logs: folder.join("logs"),
            kubelet: folder.join("kubelet.sock"),
            resources: folder.join("devices.yaml"),
            machine: From::Synthetic("pack:1 [numa(memory=4GB)] core:4 pu:2".into()),
        }
    }

    /// Its ledger.
    #[must_use]
    pub const fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// What it answers to a line.
    ///
    /// # Errors
    /// Why the request is refused.
    pub fn ask(&mut self, peer: Peer, line: &[u8]) -> Result<Value, Refusal> {
        let request = super::parse(line)?;
        let desk = self.desk.as_mut().ok_or_else(|| Refusal::new("Failed", "no event descriptor"))?;
        desk.answer(peer, request)
    }
}
