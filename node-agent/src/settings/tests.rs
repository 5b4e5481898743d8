use std::convert::Infallible;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use pinion_machine::{Bdf, CpuSet, Machine, PciFunction};
use pinion_planner::{Holding, HoldingState};
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::drivers::PciBus;
use crate::ledger::{Holder, Ledger, Reservation};

const DRIVE: &str = "0000:31:00.0";

/// What a keeper may change besides interrupts and power, and what it is first.
const EVERYTHING: [(&str, &str); 8] = [
    ("sys/devices/virtual/workqueue/cpumask", "ff"),
    ("proc/sys/kernel/watchdog_cpumask", "0-7"),
    ("sys/class/net/eth0/queues/rx-0/rps_cpus", "f"),
    ("sys/class/net/eth0/queues/tx-0/xps_cpus", "c"),
    ("proc/sys/vm/stat_interval", "1"),
    ("proc/sys/kernel/numa_balancing", "1"),
    ("proc/sys/kernel/sched_rt_runtime_us", "950000"),
    ("sys/kernel/mm/transparent_hugepage/khugepaged/defrag", "1"),
];

/// A host in a folder: eight CPUs.
struct Fake {
    root: TempDir,
    ledger: Ledger,
}

impl Fake {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let ledger = Ledger::at(root.path().join("run/ledger.json"));
        let fake = Self { root, ledger };
        fake.put("proc/irq/default_smp_affinity", "ff");
        fake.put("proc/interrupts", "CPU0");
        for cpu in 0..8 {
            fake.put(&format!("sys/devices/system/cpu/cpu{cpu}/power/pm_qos_resume_latency_us"), "0");
            fake.put(&format!("sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor"), "schedutil");
            fake.put(&format!("sys/devices/system/cpu/cpu{cpu}/cpuidle/state1/latency"), "2");
        }
        fake
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }

    fn put(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("{text}\n")).unwrap();
    }

    fn text(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap().trim().to_owned()
    }

    fn irq(&self, irq: u32, cpus: &str, action: &str) {
        self.put(&format!("proc/irq/{irq}/smp_affinity_list"), cpus);
        let table = fs::read_to_string(self.path("proc/interrupts")).unwrap();
        self.put("proc/interrupts", &format!("{}\n {irq}: IR-PCI-MSI 1-edge {action}", table.trim()));
    }

    fn affinity(&self, irq: u32) -> String {
        self.text(&format!("proc/irq/{irq}/smp_affinity_list"))
    }

    fn latency(&self, cpu: u32) -> String {
        self.text(&format!("sys/devices/system/cpu/cpu{cpu}/power/pm_qos_resume_latency_us"))
    }

    fn governor(&self, cpu: u32) -> String {
        self.text(&format!("sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor"))
    }

    /// All that a keeper may change besides interrupts and power.
    fn put_everything(&self) {
        for (path, text) in EVERYTHING {
            self.put(path, text);
        }
    }

    /// Every setting there is.
    fn all(&self) -> Vec<String> {
        let mut irqs: Vec<PathBuf> =
            fs::read_dir(self.path("proc/irq")).unwrap().map(|e| e.unwrap().path()).collect();
        irqs.sort();
        let affinity = |folder: PathBuf| fs::read_to_string(folder.join("smp_affinity_list")).unwrap();
        let irqs = irqs.into_iter().filter(|p| p.is_dir()).map(affinity);
        let default = [self.text("proc/irq/default_smp_affinity")];
        let power = (0..8).flat_map(|cpu| [self.latency(cpu), self.governor(cpu)]);
        let more = EVERYTHING.iter().filter(|(p, _)| self.path(p).exists()).map(|(p, _)| self.text(p));
        irqs.chain(default).chain(power).chain(more).map(|text| text.trim().to_owned()).collect()
    }

    fn guest(&self, name: &str, cpus: &str, routes: Vec<DeviceRoute>) -> Reservation {
        let holding = Holding {
            owner: format!("default/{name}"),
            state: HoldingState::Reserved,
            cpus: cpus.parse().unwrap(),
            floating: vec![],
            memory: vec![],
            devices: routes.iter().map(|r| r.address).collect(),
        };
        let plan = |_: &pinion_planner::Occupancy| Ok::<_, Infallible>((holding, ()));
        let (mut reservation, ()) = self.ledger.reserve(Holder::current().unwrap(), plan).unwrap();
        let wishes = HostWishes {
            quiet_cpus: true,
            fallback: "0-1".parse().unwrap(),
            routes,
            ..HostWishes::default()
        };
        reservation.wish(wishes).unwrap();
        reservation
    }

    fn keeper(&self) -> Keeper {
        Keeper::of(&self.ledger, Host::at(self.root.path()), PciBus::at(self.path("sys/bus/pci")))
    }

    fn changes(&self) -> HostChanges {
        self.ledger.read().unwrap().changes
    }
}

#[test]
fn dedicated_cpus_are_quiet_while_their_guest_runs_and_as_before_after_it() {
    let fake = Fake::new();
    fake.irq(9, "0-7", "acpi");
    fake.irq(20, "4-5", "eth0");
    fake.irq(21, "1", "eth1");
    let before = fake.all();
    let guest = fake.guest("a", "4-5", vec![]);
    let notices = fake.keeper().settle().unwrap();
    assert!(notices.is_empty(), "{notices:?}");
    assert_eq!([9, 20, 21].map(|irq| fake.affinity(irq)), ["0-3,6-7", "0-1", "1"]);
    assert_eq!(fake.text("proc/irq/default_smp_affinity"), "cf");
    assert_eq!([3, 4].map(|cpu| fake.latency(cpu)), ["0", "2"]);
    assert_eq!([3, 4].map(|cpu| fake.governor(cpu)), ["schedutil", "performance"]);
    guest.release().unwrap();
    fake.keeper().settle().unwrap();
    assert_eq!(fake.all(), before);
    assert!(fake.changes().is_empty());
}

#[test]
fn the_last_of_two_guests_brings_everything_back() {
    let fake = Fake::new();
    fake.irq(9, "0-7", "acpi");
    let before = fake.all();
    let first = fake.guest("a", "2-3", vec![]);
    fake.keeper().settle().unwrap();
    let second = fake.guest("b", "6", vec![]);
    fake.keeper().settle().unwrap();
    assert_eq!(fake.affinity(9), "0-1,4-5,7");
    first.release().unwrap();
    fake.keeper().settle().unwrap();
    assert_eq!(fake.affinity(9), "0-5,7");
    assert_eq!([fake.governor(3), fake.governor(6)], ["schedutil", "performance"]);
    second.release().unwrap();
    fake.keeper().settle().unwrap();
    assert_eq!(fake.all(), before);
}

#[test]
fn what_another_process_changes_is_put_back_told_once_and_its_wish_stands_in_the_end() {
    let fake = Fake::new();
    fake.irq(9, "0-7", "acpi");
    let guest = fake.guest("a", "4-5", vec![]);
    let mut keeper = fake.keeper();
    keeper.settle().unwrap();
    for told in [1, 0] {
        fake.put("proc/irq/9/smp_affinity_list", "3-4");
        let notices = keeper.tend().unwrap();
        assert_eq!(notices.len(), told, "{notices:?}");
        assert!(notices.iter().all(|n| n.reason() == "SettingPutBack" && !n.is_warning()));
        assert_eq!(fake.affinity(9), "3");
    }
    guest.release().unwrap();
    keeper.settle().unwrap();
    assert_eq!(fake.affinity(9), "3-4");
}

#[test]
fn a_keeper_that_was_killed_between_record_and_change_does_no_harm() {
    let fake = Fake::new();
    fake.irq(9, "0-7", "acpi");
    let guest = fake.guest("a", "4-5", vec![]);
    fake.keeper().settle().unwrap();
    // As if the last one had been killed before it wrote.
    fake.put("proc/irq/9/smp_affinity_list", "0-7");
    assert!(fake.keeper().settle().unwrap().is_empty());
    assert_eq!(fake.affinity(9), "0-3,6-7");
    // And as if the one that brought it back had been killed before it forgot.
    fake.put("proc/irq/9/smp_affinity_list", "0-7");
    guest.release().unwrap();
    fake.keeper().settle().unwrap();
    assert_eq!(fake.affinity(9), "0-7");
    assert!(fake.changes().is_empty());
}

#[test]
fn a_keeper_that_was_killed_between_two_changes_does_not_take_the_first_for_anothers_wish() {
    let fake = Fake::new();
    fake.irq(9, "0-7", "acpi");
    let first = fake.guest("a", "4-5", vec![]);
    fake.keeper().settle().unwrap();
    let second = fake.guest("b", "2-3", vec![]);
    fake.keeper().settle().unwrap();
    assert_eq!(fake.affinity(9), "0-1,6-7");
    // As if the last one had been killed before it wrote.
    fake.put("proc/irq/9/smp_affinity_list", "0-3,6-7");
    assert!(fake.keeper().settle().unwrap().is_empty(), "nobody else has changed anything");
    assert_eq!(fake.affinity(9), "0-1,6-7");
    // Once more, and the guest for which it was is gone before the next keeper looks.
    fake.put("proc/irq/9/smp_affinity_list", "0-3,6-7");
    second.release().unwrap();
    assert!(fake.keeper().settle().unwrap().is_empty());
    assert_eq!(fake.affinity(9), "0-3,6-7");
    first.release().unwrap();
    fake.keeper().settle().unwrap();
    assert_eq!(fake.affinity(9), "0-7");
    assert!(fake.changes().is_empty());
}

#[test]
fn changes_of_another_boot_are_forgotten() {
    let fake = Fake::new();
    fake.irq(9, "0-7", "acpi");
    let guest = fake.guest("a", "4-5", vec![]);
    fake.keeper().settle().unwrap();
    guest.release().unwrap();
    let text = fs::read_to_string(fake.ledger.path()).unwrap();
    let boot_id = fake.changes().boot_id;
    fs::write(fake.ledger.path(), text.replace(&boot_id, "another")).unwrap();
    fake.keeper().settle().unwrap();
    assert!(fake.changes().is_empty());
}

#[test]
fn vectors_come_to_their_turn_and_are_not_shielded() {
    let fake = Fake::new();
    fake.irq(40, "0-7", "vfio-msix[0](0000:31:00.0)");
    fake.irq(41, "0-7", "vfio-msix[1](0000:31:00.0)");
    fake.irq(42, "0-7", "vfio-intx(0000:31:00.0), ehci_hcd");
    fake.irq(43, "0-7", "vfio-msix[0](0000:77:00.0)");
    let route = DeviceRoute { address: DRIVE.parse().unwrap(), cpus: "0,7".parse().unwrap() };
    let guest = fake.guest("a", "4-5", vec![route]);
    let mut keeper = fake.keeper();
    let notices = keeper.settle().unwrap();
    assert_eq!([40, 41, 42, 43].map(|irq| fake.affinity(irq)), ["0", "7", "0-3,6-7", "0-3,6-7"]);
    assert!(
        matches!(notices.as_slice(), [Notice::Unrouted { why, .. }] if why.starts_with("ehci_hcd shares"))
    );
    fake.put("proc/irq/41/smp_affinity_list", "4");
    assert!(keeper.route().unwrap().is_empty());
    assert_eq!(fake.affinity(41), "7");
    assert!(
        fake.changes().settings.iter().all(|c| !matches!(c.setting, Setting::Interrupt { irq: 40 | 41 }))
    );
    drop(guest);
}

#[test]
fn a_legacy_line_outlives_its_device_and_is_given_back() {
    let fake = Fake::new();
    fake.irq(10, "0-7", "");
    fake.irq(11, "2-5", "");
    let before = [10, 11].map(|irq| fake.affinity(irq));
    let route = DeviceRoute { address: DRIVE.parse().unwrap(), cpus: "0,7".parse().unwrap() };
    let guest = fake.guest("a", "4-5", vec![route]);
    let mut keeper = fake.keeper();
    keeper.settle().unwrap();
    assert_eq!([10, 11].map(|irq| fake.affinity(irq)), ["0-3,6-7", "2-3"]);
    fake.put("proc/interrupts", "CPU0\n 10: IR-IO-APIC 10-fasteoi vfio-intx(0000:31:00.0)");
    assert!(keeper.settle().unwrap().is_empty());
    assert_eq!(fake.affinity(10), "0");
    assert!(keeper.settle().unwrap().is_empty());
    drop(guest);
    fake.put("proc/interrupts", "CPU0\n 10: IR-IO-APIC 10-fasteoi");
    fake.keeper().settle().unwrap();
    assert_eq!([10, 11].map(|irq| fake.affinity(irq)), before);
    assert!(fake.changes().is_empty());
}

#[test]
fn settings_that_cannot_be_written_are_told_once_and_not_recorded() {
    let fake = Fake::new();
    // A folder can be read by nobody, and a missing one is no setting.
    fs::create_dir_all(fake.path("proc/irq/7/smp_affinity_list")).unwrap();
    fs::remove_dir_all(fake.path("sys/devices/system/cpu/cpu4/cpufreq")).unwrap();
    fs::remove_dir_all(fake.path("sys/devices/system/cpu/cpu4/power")).unwrap();
    fake.put("dev/cpu_dma_latency", "");
    let guest = fake.guest("a", "4", vec![]);
    let mut keeper = fake.keeper();
    assert!(keeper.settle().unwrap().is_empty());
    assert_eq!(fs::read(fake.path("dev/cpu_dma_latency")).unwrap()[..4], 1i32.to_ne_bytes());
    assert_eq!(fake.changes().settings.len(), 1, "the default of interrupts");
    drop(guest);
}

/// A PCI bus in a folder whose drivers bind by link: what a kernel would do is done by hand.
fn bus(fake: &Fake, driver: &str) {
    let device = fake.path("sys/bus/pci/devices").join(DRIVE);
    fs::create_dir_all(&device).unwrap();
    for name in [driver, "vfio-pci"] {
        let folder = fake.path("sys/bus/pci/drivers").join(name);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("unbind"), "").unwrap();
    }
    fs::write(device.join("driver_override"), "").unwrap();
    fs::write(fake.path("sys/bus/pci/drivers_probe"), "").unwrap();
    let _ = fs::remove_file(device.join("driver"));
    symlink(fake.path("sys/bus/pci/drivers").join(driver), device.join("driver")).unwrap();
}

#[test]
fn a_device_that_does_not_bind_is_not_recorded_and_one_that_did_is_given_back() {
    let fake = Fake::new();
    let address: Bdf = DRIVE.parse().unwrap();
    let function = PciFunction {
        address,
        iommu_group: Some(1),
        reset_methods: vec!["flr".into()],
        ..PciFunction::default()
    };
    let machine = Machine { pci: vec![function], ..Machine::default() };
    bus(&fake, "nvme");
    assert!(fake.keeper().bind(&machine, &[address]).is_err(), "no kernel follows");
    assert!(fake.changes().is_empty());

    bus(&fake, "vfio-pci");
    assert_eq!(fake.keeper().bind(&machine, &[address]).unwrap(), [], "bound before: it stays so");
    assert!(fake.changes().is_empty());
    let recorded = BoundDevice { address, was: Some("nvme".into()) };
    fake.ledger
        .changing(|document, save| {
            document.changes.devices.push(recorded);
            save(document)
        })
        .unwrap();
    let guest = fake.guest("a", "4", vec![DeviceRoute { address, cpus: CpuSet::new() }]);
    fake.keeper().settle().unwrap();
    assert_eq!(fake.changes().devices.len(), 1);
    guest.release().unwrap();
    let notices = fake.keeper().settle().unwrap();
    assert!(matches!(notices.as_slice(), [Notice::GivenBack(r)] if r.address == address), "{notices:?}");
    assert!(fake.changes().is_empty());
}

#[test]
fn a_quiet_cpu_is_spared_everything_and_all_of_it_comes_back() {
    let fake = Fake::new();
    fake.put_everything();
    fake.put("sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages", "10");
    let before = fake.all();
    let mut guest = fake.guest("a", "2-3", vec![]);
    let pages = PagesWish { node: pinion_machine::NodeId(0), size_kib: 2048, count: 6 };
    let fallback = "0-1".parse().unwrap();
    let wishes = HostWishes {
        quiet_cpus: true,
        realtime: true,
        fallback,
        huge_pages: vec![pages],
        ..HostWishes::default()
    };
    guest.wish(wishes).unwrap();
    let mut keeper = fake.keeper();
    keeper.settle().unwrap();
    let now: Vec<String> = EVERYTHING.iter().map(|(path, _)| fake.text(path)).collect();
    // The send queue was CPUs 2 and 3 alone: it goes where what has no other place goes.
    assert_eq!(now, ["f3", "0-1,4-7", "3", "3", "10", "0", "-1", "0"]);
    let pages = "sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages";
    assert_eq!(fake.text(pages), "16");
    guest.release().unwrap();
    keeper.settle().unwrap();
    assert_eq!(fake.all(), before);
    assert_eq!(fake.text(pages), "10");
}

#[test]
fn a_switch_that_a_profile_forbids_stays_and_pages_that_it_keeps_are_there() {
    let fake = Fake::new();
    fake.put_everything();
    let pages = "sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages";
    fake.put(pages, "10");
    let guest = fake.guest("a", "2-3", vec![]);
    let mut keeper = fake.keeper();
    keeper.allow([Knob::NumaBalancing].into());
    keeper.keep_pages([((pinion_machine::NodeId(0), 2048), 32)].into());
    keeper.settle().unwrap();
    assert_eq!(fake.text("proc/sys/vm/stat_interval"), "1");
    assert_eq!(fake.text("proc/sys/kernel/numa_balancing"), "0");
    assert_eq!(fake.text(pages), "32");
    drop(guest);
    keeper.settle().unwrap();
    assert_eq!(fake.text(pages), "32", "kept without guests");
    keeper.keep_pages(Default::default());
    keeper.settle().unwrap();
    assert_eq!(fake.text(pages), "10");
}

#[test]
fn a_setting_that_is_fought_over_is_left_alone_counted_and_told() {
    let fake = Fake::new();
    fake.irq(20, "0-7", "eth0");
    let _guest = fake.guest("a", "2-3", vec![]);
    let mut keeper = fake.keeper();
    keeper.settle().unwrap();
    let mut told = Vec::new();
    for _ in 0..8 {
        fake.put("proc/irq/20/smp_affinity_list", "0-7");
        told.extend(keeper.settle().unwrap());
    }
    assert_eq!(fake.affinity(20), "0-7", "left alone");
    assert!(told.iter().any(|n| matches!(n, Notice::Contested { .. })), "{told:?}");
    assert_eq!(keeper.tally().left_alone, 1);
    assert_eq!(keeper.tally().drifts.get("interrupt"), Some(&6));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn guests_may_come_and_go_in_any_order(
        irqs in prop::collection::vec(prop::collection::btree_set(0u32..8, 1..8), 1..6),
        turns in prop::collection::vec((0usize..3, any::<bool>()), 1..12),
    ) {
        let fake = Fake::new();
        fake.put_everything();
        for (cpus, irq) in irqs.iter().zip(20..) {
            let cpus: CpuSet = cpus.iter().map(|c| pinion_machine::CpuId(*c)).collect();
            fake.irq(irq, &cpus.to_string(), "eth0");
        }
        let before = fake.all();
        let mut guests: [Option<Reservation>; 3] = [None, None, None];
        let mut keeper = fake.keeper();
        for (which, fresh) in turns {
            guests[which] = match guests[which].take() {
                Some(guest) => { guest.release().unwrap(); None }
                None => Some(fake.guest(&which.to_string(), &format!("{}-{}", 2 + 2 * which, 3 + 2 * which), vec![])),
            };
            if fresh {
                keeper = fake.keeper();
            }
            keeper.settle().unwrap();
            let quiet = guests.iter().zip(0u32..).filter(|(g, _)| g.is_some()).map(|(_, w)| w);
            let quiet: CpuSet = quiet.flat_map(|w| [2 + 2 * w, 3 + 2 * w]).map(pinion_machine::CpuId).collect();
            for irq in 20..20 + u32::try_from(irqs.len()).unwrap() {
                let cpus: CpuSet = fake.affinity(irq).parse().unwrap();
                prop_assert!(cpus.is_disjoint(&quiet), "interrupt {} on {} of {}", irq, cpus, quiet);
            }
        }
        drop(guests);
        keeper.settle().unwrap();
        prop_assert_eq!(fake.all(), before);
    }
}
