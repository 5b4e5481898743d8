//! Units of resources: what the kubelet counts and hands out.
//!
//! Made anew from the machine and the names whenever either has changed. A unit is what can really be given away: of an
//! IOMMU group all functions of one name together, since no two guests can share a group. It must never offer a function
//! twice.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use pinion_machine::{Bdf, Machine, MediatedDevice, MediatedId, NodeId, PciFunction, is_bridge};
use pinion_resources::Resources;

use crate::{Cause, Health};

/// What a unit is called, so that who reads the kubelet's files knows the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum UnitId {
    /// The lowest address of its functions.
    Function(Bdf),
    /// The name of a mediated device.
    Mediated(MediatedId),
}

impl fmt::Display for UnitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Function(address) => address.fmt(f),
            Self::Mediated(id) => id.fmt(f),
        }
    }
}

/// Why the name of a unit was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is the name of no device")]
pub struct UnitIdError(pub String);

impl FromStr for UnitId {
    type Err = UnitIdError;

    fn from_str(text: &str) -> Result<Self, UnitIdError> {
        let mediated = || text.parse().ok().map(Self::Mediated);
        text.parse().ok().map(Self::Function).or_else(mediated).ok_or_else(|| UnitIdError(text.to_owned()))
    }
}

/// Devices that are given together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    /// Its name for the kubelet.
    pub id: UnitId,
    /// The functions that a guest gets, ascending; none where it gets a mediated device.
    pub functions: Vec<Bdf>,
    /// The function that a mediated device was made of.
    pub parent: Option<Bdf>,
    /// Their IOMMU group; none where there is no IOMMU.
    pub group: Option<u32>,
    /// The NUMA nodes that they hang off, ascending; none where the firmware does not say.
    pub nodes: Vec<NodeId>,
    /// Whether it can be given.
    pub health: Health,
}

/// The units of one resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offered {
    /// The resource: `example.com/gpu`.
    pub name: String,
    /// Its units, ascending by id.
    pub units: Vec<Unit>,
}

/// Something that is not offered although it is named.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Two names in one IOMMU group: whoever has the one has the other.
    #[error(
        "{address} ({name}) is not offered: it shares IOMMU group {group} with {other} ({other_name}), and a group can only be \
         given away whole. Give both the same name, or take {address} out of the file of devices"
    )]
    SharedGroup {
        /// The function that is not offered.
        address: Bdf,
        /// Its name.
        name: String,
        /// The group.
        group: u32,
        /// The function that is.
        other: Bdf,
        /// Its name.
        other_name: String,
    },
}

/// All that is offered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    /// A resource for each name of the file, also where it stands for nothing now: the kubelet then knows that there is
    /// none, instead of not knowing the name.
    pub resources: Vec<Offered>,
    /// What is named and not offered.
    pub problems: Vec<Problem>,
}

impl Offer {
    /// What these names stand for on this machine.
    ///
    /// A function that has two names goes by the first (such files are refused before: `Resources::conflicts`). Of a group
    /// with functions of two names, the one with the lowest address has it.
    #[must_use]
    pub fn new(machine: &Machine, resources: &Resources) -> Self {
        let mut owners: BTreeMap<u32, (Bdf, &str)> = BTreeMap::new();
        let mut shares: BTreeMap<UnitId, (&str, Vec<&PciFunction>)> = BTreeMap::new();
        let mut problems = Vec::new();
        for (function, name) in named(machine, resources) {
            let address = function.address;
            let group = function.iommu_group;
            let (other, other_name) =
                group.map_or((address, name), |group| *owners.entry(group).or_insert((address, name)));
            match group.filter(|_| other_name != name) {
                Some(group) => problems.push(Problem::SharedGroup {
                    address,
                    name: name.to_owned(),
                    group,
                    other,
                    other_name: other_name.to_owned(),
                }),
                None => {
                    shares.entry(UnitId::Function(other)).or_insert((name, Vec::new())).1.push(function);
                }
            }
        }
        let mut taken = BTreeSet::new();
        let mut units = |name: &str| {
            let of_name = shares.iter().filter(|(_, (of, _))| *of == name);
            let functions = of_name.map(|(id, (_, functions))| Unit::new(*id, functions, machine));
            let mediated = resources.mediated(name, machine).unwrap_or_default().into_iter();
            let mediated = mediated.filter(|(_, device)| taken.insert(device.id));
            let mut units: Vec<Unit> =
                functions.chain(mediated.map(|(parent, device)| Unit::mediated(parent, device))).collect();
            units.sort_by_key(|unit| unit.id);
            units
        };
        let offered = resources.names().map(|name| Offered { name: name.to_owned(), units: units(name) });
        Self { resources: offered.collect(), problems }
    }

    /// The same with the units that an earlier offer had and this one lacks, as gone: the kubelet goes on to count what a
    /// container may still hold, and gives it to nobody. A resource that is no longer named is dropped whole.
    #[must_use]
    pub fn after(mut self, earlier: &Self) -> Self {
        for resource in &mut self.resources {
            let before = earlier.resources.iter().find(|o| o.name == resource.name);
            let gone = before.into_iter().flat_map(|o| &o.units).filter(|unit| {
                let known =
                    |u: &Unit| u.id == unit.id || u.functions.iter().any(|f| unit.functions.contains(f));
                !resource.units.iter().any(known)
            });
            let gone: Vec<Unit> = gone
                .map(|unit| Unit { health: Health::Unhealthy(vec![Cause::Gone(unit.id)]), ..unit.clone() })
                .collect();
            resource.units.extend(gone);
            resource.units.sort_by_key(|unit| unit.id);
        }
        self
    }

    /// The same with functions that have failed, each by its cause: no unit with one of them can be given.
    #[must_use]
    pub fn failing(mut self, failed: &BTreeMap<Bdf, Cause>) -> Self {
        for unit in self.resources.iter_mut().flat_map(|o| &mut o.units) {
            let causes = unit.hardware().filter_map(|f| failed.get(&f)).cloned().collect();
            let health = std::mem::replace(&mut unit.health, Health::Healthy);
            unit.health = health.and(causes);
        }
        self
    }

    /// The units of a resource.
    #[must_use]
    pub fn units(&self, name: &str) -> Option<&[Unit]> {
        self.resources.iter().find(|o| o.name == name).map(|o| o.units.as_slice())
    }
}

/// Every function that has a name, ascending, bridges left out.
fn named<'a>(machine: &'a Machine, resources: &'a Resources) -> Vec<(&'a PciFunction, &'a str)> {
    let functions = machine.pci.iter().filter(|f| !is_bridge(f));
    let by_address: BTreeMap<Bdf, &PciFunction> = functions.map(|f| (f.address, f)).collect();
    let mut named = BTreeMap::new();
    for name in resources.names() {
        for address in resources.functions(name, machine).unwrap_or_default() {
            if let Some(function) = by_address.get(&address) {
                named.entry(address).or_insert((*function, name));
            }
        }
    }
    named.into_values().collect()
}

impl Unit {
    /// Of functions of one group, or one without any.
    fn new(id: UnitId, functions: &[&PciFunction], machine: &Machine) -> Self {
        let nodes: BTreeSet<NodeId> = functions.iter().filter_map(|f| f.node).collect();
        let group = functions.first().and_then(|f| f.iommu_group);
        let functions: Vec<Bdf> = functions.iter().map(|f| f.address).collect();
        let health = Health::of(machine, &functions);
        Self { id, functions, parent: None, group, nodes: nodes.into_iter().collect(), health }
    }

    /// Of a mediated device, which is where the function is that it was made of.
    fn mediated(parent: &PciFunction, device: &MediatedDevice) -> Self {
        let id = UnitId::Mediated(device.id);
        Self {
            id,
            functions: Vec::new(),
            parent: Some(parent.address),
            group: device.iommu_group,
            nodes: parent.node.into_iter().collect(),
            health: match device.iommu_group {
                Some(_) => Health::Healthy,
                None => Health::Unhealthy(vec![Cause::NoGroup(device.id)]),
            },
        }
    }

    /// The functions that it works by: none of them may fail.
    pub fn hardware(&self) -> impl Iterator<Item = Bdf> {
        self.functions.iter().copied().chain(self.parent)
    }
}

#[cfg(test)]
mod tests {
    use pinion_machine::KernelFacts;

    use super::*;

    const NAMES: &str = r#"
apiVersion: pinion.dev/v1alpha1
kind: DeviceResources
resources:
- {name: example.com/gpu-a.b, select: [{class: "0302"}]}
- {name: example.com/sound, select: [{class: "0403"}]}
- {name: example.com/none, select: [{class: "ff"}]}
"#;

    fn at(address: &str) -> Bdf {
        address.parse().unwrap()
    }

    fn function(address: &str, class: u32, group: u32) -> PciFunction {
        PciFunction {
            address: at(address),
            class,
            iommu_group: Some(group),
            node: Some(NodeId(group / 10)),
            driver: Some("vfio-pci".into()),
            reset_methods: vec!["flr".into()],
            ..PciFunction::default()
        }
    }

    fn machine(pci: Vec<PciFunction>) -> Machine {
        let kernel =
            KernelFacts { iommu: Some(true), interrupt_remapping: Some(true), ..KernelFacts::default() };
        Machine { pci, kernel, ..Machine::default() }
    }

    fn offer(pci: Vec<PciFunction>) -> Offer {
        Offer::new(&machine(pci), &Resources::parse(NAMES).unwrap())
    }

    fn ids(offer: &Offer, name: &str) -> Vec<String> {
        offer.units(name).unwrap().iter().map(|u| u.id.to_string()).collect()
    }

    #[test]
    fn each_function_with_a_group_of_its_own_is_a_unit_that_says_its_address_and_node() {
        let offer = offer(vec![function("32:00.0", 0x03_0200, 20), function("31:00.0", 0x03_0200, 10)]);
        assert_eq!(ids(&offer, "example.com/gpu-a.b"), ["0000:31:00.0", "0000:32:00.0"]);
        let nodes: Vec<_> = offer.resources[0].units.iter().map(|u| u.nodes.clone()).collect();
        assert_eq!(nodes, [[NodeId(1)], [NodeId(2)]]);
        assert!(offer.resources.iter().flat_map(|r| &r.units).all(|u| u.health.is_healthy()));
        assert_eq!(
            offer.units("example.com/none"),
            Some(&[][..]),
            "a name that stands for nothing is offered as none"
        );
        assert_eq!(offer.units("example.com/other"), None);
    }

    #[test]
    fn functions_of_one_group_and_name_are_one_unit() {
        let offer = offer(vec![function("31:00.1", 0x03_0200, 10), function("31:00.0", 0x03_0200, 10)]);
        assert_eq!(ids(&offer, "example.com/gpu-a.b"), ["0000:31:00.0"]);
        assert_eq!(offer.resources[0].units[0].functions, [at("31:00.0"), at("31:00.1")]);
        assert_eq!(offer.resources[0].units[0].group, Some(10));
    }

    #[test]
    fn of_two_names_in_a_group_the_one_with_the_lowest_address_has_it_and_the_other_is_told() {
        let offer = offer(vec![function("31:00.0", 0x03_0200, 10), function("31:00.1", 0x04_0300, 10)]);
        assert_eq!(ids(&offer, "example.com/gpu-a.b"), ["0000:31:00.0"]);
        assert!(ids(&offer, "example.com/sound").is_empty());
        let told: Vec<String> = offer.problems.iter().map(ToString::to_string).collect();
        assert_eq!(told.len(), 1);
        assert!(
            told[0].starts_with("0000:31:00.1 (example.com/sound) is not offered: it shares IOMMU group 10"),
            "{told:?}"
        );
    }

    #[test]
    fn a_unit_is_healthy_only_while_all_of_its_group_is_free_and_bound() {
        let other = PciFunction { driver: Some("snd".into()), ..function("31:00.1", 0x0c_0330, 10) };
        let unusable =
            PciFunction { reset_methods: vec![], driver: None, ..function("41:00.0", 0x03_0200, 20) };
        let offer = offer(vec![function("31:00.0", 0x03_0200, 10), other, unusable]);
        let units = offer.units("example.com/gpu-a.b").unwrap();
        let reasons: Vec<Vec<&str>> =
            units.iter().map(|u| u.health.causes().iter().map(Cause::reason).collect()).collect();
        assert_eq!(reasons, [vec!["Unbound"], vec!["NoReset", "Unbound"]]);
        assert_eq!(units[0].health.causes()[0].to_string(), "0000:31:00.1 is bound to snd, not to vfio-pci");
    }

    #[test]
    fn what_goes_away_stays_known_as_gone_until_it_is_back() {
        let (gpu, second) = (function("31:00.0", 0x03_0200, 10), function("32:00.0", 0x03_0200, 20));
        let both = offer(vec![gpu.clone(), second.clone()]);
        let one = offer(vec![second.clone()]).after(&both);
        assert_eq!(ids(&one, "example.com/gpu-a.b"), ["0000:31:00.0", "0000:32:00.0"]);
        assert_eq!(
            one.resources[0].units[0].health,
            Health::Unhealthy(vec![Cause::Gone(UnitId::Function(at("31:00.0")))])
        );
        assert_eq!(one.resources[0].units[0].nodes, [NodeId(1)], "where it was");
        let still = offer(vec![second.clone()]).after(&one);
        assert_eq!(still, one);
        assert_eq!(offer(vec![gpu, second]).after(&still), both);
    }

    #[test]
    fn bridges_are_never_offered() {
        let text = NAMES.replace("\"0302\"", "\"06\"");
        let offer =
            Offer::new(&machine(vec![function("00:01.0", 0x06_0400, 1)]), &Resources::parse(&text).unwrap());
        assert!(offer.resources.iter().all(|r| r.units.is_empty()));
    }

    #[test]
    fn a_unit_with_a_function_that_has_failed_cannot_be_given() {
        let failed = BTreeMap::from([(at("31:00.0"), Cause::FatalError(at("31:00.0")))]);
        let (gpu, second) = (function("31:00.0", 0x03_0200, 10), function("32:00.0", 0x03_0200, 20));
        let earlier = offer(vec![gpu, second]);
        let offer = earlier.clone().failing(&failed);
        let units = offer.units("example.com/gpu-a.b").unwrap();
        assert_eq!(units[0].health, Health::Unhealthy(vec![Cause::FatalError(at("31:00.0"))]));
        assert!(units[1].health.is_healthy());
        assert_eq!(earlier.clone().failing(&BTreeMap::new()), earlier);
    }

    #[test]
    fn mediated_devices_are_units_where_their_function_is_and_fail_with_it() {
        let text = "apiVersion: pinion.dev/v1alpha1\nkind: DeviceResources\nresources:\n\
            - {name: example.com/vgpu, select: [{mediatedType: nvidia-222}]}\n";
        let device = |id: &str, iommu_group| MediatedDevice {
            id: id.parse().unwrap(),
            type_id: "nvidia-222".into(),
            type_name: None,
            iommu_group,
        };
        let (one, other) = ("83c12a25-5f5e-4d4c-9d15-b2a5e7e7a2c1", "0a5f5e25-83c1-4d4c-9d15-b2a5e7e7a2c1");
        let mut gpu = function("31:00.0", 0x03_0200, 10);
        gpu.driver = Some("nvidia".into());
        gpu.mediated_devices = vec![device(other, None), device(one, Some(77))];
        let names = Resources::parse(text).unwrap();
        let both = Offer::new(&machine(vec![gpu.clone()]), &names);
        assert_eq!(ids(&both, "example.com/vgpu"), [other, one]);
        let units = both.units("example.com/vgpu").unwrap();
        assert_eq!((units[1].group, units[1].nodes.as_slice()), (Some(77), &[NodeId(1)][..]));
        assert!(units[1].health.is_healthy(), "its function need not be bound to vfio-pci");
        assert_eq!(units[0].health.causes()[0].reason(), "NoGroup");
        let failed = BTreeMap::from([(at("31:00.0"), Cause::NoAnswer(at("31:00.0")))]);
        let failing = both.clone().failing(&failed);
        assert!(failing.units("example.com/vgpu").unwrap().iter().all(|u| !u.health.is_healthy()));
        gpu.mediated_devices.truncate(1);
        let left = Offer::new(&machine(vec![gpu]), &names).after(&both);
        assert_eq!(ids(&left, "example.com/vgpu"), [other, one], "what is gone stays known");
        let gone = left.units("example.com/vgpu").unwrap()[1].health.causes().to_vec();
        assert_eq!(gone, [Cause::Gone(one.parse().unwrap())]);
    }

    #[test]
    fn hundreds_of_functions_are_as_many_units() {
        let pci =
            (0..200u32).map(|i| function(&format!("{:02x}:{:02x}.0", 0x20 + i / 32, i % 32), 0x03_0200, i));
        let offer = offer(pci.collect());
        let units = offer.units("example.com/gpu-a.b").unwrap();
        assert!(units.len() == 200 && units.windows(2).all(|pair| pair[0].id < pair[1].id));
    }
}
