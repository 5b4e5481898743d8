//! The list of devices for people: a table, and below a device what stands in its way.

use pinion_machine::{Bdf, Obstacle, PciFunction};

use super::document::{Device, DeviceList};
use super::words;
use crate::table::Table;
use crate::wrap::{plain, wrapped};

/// A disk of the host may be mounted in many places; the first say enough.
const MOST_OBSTACLES: usize = 3;

const COLUMNS: [&str; 7] = ["ADDRESS", "CLASS", "VENDOR:DEVICE", "NODE", "GROUP", "DRIVER", "STATE"];
const MORE_COLUMNS: [&str; 7] = ["ROOT PORT", "VECTORS", "LINK", "SR-IOV", "RESET", "BARS", "GROUP MEMBERS"];

/// For a terminal of 80 columns.
pub(super) fn text(list: &DeviceList<'_>, width: usize) -> String {
    picture(list, width, Table::new(&COLUMNS), |device| cells(device).into())
}

/// With everything that a line can hold.
pub(super) fn wide(list: &DeviceList<'_>, width: usize) -> String {
    let columns = [COLUMNS, MORE_COLUMNS].concat();
    picture(list, width, Table::new(&columns), |device| [cells(device), more_cells(device)].concat())
}

fn picture(
    list: &DeviceList<'_>,
    width: usize,
    mut table: Table,
    cells: impl Fn(&Device<'_>) -> Vec<String>,
) -> String {
    if list.items.is_empty() {
        return "This machine has no PCI devices, or the source does not tell them.\n".to_owned();
    }
    for device in &list.items {
        table.row(cells(device));
    }
    let mut text = table.with_below(list.items.iter().map(|device| obstacles(device, width)));
    text.push_str(&of_machine(list, width));
    text
}

fn cells(device: &Device<'_>) -> [String; 7] {
    let f = device.function;
    let known = |number: Option<u32>| number.map_or(words::NONE.to_owned(), |n| n.to_string());
    [
        f.address.to_string(),
        words::class(f.class).to_owned(),
        format!("{:04x}:{:04x}", f.vendor, f.device),
        known(f.node.map(|n| n.0)),
        known(f.iommu_group),
        f.driver.as_deref().map_or(words::NONE.to_owned(), plain),
        device.state().to_owned(),
    ]
}

fn more_cells(device: &Device<'_>) -> [String; 7] {
    let f: &PciFunction = device.function;
    [
        f.root_port.map_or(words::NONE.to_owned(), |port| port.to_string()),
        words::vectors(f),
        words::link(f.link),
        words::sriov(f.sriov.as_ref()),
        words::or_none(plain(&f.reset_methods.join(","))),
        words::bars(&f.bars),
        device.group_members.iter().map(Bdf::to_string).collect::<Vec<_>>().join(" "),
    ]
}

/// Those of the device itself.
fn obstacles(device: &Device<'_>, width: usize) -> String {
    let own: Vec<&Obstacle> = device.obstacles.iter().filter(|o| !o.is_of_machine()).collect();
    let mut text: String = own.iter().take(MOST_OBSTACLES).map(|o| sentence(o, "  ", width)).collect();
    if let Some(more) = own.len().checked_sub(MOST_OBSTACLES).filter(|more| *more > 0) {
        text.push_str(&format!("  And {more} more: see -o json\n"));
    }
    text
}

/// Those that are in the way of all devices, once.
fn of_machine(list: &DeviceList<'_>, width: usize) -> String {
    let mut found: Vec<&Obstacle> = Vec::new();
    for obstacle in list.items.iter().flat_map(|d| &d.obstacles).filter(|o| o.is_of_machine()) {
        if !found.contains(&obstacle) {
            found.push(obstacle);
        }
    }
    found.into_iter().map(|o| format!("\n{}", sentence(o, "", width))).collect()
}

fn sentence(obstacle: &Obstacle, indent: &str, width: usize) -> String {
    with_remedy(&obstacle.to_string(), &obstacle.remedy(), indent, width)
}

/// What is wrong, and on lines of its own what to do.
pub(super) fn with_remedy(message: &str, remedy: &str, indent: &str, width: usize) -> String {
    let (message, remedy) = (plain(message), plain(remedy));
    let told = wrapped(indent, &message, indent.len(), width);
    told + &wrapped(indent, &format!("→ {remedy}"), indent.len() + 2, width)
}

#[cfg(test)]
mod tests {
    use pinion_machine::{HostUse, KernelFacts, Machine, NodeId};

    use super::*;

    fn machine() -> Machine {
        let function = |address: &str, group, class, driver: &str| PciFunction {
            address: address.parse().unwrap(),
            vendor: 0x144d,
            device: 0xa808,
            class,
            node: Some(NodeId(0)),
            iommu_group: Some(group),
            driver: Some(driver.into()),
            reset_methods: vec!["flr".into()],
            ..PciFunction::default()
        };
        let mut disk = function("0000:3b:00.0", 42, 0x01_0802, "nvme");
        let places = ["/", "/boot/efi", "/home", "/srv/data"];
        disk.uses = places.map(|at| HostUse::Mounted { device: "nvme0n1p2".into(), at: at.into() }).into();
        let pci = vec![
            function("0000:00:01.0", 1, 0x06_0400, "pcieport"),
            disk,
            function("0000:86:00.0", 50, 0x03_0200, "vfio-pci"),
            PciFunction { reset_methods: vec![], ..function("0000:86:00.1", 51, 0x04_0300, "snd_hda_intel") },
            function("0000:87:00.0", 52, 0x02_0000, "i40e\x1b[2J"),
        ];
        let kernel =
            KernelFacts { iommu: Some(true), interrupt_remapping: Some(true), ..KernelFacts::default() };
        Machine { pci, kernel, ..Machine::default() }
    }

    #[test]
    fn eighty_columns_hold_every_line() {
        let machine = machine();
        let text = text(&DeviceList::of(&machine), 80);
        assert_eq!(
            text,
            "\
ADDRESS       CLASS     VENDOR:DEVICE  NODE  GROUP  DRIVER         STATE
0000:3b:00.0  nvme      144d:a808      0     42     nvme           in use
  The host uses 0000:3b:00.0: it holds the file system mounted at / (nvme0n1p2)
  → boot the host from another device
  The host uses 0000:3b:00.0: it holds the file system mounted at /boot/efi
  (nvme0n1p2)
  → `sudo umount /boot/efi`, and take it out of /etc/fstab
  The host uses 0000:3b:00.0: it holds the file system mounted at /home
  (nvme0n1p2)
  → `sudo umount /home`, and take it out of /etc/fstab
  And 1 more: see -o json
0000:86:00.0  3d        144d:a808      0     50     vfio-pci       ready
0000:86:00.1  audio     144d:a808      0     51     snd_hda_intel  blocked
  The kernel knows no way to reset 0000:86:00.1: the next guest would find it as
  this one left it
  → update the kernel, which gains ways to reset devices; else use another
    device
0000:87:00.0  ethernet  144d:a808      0     52     i40e?[2J       free
"
        );
    }

    #[test]
    fn what_the_machine_lacks_is_told_once() {
        let mut machine = machine();
        machine.kernel.interrupt_remapping = Some(false);
        let text = text(&DeviceList::of(&machine), 80);
        assert_eq!(text.matches("does not remap interrupts").count(), 1, "{text}");
        assert_eq!(text.matches("blocked").count(), 4, "{text}");
    }

    #[test]
    fn a_wide_table_has_all_columns() {
        let machine = machine();
        let text = wide(&DeviceList::of(&machine), 80);
        let heading = text.lines().next().unwrap();
        assert!(COLUMNS.iter().chain(&MORE_COLUMNS).all(|c| heading.contains(c)), "{heading}");
        assert!(!text.contains('\x1b'));
    }

    #[test]
    fn a_machine_without_devices_says_so() {
        assert!(text(&DeviceList::of(&Machine::default()), 80).contains("no PCI devices"));
    }
}
