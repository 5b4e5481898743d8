//! Why a guest is not run through libvirt.

use std::io;
use std::path::PathBuf;

use pinion_launcher::VolumeError;
use vmm_host::TapError;

/// Why a guest is not run through libvirt.
#[derive(Debug, thiserror::Error)]
pub enum LibvirtError {
    /// No daemon.
    #[error(
        "Cannot reach libvirt at {uri}: is its daemon running, and may this user talk to it? (`systemctl start libvirtd`)"
    )]
    Connect {
        /// Where.
        uri: &'static str,
        /// What libvirt said.
        source: virt::error::Error,
    },
    /// It refused the guest.
    #[error("libvirt does not start the guest {name:?}")]
    Start {
        /// Its name there.
        name: String,
        /// What libvirt said.
        source: virt::error::Error,
    },
    /// It could not do something with the guest.
    #[error("libvirt cannot {action} the guest {name:?}")]
    Act {
        /// What, as a verb.
        action: &'static str,
        /// Its name there.
        name: String,
        /// What libvirt said.
        source: virt::error::Error,
    },
    /// A file of ours.
    #[error("Cannot {action} {path:?}")]
    File {
        /// What, as a verb.
        action: &'static str,
        /// Which.
        path: PathBuf,
        /// From the operating system.
        source: io::Error,
    },
    /// QEMU went away.
    #[error("QEMU has ended before the guest ran; its log is {0:?}")]
    Gone(PathBuf),
    /// libvirt's document cannot be read.
    #[error("libvirt's description of the running guest {name:?} cannot be read")]
    Description {
        /// Its name there.
        name: String,
        /// Where it is wrong.
        source: roxmltree::Error,
    },
    /// What only our own virtual machine monitor has, or nobody.
    #[error("{field}: not with libvirt: {instead}")]
    Volume {
        /// The field.
        field: String,
        /// What to do.
        instead: &'static str,
    },
    /// The driver in this process.
    #[error("libvirt's QEMU driver does not start in this process: are its files, and QEMU's, in the image?")]
    Embedded(#[source] virt::error::Error),
    /// A disk's volume.
    #[error("volume {volume:?}")]
    Disk {
        /// The volume.
        volume: String,
        /// Why.
        source: VolumeError,
    },
    /// The image that a guest writes to.
    #[error("Cannot make {path:?} on top of {base:?}: {why}")]
    Overlay {
        /// What was to be made.
        path: PathBuf,
        /// The image that stays as it is.
        base: PathBuf,
        /// What QEMU's tool said.
        why: String,
    },
    /// A tap device.
    #[error("interface {interface:?}")]
    Tap {
        /// The interface.
        interface: String,
        /// Why.
        source: TapError,
    },
    /// A kernel boot without what its rules promise.
    #[error("{0}: missing")]
    Missing(&'static str),
}
