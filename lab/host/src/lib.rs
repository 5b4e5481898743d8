//! The lab: virtual hosts with several NUMA nodes, SMT, an IOMMU, devices on known nodes and KVM
//! inside, in QEMU, without privileges.
//!
//! Called by tests and by `cargo xtask`. A test says: boot this shape with these files, run this
//! command, give me its exit code and output within this time.
//!
//! ```no_run
//! use std::time::Duration;
//! use pinion_lab::{Files, Lab, Shape};
//!
//! let lab = Lab::boot("example", &Shape::two_socket(), &Files::new())?;
//! let output = lab.run(&["cat", "/sys/devices/system/node/online"], Duration::from_secs(5))?;
//! assert_eq!(output.text(), "0-3\n");
//! # Ok::<(), pinion_lab::LabError>(())
//! ```

#![forbid(unsafe_code)]

mod cache;
mod card;
mod debian;
mod disk;
mod emulator;
mod error;
mod files;
mod guest;
mod image;
mod initramfs;
mod kept;
mod lab;
mod monitor;
mod outcome;
mod programs;
mod qemu;
mod shape;
mod slot;
mod start;

pub use cache::{Cache, key};
pub use card::Card;
pub use debian::{Kernel, busybox, debian_program};
pub use disk::{DebianDisk, LibvirtRoot, blank_disk, debian_system};
pub use emulator::Emulator;
pub use error::LabError;
pub use files::{Attach, Files, libraries};
pub use guest::{guest_initrd, guest_initrd_with};
pub use lab::Lab;
pub use outcome::Output;
pub use pinion_lab_agent::Stream;
pub use programs::Programs;
pub use shape::{Device, HugePages, Node, Shape};
pub use slot::Slot;
