//! Network device over a tap.

mod config;
mod device;
mod metrics;
mod port;
mod receive;
mod transmit;
mod worker;

pub use config::MacAddress;
pub use device::{NetDevice, NetOptions};
pub use metrics::{DirectionStats, NetMetrics, NetStats};
pub use port::{Offloads, PacketPort, TapPort};

#[cfg(test)]
mod tests;
