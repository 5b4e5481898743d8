//! What of the host is changed for its guests, and how it comes back.
//!
//! Owns interrupts' CPUs, the idle and frequency settings of dedicated CPUs, and the drivers of devices that
//! were bound for a guest. Called by `pinion run` on its one thread: before a guest starts, about once a second
//! while it runs, and after it. What a setting should be is worked out from the ledger each time, so it does not
//! matter which process does it, nor whether the one that changed it was killed. It must never choose CPUs.

mod contest;
mod host;
mod interrupts;
mod isolation;
mod keeper;
mod knob;
mod notice;
mod record;
mod survey;
#[cfg(test)]
mod tests;
mod wish;

pub use host::Host;
pub use keeper::{BindError, Keeper, Tally};
pub use knob::Knob;
pub use notice::Notice;
pub use record::{BoundDevice, Changed, Direction, HostChanges, Setting};
pub use wish::{DeviceRoute, HostWishes, PagesWish};
