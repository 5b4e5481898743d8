//! Who has what on a node: what its agent says, and what was booked since.

use std::collections::{BTreeMap, BTreeSet};

use pinion_api::VirtualMachineInstance;
use pinion_machine::{Bdf, Machine, OutlineError};
use pinion_planner::{Holding, HoldingState, InstanceError, Occupancy, Placement, Refusal, Request, plan};

use crate::ledger::{Booking, LedgerSpec, LedgerStatus};

/// A node's books.
#[derive(Clone, Debug, Default)]
pub struct Books {
    machine: Machine,
    occupancy: Occupancy,
    resources: BTreeMap<String, Vec<Bdf>>,
    booked: BTreeSet<String>,
    /// Asked for each node by each guest, so counted once.
    load: Load,
}

/// How full a node is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Load {
    free_cpus: usize,
    floating: u64,
}

/// Why a node's books cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BookError {
    /// The machine is none.
    #[error("status.machine.{0}")]
    Machine(#[from] OutlineError),
    /// There is none.
    #[error("its agent has not said yet what it is")]
    Empty,
}

impl Books {
    /// What a ledger comes to.
    ///
    /// 1. What the agent says is so: a guest that runs has the CPUs that the kubelet gave it, whatever was planned.
    /// 2. Guests that are only booked follow, in the order in which they were. Where their planned place is taken meanwhile,
    ///    they are planned anew beside what there is; the kubelet will do no worse. One that has no room any more keeps what
    ///    it was promised, so that nobody else takes what is left of it.
    ///
    /// # Errors
    /// [`BookError`]: nobody can be booked on the node then.
    pub fn of(spec: &LedgerSpec, status: &LedgerStatus) -> Result<Self, BookError> {
        if status.machine.domains.is_empty() {
            return Err(BookError::Empty);
        }
        let machine = status.machine.machine()?;
        let occupancy = Occupancy {
            generation: status.generation,
            housekeeping: status.housekeeping.clone(),
            holdings: status.holdings.clone(),
        };
        let booked = spec.bookings.iter().map(|booking| booking.uid.clone()).collect();
        let resources = status.resources.clone();
        let mut books = Self { machine, occupancy, resources, booked, load: Load::default() };
        for booking in &spec.bookings {
            books.add(booking);
        }
        books.load = books.counted();
        Ok(books)
    }

    /// Enters a booking, unless its guest has its place already.
    pub fn enter(&mut self, booking: &Booking) {
        self.add(booking);
        self.load = self.counted();
    }

    fn add(&mut self, booking: &Booking) {
        self.booked.insert(booking.uid.clone());
        if self.occupancy.holdings.iter().any(|holding| holding.owner == booking.holding.owner) {
            return;
        }
        let holding = if self.is_free(&booking.holding) {
            booking.holding.clone()
        } else {
            let again = plan(&self.machine, &self.occupancy, &booking.request);
            again.map_or_else(
                |_| booking.holding.clone(),
                |placement| placement.holding(HoldingState::Reserved),
            )
        };
        self.occupancy.holdings.push(holding);
    }

    fn is_free(&self, holding: &Holding) -> bool {
        let devices: BTreeSet<Bdf> = holding.devices.iter().copied().collect();
        self.occupancy.dedicated().is_disjoint(&holding.cpus)
            && !self.occupancy.holdings.iter().any(|other| other.devices.iter().any(|d| devices.contains(d)))
    }

    /// Whether a guest has a place here, by the identity of its instance.
    #[must_use]
    pub fn has(&self, uid: &str) -> bool {
        self.booked.contains(uid)
    }

    /// What a guest would need here: its devices are those that this node has.
    ///
    /// # Errors
    /// [`InstanceError`], naming the field: this node has no such device.
    pub fn request(&self, instance: &VirtualMachineInstance) -> Result<Request, InstanceError> {
        Request::from_instance(instance, &|name| self.resources.get(name).cloned())
    }

    /// Where a guest would go here.
    ///
    /// # Errors
    /// Why it cannot.
    pub fn plan(&self, request: &Request) -> Result<Placement, Refusal> {
        plan(&self.machine, &self.occupancy, request)
    }

    /// How many CPUs nobody has for himself.
    #[must_use]
    pub const fn free_cpus(&self) -> usize {
        self.load.free_cpus
    }

    /// vCPUs that float over CPUs which they share.
    #[must_use]
    pub const fn floating(&self) -> u64 {
        self.load.floating
    }

    /// Threads of the widest of its cores; at least 1.
    #[must_use]
    pub fn threads_per_core(&self) -> usize {
        self.machine.cores.iter().map(|core| core.cpus.len()).max().unwrap_or(1).max(1)
    }

    fn counted(&self) -> Load {
        let of = |holding: &Holding| holding.floating.iter().map(|f| u64::from(f.vcpus)).sum::<u64>();
        Load {
            free_cpus: self.occupancy.clone().with_housekeeping(&self.machine).free(&self.machine).len(),
            floating: self.occupancy.holdings.iter().map(of).sum(),
        }
    }
}
