//! The identity of a guest, made from its name as KubeVirt makes it, so that a guest stays the same one.

use pinion_api::VirtualMachineInstance;
use uuid::Uuid;

/// What KubeVirt makes a guest's UUID from, with its name. Source: `CalculateLegacyUUID`.
const NAMESPACE: Uuid = Uuid::from_u128(0x6a1a_24a1_4061_4607_8bf4_a396_3d0c_5895);

/// The spec's, else one that is always the same for a name.
#[must_use]
pub fn guest_uuid(instance: &VirtualMachineInstance) -> Uuid {
    let given = instance.spec.domain.firmware.as_ref().and_then(|f| f.uuid.as_deref());
    let given = given.and_then(|text| text.parse().ok());
    given.unwrap_or_else(|| made_uuid(instance.name()))
}

/// Always the same for a name.
#[must_use]
pub fn made_uuid(name: &str) -> Uuid {
    Uuid::new_v5(&NAMESPACE, name.as_bytes())
}
