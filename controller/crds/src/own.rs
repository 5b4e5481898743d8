//! What definitions of kinds of `pinion.dev/v1alpha1` have in common: one version, of the whole cluster.

use serde_json::{Value, json};

/// How a kind is called.
pub(crate) struct Names {
    pub(crate) plural: &'static str,
    pub(crate) singular: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) short: &'static str,
}

/// The whole document, without subresources.
pub(crate) fn definition(names: &Names, schema: &Value, columns: &Value) -> Value {
    let Names { plural, singular, kind, short } = names;
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": format!("{plural}.pinion.dev"),
            "labels": {"app.kubernetes.io/part-of": "pinion"},
        },
        "spec": {
            "group": "pinion.dev",
            "scope": "Cluster",
            "names": {
                "plural": plural, "singular": singular, "kind": kind, "listKind": format!("{kind}List"),
                "shortNames": [short],
            },
            "versions": [{
                "name": "v1alpha1",
                "served": true,
                "storage": true,
                "schema": {"openAPIV3Schema": schema},
                "additionalPrinterColumns": columns,
            }],
        },
    })
}
