//! `domain`: the guest's hardware as a whole: machine, resources, chassis, launch security.

use std::collections::BTreeMap;

use crate::Quantity;
use crate::clock::Clock;
use crate::cpu::Cpu;
use crate::devices::Devices;
use crate::features::Features;
use crate::firmware::Firmware;
use crate::memory::Memory;
use crate::schema::Status::{Libvirt, Part, Planned, Works};

/// Confidential guests.
const CONFIDENTIAL: &str = "confidential guests are not done; remove it";

object! {
    "The guest's hardware."
    Domain {
        cpu "cpu": Option<Cpu>, Works(""), "vCPUs.";
        memory "memory": Option<Memory>, Works(""), "Memory.";
        resources "resources": Option<Resources>, Works(""), "Resources in Kubernetes' terms.";
        io_threads_policy "ioThreadsPolicy": Option<IoThreadsPolicy>, Works(""), "How I/O threads are shared by disks.";
        io_threads "ioThreads": Option<IoThreads>, Works(""), "I/O threads.";
        machine "machine": Option<Machine>, Works(""), "Machine type.";
        firmware "firmware": Option<Firmware>, Works(""), "How it boots.";
        clock "clock": Option<Clock>, Works(""), "Clock and timers.";
        features "features": Option<Features>, Works(""), "Platform features.";
        devices "devices": Devices, Works(""), "Devices.";
        reboot_policy "rebootPolicy": Option<RebootPolicy>, Works(""), "What a reboot does.";
        launch_security "launchSecurity": Option<LaunchSecurity>, Planned(CONFIDENTIAL), "Confidential guest.";
        chassis "chassis": Option<Chassis>, Libvirt("the guest has no SMBIOS tables"), "Chassis in the SMBIOS tables.";
    }

    "Resources in Kubernetes' terms."
    Resources {
        requests "requests": BTreeMap<String, Quantity>, Works("`cpu` and `memory`: they give vCPUs and memory where the spec gives neither, and must agree with it otherwise."), "What it must have.";
        limits "limits": BTreeMap<String, Quantity>, Works("`cpu` and `memory`, as with requests; a limit that would throttle is refused."), "What it may have.";
        overcommit_guest_overhead "overcommitGuestOverhead": Option<bool>, Planned("memory is never overcommitted; remove it"), "Leave the overhead out of the request.";
    }

    "I/O threads."
    IoThreads {
        supplemental_pool_thread_count "supplementalPoolThreadCount": Option<u32>, Works("Each thread has a CPU of its own."), "Threads of the supplemental pool.";
    }

    "Machine type."
    Machine {
        kind "type": Option<String>, Works("Absent, empty, `q35` or `pc-q35-*`: a PCI Express machine. Others are refused."), "Machine type.";
    }

    "Confidential guest."
    LaunchSecurity {
        sev "sev": Option<Sev>, Part, "AMD SEV.";
        snp "snp": Option<SevSnp>, Part, "AMD SEV-SNP.";
        tdx "tdx": Option<Tdx>, Part, "Intel TDX.";
    }

    "AMD SEV."
    Sev {
        policy "policy": Option<SevPolicy>, Part, "What is protected.";
        attestation "attestation": Option<SevAttestation>, Part, "Whether the guest waits for attestation.";
        session "session": Option<String>, Part, "Session blob.";
        dh_cert "dhCert": Option<String>, Part, "Diffie-Hellman key.";
    }

    "What SEV protects."
    SevPolicy {
        encrypted_state "encryptedState": Option<bool>, Part, "Registers too (SEV-ES).";
    }

    "Whether the guest waits for attestation."
    SevAttestation {}

    "AMD SEV-SNP."
    SevSnp {}

    "Intel TDX."
    Tdx {}

    "Chassis in the SMBIOS tables."
    Chassis {
        manufacturer "manufacturer": Option<String>, Part, "Manufacturer.";
        version "version": Option<String>, Part, "Version.";
        serial "serial": Option<String>, Part, "Serial number.";
        asset "asset": Option<String>, Part, "Asset tag.";
        sku "sku": Option<String>, Part, "Stock-keeping unit.";
    }
}

choice! {
    "How I/O threads are shared by disks."
    IoThreadsPolicy {
        Shared "shared", Works(""), "One for all disks without their own.";
        Auto "auto", Works(""), "One per disk, up to twice the vCPUs.";
        SupplementalPool "supplementalPool", Works(""), "A fixed number, each with a CPU of its own.";
    }

    "What a reboot does."
    RebootPolicy {
        Reboot "Reboot", Works(""), "The guest starts again in place.";
        Terminate "Terminate", Libvirt("a reboot starts the guest again in place"), "The guest ends.";
    }
}
