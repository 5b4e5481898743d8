//! What this node keeps about its guests, and changes for them: the ledger of who holds what, the drivers of
//! devices, and the settings of the host.
//!
//! Called by the command line on the thread that runs a command; the node's
//! daemon will own it later. It must never decide a placement: it is told one,
//! and says whether it still fits beside the others.

#![forbid(unsafe_code)]

mod drivers;
mod ledger;
mod settings;

pub use drivers::{DriverError, PciBus, Rebound, UNBIND_LIMIT};
pub use ledger::{
    DEFAULT_LEDGER_PATH, Holder, Ledger, LedgerDocument, LedgerEntry, LedgerError, Reservation, ReserveError,
};
pub use settings::{
    BindError, BoundDevice, Changed, DeviceRoute, Host, HostChanges, HostWishes, Keeper, Notice, Setting,
};
