//! `NodeLedger` of `pinion.dev/v1alpha1`: what is booked on a node, and what its agent says of it.
//!
//! Its types are `pinion-nodes`'. Machines read and write it; parts that people do not look at are kept as they are.

use serde_json::{Value, json};

use crate::own::{Names, definition};

/// Its name in addresses.
pub const LEDGER_PLURAL: &str = "nodeledgers";

/// The whole document.
#[must_use]
pub fn ledger_document() -> Value {
    let names = Names { plural: LEDGER_PLURAL, singular: "nodeledger", kind: "NodeLedger", short: "nledger" };
    let columns = json!([
        {"name": "Booked", "jsonPath": ".spec.bookings[*].holding.owner", "type": "string"},
        {"name": "Housekeeping", "jsonPath": ".status.housekeeping", "type": "string", "priority": 1},
        {"name": "Heard", "jsonPath": ".status.heard", "type": "date"},
        {"name": "Version", "jsonPath": ".status.version", "type": "string", "priority": 1},
    ]);
    let mut document = definition(&names, &schema(), &columns);
    document["spec"]["versions"][0]["subresources"] = json!({"status": {}});
    document
}

fn schema() -> Value {
    let kept = |text: &str| json!({"type": "object", "description": text, "x-kubernetes-preserve-unknown-fields": true});
    let list = |text: &str, items: Value| json!({"type": "array", "description": text, "items": items});
    let text = |text: &str| json!({"type": "string", "description": text});
    let cpus = |text: &str| list(text, json!({"type": "integer", "format": "int32"}));
    json!({
        "type": "object",
        "description": "What is booked on a node, and what its agent says of it.",
        "properties": {
            "apiVersion": text("API version."),
            "kind": text("Kind."),
            "metadata": {"type": "object"},
            "spec": {
                "type": "object",
                "description": "Written by the controller.",
                "properties": {
                    "bookings": list("Guests that have a place on the node, in the order in which they got it.", json!({
                        "type": "object",
                        "required": ["uid", "request", "holding", "since"],
                        "properties": {
                            "uid": text("Identity of the instance."),
                            "request": kept("What it needs."),
                            "holding": kept("What was planned for it; the kubelet may give it other CPUs."),
                            "since": text("When it was booked."),
                        },
                    })),
                },
            },
            "status": {
                "type": "object",
                "description": "Written by the node's agent.",
                "x-kubernetes-preserve-unknown-fields": true,
                "properties": {
                    "machine": kept("The machine, as far as a planner looks at it."),
                    "housekeeping": cpus("CPUs of the host and of pods that have none for themselves."),
                    "resources": {
                        "type": "object",
                        "description": "What resource names stand for here: devices that a guest can have now.",
                        "additionalProperties": {"type": "array", "items": {"type": "string"}},
                    },
                    "generation": {
                        "type": "integer", "format": "int64",
                        "description": "Counts up with each change of who holds what.",
                    },
                    "holdings": list("Who holds what: guests, and pods with CPUs of their own.", kept("A holding.")),
                    "guests": list("Guests that run here, or ran here last.", kept("A guest.")),
                    "obstacles": list("Why no guest can be started here.", json!({"type": "string"})),
                    "heard": text("When the agent was last heard of."),
                    "version": text("Version of the agent."),
                },
            },
        },
    })
}
