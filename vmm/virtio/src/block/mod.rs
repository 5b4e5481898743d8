//! Block device over any [`vmm_block::Disk`].

mod config;
mod device;
mod metrics;
mod request;
mod worker;

pub use device::{BlockDevice, BlockOptions, SerialNumber};
pub use metrics::{BlockMetrics, BlockStats, OperationStats};

#[cfg(test)]
mod tests;
