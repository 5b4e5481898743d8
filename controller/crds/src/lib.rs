//! The types of `kubevirt.io/v1` as an API server knows them: CustomResourceDefinitions, written from the schema that
//! `pinion-api` has beside the types themselves. Names, columns and subresources are KubeVirt's.
//!
//! `cargo xtask docs` writes them to `manifests/crds`. Pure.

#![forbid(unsafe_code)]

mod ledger;
mod open_api;
mod own;
mod profile;

use pinion_api::schema::{Schema, Type};
use pinion_api::{
    InstanceStatus, MachineStatus, ReplicaSetStatus, VirtualMachine, VirtualMachineInstance,
    VirtualMachineInstanceReplicaSet,
};
use serde_json::{Value, json};

pub use ledger::{LEDGER_PLURAL, ledger_document};
pub use profile::{PROFILE_PLURAL, profile_document};

const GROUP: &str = "kubevirt.io";
const VERSION: &str = "v1";

/// One kind.
#[derive(Debug)]
pub struct Definition {
    /// Its name in addresses: `virtualmachines`.
    pub plural: &'static str,
    singular: &'static str,
    kind: &'static str,
    short_names: &'static [&'static str],
    columns: &'static [Column],
    object: Type,
    status: Type,
    subresources: Subresources,
}

/// What `kubectl get` shows.
#[derive(Debug)]
struct Column {
    name: &'static str,
    path: &'static str,
    ty: &'static str,
    /// Shown with `-o wide` only.
    wide: bool,
}

/// What of an object is written by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Subresources {
    /// Nothing: who writes the object writes its status.
    None,
    /// The status.
    Status,
    /// The status, and the number of replicas.
    StatusAndScale,
}

const fn column(name: &'static str, path: &'static str, ty: &'static str) -> Column {
    Column { name, path, ty, wide: false }
}

const fn wide(name: &'static str, path: &'static str) -> Column {
    Column { name, path, ty: "string", wide: true }
}

const AGE: Column = column("Age", ".metadata.creationTimestamp", "date");
const READY: Column = column("Ready", ".status.conditions[?(@.type=='Ready')].status", "string");
const DETERMINISTIC: Column = wide("Deterministic", ".status.conditions[?(@.type=='Deterministic')].status");

/// All kinds.
///
/// Source: KubeVirt 1.9.0, `virtualmachine*.kubevirt.io`; the column `Deterministic` is ours.
pub static DEFINITIONS: [Definition; 3] = [
    Definition {
        plural: "virtualmachines",
        singular: "virtualmachine",
        kind: "VirtualMachine",
        short_names: &["vm", "vms"],
        columns: &[AGE, column("Status", ".status.printableStatus", "string"), READY],
        object: VirtualMachine::TYPE,
        status: MachineStatus::TYPE,
        subresources: Subresources::Status,
    },
    Definition {
        plural: "virtualmachineinstances",
        singular: "virtualmachineinstance",
        kind: "VirtualMachineInstance",
        short_names: &["vmi", "vmis"],
        columns: &[
            AGE,
            column("Phase", ".status.phase", "string"),
            column("IP", ".status.interfaces[0].ipAddress", "string"),
            column("NodeName", ".status.nodeName", "string"),
            READY,
            wide("Live-Migratable", ".status.conditions[?(@.type=='LiveMigratable')].status"),
            wide("Paused", ".status.conditions[?(@.type=='Paused')].status"),
            DETERMINISTIC,
        ],
        object: VirtualMachineInstance::TYPE,
        status: InstanceStatus::TYPE,
        subresources: Subresources::None,
    },
    Definition {
        plural: "virtualmachineinstancereplicasets",
        singular: "virtualmachineinstancereplicaset",
        kind: "VirtualMachineInstanceReplicaSet",
        short_names: &["vmirs", "vmirss"],
        columns: &[
            column("Desired", ".spec.replicas", "integer"),
            column("Current", ".status.replicas", "integer"),
            column("Ready", ".status.readyReplicas", "integer"),
            AGE,
        ],
        object: VirtualMachineInstanceReplicaSet::TYPE,
        status: ReplicaSetStatus::TYPE,
        subresources: Subresources::StatusAndScale,
    },
];

impl Definition {
    /// The name of its document: `virtualmachines.kubevirt.io`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}.{GROUP}", self.plural)
    }

    /// The whole document.
    #[must_use]
    pub fn document(&self) -> Value {
        let mut version = json!({
            "name": VERSION,
            "served": true,
            "storage": true,
            "schema": {"openAPIV3Schema": open_api::object(&self.object, &self.status)},
            "additionalPrinterColumns": self.columns.iter().map(Column::document).collect::<Vec<_>>(),
        });
        if let Some(subresources) = self.subresources.document() {
            version["subresources"] = subresources;
        }
        json!({
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": self.name(), "labels": {"app.kubernetes.io/part-of": "pinion"}},
            "spec": {
                "group": GROUP,
                "scope": "Namespaced",
                "names": {
                    "plural": self.plural,
                    "singular": self.singular,
                    "kind": self.kind,
                    "listKind": format!("{}List", self.kind),
                    "shortNames": self.short_names,
                    "categories": ["all"],
                },
                "versions": [version],
            },
        })
    }
}

impl Column {
    fn document(&self) -> Value {
        let mut document = json!({"name": self.name, "jsonPath": self.path, "type": self.ty});
        if self.wide {
            document["priority"] = 1.into();
        }
        document
    }
}

impl Subresources {
    fn document(self) -> Option<Value> {
        match self {
            Self::None => None,
            Self::Status => Some(json!({"status": {}})),
            Self::StatusAndScale => Some(json!({
                "status": {},
                "scale": {
                    "specReplicasPath": ".spec.replicas",
                    "statusReplicasPath": ".status.replicas",
                    "labelSelectorPath": ".status.labelSelector",
                },
            })),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every object of a schema, with its path.
    fn each(schema: &Value, path: &str, to: &mut impl FnMut(&str, &Value)) {
        to(path, schema);
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            each(field, &format!("{path}.{name}"), to);
        }
        for below in ["items", "additionalProperties"].iter().filter_map(|key| schema.get(*key)) {
            each(below, &format!("{path}[]"), to);
        }
    }

    fn schema(of: usize) -> Value {
        DEFINITIONS[of].document()["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
    }

    #[test]
    fn every_schema_is_structural_and_every_field_is_explained() {
        for (number, definition) in DEFINITIONS.iter().enumerate() {
            each(&schema(number), definition.kind, &mut |path, schema| {
                let open = ["x-kubernetes-int-or-string", "x-kubernetes-preserve-unknown-fields"];
                let has_type = schema["type"].is_string();
                assert!(has_type || open.iter().any(|key| schema[*key] == true), "{path}: {schema}");
                let required = schema["required"].as_array().into_iter().flatten();
                for name in required {
                    assert!(schema["properties"][name.as_str().unwrap()].is_object(), "{path} lacks {name}");
                }
                let is_known = path.ends_with("[]") || path == format!("{}.metadata", definition.kind);
                assert!(is_known || schema["description"].is_string(), "{path} is not explained");
            });
        }
    }

    #[test]
    fn what_is_refused_says_so_where_people_look() {
        let instance = schema(1);
        let spec = &instance["properties"]["spec"]["properties"];
        let devices = &spec["domain"]["properties"]["devices"]["properties"];
        let said = |field: &Value| field["description"].as_str().unwrap().to_owned();
        assert!(said(&spec["livenessProbe"]).contains(" Not done yet: "), "{}", said(&spec["livenessProbe"]));
        assert!(
            said(&devices["watchdog"]).contains(" On QEMU only; natively, "),
            "{}",
            said(&devices["watchdog"])
        );
        let required = &instance["properties"]["spec"]["required"];
        assert_eq!(*required, json!(["domain"]));
        assert_eq!(instance["required"], json!(["spec"]));
    }

    #[test]
    fn each_document_is_small_enough_to_be_applied() {
        for definition in &DEFINITIONS {
            // `kubectl apply` keeps it in an annotation; annotations have 256 KiB in all.
            let bytes = definition.document().to_string().len();
            assert!(bytes < 200 << 10, "{}: {bytes} bytes", definition.plural);
        }
    }
}
