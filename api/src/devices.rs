//! `domain.devices`: the guest's devices, but for disks and interfaces.

use crate::disk::Disk;
use crate::network::Interface;
use crate::schema::Status::{ClusterBoth, Libvirt, NativeOnly, Only, Part, Planned, Refused, Works};

/// Passed-through devices.
const CLAIMS: &str = "devices are not claimed; name one by deviceName";
const VIRTUAL_GPU: &str = "mediated GPUs are not passed through; name a whole GPU or a virtual function";
const TAG: &str = "the guest is not told of tags; remove it";
/// Graphics.
const GRAPHICS: &str = "the guest has no graphics; its console is serial";
/// Input.
const INPUT: &str = "the guest has no graphics, and so no pointer or keyboard";

object! {
    "Devices."
    Devices {
        disks "disks": Vec<Disk>, Works(""), "Disks.";
        interfaces "interfaces": Vec<Interface>, Works(""), "Network interfaces.";
        rng "rng": Option<Rng>, Works("virtio-rng, fed by the host's generator."), "Entropy source.";
        autoattach_serial_console "autoattachSerialConsole": Option<bool>, Only(true, "the serial console is the guest's only console"), "Whether there is a serial console.";
        log_serial_console "logSerialConsole": Option<bool>, Works(""), "Whether what the guest writes to the serial console is logged.";
        autoattach_graphics_device "autoattachGraphicsDevice": Option<bool>, NativeOnly(false, GRAPHICS), "Whether there is a graphics device.";
        autoattach_mem_balloon "autoattachMemBalloon": Option<bool>, Only(false, "the guest keeps all its memory, so there is no balloon"), "Whether there is a memory balloon.";
        autoattach_pod_interface "autoattachPodInterface": Option<bool>, ClusterBoth(false, "there is no pod network on one host; connect a bridge interface to a multus network"), "Whether there is an interface without one being asked for.";
        autoattach_input_device "autoattachInputDevice": Option<bool>, Libvirt(INPUT), "Whether there is a pointer.";
        autoattach_vsock "autoattachVSOCK": Option<bool>, Planned("there is no vsock device; remove it"), "Whether there is a vsock device.";
        disable_hotplug "disableHotplug": Option<bool>, Works("Nothing is hot-plugged either way."), "Whether to do without hot-plug.";
        use_virtio_transitional "useVirtioTransitional": Option<bool>, Refused("virtio devices are modern (1.0 and later) only; remove it"), "Virtio devices with the legacy interface too.";
        block_multi_queue "blockMultiQueue": Option<bool>, Planned("a disk has one queue, served by one thread; remove it"), "One queue per vCPU for each disk.";
        network_interface_multiqueue "networkInterfaceMultiqueue": Option<bool>, Planned("an interface has one pair of queues; remove it"), "One pair of queues per vCPU for each interface.";
        gpus "gpus": Vec<Gpu>, Works("By `deviceName`, which /etc/pinion/devices.yaml gives a meaning."), "GPUs.";
        host_devices "hostDevices": Vec<HostDevice>, Works("As `gpus`."), "Other passed-through devices.";
        filesystems "filesystems": Vec<Filesystem>, Planned("directories are not shared with the guest; use a disk"), "Directories shared by virtio-fs.";
        watchdog "watchdog": Option<Watchdog>, Libvirt("there is no watchdog"), "Watchdog.";
        tpm "tpm": Option<Tpm>, Libvirt("there is no TPM"), "Trusted platform module.";
        panic_devices "panicDevices": Vec<PanicDevice>, Libvirt("there is no panic device"), "Devices that report a guest's panic.";
        downward_metrics "downwardMetrics": Option<DownwardMetrics>, Planned("the host's metrics are not passed on; remove it"), "Host metrics for the guest.";
        inputs "inputs": Vec<Input>, Libvirt(INPUT), "Pointers and keyboards.";
        video "video": Option<Video>, Libvirt(GRAPHICS), "Graphics device.";
        sound "sound": Option<Sound>, Libvirt("there is no sound"), "Sound device.";
        client_passthrough "clientPassthrough": Option<ClientPassthrough>, Planned("there is no USB; remove it"), "USB devices of the viewer.";
    }

    "Entropy source."
    Rng {}

    "A GPU."
    Gpu {
        name "name": String, Works(""), "Its name.";
        device_name "deviceName": Option<String>, Works(""), "Resource it is.";
        claim_name "claimName": Option<String>, Planned(CLAIMS), "Claim it comes from.";
        request_name "requestName": Option<String>, Planned(CLAIMS), "Request of the claim.";
        tag "tag": Option<String>, Planned(TAG), "Tag told to the guest.";
        virtual_gpu_options "virtualGPUOptions": Option<VirtualGpuOptions>, Planned(VIRTUAL_GPU), "Of a virtual GPU.";
    }

    "Of a virtual GPU."
    VirtualGpuOptions {
        display "display": Option<VirtualGpuDisplay>, Part, "Its display.";
    }

    "Display of a virtual GPU."
    VirtualGpuDisplay {
        enabled "enabled": Option<bool>, Part, "Whether it has one; yes where absent.";
        ram_fb "ramFB": Option<RamFramebuffer>, Part, "Display before its driver loads.";
    }

    "Display before the driver loads."
    RamFramebuffer {
        enabled "enabled": Option<bool>, Part, "Whether it is on; yes where absent.";
    }

    "A passed-through device."
    HostDevice {
        name "name": String, Works(""), "Its name.";
        device_name "deviceName": Option<String>, Works(""), "Resource it is.";
        claim_name "claimName": Option<String>, Planned(CLAIMS), "Claim it comes from.";
        request_name "requestName": Option<String>, Planned(CLAIMS), "Request of the claim.";
        tag "tag": Option<String>, Planned(TAG), "Tag told to the guest.";
    }

    "A directory shared with the guest."
    Filesystem {
        name "name": String, Part, "Volume it shares.";
        virtiofs "virtiofs": Virtiofs, Part, "By virtio-fs.";
    }

    "By virtio-fs."
    Virtiofs {}

    "A watchdog."
    Watchdog {
        name "name": String, Part, "Its name.";
        i6300esb "i6300esb": Option<WatchdogDevice>, Part, "Intel 6300ESB.";
        diag288 "diag288": Option<WatchdogDevice>, Refused("it is a device of IBM Z; use i6300esb"), "Of IBM Z.";
    }

    "What a watchdog does."
    WatchdogDevice {
        action "action": Option<String>, Part, "`poweroff`, `reset` or `shutdown`.";
    }

    "A trusted platform module."
    Tpm {
        enabled "enabled": Option<bool>, Part, "Whether it is there; yes where absent.";
        persistent "persistent": Option<bool>, Part, "Whether its state outlives the guest.";
    }

    "A device that reports a guest's panic."
    PanicDevice {
        model "model": Option<String>, Part, "`hyperv`, `isa` or `pvpanic`.";
    }

    "Host metrics for the guest."
    DownwardMetrics {}

    "A pointer or keyboard."
    Input {
        name "name": String, Part, "Its name.";
        kind "type": String, Part, "`tablet` or `keyboard`.";
        bus "bus": Option<String>, Part, "`usb` or `virtio`.";
    }

    "A graphics device."
    Video {
        kind "type": Option<String>, Part, "Its model.";
    }

    "A sound device."
    Sound {
        name "name": String, Part, "Its name.";
        model "model": Option<String>, Part, "`ich9` or `ac97`.";
    }

    "USB devices of the viewer."
    ClientPassthrough {}
}
