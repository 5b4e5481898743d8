//! Why a guest's interface cannot be made.

use std::io;
use std::path::PathBuf;

use crate::differences::Difference;

/// Why a guest's interface was not made in its pod. Doing it again is always safe.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// No thread to work on.
    #[error("Cannot start a thread for the pod's network namespace")]
    Thread(#[source] io::Error),
    /// The namespace cannot be entered.
    #[error(
        "Cannot enter the pod's network namespace: the node agent needs CAP_SYS_ADMIN, and the pod must still be there"
    )]
    Namespace(#[source] io::Error),
    /// The kernel's netlink does not answer.
    #[error("Cannot {action}: the node agent needs CAP_NET_ADMIN in the pod's network namespace")]
    Link {
        /// What was attempted, as a verb phrase.
        action: String,
        /// From the kernel.
        #[source]
        source: nlink::Error,
    },
    /// The pod has no such interface.
    #[error("The pod has no network interface {0:?}: its network (CNI) must have made it first")]
    NoInterface(String),
    /// Masquerade hides the guest behind the pod's address.
    #[error("The pod's interface {0:?} has no IPv4 address: masquerade needs one; use bridge")]
    NoAddress(String),
    /// Something else has a name of ours.
    #[error(
        "The pod's interface {name:?} is a {found}, and should be a bridge that this agent made: remove it"
    )]
    OtherKind {
        /// The interface.
        name: String,
        /// What it is.
        found: String,
    },
    /// A launcher has it.
    #[error("The tap device {0:?} is open already: the pod's guest runs, or its launcher has not ended yet")]
    TapInUse(String),
    /// It cannot be made.
    #[error(
        "Cannot make the tap device {name:?}: the node agent needs /dev/net/tun and CAP_NET_ADMIN, the host the module `tun`"
    )]
    Tap {
        /// The interface.
        name: String,
        /// From the kernel.
        #[source]
        source: io::Error,
    },
    /// The kernel refuses rules.
    #[error(
        "Cannot replace the nftables table {table:?} in the pod: the host needs the modules `nf_tables` and `nft_chain_nat`, and `nft_meta_bridge` for bridge"
    )]
    Rules {
        /// The table.
        table: String,
        /// From the kernel.
        #[source]
        source: nlink::Error,
    },
    /// A switch of the namespace cannot be set.
    #[error(
        "Cannot write {file:?} in the pod's network namespace: /proc/sys must be writable for the node agent"
    )]
    Setting {
        /// The file.
        file: PathBuf,
        /// From the kernel.
        #[source]
        source: io::Error,
    },
    /// No socket for the DHCP server.
    #[error(
        "Cannot bind the DHCP server's socket to {device:?} in the pod: nothing else may listen on UDP port 67 there"
    )]
    Socket {
        /// The interface.
        device: String,
        /// From the kernel.
        #[source]
        source: io::Error,
    },
    /// The record of what the pod had cannot be read or written.
    #[error("Cannot keep what the pod's interface was like in {path:?}")]
    Record {
        /// The file.
        path: PathBuf,
        /// From the kernel.
        #[source]
        source: io::Error,
    },
    /// The record is none.
    #[error("{path:?} does not say what the pod's interface was like ({why}): the pod must be made again")]
    RecordContent {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The interface was changed before, and the record is gone.
    #[error(
        "The pod's interface {device:?} is in a bridge already, and {path:?}, which said what it was like before, is gone: the pod must be made again"
    )]
    RecordLost {
        /// The interface.
        device: String,
        /// The file.
        path: PathBuf,
    },
    /// What was read back is not what was asked for.
    #[error("The pod's network is not as it was made: {}", Difference::list(.0))]
    Differs(Vec<Difference>),
}

impl NetworkError {
    /// A word for it that does not change between versions.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Thread(_) => "NoThread",
            Self::Namespace(_) => "NamespaceRefused",
            Self::Link { .. } => "LinkRefused",
            Self::NoInterface(_) => "NoPodInterface",
            Self::NoAddress(_) => "NoPodAddress",
            Self::OtherKind { .. } => "InterfaceNameTaken",
            Self::TapInUse(_) => "TapInUse",
            Self::Tap { .. } => "TapRefused",
            Self::Rules { .. } => "RulesRefused",
            Self::Setting { .. } => "SettingRefused",
            Self::Socket { .. } => "SocketRefused",
            Self::Record { .. } => "RecordUnwritable",
            Self::RecordContent { .. } => "RecordInvalid",
            Self::RecordLost { .. } => "RecordLost",
            Self::Differs(_) => "ReadBackDiffers",
        }
    }
}
