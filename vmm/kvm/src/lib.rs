//! KVM: the virtual machine, its vCPUs, CPUID, MSRs, memory slots, MSI routes and doorbells.
//!
//! The machine's builder creates it on the main thread; each [`Vcpu`] then lives on its own
//! thread. It knows no device and no placement.

mod amd;
mod apic_id;
mod cpuid;
mod doorbells;
mod error;
mod initial;
mod kick;
mod registers;
mod router;
mod slots;
mod vcpu;
mod vm;

pub use apic_id::{ApicId, Topology};
pub use cpuid::{CpuidProfile, GuestCpuid, Hints};
pub use error::KvmError;
pub use kick::Kicker;
pub use router::KvmRouter;
pub use slots::KvmSlots;
pub use vcpu::{Exit, ExitCounts, IoHandler, Vcpu};
pub use vm::KvmVm;
