//! What of a VM only QEMU has, through libvirt: read off the schema, so that a field says it in one place.
//!
//! Called by whoever chooses a backend. Pure.

use serde_json::Value;

use crate::path::FieldPath;
use crate::schema::{Schema, Status, Type};
use crate::{InstanceSpec, VirtualMachineInstance};

/// A field that the native virtual machine monitor cannot do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LibvirtNeed {
    /// The field.
    pub path: FieldPath,
    /// What the native one has instead.
    pub natively: &'static str,
}

/// Models of CPU that mean the host's.
const OWN_MODELS: [&str; 3] = ["", "host-passthrough", "host-model"];

impl VirtualMachineInstance {
    /// Fields that only libvirt can do, in the order of the schema; none where the native backend runs it all.
    #[must_use]
    pub fn needs_libvirt(&self) -> Vec<LibvirtNeed> {
        needs_of(&self.spec, &FieldPath::root().field("spec"))
    }
}

/// Those of a spec, wherever that is.
pub(crate) fn needs_of(spec: &InstanceSpec, path: &FieldPath) -> Vec<LibvirtNeed> {
    let mut needs = Vec::new();
    let value = serde_json::to_value(spec).unwrap_or_default();
    walk(&InstanceSpec::TYPE, &value, path, &mut needs);
    let cpu = spec.domain.cpu.as_ref();
    if cpu.and_then(|c| c.model.as_deref()).is_some_and(|model| !OWN_MODELS.contains(&model)) {
        let natively = "the guest has the host's CPU";
        needs.push(LibvirtNeed { path: path.field("domain.cpu.model"), natively });
    }
    // To name a feature is to ask for it.
    let smm = spec.domain.features.as_ref().and_then(|f| f.smm.as_ref());
    if smm.is_some_and(|smm| smm.enabled.is_none()) {
        let natively = "there is no firmware that would use it";
        needs.push(LibvirtNeed { path: path.field("domain.features.smm"), natively });
    }
    needs
}

fn walk(ty: &Type, value: &Value, path: &FieldPath, needs: &mut Vec<LibvirtNeed>) {
    match (*ty, value) {
        (Type::Object(object), Value::Object(map)) => {
            for field in object.fields {
                let Some(value) = map.get(field.name).filter(|v| asks_for_something(v)) else { continue };
                let below = path.field(field.name);
                match field.status {
                    Status::Libvirt(_) if *value == Value::Bool(false) => {}
                    Status::Libvirt(natively) => needs.push(LibvirtNeed { path: below, natively }),
                    Status::NativeOnly(own, natively) if *value == Value::Bool(!own) => {
                        needs.push(LibvirtNeed { path: below, natively });
                    }
                    _ => walk(&field.ty, value, &below, needs),
                }
            }
        }
        (Type::List(item), Value::Array(list)) => {
            for (index, value) in list.iter().enumerate() {
                walk(item, value, &path.index(index), needs);
            }
        }
        (Type::Choice(choice), Value::String(text)) => {
            let word = choice.values.iter().find(|word| word.text == text);
            if let Some(Status::Libvirt(natively)) = word.map(|word| word.status) {
                needs.push(LibvirtNeed { path: path.clone(), natively });
            }
        }
        _ => {}
    }
}

/// Nothing, empty and zero do not.
fn asks_for_something(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Number(number) => number.as_i64() != Some(0),
        Value::Bool(_) | Value::Object(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn needs(domain: &Value) -> Vec<String> {
        let instance: VirtualMachineInstance = serde_json::from_value(json!({
            "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance", "metadata": {"name": "a"},
            "spec": {"domain": domain}
        }))
        .unwrap();
        instance.needs_libvirt().into_iter().map(|need| need.path.to_string()).collect()
    }

    #[test]
    fn what_the_native_one_can_do_needs_nothing() {
        let plain = json!({
            "cpu": {"model": "host-model", "features": []},
            "features": {"smm": {"enabled": false}},
            "devices": {
                "autoattachGraphicsDevice": false, "autoattachInputDevice": false, "inputs": [],
                "disks": [{"name": "a", "disk": {"bus": "virtio"}, "cache": "writeback"}]
            }
        });
        assert_eq!(needs(&plain), Vec::<String>::new());
    }

    #[test]
    fn each_field_that_only_libvirt_has_is_named() {
        let all = json!({
            "cpu": {"model": "EPYC"},
            "features": {"smm": {}, "hyperv": {"relaxed": {}}},
            "firmware": {"bootloader": {"efi": {}}, "serial": "7"},
            "rebootPolicy": "Terminate",
            "devices": {
                "autoattachGraphicsDevice": true,
                "disks": [{"name": "a"}, {"name": "b", "disk": {"bus": "sata"}}, {"name": "c", "cdrom": {}}]
            }
        });
        assert_eq!(
            needs(&all),
            [
                "spec.domain.firmware.serial",
                "spec.domain.firmware.bootloader",
                "spec.domain.features.hyperv",
                "spec.domain.devices.disks[1].disk.bus",
                "spec.domain.devices.disks[2].cdrom",
                "spec.domain.devices.autoattachGraphicsDevice",
                "spec.domain.rebootPolicy",
                "spec.domain.cpu.model",
                "spec.domain.features.smm",
            ]
        );
    }
}
