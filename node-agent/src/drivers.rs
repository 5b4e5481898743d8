//! Binding PCI functions to `vfio-pci`, and back to the host's drivers.
//!
//! Called by the command line on the thread that runs a command. It asks `pinion-machine` what may be
//! passed through and never binds anything else; it never touches part of an IOMMU group.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use pinion_machine::{Bdf, Machine, PASS_THROUGH_DRIVER, group, obstacles};

/// How long a driver may take to let go of a device.
pub const UNBIND_LIMIT: Duration = Duration::from_secs(10);

/// Why a function was not bound or given back.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// It must not be passed through.
    #[error("{address}: {why} ({remedy})")]
    Obstacle {
        /// The function.
        address: Bdf,
        /// What stands in the way.
        why: String,
        /// What to do.
        remedy: String,
    },
    /// No `vfio-pci` in this kernel.
    #[error("The driver vfio-pci is not there: `modprobe vfio-pci` says why")]
    NoDriver,
    /// A file of sysfs cannot be written.
    #[error("Cannot write {path:?}: be root")]
    Write {
        /// The file.
        path: PathBuf,
        /// From the kernel.
        source: io::Error,
    },
    /// A driver, or whoever has the device open, does not let go of it.
    #[error("{address}: {driver} has not let go of it within {} s: stop what uses the device; the kernel goes on trying", UNBIND_LIMIT.as_secs())]
    Hangs {
        /// The function.
        address: Bdf,
        /// Its driver.
        driver: String,
    },
    /// The kernel chose otherwise.
    #[error("{address}: its driver is {} now, and should be {wanted}: see the kernel's log", driver.as_deref().unwrap_or("none"))]
    Unexpected {
        /// The function.
        address: Bdf,
        /// Its driver.
        driver: Option<String>,
        /// What it should be.
        wanted: &'static str,
    },
}

/// A function whose driver was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rebound {
    /// The function.
    pub address: Bdf,
    /// Its driver before.
    pub was: Option<String>,
    /// Its driver now.
    pub now: Option<String>,
}

/// Where the kernel has its PCI functions; another folder in tests.
#[derive(Clone, Debug)]
pub struct PciBus {
    root: PathBuf,
}

impl Default for PciBus {
    fn default() -> Self {
        Self { root: "/sys/bus/pci".into() }
    }
}

impl Rebound {
    /// The change, as `nvme → vfio-pci`.
    #[must_use]
    pub fn change(&self) -> String {
        let name = |driver: &Option<String>| driver.clone().unwrap_or_else(|| "no driver".to_owned());
        format!("{} → {}", name(&self.was), name(&self.now))
    }
}

/// All functions of the IOMMU groups of these, each once.
pub(crate) fn members(machine: &Machine, addresses: &[Bdf]) -> Vec<Bdf> {
    let all: BTreeSet<Bdf> = addresses.iter().flat_map(|a| group(machine, *a)).collect();
    all.into_iter().collect()
}

impl PciBus {
    /// A bus at another place, for tests.
    #[must_use]
    pub fn at(root: PathBuf) -> Self {
        Self { root }
    }

    pub(crate) fn folder(&self, address: Bdf) -> PathBuf {
        self.root.join("devices").join(address.to_string())
    }

    pub(crate) fn driver(&self, address: Bdf) -> Option<String> {
        let link = fs::read_link(self.folder(address).join("driver")).ok()?;
        link.file_name().map(|name| name.to_string_lossy().into_owned())
    }

    /// Binds the whole IOMMU group of each function to `vfio-pci`. What is bound already stays.
    ///
    /// The order matters:
    /// 1. Everything is checked before anything is touched.
    /// 2. `driver_override` comes before the old driver lets go: no other driver can take the device then.
    /// 3. After a failure, what was done is undone, newest first.
    ///
    /// # Errors
    /// All that stands in the way, or the step that failed; the drivers are as they were then, but for one
    /// that hangs.
    pub fn bind(&self, machine: &Machine, addresses: &[Bdf]) -> Result<Vec<Rebound>, Vec<DriverError>> {
        let problems: Vec<DriverError> = addresses.iter().flat_map(|a| blocked(machine, *a)).collect();
        if !problems.is_empty() {
            return Err(problems);
        }
        let mut members = members(machine, addresses);
        members.retain(|m| self.driver(*m).as_deref() != Some(PASS_THROUGH_DRIVER));
        if !members.is_empty() {
            self.load().map_err(|e| vec![e])?;
        }
        let mut done: Vec<Rebound> = Vec::new();
        for member in members {
            match self.rebind(member, PASS_THROUGH_DRIVER) {
                Ok(rebound) => done.push(rebound),
                Err(e) => {
                    let undo = done.iter().rev().map(|r| r.address).chain([member]);
                    let failed = undo.filter_map(|address| self.rebind(address, "").err());
                    return Err(std::iter::once(e).chain(failed).collect());
                }
            }
        }
        Ok(done)
    }

    /// Gives the whole IOMMU group of each function back to the drivers that the kernel chooses.
    ///
    /// # Errors
    /// What failed; the others are given back.
    pub fn unbind(&self, machine: &Machine, addresses: &[Bdf]) -> Result<Vec<Rebound>, Vec<DriverError>> {
        let (mut done, mut failed) = (Vec::new(), Vec::new());
        for member in members(machine, addresses) {
            match self.give_back(member) {
                Ok(rebound) => done.extend(rebound),
                Err(e) => failed.push(e),
            }
        }
        if failed.is_empty() { Ok(done) } else { Err(failed) }
    }

    /// Gives one function back to the driver that the kernel chooses; `None` where it is not bound to `vfio-pci`.
    ///
    /// # Errors
    /// Where its driver hangs, or sysfs cannot be written.
    pub fn give_back(&self, address: Bdf) -> Result<Option<Rebound>, DriverError> {
        match self.driver(address).as_deref() {
            Some(PASS_THROUGH_DRIVER) => self.rebind(address, "").map(Some),
            _ => Ok(None),
        }
    }

    fn load(&self) -> Result<(), DriverError> {
        let there = || self.root.join("drivers").join(PASS_THROUGH_DRIVER).is_dir();
        if !there() {
            // Its outcome shows in sysfs.
            let _ = Command::new("modprobe").arg(PASS_THROUGH_DRIVER).status();
        }
        if there() { Ok(()) } else { Err(DriverError::NoDriver) }
    }

    /// Has the kernel choose a driver anew: `wanted`, or with an empty name whichever knows the device.
    fn rebind(&self, address: Bdf, wanted: &'static str) -> Result<Rebound, DriverError> {
        let folder = self.folder(address);
        let was = self.driver(address);
        write(&folder.join("driver_override"), &format!("{wanted}\n"))?;
        if let Some(driver) = &was {
            unbind(&folder.join("driver/unbind"), address, driver)?;
        }
        write(&self.root.join("drivers_probe"), &address.to_string())?;
        let now = self.driver(address);
        if !wanted.is_empty() && now.as_deref() != Some(wanted) {
            return Err(DriverError::Unexpected { address, driver: now, wanted });
        }
        Ok(Rebound { address, was, now })
    }
}

fn blocked(machine: &Machine, address: Bdf) -> Vec<DriverError> {
    let error = |o: pinion_machine::Obstacle| DriverError::Obstacle {
        address,
        why: o.to_string(),
        remedy: o.remedy(),
    };
    obstacles(machine, address).into_iter().map(error).collect()
}

fn write(path: &Path, text: &str) -> Result<(), DriverError> {
    use std::io::Write;
    let opened = fs::OpenOptions::new().write(true).open(path);
    let written = opened.and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|source| DriverError::Write { path: path.to_owned(), source })
}

/// Has a driver let go, by a process of its own: while a driver does not, the kernel lets nobody interrupt whoever asked,
/// and not even end.
fn unbind(file: &Path, address: Bdf, driver: &str) -> Result<(), DriverError> {
    let failed = |source| DriverError::Write { path: file.to_owned(), source };
    let mut asking = Command::new("sh")
        .args(["-c", "printf %s \"$1\" > \"$2\"", "unbind"])
        .arg(address.to_string())
        .arg(file)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(failed)?;
    let began = Instant::now();
    loop {
        match asking.try_wait().map_err(failed)? {
            Some(status) if status.success() => return Ok(()),
            // Says why: the same again, or that the device is free by now.
            Some(_) => return write(file, &address.to_string()),
            None if began.elapsed() >= UNBIND_LIMIT => {
                return Err(DriverError::Hangs { address, driver: driver.to_owned() });
            }
            None => thread::sleep(Duration::from_millis(5)),
        }
    }
}

#[cfg(test)]
mod tests {
    use pinion_machine::PciFunction;

    use super::*;

    fn machine() -> Machine {
        let function = |address: &str, iommu_group| PciFunction {
            address: address.parse().unwrap(),
            iommu_group,
            reset_methods: vec!["flr".into()],
            ..PciFunction::default()
        };
        let pci = vec![function("0000:01:00.0", Some(3)), function("0000:02:00.0", None)];
        Machine { pci, ..Machine::default() }
    }

    #[test]
    fn what_may_not_be_passed_through_is_refused_and_nothing_is_touched() {
        let folder = tempfile::tempdir().unwrap();
        let bus = PciBus::at(folder.path().to_owned());
        let asked = ["0000:02:00.0".parse().unwrap(), "0000:09:00.0".parse().unwrap()];
        let problems = bus.bind(&machine(), &asked).unwrap_err();
        assert_eq!(problems.len(), 2, "{problems:?}");
        assert!(problems.iter().all(|p| matches!(p, DriverError::Obstacle { .. })));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_kernel_that_chooses_no_driver_is_told_and_the_override_is_taken_back() {
        let folder = tempfile::tempdir().unwrap();
        let device = folder.path().join("devices/0000:01:00.0");
        fs::create_dir_all(&device).unwrap();
        fs::create_dir_all(folder.path().join("drivers/vfio-pci")).unwrap();
        fs::write(device.join("driver_override"), "").unwrap();
        fs::write(folder.path().join("drivers_probe"), "").unwrap();
        let bus = PciBus::at(folder.path().to_owned());
        let asked = ["0000:01:00.0".parse().unwrap()];
        let problems = bus.bind(&machine(), &asked).unwrap_err();
        assert!(
            matches!(problems.as_slice(), [DriverError::Unexpected { driver: None, .. }]),
            "{problems:?}"
        );
        // A file that is no kernel's keeps what is longer: the newline came last.
        assert!(fs::read_to_string(device.join("driver_override")).unwrap().starts_with('\n'));
    }

    #[test]
    fn an_unbind_that_fails_says_which_file() {
        let nowhere = Path::new("/nowhere/driver/unbind");
        let failed = unbind(nowhere, "0000:01:00.0".parse().unwrap(), "nvme").unwrap_err();
        assert!(failed.to_string().contains("/nowhere/driver/unbind"), "{failed}");
    }
}
