//! `domain.cpu`: the vCPUs the guest sees and the CPUs they run on.

use crate::schema::Status::{Libvirt, Part, Works};

object! {
    "vCPUs: how many, in what shape, on what kind of CPU."
    Cpu {
        cores "cores": Option<u32>, Works("1 where absent."), "Cores per socket.";
        sockets "sockets": Option<u32>, Works("1 where absent; the CPU limit or request where no count is given."), "Sockets.";
        threads "threads": Option<u32>, Works("1 where absent; more than 2 if the host's cores have them."), "Threads per core.";
        max_sockets "maxSockets": Option<u32>, Works("Equal to `sockets`, or absent: CPUs are not hot-plugged."), "Sockets after hot-plug.";
        model "model": Option<String>, Works("`host-passthrough` and `host-model`, which mean the same: the host's CPU as far as KVM passes it on. Named models run with libvirt."), "CPU model.";
        features "features": Vec<CpuFeature>, Libvirt("the guest sees what the host's CPU and KVM offer"), "CPU features to force, require or hide.";
        dedicated_cpu_placement "dedicatedCpuPlacement": Option<bool>, Works(""), "One CPU for each vCPU, shared with nobody.";
        isolate_emulator_thread "isolateEmulatorThread": Option<bool>, Works("Always so, and at no cost: emulator threads live on the housekeeping CPUs."), "Emulator threads off the vCPUs' CPUs.";
        numa "numa": Option<Numa>, Works(""), "NUMA.";
        realtime "realtime": Option<Realtime>, Works("`SCHED_FIFO`, memory locked; needs dedicated CPUs and NUMA passthrough."), "Real-time vCPUs.";
    }

    "A CPU feature to force, require or hide."
    CpuFeature {
        name "name": String, Part, "Name of the feature.";
        policy "policy": Option<String>, Part, "`force`, `require`, `optional`, `disable` or `forbid`.";
    }

    "NUMA."
    Numa {
        guest_mapping_passthrough "guestMappingPassthrough": Option<GuestMappingPassthrough>, Works("One guest cell per host node used; needs dedicated CPUs, not huge pages."), "The guest sees the host's NUMA nodes.";
    }

    "The guest sees the host's NUMA nodes."
    GuestMappingPassthrough {}

    "Real-time vCPUs."
    Realtime {
        mask "mask": Option<String>, Works("`0-3,^1`; all where absent. Checked at once, not when the guest starts."), "Which vCPUs.";
    }
}
