//! Who the guest is: name, namespace, UUID, what people wrote of it.

use std::collections::BTreeSet;

use pinion_api::{InstanceSpec, ObjectMeta};
use pinion_launcher::made_uuid;
use uuid::Uuid;

use super::Fault;
use super::source::{Part, quoted};

/// Longest DNS label. Source: RFC 1123.
const LONGEST_LABEL: usize = 63;
/// What a guest is called whose name has no letter and no digit that a label could have.
const NAMELESS: &str = "imported";
/// Annotation that says what something is. Source: "Well-Known Labels, Annotations and Taints" of Kubernetes.
const DESCRIPTION: &str = "kubernetes.io/description";

/// Name and description; the namespace is as it was asked for.
pub(super) fn metadata(domain: Part<'_>, namespace: &str) -> ObjectMeta {
    let mut metadata = ObjectMeta { namespace: Some(namespace.to_owned()), ..ObjectMeta::default() };
    match domain.child("name") {
        Some(element) => {
            element.gives("metadata.name");
            // KubeVirt and Pinion put the namespace before the name.
            let prefix = format!("{namespace}_");
            let own = element.text().strip_prefix(prefix.as_str()).unwrap_or(element.text());
            let name = label(own).unwrap_or_else(|| NAMELESS.to_owned());
            if name != own {
                element.note(format!("{} is no DNS label: the guest is called {name:?}", quoted(own)));
            }
            metadata.name = Some(name);
        }
        None => domain.fault(|path| Fault::Missing { path, what: "name" }),
    }
    if let Some(description) = domain.child("description") {
        metadata.annotations.insert(DESCRIPTION.to_owned(), description.text().to_owned());
    }
    domain.attribute("id");
    metadata
}

/// The UUID, unless it is the one that is made from the name anyway.
pub(super) fn uuid(domain: Part<'_>, name: &str, spec: &mut InstanceSpec) {
    let Some(element) = domain.child("uuid") else { return };
    element.gives("spec.domain.firmware.uuid");
    match element.text().parse::<Uuid>() {
        Ok(uuid) if uuid == made_uuid(name) => {}
        Ok(uuid) => spec.domain.firmware.get_or_insert_default().uuid = Some(uuid.to_string()),
        Err(_) => element.fault(|path| Fault::Malformed { path, text: quoted(element.text()), what: "UUID" }),
    }
}

/// A DNS label as near to a name as one can be.
fn label(name: &str) -> Option<String> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let lower = name.chars().take(LONGEST_LABEL).map(|c| c.to_ascii_lowercase());
    let label: String = lower.map(|c| if fits(c) { c } else { '-' }).collect();
    let label = label.trim_matches('-');
    (!label.is_empty()).then(|| label.to_owned())
}

/// Names of devices: each a DNS label, and no two alike.
#[derive(Debug, Default)]
pub(super) struct Names(BTreeSet<String>);

impl Names {
    /// The name wanted, or one near to it.
    pub(super) fn take(&mut self, wanted: &str) -> String {
        let wanted = label(wanted).unwrap_or_else(|| "device".to_owned());
        let mut name = wanted.clone();
        let mut number = 2_u32;
        while !self.0.insert(name.clone()) {
            let suffix = format!("-{number}");
            let kept: String = wanted.chars().take(LONGEST_LABEL.saturating_sub(suffix.len())).collect();
            name = kept + &suffix;
            number = number.saturating_add(1);
        }
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_labels() {
        for (name, expected) in [
            ("web", Some("web")),
            ("Windows 11 (prod)", Some("windows-11--prod")),
            ("instance-0000001a", Some("instance-0000001a")),
            ("db.example.com", Some("db-example-com")),
            ("日本", None),
            ("", None),
        ] {
            assert_eq!(label(name).as_deref(), expected, "{name}");
        }
        assert_eq!(label(&"x".repeat(200)).unwrap().len(), LONGEST_LABEL);
    }

    #[test]
    fn names_differ() {
        let mut names = Names::default();
        let long = "x".repeat(LONGEST_LABEL);
        let taken: Vec<String> =
            ["vda", "VDA", "vda", long.as_str(), long.as_str()].map(|n| names.take(n)).into();
        assert_eq!(taken[..3], ["vda", "vda-2", "vda-3"]);
        assert!(taken.iter().all(|name| label(name).as_ref() == Some(name)), "{taken:?}");
    }
}
