//! The devices as container runtimes read them: a document of the Container Device Interface.
//!
//! Written wherever the catalogue has changed, before the kubelet is told. It names all devices, also those that cannot be given
//! now: a container that has one may be started again. Pure.
//!
//! Source: the CDI specification, 0.6.0.

use std::path::Path;

use serde_json::{Value, json};

use crate::allocation::{CONTAINER, nodes_of};
use crate::{Catalogue, UnitId};

/// Device names may begin with a digit since 0.5.0.
const VERSION: &str = "0.6.0";
const KIND: &str = "pinion.dev/vfio";

/// By what a container asks for a unit.
pub(crate) fn cdi_name(id: UnitId) -> String {
    format!("{KIND}={id}")
}

/// Everything that is offered, but for nodes that are shared.
#[must_use]
pub fn cdi_document(catalogue: &Catalogue) -> Value {
    let node = |path: &Path| json!({"path": path, "permissions": "mrw"});
    let units = catalogue.offer.resources.iter().flat_map(|o| &o.units);
    let devices = units.map(|unit| {
        let nodes: Vec<Value> = nodes_of(unit, &catalogue.own_nodes).iter().map(|path| node(path)).collect();
        json!({"name": unit.id.to_string(), "containerEdits": {"deviceNodes": nodes}})
    });
    json!({
        "cdiVersion": VERSION,
        "kind": KIND,
        "devices": devices.collect::<Vec<_>>(),
        "containerEdits": {"deviceNodes": [node(Path::new(CONTAINER))]},
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Cause, Health, Offer, Offered, Unit};

    #[test]
    fn every_device_is_named_with_its_nodes() {
        let address = "0000:31:00.0".parse().unwrap();
        let id = UnitId::Function(address);
        let health = Health::Unhealthy(vec![Cause::Gone(id)]);
        let functions = vec![address];
        let unit = Unit { id, functions, parent: None, group: Some(16), nodes: vec![], health };
        let offer =
            Offer { resources: vec![Offered { name: "a.b/c".into(), units: vec![unit] }], problems: vec![] };
        let document = cdi_document(&Catalogue { offer, ..Catalogue::default() });
        let device = &document["devices"][0];
        assert_eq!(
            format!("{}={}", document["kind"].as_str().unwrap(), device["name"].as_str().unwrap()),
            cdi_name(id)
        );
        assert_eq!(device["containerEdits"]["deviceNodes"][0]["path"], "/dev/vfio/16");
        assert_eq!(document["containerEdits"]["deviceNodes"][0]["path"], "/dev/vfio/vfio");
    }
}
