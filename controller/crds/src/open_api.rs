//! A schema of the API as `OpenAPI` 3, the part of it that API servers take ("structural schemas").
//!
//! Source: Kubernetes' documentation, "Extend the Kubernetes API with CustomResourceDefinitions"; of quantities, the
//! pattern of `apimachinery`.

use pinion_api::schema::{Field, Object, Status, Type};
use serde_json::{Map, Value, json};

/// What is no quantity for certain.
const QUANTITY: &str = r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$";
/// What an API server requires or makes up by itself, or KubeVirt's own definitions leave to admission.
const NOT_REQUIRED: [&str; 3] = ["apiVersion", "kind", "metadata"];

/// A whole object, whose status is described apart.
pub(crate) fn object(root: &Type, status: &Type) -> Value {
    let Type::Object(root) = root else { return Value::Null };
    let mut schema = described(root.doc, fields(root));
    // API servers know what it is, and take no other description.
    schema["properties"]["metadata"] = json!({"type": "object"});
    let mut status = described("What became of it.", of(status));
    // KubeVirt's tools may find more in it than is written here.
    status["x-kubernetes-preserve-unknown-fields"] = true.into();
    status["nullable"] = true.into();
    schema["properties"]["status"] = status;
    schema
}

fn of(ty: &Type) -> Value {
    match *ty {
        Type::Bool => json!({"type": "boolean"}),
        Type::String | Type::Choice(_) => json!({"type": "string"}),
        Type::Int32 | Type::Uint32 => json!({"type": "integer", "format": "int32"}),
        Type::Int64 | Type::Uint64 => json!({"type": "integer", "format": "int64"}),
        Type::Quantity => json!({
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "pattern": QUANTITY,
            "x-kubernetes-int-or-string": true,
        }),
        Type::IntOrString => {
            json!({"anyOf": [{"type": "integer"}, {"type": "string"}], "x-kubernetes-int-or-string": true})
        }
        Type::Any => json!({"x-kubernetes-preserve-unknown-fields": true}),
        Type::List(item) => json!({"type": "array", "items": of(item)}),
        Type::Map(value) => json!({"type": "object", "additionalProperties": of(value)}),
        Type::Object(object) => fields(object),
    }
}

fn fields(object: &Object) -> Value {
    let mut properties = Map::new();
    for field in object.fields {
        properties.insert(field.name.to_owned(), described(&text(field), of_field(field)));
    }
    let required: Vec<&str> = object
        .fields
        .iter()
        .filter(|field| field.required && !NOT_REQUIRED.contains(&field.name))
        .map(|field| field.name)
        .collect();
    // An unknown field is kept until admission has seen it, which refuses it by its path: an API server would drop it
    // without a word where its user did not ask for more.
    let mut schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    // An API server drops what is empty, and would find the document changed whenever it is applied.
    if !properties.is_empty() {
        schema["properties"] = properties.into();
    }
    if !required.is_empty() {
        schema["required"] = required.into();
    }
    schema
}

fn of_field(field: &Field) -> Value {
    // Metadata of a template: the API server checks none of it, and neither does KubeVirt's definition.
    if field.name == "metadata" {
        return json!({"type": "object", "nullable": true, "x-kubernetes-preserve-unknown-fields": true});
    }
    of(&field.ty)
}

fn described(text: &str, mut schema: Value) -> Value {
    schema["description"] = text.into();
    schema
}

/// What `kubectl explain` shows: also what does not work, and what to do instead.
fn text(field: &Field) -> String {
    let more = |before: &str, text: &str| match text {
        "" => String::new(),
        text => format!(" {before}{}{}", text, if text.ends_with('.') { "" } else { "." }),
    };
    let more = match field.status {
        Status::Works(text) => more("", text),
        Status::Only(value, why) => more(&format!("Only {value} for now: "), why),
        Status::Libvirt(natively) => more("On QEMU only; natively, ", natively),
        Status::NativeOnly(value, why) => more(&format!("Natively only {value}: "), why),
        Status::Refused(why) => more("Refused: ", why),
        Status::Planned(until) => more("Not done yet: ", until),
        Status::Host(text) => more("With `pinion run` only; in a cluster, ", text),
        Status::Cluster(_) | Status::ClusterBoth(..) | Status::Part | Status::System(_) => String::new(),
    };
    format!("{}{more}", field.doc)
}
