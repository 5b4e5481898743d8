//! `pinion devices resources`: what the names of the file of devices stand for, and what of it can be given.
//!
//! Called by `devices`. Reads the file and the host and changes nothing; what a unit is, and whether it can be given, is
//! decided in `pinion-device-plugin`, which tells the kubelet the same.

use pinion_device_plugin::{Offer, Unit, environment_name};
use pinion_machine::{Bdf, NodeId};
use pinion_resources::DEFAULT_PATH;
use serde::Serialize;

use super::document::Told;
use super::picture::with_remedy;
use super::words;
use crate::arguments::{DeviceResourcesOptions, ReportFormat};
use crate::failure::Failure;
use crate::resources::DeviceNames;
use crate::table::Table;
use crate::wrap::{plain, wrapped};
use crate::{machine, output};

const COLUMNS: [&str; 6] = ["RESOURCE", "DEVICE", "NODE", "GROUP", "HEALTH", "FUNCTIONS"];

/// Shows them.
///
/// # Errors
/// When the file is wrong, or the machine cannot be read.
pub(super) fn show(options: &DeviceResourcesOptions) -> Result<(), Failure> {
    let names = DeviceNames::read(options.devices.as_deref())?;
    let machine = machine::discover(&options.from)?;
    let offer = names.offer(&machine)?;
    match options.output {
        ReportFormat::Json => output::document("DeviceResourceList", &ResourceList::of(&offer)),
        ReportFormat::Text => output::text(&picture(&offer, output::width())),
    }
}

fn picture(offer: &Offer, width: usize) -> String {
    if offer.resources.is_empty() {
        return format!(
            "No device has a name: say in {DEFAULT_PATH} what each stands for, or give --devices FILE.\n"
        );
    }
    let mut table = Table::new(&COLUMNS);
    let mut below: Vec<String> = Vec::new();
    for resource in &offer.resources {
        if resource.units.is_empty() {
            let none = || words::NONE.to_owned();
            table.row([resource.name.clone(), none(), none(), none(), none(), none()]);
            below.push(String::new());
        }
        for unit in &resource.units {
            table.row(cells(&resource.name, unit));
            let told = unit.health.causes().iter();
            below.push(told.map(|c| with_remedy(&c.to_string(), &c.remedy(), "  ", width)).collect());
        }
    }
    let mut text = table.with_below(below);
    for problem in &offer.problems {
        text.push_str(&format!("\n{}", wrapped("", &plain(&problem.to_string()), 0, width)));
    }
    text
}

fn cells(name: &str, unit: &Unit) -> [String; 6] {
    [
        name.to_owned(),
        unit.id.to_string(),
        words::or_none(list(unit.nodes.iter())),
        words::or_none(list(unit.group.iter())),
        unit.health.to_string(),
        words::or_none(list(unit.hardware())),
    ]
}

fn list(of: impl Iterator<Item = impl ToString>) -> String {
    of.map(|one| one.to_string()).collect::<Vec<_>>().join(",")
}

/// The document.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ResourceList<'a> {
    items: Vec<ResourceItem<'a>>,
    /// Named, and not offered: why, in words.
    problems: Vec<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ResourceItem<'a> {
    name: &'a str,
    /// The variable by which a container learns the addresses.
    environment_name: String,
    capacity: usize,
    allocatable: usize,
    devices: Vec<DeviceItem<'a>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct DeviceItem<'a> {
    id: String,
    /// The function that a mediated device was made of.
    #[serde(skip_serializing_if = "Option::is_none")]
    parent: Option<Bdf>,
    functions: &'a [Bdf],
    nodes: &'a [NodeId],
    iommu_groups: &'a [u32],
    health: String,
    causes: Vec<Told>,
}

impl<'a> ResourceList<'a> {
    fn of(offer: &'a Offer) -> Self {
        let items = offer.resources.iter().map(|resource| ResourceItem {
            name: &resource.name,
            environment_name: environment_name(&resource.name, &resource.units),
            capacity: resource.units.len(),
            allocatable: resource.units.iter().filter(|u| u.health.is_healthy()).count(),
            devices: resource.units.iter().map(DeviceItem::of).collect(),
        });
        Self { items: items.collect(), problems: offer.problems.iter().map(ToString::to_string).collect() }
    }
}

impl<'a> DeviceItem<'a> {
    fn of(unit: &'a Unit) -> Self {
        let causes = unit.health.causes().iter().map(|cause| Told {
            reason: cause.reason(),
            message: cause.to_string(),
            remedy: cause.remedy(),
        });
        Self {
            id: unit.id.to_string(),
            parent: unit.parent,
            functions: &unit.functions,
            nodes: &unit.nodes,
            iommu_groups: unit.group.as_slice(),
            health: unit.health.to_string(),
            causes: causes.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use pinion_machine::{KernelFacts, Machine, PciFunction};
    use pinion_resources::Resources;

    use super::*;

    const NAMES: &str = r#"
apiVersion: pinion.dev/v1alpha1
kind: DeviceResources
resources:
- {name: example.com/gpu, select: [{class: "0302"}]}
- {name: example.com/none, select: [{class: "ff"}]}
"#;

    fn offer() -> Offer {
        let function = |address: &str, group, driver: &str| PciFunction {
            address: address.parse().unwrap(),
            class: 0x03_0200,
            iommu_group: Some(group),
            node: Some(NodeId(1)),
            driver: Some(driver.to_owned()),
            reset_methods: vec!["flr".into()],
            ..PciFunction::default()
        };
        let kernel =
            KernelFacts { iommu: Some(true), interrupt_remapping: Some(true), ..KernelFacts::default() };
        let pci = vec![function("31:00.0", 10, "vfio-pci"), function("32:00.0", 20, "nvidia")];
        Offer::new(&Machine { pci, kernel, ..Machine::default() }, &Resources::parse(NAMES).unwrap())
    }

    #[test]
    fn each_unit_has_a_line_and_below_it_why_it_cannot_be_given() {
        let text = picture(&offer(), 100);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines,
            [
                "RESOURCE          DEVICE        NODE  GROUP  HEALTH     FUNCTIONS",
                "example.com/gpu   0000:31:00.0  1     10     Healthy    0000:31:00.0",
                "example.com/gpu   0000:32:00.0  1     20     Unhealthy  0000:32:00.0",
                "  0000:32:00.0 is bound to nvidia, not to vfio-pci",
                "  → `sudo pinion devices bind 0000:32:00.0`",
                "example.com/none  -             -     -      -          -",
            ]
        );
    }

    #[test]
    fn the_document_counts_what_the_kubelet_counts() {
        let value = serde_json::to_value(ResourceList::of(&offer())).unwrap();
        let gpu = &value["items"][0];
        assert_eq!((gpu["capacity"].as_u64(), gpu["allocatable"].as_u64()), (Some(2), Some(1)));
        assert_eq!(gpu["environmentName"], "PCI_RESOURCE_EXAMPLE_COM_GPU");
        assert_eq!(gpu["devices"][1]["causes"][0]["reason"], "Unbound");
        assert_eq!(value["items"][1]["devices"], serde_json::json!([]));
    }
}
