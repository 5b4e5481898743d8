//! `domain.devices.disks[]`: the disks the guest sees.

use crate::schema::Status::{Libvirt, Part, Planned, Refused, Works};

/// Only virtio.
const VIRTIO: &str = "disks are virtio disks";
/// PCI slots.
const SLOT: &str = "devices get their PCI slots in the order of the spec; remove it";

object! {
    "A disk."
    Disk {
        name "name": String, Works(""), "Its name, and that of its volume.";
        disk "disk": Option<DiskTarget>, Works("The default."), "Seen as a disk.";
        lun "lun": Option<LunTarget>, Planned("SCSI is not passed through; use `disk: {bus: virtio}`"), "Seen as a SCSI unit.";
        cdrom "cdrom": Option<CdromTarget>, Libvirt("there is no CD drive"), "Seen as a CD.";
        serial "serial": Option<String>, Works("At most 20 bytes, the limit of virtio-blk."), "Serial number the guest sees.";
        dedicated_io_thread "dedicatedIOThread": Option<bool>, Works("With every ioThreadsPolicy, supplementalPool too."), "An I/O thread of its own.";
        cache "cache": Option<CacheMode>, Works(""), "How the host caches it; `writeback` where absent.";
        error_policy "errorPolicy": Option<ErrorPolicy>, Works(""), "What an I/O error does; `report` where absent.";
        boot_order "bootOrder": Option<u32>, Works("The disk with the lowest boots, else the first that holds an image; the next ones are not tried."), "When it is tried.";
        io "io": Option<String>, Planned("the host's I/O interface is not chosen per disk; remove it"), "How the host does I/O.";
        tag "tag": Option<String>, Planned("device tags are not told to the guest; remove it"), "Tag told to the guest.";
        block_size "blockSize": Option<BlockSize>, Planned("the block size is that of the image; remove it"), "Block size the guest sees.";
        shareable "shareable": Option<bool>, Planned("an image is locked by the guest that writes it; remove it"), "Whether several guests may use it.";
        changed_block_tracking "changedBlockTracking": Option<bool>, Planned("changed blocks are not tracked; remove it"), "Whether changed blocks are tracked.";
    }

    "Seen as a disk."
    DiskTarget {
        bus "bus": Option<DiskBus>, Works("`virtio` where absent."), "How it is attached.";
        readonly "readonly": Option<bool>, Works(""), "Whether the guest can only read it.";
        pci_address "pciAddress": Option<String>, Planned(SLOT), "Its PCI slot.";
    }

    "Seen as a SCSI unit."
    LunTarget {
        bus "bus": Option<String>, Part, "How it is attached.";
        readonly "readonly": Option<bool>, Part, "Whether the guest can only read it.";
        reservation "reservation": Option<bool>, Part, "Whether SCSI reservations are passed on.";
    }

    "Seen as a CD."
    CdromTarget {
        bus "bus": Option<String>, Part, "How it is attached.";
        readonly "readonly": Option<bool>, Part, "Whether the guest can only read it.";
        tray "tray": Option<String>, Planned("the tray is closed; remove it"), "`open` or `closed`.";
    }

    "Block size the guest sees."
    BlockSize {
        custom "custom": Option<CustomBlockSize>, Part, "Given here.";
        match_volume "matchVolume": Option<MatchVolume>, Part, "That of the volume.";
    }

    "A block size given in the spec."
    CustomBlockSize {
        logical "logical": Option<u32>, Part, "Logical block, bytes.";
        physical "physical": Option<u32>, Part, "Physical block, bytes.";
        discard_granularity "discardGranularity": Option<u32>, Part, "Discard granularity, bytes.";
    }

    "The block size of the volume."
    MatchVolume {
        enabled "enabled": Option<bool>, Part, "Whether it is on; yes where absent.";
    }
}

choice! {
    "How a disk is attached."
    DiskBus {
        Virtio "virtio", Works(""), "virtio-blk.";
        Sata "sata", Libvirt(VIRTIO), "SATA.";
        Scsi "scsi", Libvirt(VIRTIO), "virtio-scsi.";
        Usb "usb", Libvirt(VIRTIO), "USB.";
    }

    "How the host caches a disk."
    CacheMode {
        Writeback "writeback", Works(""), "In its page cache; the guest's flush reaches the disk.";
        None "none", Libvirt("the host's page cache is used"), "Not at all.";
        Writethrough "writethrough", Libvirt("a write is durable when the guest flushes it"), "Reads only.";
    }

    "What an I/O error does."
    ErrorPolicy {
        Report "report", Works(""), "The guest is told.";
        Stop "stop", Libvirt("the guest is told of the error"), "The guest is paused.";
        Ignore "ignore", Refused("an error is not hidden from the guest; use report"), "Nothing.";
        Enospace "enospace", Libvirt("the guest is told of the error"), "The guest is paused if the host's disk is full, else told.";
    }
}
