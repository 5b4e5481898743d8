//! Makes the host's settings what the ledger's guests wish, and what they were once nobody wishes anything.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::Path;
use std::time::Instant;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use pinion_machine::{Bdf, CpuSet, Machine, NodeId, PASS_THROUGH_DRIVER};
use serde::Serialize;

use super::contest::Contests;
use super::host::Host;
use super::interrupts;
use super::notice::{Notice, why};
use super::record::{BoundDevice, Changed, Setting};
use super::survey::{Step, Survey};
use super::wish::Wanted;
use crate::drivers::{DriverError, PciBus, Rebound, members};
use crate::ledger::{Ledger, LedgerDocument, LedgerError};
use crate::partition::Partitions;
use crate::pod::Containers;
use crate::settings::knob::Knob;

/// How many interrupts are named in one notice.
const NAMED: usize = 4;

/// Keeps the settings of one host.
#[derive(Debug)]
pub struct Keeper {
    pub(super) ledger: Ledger,
    pub(super) host: Host,
    pub(super) bus: PciBus,
    /// What the kernel refused for good; not tried again while the same CPUs are quiet.
    pub(super) refused: BTreeSet<Setting>,
    pub(super) quiet: CpuSet,
    pub(super) told: BTreeSet<String>,
    /// Held where single CPUs cannot be kept awake.
    pub(super) latency: Option<File>,
    /// Of all that keep this host, the one that looks after it all the time.
    pub(super) watch: Option<Flock<File>>,
    pub(super) partitions: Partitions,
    pub(super) containers: Containers,
    pub(super) knobs: BTreeSet<Knob>,
    /// Huge pages that there are at least, by node and size (KiB).
    pub(super) kept: BTreeMap<(NodeId, u64), u64>,
    pub(super) contests: Contests,
    /// Settings that this keeper has changed.
    pub(super) applied: BTreeSet<Setting>,
    /// Processes whose partition could not be made again.
    pub(super) lost: BTreeSet<i32>,
    /// Huge pages that were asked for: the kernel may have given fewer, and is not asked again.
    pub(super) asked: BTreeMap<Setting, String>,
    pub(super) tally: Tally,
}

/// What a keeper did, by what it was about ([`Setting::cause`]).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Tally {
    /// Settings that others had changed.
    pub drifts: BTreeMap<&'static str, u64>,
    /// Of them, those that were put back.
    pub repairs: BTreeMap<&'static str, u64>,
    /// Settings that are left to others for a while.
    pub left_alone: usize,
    /// Settings that the kernel does not let be changed.
    pub refused: usize,
}

impl Keeper {
    /// A keeper of this host, for the guests of a ledger.
    #[must_use]
    pub fn new(ledger: &Ledger) -> Self {
        Self::of(ledger, Host::default(), PciBus::default())
    }

    /// A keeper of another host, for tests.
    #[must_use]
    pub fn of(ledger: &Ledger, host: Host, bus: PciBus) -> Self {
        Self {
            ledger: ledger.clone(),
            partitions: Partitions::below(host.cgroups(), host.proc()),
            containers: Containers::below(host.cgroups(), host.proc()),
            knobs: Knob::ALL.into(),
            kept: BTreeMap::new(),
            contests: Contests::default(),
            applied: BTreeSet::new(),
            lost: BTreeSet::new(),
            asked: BTreeMap::new(),
            tally: Tally::default(),
            host,
            bus,
            refused: BTreeSet::new(),
            quiet: CpuSet::new(),
            told: BTreeSet::new(),
            latency: None,
            watch: None,
        }
    }

    /// Which switches of the kernel it may change; all of them unless this is called.
    pub fn allow(&mut self, knobs: BTreeSet<Knob>) {
        self.knobs = knobs;
    }

    /// Huge pages that there are at least, by node and size (KiB): none unless this is called.
    pub fn keep_pages(&mut self, kept: BTreeMap<(NodeId, u64), u64>) {
        self.kept = kept;
    }

    /// What it did so far.
    #[must_use]
    pub fn tally(&self) -> Tally {
        let left_alone = self.contests.left_alone(Instant::now());
        Tally { left_alone, refused: self.refused.len(), ..self.tally.clone() }
    }

    /// A process was seen writing to a file of the host.
    pub fn accuse(&mut self, file: &Path, writer: String) {
        self.contests.accuse(file, writer);
    }

    /// The files that others may change under a guest.
    #[must_use]
    pub fn watched(&self, document: &LedgerDocument) -> Vec<std::path::PathBuf> {
        let now = Instant::now();
        let kept = document.changes.settings.iter().filter(|c| !self.contests.is_left_alone(&c.setting, now));
        let mut files: Vec<_> = kept.map(|c| self.host.path(&c.setting)).collect();
        let pids = document.holdings.iter().map(|e| e.process.pid).filter(|pid| self.partitions.has(*pid));
        files.extend(pids.flat_map(|pid| self.partitions.files(pid)));
        let widened = document.holdings.iter().filter(|e| !e.holding.cpus.is_empty());
        files.extend(widened.filter_map(|e| e.pod.as_ref()).flat_map(|pod| self.containers.files(pod)));
        files
    }

    /// Binds devices that a guest holds to `vfio-pci`, with their IOMMU groups; [`Keeper::settle`] gives them
    /// back once no guest has them. What was bound before stays bound then.
    ///
    /// The driver of each is recorded before it is touched: whoever comes after a crash gives it back.
    ///
    /// # Errors
    /// What stands in the way; nothing is bound then.
    pub fn bind(&self, machine: &Machine, addresses: &[Bdf]) -> Result<Vec<Rebound>, BindError> {
        self.ledger.changing(|document, save| {
            let known: Vec<Bdf> = document.changes.devices.iter().map(|d| d.address).collect();
            let added: Vec<BoundDevice> = members(machine, addresses)
                .into_iter()
                .filter(|m| !known.contains(m))
                .map(|address| BoundDevice { address, was: self.bus.driver(address) })
                .filter(|d| d.was.as_deref() != Some(PASS_THROUGH_DRIVER))
                .collect();
            document.changes.devices.extend(added.iter().cloned());
            save(document)?;
            let bound = self.bus.bind(machine, addresses);
            if bound.is_err() {
                let free =
                    |d: &BoundDevice| self.bus.driver(d.address).as_deref() != Some(PASS_THROUGH_DRIVER);
                document.changes.devices.retain(|d| !(added.contains(d) && free(d)));
                save(document)?;
            }
            Ok(bound.map_err(BindError::Devices))
        })?
    }

    /// Makes every setting what it should be now.
    ///
    /// # Errors
    /// When the ledger cannot be read or changed; nothing is changed without a record.
    pub fn settle(&mut self) -> Result<Vec<Notice>, LedgerError> {
        let seen = self.ledger.read()?;
        let wanted = Wanted::of(&seen);
        if wanted.quiet != self.quiet {
            self.quiet.clone_from(&wanted.quiet);
            self.refused.clear();
        }
        self.hold_latency(&wanted);
        let mut notices = Vec::new();
        self.sweep(&seen);
        // Most of the time there is nothing to do, and nobody need wait for the lock.
        if !self.is_settled(&seen, &wanted) {
            let ledger = self.ledger.clone();
            ledger.changing(|document, save| {
                let wanted = Wanted::of(document);
                self.apply(document, &wanted, save, &mut notices)?;
                self.give_back(document, &wanted, save, &mut notices)
            })?;
        }
        notices.extend(interrupts::route(&self.host, &wanted));
        notices.extend(self.repair_partitions(&seen));
        notices.extend(self.repair_containers(&seen));
        Ok(self.news(notices))
    }

    fn is_settled(&self, document: &LedgerDocument, wanted: &Wanted) -> bool {
        let Survey { steps, over } = self.survey(document, wanted);
        let devices = &document.changes.devices;
        steps.is_empty() && over.is_empty() && devices.iter().all(|d| self.is_needed(d, wanted))
    }

    /// What is done every few seconds: by one of all keepers, who is watched by none. The others see to their
    /// devices alone.
    ///
    /// # Errors
    /// As [`Keeper::settle`].
    pub fn tend(&mut self) -> Result<Vec<Notice>, LedgerError> {
        if self.watch.is_none() {
            self.watch = self.take_watch();
        }
        if self.watch.is_some() { self.settle() } else { self.route() }
    }

    /// Brings the vectors of guests' devices to their CPUs.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub fn route(&mut self) -> Result<Vec<Notice>, LedgerError> {
        let wanted = Wanted::of(&self.ledger.read()?);
        let notices = interrupts::route(&self.host, &wanted);
        Ok(self.news(notices))
    }

    fn take_watch(&self) -> Option<Flock<File>> {
        let path = self.ledger.beside("keeper");
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(path).ok()?;
        Flock::lock(file, FlockArg::LockExclusiveNonblock).ok()
    }

    /// Where the kernel has no limit for single CPUs, all of them are kept awake.
    fn hold_latency(&mut self, wanted: &Wanted) {
        let has_own = |cpu| self.host.path(&Setting::IdleLatency { cpu }).exists();
        if wanted.quiet.iter().all(has_own) {
            self.latency = None;
        } else if self.latency.is_none() {
            self.latency = self.host.hold_latency().ok();
        }
    }

    /// 1. Every change is recorded: killed after this, the next keeper knows what was there.
    /// 2. The changes are made.
    /// 3. What is as it was, is gone or was refused is forgotten.
    fn apply(
        &mut self,
        document: &mut LedgerDocument,
        wanted: &Wanted,
        save: &mut Save<'_>,
        notices: &mut Vec<Notice>,
    ) -> Result<(), LedgerError> {
        let Survey { steps, mut over } = self.survey(document, wanted);
        let before = document.changes.clone();
        for step in &steps {
            let known = document.changes.get(&step.setting);
            // It may be the work of a keeper that was killed before it changed it.
            let is_known =
                |r: &Changed| !r.is_unfinished(&step.found) || self.applied.contains(&step.setting);
            let by_others = known.is_some_and(|r| step.found != r.wrote && is_known(r));
            if by_others && step.base != step.value {
                self.note_drift(step, notices);
            }
            let Step { setting, base: was, found, value: wrote } = step.clone();
            let before = (found != was).then_some(found);
            document.changes.put(Changed { setting, was, wrote, before });
        }
        if document.changes != before {
            save(document)?;
        }
        let recorded = document.changes.clone();
        let mut immovable = Vec::new();
        for step in &steps {
            match self.host.write(&step.setting, &step.value) {
                Ok(()) if step.value == step.base => over.push(step.setting.clone()),
                Ok(()) => {
                    self.applied.insert(step.setting.clone());
                    self.note_given(step, document);
                }
                Err(e) => {
                    over.push(step.setting.clone());
                    self.refuse(step, &e, &mut immovable, notices);
                }
            }
        }
        for setting in &over {
            document.changes.forget(setting);
            self.applied.remove(setting);
        }
        notices.extend(self.immovable(&immovable, wanted));
        if document.changes == recorded { Ok(()) } else { save(document) }
    }

    fn note_drift(&mut self, step: &Step, notices: &mut Vec<Notice>) {
        let Step { setting, found, value, .. } = step.clone();
        count(&mut self.tally.drifts, setting.cause());
        count(&mut self.tally.repairs, setting.cause());
        let by = self.contests.culprit(&self.host.path(&setting), &self.host.proc());
        if self.contests.note(&setting, Instant::now()) {
            notices.push(Notice::Contested { setting, by });
        } else {
            notices.push(Notice::PutBack { setting, found, value, by });
        }
    }

    /// The kernel gives as many huge pages as it finds, and no error: what it gave is what was written.
    fn note_given(&mut self, step: &Step, document: &mut LedgerDocument) {
        if let (Setting::HugePages { .. }, Ok(found)) = (&step.setting, self.host.read(&step.setting)) {
            let Step { setting, base: was, .. } = step.clone();
            self.asked.insert(setting.clone(), step.value.clone());
            document.changes.put(Changed { setting, was, wrote: found, before: None });
        }
    }

    fn refuse(
        &mut self,
        step: &Step,
        error: &io::Error,
        immovable: &mut Vec<u32>,
        notices: &mut Vec<Notice>,
    ) {
        let errno = error.raw_os_error().map(Errno::from_raw);
        let lasts = !matches!(errno, Some(Errno::ENOSPC | Errno::EBUSY | Errno::ENOENT));
        if lasts {
            self.refused.insert(step.setting.clone());
        }
        match (step.setting.clone(), errno) {
            (_, Some(Errno::ENOENT)) => {}
            (_, Some(Errno::EACCES | Errno::EROFS)) => notices.push(Notice::NotPermitted),
            (Setting::Interrupt { irq }, Some(Errno::EIO | Errno::EPERM | Errno::EINVAL)) => {
                immovable.push(irq)
            }
            (setting, _) => notices.push(Notice::Refused { setting, why: why(error) }),
        }
    }

    fn immovable(&self, irqs: &[u32], wanted: &Wanted) -> Option<Notice> {
        let table = self.host.irqs.table(|irq, _| irqs.contains(&irq)).unwrap_or_default();
        let mut cpus = CpuSet::new();
        let mut named = Vec::new();
        for irq in irqs {
            let Ok(affinity) = self.host.irqs.affinity(*irq) else { continue };
            // It may come there, but the kernel has it come elsewhere.
            let here = affinity.effective.intersection(&wanted.quiet);
            // An interrupt that nobody asked for never comes.
            let Some(interrupt) = table.get(*irq).filter(|i| !i.actions.is_empty() && !here.is_empty())
            else {
                continue;
            };
            cpus = cpus.union(&here);
            named.push(format!("{irq} ({})", interrupt.name()));
        }
        let count = named.len();
        named.truncate(NAMED);
        (count > 0).then_some(Notice::Immovable { count, some: named, cpus })
    }

    fn give_back(
        &self,
        document: &mut LedgerDocument,
        wanted: &Wanted,
        save: &mut Save<'_>,
        notices: &mut Vec<Notice>,
    ) -> Result<(), LedgerError> {
        let (kept, over): (Vec<_>, Vec<_>) =
            document.changes.devices.iter().cloned().partition(|d| self.is_needed(d, wanted));
        if over.is_empty() {
            return Ok(());
        }
        document.changes.devices = kept;
        for device in over {
            match self.bus.give_back(device.address) {
                Ok(Some(rebound)) => notices.push(Notice::GivenBack(rebound)),
                Ok(None) => {}
                Err(e) => {
                    notices.push(Notice::Kept(e));
                    document.changes.devices.push(device);
                }
            }
        }
        save(document)
    }

    /// A function stays bound as long as a guest has one of its IOMMU group.
    fn is_needed(&self, device: &BoundDevice, wanted: &Wanted) -> bool {
        let group = |address: Bdf| fs::read_link(self.bus.folder(address).join("iommu_group")).ok();
        let own = group(device.address);
        let same = |other: &Bdf| *other == device.address || (own.is_some() && group(*other) == own);
        wanted.devices.iter().any(same)
    }

    /// Those that were not told before. A setting that is put back again and again is told once.
    fn news(&mut self, notices: Vec<Notice>) -> Vec<Notice> {
        let key = |notice: &Notice| match notice {
            Notice::PutBack { setting, .. } => format!("{} {setting}", notice.reason()),
            Notice::GivenBack(_) => String::new(),
            other => other.to_string(),
        };
        notices
            .into_iter()
            .filter(|n| matches!(n, Notice::GivenBack(_)) || self.told.insert(key(n)))
            .collect()
    }
}

pub(super) fn count(tally: &mut BTreeMap<&'static str, u64>, cause: &'static str) {
    let count = tally.entry(cause).or_default();
    *count = count.saturating_add(1);
}

/// Writes the ledger, under its lock.
type Save<'a> = dyn FnMut(&LedgerDocument) -> Result<(), LedgerError> + 'a;

/// Why devices were not bound for a guest.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The devices.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\npinion: "))]
    Devices(Vec<DriverError>),
}
