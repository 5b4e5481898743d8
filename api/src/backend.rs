//! Which backend runs a guest: our own virtual machine monitor, or QEMU through libvirt.
//!
//! Called by whoever starts a guest. Pure: whether a disk boots without firmware is for those to say who can look at it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::VirtualMachineInstance;

/// Annotation of an instance that says which: a word of [`BackendKind`], or `auto`.
pub const BACKEND_ANNOTATION: &str = "pinion.dev/backend";
/// As if there were no annotation.
pub(crate) const AUTO: &str = "auto";

/// What runs a guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum BackendKind {
    /// Our own virtual machine monitor.
    #[default]
    Native,
    /// QEMU, through libvirt.
    Libvirt,
}

/// A word that names no backend.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no backend: auto, native or libvirt")]
pub struct NoBackend(pub String);

impl BackendKind {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Native, Self::Libvirt];

    /// The program that runs a guest by it.
    #[must_use]
    pub const fn program(self) -> &'static str {
        match self {
            Self::Native => "pinion-launcher",
            Self::Libvirt => "pinion-launcher-libvirt",
        }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Libvirt => "libvirt",
        }
    }
}

impl fmt::Display for BackendKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for BackendKind {
    type Err = NoBackend;

    fn from_str(text: &str) -> Result<Self, NoBackend> {
        Self::ALL.into_iter().find(|kind| kind.word() == text).ok_or_else(|| NoBackend(text.to_owned()))
    }
}

impl VirtualMachineInstance {
    /// The backend that its annotation asks for; none where it leaves the choice.
    #[must_use]
    pub fn asked_backend(&self) -> Option<BackendKind> {
        self.metadata.annotations.get(BACKEND_ANNOTATION)?.parse().ok()
    }

    /// What runs it in a cluster: what it asks for, else our own virtual machine monitor where that can.
    #[must_use]
    pub fn backend(&self) -> BackendKind {
        self.asked_backend().unwrap_or_else(|| {
            if self.needs_libvirt().is_empty() { BackendKind::Native } else { BackendKind::Libvirt }
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn backend(annotations: &Value, domain: &Value) -> BackendKind {
        let instance: VirtualMachineInstance = serde_json::from_value(json!({
            "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance",
            "metadata": {"name": "a", "annotations": annotations}, "spec": {"domain": domain}
        }))
        .unwrap();
        instance.backend()
    }

    #[test]
    fn a_guest_has_the_backend_that_it_asks_for_and_else_the_native_one_where_that_can() {
        let (plain, efi) =
            (json!({"devices": {}}), json!({"devices": {}, "firmware": {"bootloader": {"efi": {}}}}));
        assert_eq!(backend(&json!({}), &plain), BackendKind::Native);
        assert_eq!(backend(&json!({}), &efi), BackendKind::Libvirt);
        assert_eq!(backend(&json!({BACKEND_ANNOTATION: "auto"}), &efi), BackendKind::Libvirt);
        assert_eq!(backend(&json!({BACKEND_ANNOTATION: "libvirt"}), &plain), BackendKind::Libvirt);
        assert_eq!(backend(&json!({BACKEND_ANNOTATION: "native"}), &efi), BackendKind::Native);
    }
}
