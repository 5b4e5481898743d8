//! A host that this command keeps itself: there is no node agent.

use std::os::unix::net::UnixStream;
use std::time::Duration;

use pinion_machine::{Bdf, Machine};
use pinion_node_agent::{
    BindError, Holder, HostWishes, Isolation, Keeper, Ledger, LedgerError, Notice, PartitionError,
    Reservation, ReserveError,
};
use pinion_planner::{Occupancy, Placement};

use super::Unplaced;
use super::{Claim, Planned};
use crate::devices;
use crate::failure::Failure;
use crate::run::report;

/// How often vectors of devices are looked after while a guest needs it.
const EACH: Duration = Duration::from_secs(1);
/// Every so many times, all settings are: that reads a file for each interrupt of the host.
const ALL_EVERY: u32 = 5;

/// The host's settings, and whether these guests need any.
pub(crate) struct LocalHost {
    ledger: Ledger,
    keeper: Keeper,
    tended: bool,
    times: u32,
}

impl LocalHost {
    pub(super) fn new(ledger: &Ledger) -> Self {
        Self { ledger: ledger.clone(), keeper: Keeper::new(ledger), tended: false, times: 0 }
    }

    pub(super) fn reserve(
        &self,
        plan: impl Fn(&Occupancy) -> Planned,
    ) -> Result<(Claim, Placement), Unplaced> {
        let holder = Holder::current().map_err(|e| Unplaced::Failed(Failure::failed(e)))?;
        match self.ledger.reserve(holder, plan) {
            Ok((reservation, placement)) => Ok((Claim::Local(reservation), placement)),
            Err(ReserveError::Ledger(e)) => Err(Unplaced::Failed(Failure::failed(e))),
            Err(ReserveError::Plan(unplaced)) => Err(unplaced),
        }
    }

    pub(super) fn prepare(
        &mut self,
        machine: &Machine,
        reservation: &mut Reservation,
        wishes: HostWishes,
        devices: &[Bdf],
    ) -> Result<(), Failure> {
        if !devices.is_empty() {
            let bound = self.keeper.bind(machine, devices).map_err(|e| match e {
                BindError::Ledger(e) => Failure::failed(e),
                BindError::Devices(errors) => devices::bind::failure(errors),
            })?;
            bound.iter().for_each(report::bound);
        }
        if !wishes.is_empty() {
            reservation.wish(wishes).map_err(Failure::failed)?;
            self.tended = true;
        }
        Ok(())
    }

    pub(super) fn settle(&mut self) -> Result<(), Failure> {
        if self.has_agent() {
            return Ok(());
        }
        let notices = self.keeper.settle().map_err(Failure::failed)?;
        notices.iter().for_each(report::notice);
        Ok(())
    }

    pub(super) fn isolate(
        &mut self,
        name: &str,
        pid: i32,
        reservation: &mut Reservation,
    ) -> Option<Isolation> {
        if let Err(e) = reservation.commit() {
            report::warning(name, &e);
        }
        if !self.tended {
            return None;
        }
        match self.keeper.isolate(pid) {
            Ok(Ok(isolation)) => Some(isolation),
            // The launcher sees that too, pins them again and asks again.
            Ok(Err(PartitionError::Moved(_))) => None,
            Ok(Err(e)) => {
                report::warning(name, &e);
                Some(Isolation::Pinned)
            }
            Err(e) => {
                report::warning(name, &e);
                None
            }
        }
    }

    pub(super) fn pause(&self) -> Option<Duration> {
        self.tended.then_some(EACH)
    }

    pub(super) fn tend(&mut self) {
        if !self.tended || self.has_agent() {
            return;
        }
        self.times = self.times.wrapping_add(1);
        Self::tell(if self.times.is_multiple_of(ALL_EVERY) {
            self.keeper.tend()
        } else {
            self.keeper.route()
        });
    }

    pub(super) fn route(&mut self) {
        if self.tended && !self.has_agent() {
            Self::tell(self.keeper.route());
        }
    }

    pub(super) fn let_go(&mut self) {
        if !self.has_agent() {
            Self::tell(self.keeper.settle());
        }
    }

    /// An agent that was started meanwhile looks after these guests too, by its profile: two would work against each
    /// other.
    fn has_agent(&self) -> bool {
        UnixStream::connect(self.ledger.agent_socket()).is_ok()
    }

    /// A running guest does not end because its host cannot be looked after.
    fn tell(outcome: Result<Vec<Notice>, LedgerError>) {
        match outcome {
            Ok(notices) => notices.iter().for_each(report::notice),
            Err(e) => report::warning("host", &e),
        }
    }
}
