//! What stands between a PCI function and a guest.
//!
//! Owns the rules by which a function may be passed through, and the words for why not.
//! The command line and the node agent ask before they bind or start anything. It must
//! never read the host or change it: all it knows is the [`Machine`].

use crate::{Bdf, HostUse, Machine, PciFunction};

/// The host driver that hands functions to programs.
pub const PASS_THROUGH_DRIVER: &str = "vfio-pci";

/// Base class of bridges.
const BRIDGE: u32 = 0x06;

/// One reason why a function cannot be passed through.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Obstacle {
    /// There is no such function.
    #[error("{0} is no PCI function of this machine")]
    NoSuchFunction(Bdf),
    /// It is a bridge.
    #[error("{0} is a bridge: other functions are reached through it")]
    Bridge(Bdf),
    /// Nothing translates addresses for devices.
    #[error("No IOMMU is on: a device that a guest drives could reach all memory of the host")]
    NoIommu,
    /// The IOMMU does not know the function, or the source does not say.
    #[error("{0} is in no IOMMU group: nothing confines it to a guest's memory")]
    NoGroup(Bdf),
    /// Interrupts of devices are not checked.
    #[error("The IOMMU does not remap interrupts: a device that a guest drives could send the host any")]
    NoInterruptRemapping,
    /// The host uses it.
    #[error("The host uses {address}: {usage}")]
    InUse {
        /// The function.
        address: Bdf,
        /// What for.
        usage: HostUse,
    },
    /// The host uses another function that the IOMMU cannot tell from it.
    #[error("{member} shares IOMMU group {group} with {address}, and the host uses it: {usage}")]
    GroupMemberInUse {
        /// The function asked about.
        address: Bdf,
        /// The group.
        group: u32,
        /// The one in use.
        member: Bdf,
        /// What for.
        usage: HostUse,
    },
    /// The kernel cannot clean it between guests.
    #[error("The kernel knows no way to reset {0}: the next guest would find it as this one left it")]
    NoReset(Bdf),
}

impl Obstacle {
    /// A stable code for programs.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::NoSuchFunction(_) => "NoSuchFunction",
            Self::Bridge(_) => "Bridge",
            Self::NoIommu => "NoIommu",
            Self::NoGroup(_) => "NoGroup",
            Self::NoInterruptRemapping => "NoInterruptRemapping",
            Self::InUse { .. } => "InUse",
            Self::GroupMemberInUse { .. } => "GroupMemberInUse",
            Self::NoReset(_) => "NoReset",
        }
    }

    /// Whether it is the machine's, and so in the way of every function.
    #[must_use]
    pub const fn is_of_machine(&self) -> bool {
        matches!(self, Self::NoIommu | Self::NoInterruptRemapping)
    }

    /// Whether it goes away once the host no longer uses something.
    #[must_use]
    pub const fn is_use(&self) -> bool {
        matches!(self, Self::InUse { .. } | Self::GroupMemberInUse { .. })
    }

    /// What to do about it.
    #[must_use]
    pub fn remedy(&self) -> String {
        match self {
            Self::NoSuchFunction(_) => "choose one that `pinion devices` lists".into(),
            Self::Bridge(_) => "pass the functions behind it through instead".into(),
            Self::NoIommu => "enable VT-d or AMD-Vi in the firmware setup, and boot with intel_iommu=on \
                                 or amd_iommu=on"
                .into(),
            Self::NoGroup(_) => "look at the host itself, not at a file; if it is none there either, the \
                                 firmware's tables leave it out: update the firmware"
                .into(),
            Self::NoInterruptRemapping => {
                "enable interrupt remapping (x2APIC) in the firmware setup, and boot without intremap=off; \
                 in a virtual machine, give its IOMMU intremap=on"
                    .into()
            }
            Self::InUse { usage, .. } => release(usage),
            Self::GroupMemberInUse { usage, .. } => {
                format!("{}; or move the card to a slot with a group of its own", release(usage))
            }
            Self::NoReset(_) => {
                "update the kernel, which gains ways to reset devices; else use another device".into()
            }
        }
    }
}

/// How the host stops using a function.
fn release(usage: &HostUse) -> String {
    match usage {
        HostUse::Mounted { device, at } if at == "swap" => {
            format!("`sudo swapoff /dev/{device}`, and take it out of /etc/fstab")
        }
        HostUse::Mounted { at, .. } if at == "/" => "boot the host from another device".into(),
        HostUse::Mounted { at, .. } if at.chars().all(is_plain) => {
            format!("`sudo umount {at}`, and take it out of /etc/fstab")
        }
        HostUse::Mounted { .. } => "unmount it, and take it out of /etc/fstab".into(),
        HostUse::DefaultRoute { interface } => {
            format!("give the host a default route by another device than {interface}")
        }
        HostUse::Console => {
            "choose another primary display in the firmware setup, or use a serial console".into()
        }
    }
}

/// Whether a shell takes the character as it is: a command that is shown may be copied.
const fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '_' | '-')
}

/// Whether a function is a bridge; bridges are never passed through.
#[must_use]
pub const fn is_bridge(function: &PciFunction) -> bool {
    function.class >> 16 == BRIDGE
}

/// Everything that stands in the way of passing a function through, the machine's own
/// obstacles first; empty where nothing does.
#[must_use]
pub fn obstacles(machine: &Machine, address: Bdf) -> Vec<Obstacle> {
    let Some(function) = find(machine, address) else { return vec![Obstacle::NoSuchFunction(address)] };
    if is_bridge(function) {
        return vec![Obstacle::Bridge(address)];
    }
    let mut found = Vec::new();
    match (machine.kernel.iommu, function.iommu_group) {
        (Some(false), _) => found.push(Obstacle::NoIommu),
        (_, None) => found.push(Obstacle::NoGroup(address)),
        _ => {}
    }
    if machine.kernel.interrupt_remapping == Some(false) {
        found.push(Obstacle::NoInterruptRemapping);
    }
    found.extend(function.uses.iter().map(|usage| Obstacle::InUse { address, usage: usage.clone() }));
    if let Some(group) = function.iommu_group {
        let others = members(machine, function).filter(|f| f.address != address);
        found.extend(
            others
                .flat_map(|f| f.uses.iter().map(|u| (f.address, u.clone())))
                .map(|(member, usage)| Obstacle::GroupMemberInUse { address, group, member, usage }),
        );
    }
    if function.reset_methods.is_empty() {
        found.push(Obstacle::NoReset(address));
    }
    found
}

/// The functions that can only be given away together with this one: those of its IOMMU
/// group that are no bridges, itself included. Itself alone where it has no group; none
/// where there is no such function or it is a bridge.
#[must_use]
pub fn group(machine: &Machine, address: Bdf) -> Vec<Bdf> {
    let function = find(machine, address).filter(|f| !is_bridge(f));
    function.map(|f| members(machine, f).map(|f| f.address).collect()).unwrap_or_default()
}

/// Whether a function's group is in the hands of [`PASS_THROUGH_DRIVER`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Binding {
    /// All of it is.
    Ready,
    /// Some is not.
    Unbound {
        /// Those that still have to be bound, each with the driver that has it now.
        members: Vec<(Bdf, Option<String>)>,
    },
}

/// How far the group of a function is bound; nothing is left to bind for what is no function.
#[must_use]
pub fn binding(machine: &Machine, address: Bdf) -> Binding {
    let Some(function) = find(machine, address) else { return Binding::Unbound { members: vec![] } };
    if is_bridge(function) {
        return Binding::Unbound { members: vec![] };
    }
    let members: Vec<_> = members(machine, function)
        .filter(|f| f.driver.as_deref() != Some(PASS_THROUGH_DRIVER))
        .map(|f| (f.address, f.driver.clone()))
        .collect();
    if members.is_empty() { Binding::Ready } else { Binding::Unbound { members } }
}

fn find(machine: &Machine, address: Bdf) -> Option<&PciFunction> {
    machine.pci.iter().find(|f| f.address == address)
}

fn members<'a>(machine: &'a Machine, function: &'a PciFunction) -> impl Iterator<Item = &'a PciFunction> {
    let belongs = move |f: &&PciFunction| match function.iommu_group {
        Some(group) => f.iommu_group == Some(group) && !is_bridge(f),
        None => f.address == function.address,
    };
    machine.pci.iter().filter(belongs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::KernelFacts;

    fn at(address: &str) -> Bdf {
        address.parse().unwrap()
    }

    fn function(address: &str, group: Option<u32>) -> PciFunction {
        PciFunction {
            address: at(address),
            class: 0x01_0802,
            iommu_group: group,
            reset_methods: vec!["flr".into()],
            ..PciFunction::default()
        }
    }

    fn machine(pci: Vec<PciFunction>) -> Machine {
        let kernel =
            KernelFacts { iommu: Some(true), interrupt_remapping: Some(true), ..KernelFacts::default() };
        Machine { pci, kernel, ..Machine::default() }
    }

    fn reasons(machine: &Machine, address: &str) -> Vec<&'static str> {
        obstacles(machine, at(address)).iter().map(Obstacle::reason).collect()
    }

    fn mounted(at: &str) -> HostUse {
        HostUse::Mounted { device: "nvme0n1p2".into(), at: at.into() }
    }

    #[test]
    fn a_free_function_that_can_be_reset_has_no_obstacles() {
        let machine = machine(vec![function("01:00.0", Some(7))]);
        assert_eq!(obstacles(&machine, at("01:00.0")), []);
    }

    #[test]
    fn what_is_no_function_or_a_bridge_is_nothing_else() {
        let bridge = PciFunction { class: 0x06_0400, ..function("00:01.0", None) };
        let machine = machine(vec![bridge]);
        assert_eq!(reasons(&machine, "00:01.0"), ["Bridge"]);
        assert_eq!(reasons(&machine, "00:09.0"), ["NoSuchFunction"]);
        assert!(group(&machine, at("00:01.0")).is_empty() && group(&machine, at("00:09.0")).is_empty());
        assert_eq!(binding(&machine, at("00:09.0")), Binding::Unbound { members: vec![] });
    }

    #[test]
    fn without_an_iommu_the_missing_group_is_not_told_as_well() {
        let mut machine = machine(vec![function("01:00.0", None)]);
        assert_eq!(reasons(&machine, "01:00.0"), ["NoGroup"]);
        machine.kernel = KernelFacts { iommu: Some(false), ..KernelFacts::default() };
        assert_eq!(reasons(&machine, "01:00.0"), ["NoIommu"]);
        machine.kernel = KernelFacts::default();
        assert_eq!(reasons(&machine, "01:00.0"), ["NoGroup"], "a source that does not say is not trusted");
    }

    #[test]
    fn each_use_is_told_with_its_own_remedy() {
        let mut disk = function("02:00.0", Some(1));
        disk.uses = vec![mounted("/"), mounted("/data"), mounted("swap")];
        let mut card = function("02:00.1", Some(1));
        card.uses = vec![HostUse::DefaultRoute { interface: "br0".into() }, HostUse::Console];
        let mut machine = machine(vec![disk, card, function("03:00.0", Some(2))]);
        machine.kernel.interrupt_remapping = Some(false);
        assert_eq!(
            reasons(&machine, "02:00.0"),
            ["NoInterruptRemapping", "InUse", "InUse", "InUse", "GroupMemberInUse", "GroupMemberInUse"]
        );
        let told: Vec<String> =
            obstacles(&machine, at("02:00.0")).iter().map(|o| format!("{o}: {}", o.remedy())).collect();
        assert!(told[1].contains("mounted at / (nvme0n1p2): boot the host from another"), "{told:#?}");
        assert!(told[2].contains("`sudo umount /data`"), "{told:#?}");
        assert!(told[3].contains("holds swap space (nvme0n1p2): `sudo swapoff /dev/nvme0n1p2`"), "{told:#?}");
        assert!(told[4].starts_with("0000:02:00.1 shares IOMMU group 1 with 0000:02:00.0"), "{told:#?}");
        assert!(told[4].contains("than br0; or move the card"), "{told:#?}");
        assert_eq!(reasons(&machine, "03:00.0"), ["NoInterruptRemapping"]);
        assert!(!release(&mounted("/a;reboot")).contains("reboot"), "not a command to copy");
    }

    #[test]
    fn what_cannot_be_reset_is_not_given_from_guest_to_guest() {
        let machine = machine(vec![PciFunction { reset_methods: vec![], ..function("01:00.0", Some(7)) }]);
        assert_eq!(reasons(&machine, "01:00.0"), ["NoReset"]);
    }

    #[test]
    fn a_group_is_bound_when_all_of_it_but_its_bridges_is() {
        let bridge = PciFunction { class: 0x06_0400, ..function("00:01.0", Some(1)) };
        let ready = PciFunction { driver: Some("vfio-pci".into()), ..function("01:00.0", Some(1)) };
        let other = PciFunction { driver: Some("e1000e".into()), ..function("01:00.1", Some(1)) };
        let mut machine = machine(vec![bridge, ready, other, function("02:00.0", None)]);
        assert_eq!(group(&machine, at("01:00.0")), [at("01:00.0"), at("01:00.1")]);
        assert_eq!(group(&machine, at("02:00.0")), [at("02:00.0")]);
        let left = vec![(at("01:00.1"), Some("e1000e".to_owned()))];
        assert_eq!(binding(&machine, at("01:00.0")), Binding::Unbound { members: left });
        machine.pci[2].driver = Some("vfio-pci".into());
        assert_eq!(binding(&machine, at("01:00.0")), Binding::Ready);
    }
}
