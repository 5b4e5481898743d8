//! Devices that have failed without leaving the machine: errors that the kernel tells of and recovers from, and links that
//! are down.
//!
//! Held by the inventory, on its thread. The kernel's word comes by uevents and is kept here until the device is bound anew
//! or put back; counters and configuration space are looked at when the inventory reads the machine. It changes nothing.
//!
//! Source: the kernel's `drivers/pci/pcie/err.c` and `drivers/pci/pci-driver.c` (`pci_uevent_ers`);
//! `Documentation/ABI/testing/sysfs-bus-pci-devices-aer_stats`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use pinion_device_plugin::{Cause, Offer, Unit};
use pinion_discovery::Uevent;
use pinion_machine::Bdf;

/// What is known of failures.
#[derive(Debug)]
pub(crate) struct Errors {
    devices: PathBuf,
    /// Fatal errors that functions had reported when they were last well.
    fatal: BTreeMap<Bdf, u64>,
    failed: BTreeMap<Bdf, Cause>,
}

impl Errors {
    pub(crate) fn new(sys: &Path) -> Self {
        Self { devices: sys.join("bus/pci/devices"), fatal: BTreeMap::new(), failed: BTreeMap::new() }
    }

    /// Takes what the kernel says of a function.
    pub(crate) fn hear(&mut self, event: &Uevent<'_>) {
        let Some(address) = event.field("PCI_SLOT_NAME").and_then(|text| text.parse().ok()) else { return };
        match (event.field("ERROR_EVENT"), event.field("ACTION")) {
            (Some("BEGIN_RECOVERY" | "FAILED_RECOVERY"), _) => {
                self.failed.insert(address, Cause::Recovering(address));
            }
            (Some("SUCCESSFUL_RECOVERY"), _) => {
                let before = self.fatal.get(&address).copied().unwrap_or(0);
                if self.fatal_errors(address).is_some_and(|now| now > before) {
                    self.failed.insert(address, Cause::FatalError(address));
                } else {
                    self.failed.remove(&address);
                }
            }
            // Somebody has looked after it.
            (None, Some("bind" | "add")) => {
                self.failed.remove(&address);
            }
            _ => {}
        }
    }

    /// Failures of what is offered, as it is now.
    pub(crate) fn of(&mut self, offer: &Offer) -> BTreeMap<Bdf, Cause> {
        let mut all = self.failed.clone();
        let hardware = offer.resources.iter().flat_map(|o| &o.units).flat_map(Unit::hardware);
        // Many mediated devices are of one function.
        for address in hardware.collect::<BTreeSet<Bdf>>() {
            if self.is_silent(address) {
                all.insert(address, Cause::NoAnswer(address));
            }
            if let Some(count) = self.fatal_errors(address).filter(|_| !self.failed.contains_key(&address)) {
                self.fatal.insert(address, count);
            }
        }
        all
    }

    /// How many fatal errors a function and the ports above it have reported: such an error of a port resets what is below
    /// it. None where the kernel does not count them.
    fn fatal_errors(&self, address: Bdf) -> Option<u64> {
        let folder = self.devices.join(address.to_string()).canonicalize().ok()?;
        let counts = folder.ancestors().filter_map(|folder| {
            let text = fs::read_to_string(folder.join("aer_dev_fatal")).ok()?;
            text.lines().find_map(|line| line.strip_prefix("TOTAL_ERR_FATAL ")?.trim().parse::<u64>().ok())
        });
        counts.reduce(u64::saturating_add)
    }

    /// Whether nobody answers: command and status, of which no device sets all bits, read as ones. The ids of a virtual
    /// function always do.
    fn is_silent(&self, address: Bdf) -> bool {
        const COMMAND: u64 = 4;
        let read = || {
            let mut file = File::open(self.devices.join(address.to_string()).join("config"))?;
            file.seek(SeekFrom::Start(COMMAND))?;
            let mut bytes = [0; 4];
            file.read_exact(&mut bytes)?;
            Ok::<_, std::io::Error>(bytes)
        };
        read().is_ok_and(|bytes| bytes == [0xff; 4])
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use pinion_device_plugin::{Health, Offered, UnitId};

    use super::*;

    fn at() -> Bdf {
        "31:00.0".parse().unwrap()
    }

    fn offer() -> Offer {
        let unit = Unit {
            id: UnitId::Function(at()),
            parent: None,
            functions: vec![at()],
            group: None,
            nodes: vec![],
            health: Health::Healthy,
        };
        Offer { resources: vec![Offered { name: "a.b/c".into(), units: vec![unit] }], problems: vec![] }
    }

    fn event(words: &str) -> String {
        format!("change@/devices/x\0ACTION=change\0SUBSYSTEM=pci\0PCI_SLOT_NAME=0000:31:00.0\0{words}\0")
    }

    #[test]
    fn a_fatal_error_stays_until_the_device_is_bound_anew() {
        let sys = tempfile::tempdir().unwrap();
        let port = sys.path().join("devices/pci0000:30/0000:30:00.0");
        fs::create_dir_all(port.join("0000:31:00.0")).unwrap();
        fs::create_dir_all(sys.path().join("bus/pci/devices")).unwrap();
        symlink(port.join("0000:31:00.0"), sys.path().join("bus/pci/devices/0000:31:00.0")).unwrap();
        let counted = |n: u32| {
            fs::write(port.join("aer_dev_fatal"), format!("DLP {n}\nTOTAL_ERR_FATAL {n}\n")).unwrap()
        };
        counted(2);
        let mut errors = Errors::new(sys.path());
        let mut after = |text: &str| {
            errors.hear(&Uevent::new(text));
            errors.of(&offer()).get(&at()).map(Cause::reason)
        };
        assert_eq!(after(""), None);
        // One that is not fatal is over once the kernel has recovered the device.
        assert_eq!(after(&event("ERROR_EVENT=BEGIN_RECOVERY\0DEVICE_ONLINE=0")), Some("Recovering"));
        assert_eq!(after(&event("ERROR_EVENT=SUCCESSFUL_RECOVERY\0DEVICE_ONLINE=1")), None);
        counted(3);
        assert_eq!(after(&event("ERROR_EVENT=BEGIN_RECOVERY")), Some("Recovering"));
        assert_eq!(after(&event("ERROR_EVENT=SUCCESSFUL_RECOVERY")), Some("FatalError"));
        assert_eq!(after(&event("DRIVER=vfio-pci")), Some("FatalError"));
        assert_eq!(after("unbind@/x\0ACTION=unbind\0PCI_SLOT_NAME=0000:31:00.0\0"), Some("FatalError"));
        assert_eq!(after("bind@/x\0ACTION=bind\0PCI_SLOT_NAME=0000:31:00.0\0"), None);
        assert_eq!(after(&event("ERROR_EVENT=SUCCESSFUL_RECOVERY")), None, "the errors before count no more");
    }

    #[test]
    fn a_device_that_reads_as_ones_does_not_answer() {
        let sys = tempfile::tempdir().unwrap();
        let device = sys.path().join("bus/pci/devices/0000:31:00.0");
        fs::create_dir_all(&device).unwrap();
        let mut errors = Errors::new(sys.path());
        let mut with = |config: &[u8]| {
            fs::write(device.join("config"), config).unwrap();
            errors.of(&offer()).get(&at()).map(Cause::reason)
        };
        assert_eq!(with(&[0x86, 0x80, 0xd3, 0x10, 0x06, 0x04, 0x10, 0x00]), None);
        assert_eq!(with(&[0xff; 64]), Some("NoAnswer"));
        // A virtual function has no ids of its own.
        assert_eq!(with(&[0xff, 0xff, 0xff, 0xff, 0x06, 0x04, 0x10, 0x00]), None);
        assert_eq!(with(&[]), None);
    }
}
