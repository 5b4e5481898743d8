//! `NodeProfile` of `pinion.dev/v1alpha1`: what nodes are for. The same document that a host has as a file, and which nodes it is
//! for.

use serde_json::{Value, json};

use crate::own::{Names, definition};

/// Its name in addresses.
pub const PROFILE_PLURAL: &str = "nodeprofiles";
/// A list of CPUs as the kernel writes it.
const CPUS: &str = "^[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*$";
/// Switches of the kernel, as the agent names them.
const KNOBS: [&str; 8] = [
    "statInterval",
    "numaBalancing",
    "samePageMerging",
    "compaction",
    "hugePageScan",
    "nmiWatchdog",
    "realtimeThrottling",
    "timerMigration",
];

/// The whole document.
#[must_use]
pub fn profile_document() -> Value {
    let names =
        Names { plural: PROFILE_PLURAL, singular: "nodeprofile", kind: "NodeProfile", short: "nprofile" };
    let columns = json!([
        {"name": "Selector", "jsonPath": ".spec.nodeSelector", "type": "string"},
        {"name": "Dedicated", "jsonPath": ".spec.dedicated", "type": "string"},
        {"name": "Housekeeping", "jsonPath": ".spec.housekeeping", "type": "string"},
        {"name": "Age", "jsonPath": ".metadata.creationTimestamp", "type": "date"},
    ]);
    definition(&names, &schema(), &columns)
}

fn schema() -> Value {
    let text = |text: &str| json!({"type": "string", "description": text});
    let cpus = |text: &str| json!({"type": "string", "description": text, "pattern": CPUS});
    json!({
        "type": "object",
        "description": "What nodes are for. A node has one: the one that asks for the most of its labels, then the first by name.",
        "properties": {
            "apiVersion": text("API version."),
            "kind": text("Kind."),
            "metadata": {"type": "object"},
            "spec": {
                "type": "object",
                "properties": {
                    "nodeSelector": {
                        "type": "object",
                        "description": "Labels of the nodes that it is for, all of them; every node without.",
                        "additionalProperties": {"type": "string"},
                    },
                    "housekeeping": cpus("CPUs that are never dedicated, such as 0-1,8."),
                    "dedicated": cpus("CPUs that may be dedicated; all others where absent."),
                    "hugePages": {
                        "type": "array",
                        "description": "Huge pages that there are at least.",
                        "items": {
                            "type": "object",
                            "required": ["node", "pageSize", "count"],
                            "properties": {
                                "node": {"type": "integer", "format": "int32", "minimum": 0, "description": "NUMA node."},
                                "pageSize": {"type": "string", "enum": ["2Mi", "1Gi"], "description": "Their size."},
                                "count": {"type": "integer", "format": "int32", "minimum": 0, "description": "How many."},
                            },
                        },
                    },
                    "knobs": {
                        "type": "array",
                        "description": "Switches of the kernel that may be changed; all of them where absent.",
                        "items": {"type": "string", "enum": KNOBS},
                    },
                },
            },
        },
    })
}
