//! What `pinion run` does to the host for its guests, and undoes: drivers, interrupts, power settings.

use std::time::Duration;

use pinion_machine::{Bdf, Machine};
use pinion_node_agent::{BindError, DeviceRoute, HostWishes, Keeper, Ledger, LedgerError, Notice};

use super::{Placed, report};
use crate::arguments::RunOptions;
use crate::devices;
use crate::failure::Failure;

/// How often vectors of devices are looked after while a guest needs it.
const EACH: Duration = Duration::from_secs(1);
/// Every so many times, all settings are: that reads a file for each interrupt of the host.
const ALL_EVERY: u32 = 5;

/// The host's settings, and whether these guests need any.
pub(super) struct Hosting {
    keeper: Keeper,
    quiet: bool,
    tended: bool,
    times: u32,
}

impl Hosting {
    pub(super) fn of(options: &RunOptions) -> Self {
        let keeper = Keeper::new(&Ledger::at(&options.ledger));
        Self { keeper, quiet: !options.leave_host_settings, tended: false, times: 0 }
    }

    /// Binds the devices of a guest that has its place, and says what it wishes of the host.
    ///
    /// # Errors
    /// [`Failure::Invalid`] where a device must not be bound.
    pub(super) fn prepare(&mut self, machine: &Machine, guest: &mut Placed) -> Result<(), Failure> {
        let placement = &guest.spec.placement;
        let devices: Vec<Bdf> = placement.devices.iter().map(|d| d.address).collect();
        if !devices.is_empty() {
            let bound = self.keeper.bind(machine, &devices).map_err(|e| match e {
                BindError::Ledger(e) => Failure::failed(e),
                BindError::Devices(errors) => devices::bind::failure(errors),
            })?;
            bound.iter().for_each(report::bound);
        }
        let dedicated = !placement.dedicated_cpus().is_empty();
        if self.quiet && (dedicated || !devices.is_empty()) {
            let route = |d: &pinion_planner::Device| DeviceRoute {
                address: d.address,
                cpus: d.interrupt_cpus.clone(),
            };
            let wishes = HostWishes {
                quiet_cpus: dedicated,
                fallback: placement.emulator.cpus.clone(),
                routes: placement.devices.iter().map(route).collect(),
            };
            guest.reservation.wish(wishes).map_err(Failure::failed)?;
            self.tended = true;
        }
        Ok(())
    }

    /// Makes everything as the guests that are there need it.
    ///
    /// # Errors
    /// When the ledger cannot be read or changed.
    pub(super) fn settle(&mut self) -> Result<(), Failure> {
        let notices = self.keeper.settle().map_err(Failure::failed)?;
        notices.iter().for_each(report::notice);
        Ok(())
    }

    /// How long to wait before [`Hosting::tend`]; `None` where nothing needs it.
    pub(super) fn pause(&self) -> Option<Duration> {
        self.tended.then_some(EACH)
    }

    /// Looks after the settings while guests run.
    pub(super) fn tend(&mut self) {
        if !self.tended {
            return;
        }
        self.times = self.times.wrapping_add(1);
        Self::tell(if self.times.is_multiple_of(ALL_EVERY) {
            self.keeper.tend()
        } else {
            self.keeper.route()
        });
    }

    /// A guest has set up vectors anew.
    pub(super) fn route(&mut self) {
        if self.tended {
            Self::tell(self.keeper.route());
        }
    }

    /// A guest has ended.
    pub(super) fn let_go(&mut self) {
        Self::tell(self.keeper.settle());
    }

    /// A running guest does not end because its host cannot be looked after.
    fn tell(outcome: Result<Vec<Notice>, LedgerError>) {
        match outcome {
            Ok(notices) => notices.iter().for_each(report::notice),
            Err(e) => report::warning("host", &e),
        }
    }
}
