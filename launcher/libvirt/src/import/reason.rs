//! Why a part of a document that nobody takes has no place in a spec, and what to do.

/// By the names of an element or attribute and of the element that it is in.
pub(super) fn reason(within: &str, name: &str) -> &'static str {
    match within {
        "domain" => of_domain(name),
        "devices" => of_devices(name),
        "disk" | "driver" | "source" | "target" => of_disk(name),
        "interface" => of_interface(name),
        "features" | "hyperv" | "kvm" => {
            "not carried over: the spec has no such feature, and the host's default applies"
        }
        "cputune" => "not carried over: vCPUs are not throttled, and caches and bandwidth are not divided",
        "clock" => "not carried over: the spec has no such timer",
        "os" | "loader" | "bios" => "not carried over: the firmware is that of the host, with its defaults",
        _ => "not carried over: the spec has nothing for it",
    }
}

fn of_domain(name: &str) -> &'static str {
    match name {
        "blkiotune" | "memtune" | "resource" => {
            "not carried over: the guest's control groups are Pinion's; dedicated CPUs and a reserved memory take their place"
        }
        "maxMemory" => "not carried over: memory is not hot-plugged",
        "vcpus" => "not carried over: CPUs are not hot-plugged; all are there from the start",
        "commandline" | "override" | "capabilities" | "deprecation" => {
            "not carried over: options of QEMU's own cannot be given"
        }
        "seclabel" => "not carried over: the host's security driver labels the guest anew",
        "launchSecurity" => "not carried over: confidential guests are not done",
        "pm" => "not carried over: whether the guest may suspend is left to QEMU's default",
        "genid" => {
            "not carried over: a guest has no generation ID; one that depends on it sees a new machine"
        }
        "title" => "not carried over: put it into a label or an annotation",
        "metadata" => "not carried over: it belongs to the tools that wrote it",
        "perf" | "keywrap" | "idmap" | "id" => "not carried over: it is about the process that ran the guest",
        _ => "not carried over: the spec has nothing for it",
    }
}

fn of_devices(name: &str) -> &'static str {
    match name {
        "filesystem" => {
            "not carried over: directories are not shared with the guest; copy them to a disk, or use NFS"
        }
        "redirdev" | "redirfilter" | "hub" => "not carried over: USB devices of a viewer are not passed on",
        "smartcard" => "not carried over: there is no smart card reader",
        "shmem" => "not carried over: memory is not shared between guests",
        "memory" => "not carried over: there are no memory modules; add their size to domain.memory.guest",
        "iommu" => {
            "not carried over: the guest has no IOMMU; passed-through devices are isolated by the host's"
        }
        "crypto" => "not carried over: there is no crypto device",
        "audio" => "not carried over: sound goes nowhere",
        "parallel" => "not carried over: there is no parallel port",
        "lease" => "not carried over: images are locked on the host by themselves",
        "nvram" => "not carried over: it is a device of other architectures",
        _ => "not carried over: the spec has no such device",
    }
}

fn of_disk(name: &str) -> &'static str {
    match name {
        "iotune" => "not carried over: disks are not throttled",
        "encryption" => "not carried over: encrypted images are not opened; decrypt it with qemu-img convert",
        "auth" | "cookies" | "ssl" => "not carried over: the image is on this host",
        "mirror" | "slices" => "not carried over: it is about a copy in progress, or a part of an image",
        "transient" => "not carried over: writes to the disk last; give the guest a copy of the image",
        "queues" | "queue_size" | "packed" | "iommu" | "ats" | "page_per_vq" => {
            "not carried over: a disk or interface has one queue, of the usual size"
        }
        "wwn" | "vendor" | "product" | "rotation_rate" | "geometry" => {
            "not carried over: the guest sees what QEMU's disks say of themselves"
        }
        "seclabel" => "not carried over: the host's security driver labels the image anew",
        "startupPolicy" => "not carried over: an image that is missing is an error",
        _ => "not carried over: the spec has nothing for it",
    }
}

fn of_interface(name: &str) -> &'static str {
    match name {
        "bandwidth" => "not carried over: interfaces are not throttled; set limits on the host's bridge",
        "filterref" | "port" => "not carried over: a bridge passes everything; filter on the host",
        "vlan" => "not carried over: set the VLAN of the guest's port on the host's bridge",
        "virtualport" => "not carried over: the host's network is a Linux bridge or a tap device of its own",
        "mtu" => "not carried over: the guest has the MTU that it is set to, within that of the bridge",
        "driver" | "tune" | "coalesce" => {
            "not carried over: an interface has one pair of queues, with the host's defaults"
        }
        "guest" | "ip" | "route" => "not carried over: the guest configures its interfaces by itself",
        "rom" => "not carried over: interfaces do not boot",
        _ => "not carried over: the spec has nothing for it",
    }
}
