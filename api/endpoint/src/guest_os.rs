//! What QEMU's guest agent says of the system inside, with KubeVirt's field names. Pure data.

use serde::{Deserialize, Serialize};

/// The system inside: `VirtualMachineInstanceGuestOSInfo` of KubeVirt, and its host name and time zone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GuestOs {
    /// Version of the agent.
    pub guest_agent_version: String,
    /// As it calls itself on the network.
    pub hostname: String,
    /// Name of the system: `Debian GNU/Linux`.
    pub name: String,
    /// Short name: `debian`.
    pub id: String,
    /// Name with version.
    pub pretty_name: String,
    /// Version with its name: `12 (bookworm)`.
    pub version: String,
    /// Version alone: `12`.
    pub version_id: String,
    /// `uname -r`.
    pub kernel_release: String,
    /// `uname -v`.
    pub kernel_version: String,
    /// `uname -m`.
    pub machine: String,
    /// Time zone, with its offset from UTC in seconds: `UTC, 0`.
    pub timezone: String,
}

/// A network interface inside: what KubeVirt shows in `status.interfaces`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GuestInterface {
    /// As the system inside calls it.
    pub interface_name: String,
    /// Its hardware address; empty where it has none.
    pub mac: String,
    /// Its addresses, without those of the link alone last, each without its prefix length.
    pub ip_addresses: Vec<String>,
}

/// A mounted file system: `VirtualMachineInstanceFileSystem` of KubeVirt.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GuestFileSystem {
    /// As the system inside calls the device.
    pub disk_name: String,
    /// Where it is.
    pub mount_point: String,
    /// `ext4`.
    pub file_system_type: String,
    /// Bytes in use; absent where the agent does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used_bytes: Option<u64>,
    /// Its size, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_bytes: Option<u64>,
}

/// Who is logged in: `VirtualMachineInstanceGuestOSUser` of KubeVirt.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GuestUser {
    /// Name.
    pub user_name: String,
    /// Windows domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// Since when, seconds since 1970.
    pub login_time: f64,
}

/// A program that ran inside.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Executed {
    /// Its exit code; absent where a signal ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The signal that ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// What it printed; the agent keeps the first 16 MiB.
    pub stdout: String,
    /// What it said went wrong.
    pub stderr: String,
    /// Whether there was more than the agent keeps.
    #[serde(default)]
    pub truncated: bool,
}
