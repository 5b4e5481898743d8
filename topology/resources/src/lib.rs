//! Which devices are known by which resource name: the file `/etc/pinion/devices.yaml`.
//!
//! Read by the command line, and by whatever advertises devices. Pure: it is given the text and the
//! machine. It decides what a name stands for, never which of the devices a guest gets.

#![forbid(unsafe_code)]

mod file;

use pinion_api::FieldProblem;
use pinion_machine::{Bdf, Machine, MediatedDevice, NodeId, PciFunction, Sriov};

/// Where the file is.
pub const DEFAULT_PATH: &str = "/etc/pinion/devices.yaml";
/// Longest file that is read, bytes.
pub const MAX_BYTES: u64 = 1 << 20;

const API_VERSION: &str = "pinion.dev/v1alpha1";
const KIND: &str = "DeviceResources";

/// What is wrong with a file of resources.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResourcesError {
    /// It is no YAML.
    #[error("{0}")]
    Malformed(String),
    /// It is of another kind or version.
    #[error("It must say apiVersion: {API_VERSION} and kind: {KIND}")]
    Kind,
    /// One field is wrong.
    #[error(transparent)]
    Field(FieldProblem),
    /// Two names for one device.
    #[error(
        "{device} is both {first} and {second}: a device has one name; make their selectors exclude each other"
    )]
    TwoNames {
        /// The device.
        device: String,
        /// One name.
        first: String,
        /// The other.
        second: String,
    },
}

/// Names, and what each stands for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources(Vec<Resource>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Resource {
    name: String,
    bind: bool,
    selectors: Vec<Selector>,
}

/// All that is given must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Selector {
    address: Option<Bdf>,
    vendor: Option<u16>,
    device: Option<u16>,
    /// Class code from its first byte on: `03`, `0302` or `030200`.
    class: Option<String>,
    driver: Option<String>,
    /// Of a virtual function, and of a mediated device.
    parent: Option<Bdf>,
    node: Option<NodeId>,
    /// Mediated devices of this type, by its id or its name, instead of functions.
    mediated_type: Option<String>,
}

impl Resources {
    /// The names, as the file has them.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|r| r.name.as_str())
    }

    /// Whether devices of that name are bound to `vfio-pci` for a guest that asks for one (`bind: true`).
    #[must_use]
    pub fn binds(&self, name: &str) -> bool {
        self.0.iter().any(|r| r.name == name && r.bind)
    }

    /// Reads a file.
    ///
    /// # Errors
    /// All that is wrong with it, in its order.
    pub fn parse(text: &str) -> Result<Self, Vec<ResourcesError>> {
        file::read(text).map(Self)
    }

    /// The functions that go by a name, ascending; `None` where the file does not have it.
    #[must_use]
    pub fn functions(&self, name: &str, machine: &Machine) -> Option<Vec<Bdf>> {
        let resource = self.0.iter().find(|r| r.name == name)?;
        let mut found: Vec<Bdf> =
            machine.pci.iter().filter(|f| resource.selects(f)).map(|f| f.address).collect();
        found.sort_unstable();
        Some(found)
    }

    /// The mediated devices that go by a name, each with the function that it was made of; `None` where the file does not
    /// have it.
    #[must_use]
    pub fn mediated<'m>(
        &self,
        name: &str,
        machine: &'m Machine,
    ) -> Option<Vec<(&'m PciFunction, &'m MediatedDevice)>> {
        let resource = self.0.iter().find(|r| r.name == name)?;
        let all = machine.pci.iter().flat_map(|f| f.mediated_devices.iter().map(move |d| (f, d)));
        Some(all.filter(|(f, d)| resource.selects_mediated(f, d)).collect())
    }

    /// Devices that have two names on this machine.
    #[must_use]
    pub fn conflicts(&self, machine: &Machine) -> Vec<ResourcesError> {
        let twice = |device: String, selects: &dyn Fn(&Resource) -> bool| {
            let mut names = self.0.iter().filter(|r| selects(r)).map(|r| r.name.clone());
            let (first, second) = (names.next()?, names.next()?);
            Some(ResourcesError::TwoNames { device, first, second })
        };
        let mut conflicts = Vec::new();
        for function in &machine.pci {
            conflicts.extend(twice(function.address.to_string(), &|r| r.selects(function)));
            for device in &function.mediated_devices {
                conflicts.extend(twice(device.id.to_string(), &|r| r.selects_mediated(function, device)));
            }
        }
        conflicts
    }
}

impl Resource {
    fn selects(&self, function: &PciFunction) -> bool {
        self.selectors.iter().any(|s| s.selects(function))
    }

    fn selects_mediated(&self, parent: &PciFunction, device: &MediatedDevice) -> bool {
        self.selectors.iter().any(|s| s.selects_mediated(parent, device))
    }
}

impl Selector {
    fn selects(&self, function: &PciFunction) -> bool {
        let parent = match function.sriov {
            Some(Sriov::Virtual { parent }) => Some(parent),
            _ => None,
        };
        let class = format!("{:06x}", function.class);
        self.address.is_none_or(|a| a == function.address)
            && self.vendor.is_none_or(|v| v == function.vendor)
            && self.device.is_none_or(|d| d == function.device)
            && self.class.as_ref().is_none_or(|c| class.starts_with(c))
            && self.driver.as_ref().is_none_or(|d| function.driver.as_ref() == Some(d))
            && self.parent.is_none_or(|p| parent == Some(p))
            && self.node.is_none_or(|n| function.node == Some(n))
            && self.mediated_type.is_none()
    }

    fn selects_mediated(&self, parent: &PciFunction, device: &MediatedDevice) -> bool {
        let is_of = |kind: &String| device.type_id == *kind || device.type_name.as_ref() == Some(kind);
        self.mediated_type.as_ref().is_some_and(is_of)
            && self.parent.is_none_or(|p| p == parent.address)
            && self.node.is_none_or(|n| parent.node == Some(n))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEXT: &str = r#"
apiVersion: pinion.dev/v1alpha1
kind: DeviceResources
resources:
- name: example.com/nvme
  select:
  - {class: "0108", node: 1}
- name: nvidia.com/GH100
  select:
  - {vendor: 10de, device: 2342}
  - {address: "0000:51:00.0"}
- name: example.com/vf
  select: [{parent: "0000:3b:00.0"}]
"#;

    fn function(address: &str, vendor: u16, device: u16, class: u32, node: u32) -> PciFunction {
        let address = address.parse().unwrap();
        PciFunction { address, vendor, device, class, node: Some(NodeId(node)), ..PciFunction::default() }
    }

    fn machine() -> Machine {
        let parent = "0000:3b:00.0".parse().unwrap();
        let virtual_function = PciFunction {
            sriov: Some(Sriov::Virtual { parent }),
            ..function("0000:3b:02.0", 0x8086, 0x10ed, 0x020000, 0)
        };
        let pci = vec![
            function("0000:31:00.0", 0x1b36, 0x10, 0x010802, 1),
            function("0000:32:00.0", 0x1b36, 0x10, 0x010802, 0),
            function("0000:41:00.0", 0x10de, 0x2342, 0x030200, 0),
            virtual_function,
        ];
        Machine { pci, ..Machine::default() }
    }

    fn names(name: &str) -> Option<Vec<String>> {
        let found = Resources::parse(TEXT).unwrap().functions(name, &machine())?;
        Some(found.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn names_stand_for_the_devices_that_are_selected() {
        assert_eq!(names("example.com/nvme"), Some(vec!["0000:31:00.0".to_owned()]));
        assert_eq!(names("nvidia.com/GH100"), Some(vec!["0000:41:00.0".to_owned()]));
        assert_eq!(names("example.com/vf"), Some(vec!["0000:3b:02.0".to_owned()]));
        assert_eq!(names("example.com/none"), None);
    }

    #[test]
    fn all_that_is_wrong_is_said_with_its_path() {
        let text = r#"{"apiVersion": "pinion.dev/v1alpha1", "kind": "DeviceResources", "resources": [
            {"name": "gpu", "select": [{"vendor": "10dex"}, {}]},
            {"name": "a.b/c", "select": []}, {"name": "a.b/c", "select": [{"class": "3"}]}]}"#;
        let said: Vec<String> = Resources::parse(text).unwrap_err().iter().map(ToString::to_string).collect();
        let paths: Vec<&str> = said.iter().filter_map(|s| s.split(": ").nth(1)).collect();
        assert_eq!(
            paths,
            [
                "resources[0].name",
                "resources[0].select[0].vendor",
                "resources[0].select[1]",
                "resources[1].select",
                "resources[2].name",
                "resources[2].select[0].class"
            ]
        );
        assert!(Resources::parse("kind: [").is_err() && Resources::parse("").is_err());
        let other = TEXT.replace("v1alpha1", "v9");
        assert_eq!(Resources::parse(&other).unwrap_err(), [ResourcesError::Kind]);
        let wrong = TEXT.replace("parent", "parnet").replace("2342", "12345").replace("node: 1", "node: one");
        let said: Vec<String> =
            Resources::parse(&wrong).unwrap_err().iter().map(ToString::to_string).collect();
        assert_eq!(
            said,
            [
                "line 7, column 21: resources[0].select[0].node: must be the number of a NUMA node, not \"one\"",
                "line 10, column 20: resources[1].select[0].device: \"12345\" is not an id of four hexadecimal digits \
                 such as \"10de\"",
                "line 13, column 13: resources[2].select[0].parnet: unknown field, did you mean \"parent\"?",
            ]
        );
        let said = Resources::parse("kind: 1\nresources: {}\nother: 1\n").unwrap_err();
        let said: Vec<String> = said.iter().map(ToString::to_string).collect();
        assert!(said.len() == 4 && said[0].contains("apiVersion") && said[3].contains("other"), "{said:?}");
    }

    #[test]
    fn a_device_with_two_names_is_told() {
        let text = TEXT.replace("0000:51:00.0", "0000:31:00.0");
        let said = Resources::parse(&text).unwrap().conflicts(&machine());
        assert_eq!(said.len(), 1);
        assert!(
            said[0].to_string().starts_with("0000:31:00.0 is both example.com/nvme and nvidia.com/GH100")
        );
        assert!(Resources::parse(TEXT).unwrap().conflicts(&machine()).is_empty());
    }

    #[test]
    fn mediated_devices_go_by_their_type_and_whose_they_are() {
        let device = |id: &str, kind: &str| MediatedDevice {
            id: id.parse().unwrap(),
            type_id: kind.to_owned(),
            type_name: Some("GRID T4-1B".to_owned()),
            iommu_group: Some(7),
        };
        let (one, other) = ("83c12a25-5f5e-4d4c-9d15-b2a5e7e7a2c1", "0a5f5e25-83c1-4d4c-9d15-b2a5e7e7a2c1");
        let mut machine = machine();
        machine.pci[2].mediated_devices = vec![device(one, "nvidia-222"), device(other, "nvidia-223")];
        let found = |select: &str| {
            let text = format!("{}- {{name: a.b/vgpu, select: [{select}]}}\n", TEXT);
            let resources = Resources::parse(&text).unwrap();
            assert_eq!(resources.functions("a.b/vgpu", &machine), Some(vec![]));
            let found = resources.mediated("a.b/vgpu", &machine).unwrap();
            found.iter().map(|(_, d)| d.id.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(found("{mediatedType: nvidia-222}"), [one]);
        assert_eq!(found("{mediatedType: GRID T4-1B, node: 0}"), [one, other]);
        assert!(found("{mediatedType: GRID T4-1B, node: 1}").is_empty());
        assert!(found("{mediatedType: nvidia-222, parent: '0000:31:00.0'}").is_empty());
        let named = [("first", "nvidia-222"), ("second", "GRID T4-1B")];
        let both =
            named.map(|(name, kind)| format!("- {{name: a.b/{name}, select: [{{mediatedType: {kind}}}]}}\n"));
        let said = Resources::parse(&format!("{TEXT}{}", both.concat())).unwrap().conflicts(&machine);
        assert_eq!(said.len(), 1);
        assert!(
            said[0].to_string().starts_with(&format!("{one} is both a.b/first and a.b/second")),
            "{said:?}"
        );
        let wrong = "{mediatedType: nvidia-222, vendor: 10de}, {address: '0000:51:00.0'}";
        let text = format!("{TEXT}- {{name: a.b/vgpu, select: [{wrong}]}}\n");
        let said: Vec<String> =
            Resources::parse(&text).unwrap_err().iter().map(ToString::to_string).collect();
        assert!(said.len() == 2 && said[1].contains("vendor: a mediated device has none"), "{said:?}");
        assert!(said[0].contains("resources[3].select: mediated devices and functions"), "{said:?}");
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in ".{0,200}") {
            let _ = Resources::parse(&text);
        }
    }
}
