//! Switches of the pod's network namespace: `/proc/sys/net` is that of the thread that opens it.

use std::fs;
use std::io;
use std::path::PathBuf;

use crate::error::NetworkError;

/// A switch, below `/proc/sys/net`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Setting {
    file: String,
    value: &'static str,
    /// Whether kernels may lack it.
    optional: bool,
}

impl Setting {
    /// Packets go from one interface to another.
    pub(crate) fn forwarding() -> Self {
        Self { file: "ipv4/ip_forward".to_owned(), value: "1", optional: false }
    }

    /// 127.0.0.1 may be reached through the interface.
    pub(crate) fn local_routes(device: &str) -> Self {
        Self { file: format!("ipv4/conf/{device}/route_localnet"), value: "1", optional: false }
    }

    /// The pod has no IPv6 address on the interface. A kernel without IPv6 has no such switch.
    pub(crate) fn no_ipv6(device: &str) -> Self {
        Self { file: format!("ipv6/conf/{device}/disable_ipv6"), value: "1", optional: true }
    }

    pub(crate) fn apply(&self) -> Result<(), NetworkError> {
        if self.read()?.is_none_or(|found| found == self.value) {
            return Ok(());
        }
        fs::write(self.path(), self.value).map_err(|source| self.refused(source))
    }

    /// What it should be.
    pub(crate) const fn wanted(&self) -> &'static str {
        self.value
    }

    /// Its name, as `sysctl` has it.
    pub(crate) fn name(&self) -> String {
        format!("net/{}", self.file)
    }

    /// What it is; none where the kernel need not have it and does not.
    pub(crate) fn read(&self) -> Result<Option<String>, NetworkError> {
        match fs::read_to_string(self.path()) {
            Ok(text) => Ok(Some(text.trim_end().to_owned())),
            Err(e) if self.optional && e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(self.refused(e)),
        }
    }

    fn path(&self) -> PathBuf {
        PathBuf::from("/proc/sys/net").join(&self.file)
    }

    fn refused(&self, source: io::Error) -> NetworkError {
        NetworkError::Setting { file: self.path(), source }
    }
}
