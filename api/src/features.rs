//! `domain.features`: features of the platform, and Hyper-V's interface.

use crate::schema::Status::{Libvirt, NativeOnly, Only, Part, Planned, Refused, Works};

/// Hyper-V.
const HYPERV: &str = "there is no Hyper-V interface";

object! {
    "Platform features."
    Features {
        acpi "acpi": Option<AcpiFeature>, Works("Always on."), "ACPI tables.";
        apic "apic": Option<ApicFeature>, Works("Always on."), "Local APICs.";
        smm "smm": Option<SmmFeature>, Works("Natively absent from the guest."), "System management mode.";
        kvm "kvm": Option<KvmFeature>, Works(""), "KVM's own interface.";
        pvspinlock "pvspinlock": Option<FeatureState>, Libvirt("the guest sees what KVM offers"), "Paravirtual spin locks.";
        hyperv "hyperv": Option<Hyperv>, Libvirt(HYPERV), "Hyper-V's interface.";
        hyperv_passthrough "hypervPassthrough": Option<HypervPassthrough>, Libvirt(HYPERV), "All of Hyper-V's interface that the host has.";
    }

    "ACPI tables."
    AcpiFeature {
        enabled "enabled": Option<bool>, Only(true, "the guest finds its CPUs and devices by ACPI"), "Whether it is on; yes where absent.";
    }

    "Local APICs."
    ApicFeature {
        enabled "enabled": Option<bool>, Only(true, "interrupts go through the local APICs"), "Whether it is on; yes where absent.";
        end_of_interrupt "endOfInterrupt": Option<bool>, Refused("the guest sees what KVM offers; remove it"), "Paravirtual end of interrupt.";
    }

    "System management mode."
    SmmFeature {
        enabled "enabled": Option<bool>, NativeOnly(false, "there is no firmware that would use it"), "Whether it is on; yes where absent.";
    }

    "KVM's own interface."
    KvmFeature {
        hidden "hidden": Option<bool>, Libvirt("the guest sees that it runs under KVM"), "Whether it is hidden from the guest.";
    }

    "A feature that is on or off."
    FeatureState {
        enabled "enabled": Option<bool>, Part, "Whether it is on; yes where absent.";
    }

    "All of Hyper-V's interface that the host has."
    HypervPassthrough {
        enabled "enabled": Option<bool>, Part, "Whether it is on; yes where absent.";
    }

    "Hyper-V's interface."
    Hyperv {
        evmcs "evmcs": Option<FeatureState>, Part, "Enlightened VMCS.";
        frequencies "frequencies": Option<FeatureState>, Part, "TSC and APIC frequencies.";
        ipi "ipi": Option<FeatureState>, Part, "Paravirtual IPIs.";
        reenlightenment "reenlightenment": Option<FeatureState>, Part, "Notice of TSC changes.";
        relaxed "relaxed": Option<FeatureState>, Part, "No watchdog crashes on a busy host.";
        reset "reset": Option<FeatureState>, Part, "Reset by hypercall.";
        runtime "runtime": Option<FeatureState>, Part, "Virtual processor run time.";
        spinlocks "spinlocks": Option<HypervSpinlocks>, Part, "Spin lock retries.";
        synic "synic": Option<FeatureState>, Part, "Synthetic interrupts.";
        synictimer "synictimer": Option<HypervSynicTimer>, Part, "Synthetic timers.";
        tlbflush "tlbflush": Option<HypervTlbFlush>, Part, "Paravirtual TLB flush.";
        vapic "vapic": Option<FeatureState>, Part, "Virtual APIC.";
        vendorid "vendorid": Option<HypervVendorId>, Part, "Vendor name.";
        vpindex "vpindex": Option<FeatureState>, Part, "Virtual processor index.";
    }

    "Spin lock retries."
    HypervSpinlocks {
        enabled "enabled": Option<bool>, Part, "Whether it is on; yes where absent.";
        spinlocks "spinlocks": Option<u32>, Part, "How many.";
    }

    "Synthetic timers."
    HypervSynicTimer {
        enabled "enabled": Option<bool>, Part, "Whether it is on; yes where absent.";
        direct "direct": Option<FeatureState>, Part, "Direct mode.";
    }

    "Paravirtual TLB flush."
    HypervTlbFlush {
        enabled "enabled": Option<bool>, Part, "Whether it is on; yes where absent.";
        direct "direct": Option<FeatureState>, Planned("libvirt is not told of it; remove it"), "Direct mode.";
        extended "extended": Option<FeatureState>, Planned("libvirt is not told of it; remove it"), "Extended ranges.";
    }

    "Vendor name."
    HypervVendorId {
        enabled "enabled": Option<bool>, Part, "Whether it is on; yes where absent.";
        vendorid "vendorid": Option<String>, Part, "The name.";
    }
}
