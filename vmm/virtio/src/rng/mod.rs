//! Entropy from the host's kernel.

mod device;
mod metrics;
mod queue;

pub use device::RngDevice;
pub use metrics::RngMetrics;

#[cfg(test)]
mod tests;
