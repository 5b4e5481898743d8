//! The machine: assembles memory, vCPUs and devices, runs the guest and stops it.
//!
//! The launcher arms a machine on its main thread, looks at every thread and page, and only then
//! runs it. It is given exact CPUs, nodes and descriptors, and knows nothing of placement
//! policy. No vCPU may execute an instruction before [`ArmedMachine::run`].

#![forbid(unsafe_code)]

mod arm;
mod config;
mod console;
mod devices;
mod error;
mod gate;
mod io;
mod loader;
mod machine;
mod passthrough;
mod sandbox;
mod stats;
mod supervisor;
mod threads;
mod vcpu;

pub use config::{
    CellConfig, ConsoleConfig, DeviceConfig, DiskConfig, Hints, IoThreadConfig, Kernel, KernelFiles,
    MachineConfig, NetConfig, ReadKernel, Rng, VcpuConfig,
};
pub use error::ArmError;
pub use gate::GuestEnd;
pub use machine::{ArmedMachine, MemoryInfo, Role, RunningMachine, ThreadInfo};
pub use sandbox::SandboxError;
pub use stats::{DeviceStats, DiskStats, MachineStats, NetStats, Operations, Traffic, VcpuStats};
pub use vmm_vfio::{HealthReport, Source};
