//! Why KVM could not be used.

use std::io;

/// Why KVM could not be used.
#[derive(Debug, thiserror::Error)]
pub enum KvmError {
    /// There is no KVM.
    #[error(
        "There is no /dev/kvm: load kvm-amd or kvm-intel, or switch on virtualisation in the firmware (in a virtual machine: nested virtualisation on its host)"
    )]
    Missing,
    /// This user may not use it.
    #[error(
        "This user may not open /dev/kvm: join its group with `sudo usermod -aG kvm $USER`, then log in again"
    )]
    NoPermission,
    /// It cannot be opened for another reason.
    #[error("Cannot open /dev/kvm")]
    Open(#[source] io::Error),
    /// It is too old or lacks something.
    #[error("The host's KVM lacks {0}: use Linux 5.10 or newer")]
    Lacks(&'static str),
    /// More vCPUs than it can run.
    #[error(
        "The host's KVM runs at most {most} vCPUs with APIC ids below {most_ids}; the guest has {vcpus}, with ids up to {highest_id}"
    )]
    TooManyVcpus {
        /// vCPUs of the guest.
        vcpus: usize,
        /// Highest APIC id of the guest.
        highest_id: u32,
        /// Most that KVM runs.
        most: usize,
        /// First APIC id that KVM does not take.
        most_ids: usize,
    },
    /// A request was refused.
    #[error("KVM cannot {action}")]
    Request {
        /// What was attempted, as a verb phrase.
        action: &'static str,
        /// From the kernel.
        source: io::Error,
    },
    /// A request about one vCPU was refused.
    #[error("KVM cannot {action} of vCPU {vcpu}")]
    Vcpu {
        /// What was attempted, as a verb phrase.
        action: &'static str,
        /// Which vCPU.
        vcpu: u32,
        /// From the kernel.
        source: io::Error,
    },
}

impl KvmError {
    pub(crate) fn request(action: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> Self {
        move |e| Self::Request { action, source: e.into() }
    }

    pub(crate) fn vcpu(vcpu: u32, action: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> Self {
        move |e| Self::Vcpu { action, vcpu, source: e.into() }
    }
}
