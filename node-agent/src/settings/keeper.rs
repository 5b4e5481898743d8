//! Makes the host's settings what the ledger's guests wish, and what they were once nobody wishes anything.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use pinion_machine::{Bdf, CpuSet, Machine, PASS_THROUGH_DRIVER};

use super::host::Host;
use super::interrupts;
use super::notice::{Notice, why};
use super::record::{BoundDevice, Changed, Setting};
use super::wish::Wanted;
use crate::drivers::{DriverError, PciBus, Rebound, members};
use crate::ledger::{Ledger, LedgerDocument, LedgerError};

/// How many interrupts are named in one notice.
const NAMED: usize = 4;

/// Keeps the settings of one host.
#[derive(Debug)]
pub struct Keeper {
    ledger: Ledger,
    host: Host,
    bus: PciBus,
    /// What the kernel refused for good; not tried again while the same CPUs are quiet.
    refused: BTreeSet<Setting>,
    quiet: CpuSet,
    told: BTreeSet<String>,
    /// Held where single CPUs cannot be kept awake.
    latency: Option<File>,
    /// Of all that keep this host, the one that looks after it all the time.
    watch: Option<Flock<File>>,
}

/// A setting to write.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Step {
    setting: Setting,
    /// Its value without any wish.
    base: String,
    found: String,
    value: String,
}

/// What there is to do.
#[derive(Debug)]
struct Survey {
    /// Settings that are not what they should be.
    steps: Vec<Step>,
    /// Settings whose record is over: as they were, gone, or a device's now.
    over: Vec<Setting>,
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
            host,
            bus,
            refused: BTreeSet::new(),
            quiet: CpuSet::new(),
            told: BTreeSet::new(),
            latency: None,
            watch: None,
        }
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
        let has_own = |cpu| self.host.path(Setting::IdleLatency { cpu }).exists();
        if wanted.quiet.iter().all(has_own) {
            self.latency = None;
        } else if self.latency.is_none() {
            self.latency = self.host.hold_latency().ok();
        }
    }

    /// Looks at every setting that may have to change. What cannot be read is no step.
    fn survey(&self, document: &LedgerDocument, wanted: &Wanted) -> Survey {
        let owned = interrupts::owned(&self.host, wanted).unwrap_or_default();
        let (mut steps, mut over) = (Vec::new(), Vec::new());
        for setting in self.candidates(document, wanted) {
            let record = document.changes.get(setting);
            let recorded = record.map(|r| r.setting);
            if matches!(setting, Setting::Interrupt { irq } if owned.contains(&irq)) {
                over.extend(recorded);
                continue;
            }
            let found = match self.host.read(setting) {
                Ok(found) => found,
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    over.extend(recorded);
                    continue;
                }
                Err(_) => continue,
            };
            // Whatever another process made of it meanwhile is what that process wants.
            let base =
                record.filter(|r| r.wrote == found || r.was == found).map_or(&found, |r| &r.was).clone();
            let value = self.value(setting, &base, wanted);
            if found != value {
                steps.push(Step { setting, base, found, value });
            } else if base == value {
                over.extend(recorded);
            }
        }
        Survey { steps, over }
    }

    fn candidates(&self, document: &LedgerDocument, wanted: &Wanted) -> BTreeSet<Setting> {
        let mut all: BTreeSet<Setting> = document.changes.settings.iter().map(|c| c.setting).collect();
        if !wanted.quiet.is_empty() {
            all.insert(Setting::DefaultInterrupts);
            let numbers = self.host.irqs.numbers().unwrap_or_default();
            all.extend(numbers.into_iter().map(|irq| Setting::Interrupt { irq }));
        }
        for cpu in wanted.quiet.iter() {
            all.extend([Setting::IdleLatency { cpu }, Setting::Governor { cpu }]);
        }
        all.retain(|setting| !self.refused.contains(setting));
        all
    }

    /// What a setting should be, when without any wish it were `base`.
    fn value(&self, setting: Setting, base: &str, wanted: &Wanted) -> String {
        match setting {
            Setting::DefaultInterrupts | Setting::Interrupt { .. } => match base.parse::<CpuSet>() {
                Ok(cpus) if !cpus.is_disjoint(&wanted.quiet) => wanted.interrupt(&cpus).to_string(),
                _ => base.to_owned(),
            },
            Setting::IdleLatency { cpu } if wanted.quiet.contains(cpu) => self.host.lightest_sleep(cpu),
            Setting::Governor { cpu } if wanted.quiet.contains(cpu) => "performance".to_owned(),
            Setting::IdleLatency { .. } | Setting::Governor { .. } => base.to_owned(),
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
            let known = document.changes.get(step.setting);
            if known.is_some_and(|r| step.found != r.wrote && step.found != r.was) && step.base != step.value
            {
                let Step { setting, found, value, .. } = step.clone();
                notices.push(Notice::PutBack { setting, found, value });
            }
            let Step { setting, base: was, value: wrote, .. } = step.clone();
            document.changes.put(Changed { setting, was, wrote });
        }
        if document.changes != before {
            save(document)?;
        }
        let recorded = document.changes.clone();
        let mut immovable = Vec::new();
        for step in &steps {
            match self.host.write(step.setting, &step.value) {
                Ok(()) if step.value == step.base => over.push(step.setting),
                Ok(()) => {}
                Err(e) => {
                    over.push(step.setting);
                    self.refuse(step, &e, &mut immovable, notices);
                }
            }
        }
        over.into_iter().for_each(|setting| document.changes.forget(setting));
        notices.extend(self.immovable(&immovable, wanted));
        if document.changes == recorded { Ok(()) } else { save(document) }
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
            self.refused.insert(step.setting);
        }
        match (step.setting, errno) {
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
