//! Which libvirt runs a guest: the host's daemon, or in a pod the QEMU driver in this process, which has no other guest.
//!
//! Called by the backend before it opens a guest, on the session's thread. The driver's events are a thread of their own,
//! which lives as long as the process. Of a daemon nothing is changed.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;

use virt::connect::Connect;
use virt::{error, event};

use crate::error::LibvirtError;

/// The host's system daemon.
pub(crate) const DAEMON: &str = "qemu:///system";
/// Where it keeps guests' process numbers and logs.
const RUN: &str = "/run/libvirt/qemu";
const LOGS: &str = "/var/log/libvirt/qemu";
/// The driver's own settings. It would start a daemon for logs, mount file systems of a guest's own, and note the owners of
/// files: none of which is for a pod. Source: libvirt's `qemu.conf`.
const CONFIGURATION: &str = "stdio_handler = \"file\"\nnamespaces = []\nremember_owner = 0\n";

/// A libvirt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Hypervisor {
    /// The host's.
    Daemon,
    /// The driver in this process, with all its files in a folder. Source: libvirt's documentation, "Embedded driver".
    Embedded(PathBuf),
}

impl Hypervisor {
    /// Starts the driver in this process, with a folder for its files.
    ///
    /// 1. Its settings are there before it reads them.
    /// 2. Its events have somebody who handles them before there are any.
    pub(crate) fn embedded(folder: &Path) -> Result<Self, LibvirtError> {
        let path = folder.join("etc/qemu.conf");
        let failed = |source| LibvirtError::File { action: "write", path: path.clone(), source };
        fs::create_dir_all(folder.join("etc"))
            .and_then(|()| fs::write(&path, CONFIGURATION))
            .map_err(failed)?;
        event::event_register_default_impl().map_err(LibvirtError::Embedded)?;
        let handle = || while event::event_run_default_impl().is_ok() {};
        let thread = thread::Builder::new().name("libvirt".into()).spawn(handle);
        thread.map_err(|source| LibvirtError::File {
            action: "start a thread beside",
            path: folder.to_owned(),
            source,
        })?;
        Ok(Self::Embedded(folder.to_owned()))
    }

    /// Connects to it. Its errors are ours to tell, not the library's to print.
    pub(crate) fn connect(&self) -> Result<Connect, LibvirtError> {
        error::clear_error_callback();
        match self {
            Self::Daemon => {
                Connect::open(Some(DAEMON)).map_err(|source| LibvirtError::Connect { uri: DAEMON, source })
            }
            Self::Embedded(root) => {
                let uri = format!("qemu:///embed?root={}", root.display());
                Connect::open(Some(&uri)).map_err(LibvirtError::Embedded)
            }
        }
    }

    /// Whether it ends guests whose connection is gone. The driver cannot; its guests go with their container.
    pub(crate) const fn ends_guests(&self) -> bool {
        matches!(self, Self::Daemon)
    }

    /// The file that a guest's process number is written to.
    pub(crate) fn id_file(&self, name: &str) -> PathBuf {
        self.folder(RUN, "run/qemu").join(format!("{name}.pid"))
    }

    /// What QEMU and libvirt wrote of a guest.
    pub(crate) fn log(&self, name: &str) -> PathBuf {
        self.folder(LOGS, "log/qemu").join(format!("{name}.log"))
    }

    fn folder(&self, of_daemon: &str, inside: &str) -> PathBuf {
        match self {
            Self::Daemon => of_daemon.into(),
            Self::Embedded(root) => root.join(inside),
        }
    }
}
