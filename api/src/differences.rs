//! Where Pinion differs from KubeVirt on purpose. Data; the documentation is made from it.

/// A difference in what a field means, or in what is accepted.
#[derive(Clone, Copy, Debug)]
pub struct Difference {
    /// The field, or what it is about.
    pub about: &'static str,
    /// What KubeVirt does.
    pub kubevirt: &'static str,
    /// What Pinion does.
    pub pinion: &'static str,
}

const fn difference(about: &'static str, kubevirt: &'static str, pinion: &'static str) -> Difference {
    Difference { about, kubevirt, pinion }
}

/// Every difference, in the order of the documentation.
pub const DIFFERENCES: &[Difference] = &[
    difference(
        "An instance in a cluster that names neither interfaces nor networks",
        "Is on the pod network by `bridge`.",
        "Is on it by `masquerade`, which leaves the pod its address.",
    ),
    difference(
        "Defaults in stored objects",
        "Admission writes them into the object, so that a file that is applied again can be refused as a change.",
        "Filled in by whoever reads the object. A file that is applied again changes nothing.",
    ),
    difference(
        "Problems of a spec",
        "Unknown fields are pruned or warned of; others are found when the guest starts.",
        "Every problem of a file is reported at once, by path, before anything starts. No field is ignored.",
    ),
    difference(
        "`cpu.isolateEmulatorThread`",
        "Costs the guest one or two whole CPUs.",
        "Costs nothing: emulator threads always live on the host's housekeeping CPUs.",
    ),
    difference(
        "`cpu.threads`",
        "At most 2.",
        "As many as the host's cores have; the planner refuses more than that.",
    ),
    difference(
        "`cpu.realtime.mask`",
        "Not looked at until the guest starts.",
        "Checked with the spec: its form, that each vCPU exists, and that it selects at least one.",
    ),
    difference(
        "`cpu.realtime`",
        "The real-time class is set after the guest has begun to run.",
        "Set, and read back, before the first instruction; the guest's memory is locked.",
    ),
    difference(
        "`cpu.numa.guestMappingPassthrough`: pages",
        "Needs huge pages.",
        "Works with ordinary pages too.",
    ),
    difference(
        "`cpu.numa.guestMappingPassthrough`: memory",
        "Split equally between guest cells.",
        "Split by the vCPUs of each cell, in whole pages.",
    ),
    difference(
        "`cpu.numa` absent",
        "One guest cell, wherever its memory comes from.",
        "One guest cell where the guest fits on one host node; a cell per node where it does not.",
    ),
    difference(
        "`cpu.model`",
        "`host-model` is a named model near the host's CPU; named models work.",
        "`host-model` and `host-passthrough` mean the same: the host's CPU as far as KVM passes it on.",
    ),
    difference(
        "`cpu.maxSockets`",
        "Defaults to four times the sockets, for hot-plug.",
        "CPUs are not hot-plugged: absent, or equal to `sockets`.",
    ),
    difference(
        "CPU request and limit with dedicated CPUs and `cpu.cores`",
        "One of the two must equal the vCPUs.",
        "Each that is given must equal the vCPUs.",
    ),
    difference(
        "CPU request and limit without dedicated CPUs",
        "A share of time and a quota.",
        "vCPUs are counted, not shares: a request may be up to the vCPUs; a limit below them is refused, \
         as it would throttle.",
    ),
    difference(
        "No memory size",
        "Admitted, unless CPUs are dedicated.",
        "An error, unless huge pages are asked for: then one page.",
    ),
    difference(
        "`memory.hugepages.pageSize`",
        "Any size passes admission; one that does not exist fails later.",
        "`2Mi` and `1Gi` only; `memory.guest` (not the memory request) must be a whole number of pages.",
    ),
    difference(
        "Memory without huge pages",
        "Taken from the host when touched.",
        "Rounded up to 4 KiB pages, populated on its node before the first instruction, never overcommitted: \
         a memory request other than `memory.guest` is refused.",
    ),
    difference(
        "`resources.limits.memory`",
        "Limits the launcher's pod.",
        "Gives the size where nothing else does, and may not be below it; a guest's memory is fixed, so nothing \
         else is limited.",
    ),
    difference("`resources` other than `cpu` and `memory`", "Passed on to the pod.", "Refused by path."),
    difference(
        "`ioThreadsPolicy: auto`",
        "Up to twice the CPU request; 1 where only `cpu.cores` is given.",
        "One thread per disk, up to twice the vCPUs.",
    ),
    difference(
        "`ioThreadsPolicy`: where threads run",
        "On the CPUs of the vCPUs, but for the supplemental pool.",
        "On the host's shared I/O CPUs; each thread of the supplemental pool on a CPU of its own.",
    ),
    difference(
        "`ioThreadsPolicy: supplementalPool`",
        "Every disk is served by all threads; `dedicatedIOThread` is ignored.",
        "Disks are dealt out to the threads in turn, so a pool larger than the disks is refused; \
         `dedicatedIOThread` is honoured beside it.",
    ),
    difference("`ioThreads` without `supplementalPool`", "Ignored.", "Refused: it would have no effect."),
    difference("`disks[].disk.bus` absent", "`sata`.", "`virtio`, the only bus."),
    difference(
        "`disks[].errorPolicy` absent",
        "`stop`: the guest is paused.",
        "`report`: the guest is told, and the error is counted.",
    ),
    difference(
        "`disks[].cache` absent",
        "`none` where the storage can do it.",
        "`writeback`: the host's page cache; the guest's flush reaches the disk.",
    ),
    difference(
        "Number of devices",
        "256 disks and 256 interfaces.",
        "31 disks, interfaces and generators together: the places of the PCI bus.",
    ),
    difference(
        "`volumes[].hostDisk`",
        "Needs a feature gate.",
        "Works; raw, or qcow2 where the path ends in `.qcow2`; locked against a second writer.",
    ),
    difference(
        "`volumes[].configMap`, `secret`, `downwardAPI`, and both kinds of cloud-init",
        "ISO 9660 images; a label has up to 32 characters. Text for cloud-init has up to 2 KiB.",
        "FAT images, read-only; a label has up to 11 characters, and names must differ in more than case. Text for \
         cloud-init has up to 1 MiB.",
    ),
    difference(
        "`volumes[].persistentVolumeClaim.readOnly`",
        "The claim is mounted read-only.",
        "The guest can only read the disk, too.",
    ),
    difference(
        "`volumes[].ephemeral`, `containerDisk`: what the guest writes",
        "A qcow2 file that has the image as its backing file.",
        "A raw file without a name, as large as the image; which blocks are in it is kept in memory.",
    ),
    difference(
        "`networks[].multus.networkName`",
        "A network attachment definition of the cluster.",
        "On one host, the name of a tap or bridge that exists; the guest is connected to it.",
    ),
    difference(
        "No `interfaces`",
        "An interface on the pod network is added, unless `autoattachPodInterface: false`.",
        "No interface is added.",
    ),
    difference(
        "`interfaces[].macAddress` absent",
        "The pod's, or one made up.",
        "Made from namespace, name and interface name: always the same.",
    ),
    difference(
        "`autoattachGraphicsDevice`, `autoattachMemBalloon` absent",
        "Both devices are there.",
        "Neither is: the console is serial, and the guest keeps its memory.",
    ),
    difference(
        "`firmware.kernelBoot`",
        "Optional: firmware boots the disk without it; the image is a container image.",
        "Optional: without it, the kernel that the boot disk's own boot loader would start is started directly; the image is `file:///DIR`, a directory of this host that kernel and \
         initrd never lead out of.",
    ),
    difference(
        "`hostname`",
        "Told by DHCP and cloud-init.",
        "Told by `cloudInitNoCloud` or `cloudInitConfigDrive`; refused on one host where there is neither.",
    ),
    difference(
        "`runStrategy`",
        "Always and RerunOnFailure start the guest again.",
        "`pinion run` is one start: Once, Manual and Halted (and `running: false`) are accepted, the others \
         refused.",
    ),
    difference(
        "YAML",
        "Depends on the client that sends it.",
        "A key given twice, a number with a leading zero, and a number where text is needed are errors.",
    ),
];
