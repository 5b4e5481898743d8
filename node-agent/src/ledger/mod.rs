//! The ledger: the file that says who holds which CPU, page and device.
//!
//! Every `pinion` process on a host shares it. A change is made under an exclusive
//! lock that the kernel gives back when its owner dies; an entry lives as long as
//! the process it names. It must never be emptied because it cannot be understood.

mod document;
mod error;
mod file;
mod holder;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::error::Error;
use std::path::{Path, PathBuf};

use crate::pod::PodPlace;
use crate::settings::{HostChanges, HostWishes};
use jiff::Timestamp;
use pinion_machine::CpuSet;
use pinion_planner::{Holding, HoldingState, Occupancy};

pub use document::{LedgerDocument, LedgerEntry};
pub use error::{LedgerError, ReserveError};
pub use holder::Holder;

/// Where the ledger is unless another is named.
pub const DEFAULT_LEDGER_PATH: &str = "/run/pinion/ledger.json";

/// A ledger, by its file. Opening one does nothing yet.
#[derive(Clone, Debug)]
pub struct Ledger {
    path: PathBuf,
}

impl Ledger {
    /// The ledger in a file, which need not exist yet.
    #[must_use]
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Its file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A file beside it, for its users to agree by.
    pub(crate) fn beside(&self, suffix: &str) -> PathBuf {
        file::beside(&self.path, suffix)
    }

    /// Who holds what now, without the entries of dead processes. Takes no lock and
    /// writes nothing; a missing file is an empty ledger.
    ///
    /// # Errors
    /// [`LedgerError::Unreadable`] or [`LedgerError::Damaged`].
    pub fn read(&self) -> Result<LedgerDocument, LedgerError> {
        let mut document = file::read(&self.path)?;
        document.drop_void();
        Ok(document)
    }

    /// Plans and reserves in one step that no other process can come between: `plan` is
    /// given what is taken, and what it answers is written before the lock is let go.
    /// The entry is void once `holder` is dead.
    ///
    /// # Errors
    /// What `plan` says, or why the ledger could not be changed.
    pub fn reserve<T, E: Error + 'static>(
        &self,
        holder: Holder,
        plan: impl FnOnce(&Occupancy) -> Result<(Holding, T), E>,
    ) -> Result<(Reservation, T), ReserveError<E>> {
        self.enter(holder, |occupancy| plan(occupancy).map(|(holding, answer)| (holding, None, answer)))
    }

    /// The same, for a process that may be in a pod.
    ///
    /// # Errors
    /// As [`Ledger::reserve`].
    pub(crate) fn enter<T, E: Error + 'static>(
        &self,
        holder: Holder,
        plan: impl FnOnce(&Occupancy) -> Result<(Holding, Option<PodPlace>, T), E>,
    ) -> Result<(Reservation, T), ReserveError<E>> {
        let lock = file::lock(&self.path)?;
        let mut document = self.read()?;
        let (mut holding, pod, answer) = plan(&document.occupancy()).map_err(ReserveError::Plan)?;
        holding.state = HoldingState::Reserved;
        refuse_conflicts(&document, &holding)?;
        let owner = holding.owner.clone();
        document.holdings.push(LedgerEntry {
            holding,
            host: HostWishes::default(),
            pod,
            process: holder.clone(),
            since: Timestamp::now(),
        });
        document.generation = document.generation.saturating_add(1);
        file::write(&self.path, &document, &lock)?;
        Ok((Reservation { ledger: self.clone(), owner, holder, held: true }, answer))
    }

    /// Reserves what was planned earlier, provided that nothing was taken since.
    ///
    /// # Errors
    /// [`LedgerError::Changed`] where the generation is another; then plan again.
    pub fn reserve_planned(
        &self,
        holder: Holder,
        generation: u64,
        holding: Holding,
    ) -> Result<Reservation, LedgerError> {
        let mut found = generation;
        let planned = self.reserve(holder, |occupancy| {
            found = occupancy.generation;
            if found == generation { Ok((holding, ())) } else { Err(Stale) }
        });
        match planned {
            Ok((reservation, ())) => Ok(reservation),
            Err(ReserveError::Ledger(e)) => Err(e),
            Err(ReserveError::Plan(Stale)) => Err(LedgerError::Changed { planned: generation, found }),
        }
    }

    /// What an owner holds, to be changed by whoever speaks for it; it is kept when that is dropped.
    ///
    /// # Errors
    /// [`LedgerError::Lost`] where it holds nothing, or why the ledger could not be read.
    pub fn adopt(&self, owner: &str) -> Result<Reservation, LedgerError> {
        let document = self.read()?;
        let entry = document.holdings.into_iter().find(|e| e.holding.owner == owner);
        let lost = || LedgerError::Lost { path: self.path.clone(), owner: owner.to_owned() };
        let entry = entry.ok_or_else(lost)?;
        Ok(Reservation { ledger: self.clone(), owner: owner.to_owned(), holder: entry.process, held: false })
    }

    /// The folder of guests' sockets: `PID.sock` for each launcher.
    #[must_use]
    pub fn sockets(&self) -> PathBuf {
        self.path.with_file_name("guests")
    }

    /// The socket of a guest, by its process.
    #[must_use]
    pub fn socket_of(&self, pid: i32) -> PathBuf {
        self.sockets().join(format!("{pid}.sock"))
    }

    /// The socket of the node agent that keeps this ledger.
    #[must_use]
    pub fn agent_socket(&self) -> PathBuf {
        self.path.with_file_name("agent.sock")
    }

    /// The folder of that agent which pods see, and nothing else of the node's.
    #[must_use]
    pub fn pods_folder(&self) -> PathBuf {
        self.path.with_file_name("pods")
    }

    /// That agent's socket for pods.
    #[must_use]
    pub fn pods_socket(&self) -> PathBuf {
        self.pods_folder().join("agent.sock")
    }

    /// The node's profile as the cluster has it, where it has one for it.
    #[must_use]
    pub fn cluster_profile(&self) -> PathBuf {
        self.path.with_file_name("profile.json")
    }

    /// Makes the folder of guests' sockets, and takes away the sockets that nobody listens on any more.
    ///
    /// # Errors
    /// Where the folder cannot be made.
    pub fn tidy_sockets(&self) -> Result<(), LedgerError> {
        let folder = self.sockets();
        let refused = |source| LedgerError::Unwritable { path: folder.clone(), source };
        std::fs::create_dir_all(&folder).map_err(refused)?;
        for entry in std::fs::read_dir(&folder).map_err(refused)?.flatten() {
            let refused = |e: std::io::Error| e.kind() == std::io::ErrorKind::ConnectionRefused;
            if std::os::unix::net::UnixStream::connect(entry.path()).is_err_and(refused) {
                // Another command may have been quicker.
                let _ = std::fs::remove_file(entry.path());
            }
        }
        Ok(())
    }

    /// Says which CPUs are never dedicated.
    ///
    /// # Errors
    /// Why the ledger could not be changed.
    pub fn set_housekeeping(&self, cpus: CpuSet) -> Result<(), LedgerError> {
        self.change(|document| {
            document.housekeeping = cpus;
            Ok(())
        })
    }

    /// Changes the record of what was changed of the host, under the lock; `save` writes what there is by then.
    /// No plan depends on that record, so such a change is not counted. What was changed before the host booted is
    /// forgotten.
    pub(crate) fn changing<T>(
        &self,
        change: impl FnOnce(
            &mut LedgerDocument,
            &mut dyn FnMut(&LedgerDocument) -> Result<(), LedgerError>,
        ) -> Result<T, LedgerError>,
    ) -> Result<T, LedgerError> {
        let lock = file::lock(&self.path)?;
        let mut document = self.read()?;
        let boot_id = holder::boot_id()
            .map_err(|source| LedgerError::Unreadable { path: holder::BOOT_ID.into(), source })?;
        if document.changes.boot_id != boot_id {
            let stale =
                std::mem::replace(&mut document.changes, HostChanges { boot_id, ..HostChanges::default() });
            if !stale.is_empty() {
                file::write(&self.path, &document, &lock)?;
            }
        }
        change(&mut document, &mut |document| file::write(&self.path, document, &lock))
    }

    /// Reads, changes and writes under the lock; counts the change.
    fn change(
        &self,
        change: impl FnOnce(&mut LedgerDocument) -> Result<(), LedgerError>,
    ) -> Result<(), LedgerError> {
        let lock = file::lock(&self.path)?;
        let mut document = self.read()?;
        change(&mut document)?;
        document.generation = document.generation.saturating_add(1);
        file::write(&self.path, &document, &lock)
    }
}

/// What one guest holds, for as long as this lives: dropping it gives it back.
///
/// Killing the process leaves the entry behind, void; the next change drops it.
#[derive(Debug)]
pub struct Reservation {
    ledger: Ledger,
    owner: String,
    holder: Holder,
    held: bool,
}

impl Reservation {
    /// Hands it to the process that the guest lives in, which is alive now: from here on
    /// it stands for as long as that process does, whatever becomes of this one.
    ///
    /// # Errors
    /// [`LedgerError::Process`] where there is no such process.
    pub fn transfer(&mut self, pid: i32) -> Result<(), LedgerError> {
        let to = Holder::of(pid).map_err(|source| LedgerError::Process { pid, source })?;
        self.update(|entry| entry.process = to.clone())?;
        self.holder = to;
        Ok(())
    }

    /// Says what the guest wishes of the host.
    ///
    /// # Errors
    /// Why the ledger could not be changed.
    pub fn wish(&mut self, wishes: HostWishes) -> Result<(), LedgerError> {
        self.update(|entry| entry.host = wishes)
    }

    /// Says that its pages are populated, so that the kernel counts them as used.
    ///
    /// # Errors
    /// Why the ledger could not be changed.
    pub fn commit(&mut self) -> Result<(), LedgerError> {
        self.update(|entry| entry.holding.state = HoldingState::Committed)
    }

    /// Leaves it in the ledger when this is dropped: it stands for as long as its process lives.
    pub fn keep(mut self) {
        self.held = false;
    }

    /// Gives it back. The guest's process must be gone, or must hold none of it any more.
    ///
    /// # Errors
    /// Why the ledger could not be changed; the entry is then void once the process is dead.
    pub fn release(mut self) -> Result<(), LedgerError> {
        self.give_back()
    }

    fn give_back(&mut self) -> Result<(), LedgerError> {
        self.held = false;
        let (owner, holder) = (&self.owner, &self.holder);
        self.ledger.change(|document| {
            document.holdings.retain(|e| !(e.holding.owner == *owner && e.process == *holder));
            Ok(())
        })
    }

    fn update(&self, update: impl FnOnce(&mut LedgerEntry)) -> Result<(), LedgerError> {
        let (owner, holder) = (&self.owner, &self.holder);
        self.ledger.change(|document| {
            let mine = |e: &&mut LedgerEntry| e.holding.owner == *owner && e.process == *holder;
            let entry = document.holdings.iter_mut().find(mine);
            update(
                entry.ok_or_else(|| LedgerError::Lost {
                    path: self.ledger.path.clone(),
                    owner: owner.clone(),
                })?,
            );
            Ok(())
        })
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.held {
            // Nothing to tell anybody here: the entry is void once the process is dead.
            let _ = self.give_back();
        }
    }
}

/// The generation moved on between planning and reserving.
#[derive(Debug, thiserror::Error)]
#[error("Stale")]
struct Stale;

fn refuse_conflicts(document: &LedgerDocument, wanted: &Holding) -> Result<(), LedgerError> {
    for entry in &document.holdings {
        let (held, pid) = (&entry.holding, entry.process.pid);
        let holder = || held.owner.clone();
        if held.owner == wanted.owner {
            return Err(LedgerError::AlreadyHeld { owner: holder(), pid });
        }
        let cpus = held.cpus.intersection(&wanted.cpus);
        if !cpus.is_empty() {
            return Err(LedgerError::CpusHeld { cpus, holder: holder(), pid });
        }
        if let Some(&device) = held.devices.iter().find(|d| wanted.devices.contains(d)) {
            return Err(LedgerError::DeviceHeld { device, holder: holder(), pid });
        }
    }
    Ok(())
}

impl From<ReserveError<Infallible>> for LedgerError {
    fn from(error: ReserveError<Infallible>) -> Self {
        match error {
            ReserveError::Ledger(e) => e,
            ReserveError::Plan(never) => match never {},
        }
    }
}
