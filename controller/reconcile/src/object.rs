//! What all objects have: names, labels, owners, finalizers; and how a status is written.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Value, json};

/// Who writes, as objects' `managedFields` say it.
pub const MANAGER: &str = "pinion-controller";

/// `metadata` of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its identity.
    pub uid: String,
    /// Counts up with its spec.
    pub generation: i64,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// Who must agree before it goes.
    pub finalizers: Vec<String>,
    /// When it was made.
    pub created: Option<Timestamp>,
    /// Since when it is to go.
    pub deleted: Option<Timestamp>,
    /// The object that manages it.
    pub owner: Option<Owner>,
}

/// The object that manages another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Its kind.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Its identity.
    pub uid: String,
}

impl Meta {
    /// Of an object; what is missing is empty.
    #[must_use]
    pub fn of(object: &Value) -> Self {
        let metadata = object.get("metadata").unwrap_or(&Value::Null);
        let text = |name: &str| metadata.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let time = |name: &str| metadata.get(name).and_then(Value::as_str).and_then(|text| text.parse().ok());
        let map = |name: &str| {
            let entries = metadata.get(name).and_then(Value::as_object).into_iter().flatten();
            entries.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
        };
        let list =
            |name: &str| metadata.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let owner = |owner: &Value| {
            let text = |name: &str| Some(owner.get(name)?.as_str()?.to_owned());
            owner.get("controller").and_then(Value::as_bool).filter(|is_controller| *is_controller)?;
            Some(Owner { kind: text("kind")?, name: text("name")?, uid: text("uid")? })
        };
        Self {
            name: text("name"),
            namespace: text("namespace"),
            uid: text("uid"),
            generation: metadata.get("generation").and_then(Value::as_i64).unwrap_or(0),
            labels: map("labels"),
            annotations: map("annotations"),
            finalizers: list("finalizers").iter().filter_map(|f| Some(f.as_str()?.to_owned())).collect(),
            created: time("creationTimestamp"),
            deleted: time("deletionTimestamp"),
            owner: list("ownerReferences").iter().find_map(owner),
        }
    }

    /// `namespace/name`.
    #[must_use]
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// Whether it is that object's.
    #[must_use]
    pub fn is_owned_by(&self, uid: &str) -> bool {
        self.owner.as_ref().is_some_and(|owner| owner.uid == uid)
    }

    /// As a reference from what it owns.
    #[must_use]
    pub fn reference(&self, kind: &str) -> Value {
        json!({
            "apiVersion": "kubevirt.io/v1", "kind": kind, "name": self.name, "uid": self.uid,
            "controller": true, "blockOwnerDeletion": true,
        })
    }
}

/// A status to apply, or nothing where the object has it already. The identity is in it: an object that is gone meanwhile is
/// not made anew, and one that took its name is left alone.
#[must_use]
pub fn status_patch(kind: &str, meta: &Meta, old: Option<&Value>, new: &Value) -> Option<Value> {
    let is_there =
        |old: &Value| new.as_object().is_some_and(|new| new.iter().all(|(k, v)| old.get(k) == Some(v)));
    if old.is_some_and(is_there) {
        return None;
    }
    Some(json!({
        "apiVersion": "kubevirt.io/v1",
        "kind": kind,
        "metadata": {"name": meta.name, "namespace": meta.namespace, "uid": meta.uid},
        "status": new,
    }))
}
