//! A guest that runs, or has ended.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use pinion_launcher::backend::{
    Action, BackendError, DeviceStats, DiskStats, GuestEnd, GuestStats, InterfaceStats, Operations, Pause,
    RunningGuest, Traffic,
};
use pinion_launcher::chain;
use pinion_launcher::guest_agent::AgentChannel;
use pinion_planner::Device;
use roxmltree::{Document, Node};
use serde_json::Value;
use virt::domain::Domain;
use virt::sys;

use crate::backend::Guest;
use crate::console::Wires;
use crate::error::LibvirtError;

/// Where the kernel has the host's PCI functions.
const PCI_DEVICES: &str = "/sys/bus/pci/devices";
/// How often the log is read for the reason of an end, and the pause between: libvirt writes it once QEMU is gone.
const READINGS: u32 = 50;
const PAUSE: Duration = Duration::from_millis(100);

/// A guest that runs, or has ended.
#[derive(Debug)]
pub(crate) struct Running {
    guest: Guest,
    /// Readable once QEMU is gone.
    ended: OwnedFd,
    wires: Mutex<Wires>,
    targets: Targets,
    stopped: AtomicBool,
    end: Mutex<Option<GuestEnd>>,
}

impl Running {
    pub(crate) fn new(guest: Guest, ended: OwnedFd, wires: Wires, targets: Targets) -> Self {
        let (wires, stopped, end) = (Mutex::new(wires), AtomicBool::new(false), Mutex::new(None));
        Self { guest, ended, wires, targets, stopped, end }
    }

    /// Does something with the domain; once more by another connection where the daemon was started anew.
    fn with_domain<T>(
        &self,
        action: &'static str,
        work: impl Fn(&Domain) -> Result<T, virt::error::Error>,
    ) -> Result<T, LibvirtError> {
        let failed = |source| LibvirtError::Act { action, name: self.guest.name.clone(), source };
        match work(&self.guest.domain) {
            Err(source) if self.guest.is_connected() => Err(failed(source)),
            Err(_) => {
                let connect = self.guest.hypervisor.connect()?;
                let domain = Domain::lookup_by_name(&connect, &self.guest.name).map_err(failed)?;
                work(&domain).map_err(failed)
            }
            done => done.map_err(failed),
        }
    }

    /// Does what nobody waits for.
    fn try_to(&self, action: &'static str, work: impl Fn(&Domain) -> Result<u32, virt::error::Error>) {
        if let Err(e) = self.with_domain(action, work) {
            eprintln!("pinion-launcher-libvirt: {}", chain(&e));
        }
    }
}

/// The agent of the guest, by libvirt, which keeps its socket.
impl AgentChannel for Running {
    fn command(&self, command: &Value, within: Duration) -> Result<Value, BackendError> {
        let text = command.to_string();
        let seconds = i32::try_from(within.as_secs()).unwrap_or(i32::MAX);
        let answer =
            self.with_domain("ask the agent of", |domain| domain.qemu_agent_command(&text, seconds, 0))?;
        let mut answer: Value = serde_json::from_str(&answer)?;
        Ok(answer.get_mut("return").map(Value::take).unwrap_or_default())
    }
}

impl RunningGuest for Running {
    fn power_button(&self) {
        self.try_to("press the power button of", |domain| {
            domain.shutdown_flags(sys::VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN)
        });
    }

    fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        self.try_to("end", |domain| domain.destroy().map(|()| 0));
    }

    fn act(&self, action: Action) -> Result<(), BackendError> {
        let work = move |domain: &Domain| match action {
            Action::Pause => domain.suspend().map(drop),
            Action::Unpause => domain.resume().map(drop),
            Action::Reset => domain.reset().map(drop),
            // By the agent where one answers, else by the power button: libvirt knows.
            Action::SoftReboot => domain.reboot(0),
        };
        Ok(self.with_domain(action.verb(), work)?)
    }

    fn pause(&self) -> Option<Pause> {
        let (state, reason) = self.guest.domain.get_state().ok()?;
        (state == sys::VIR_DOMAIN_PAUSED).then(|| why_paused(u32::try_from(reason).unwrap_or(0)))
    }

    fn agent(&self) -> Option<&dyn AgentChannel> {
        Some(self)
    }

    fn ended_fd(&self) -> BorrowedFd<'_> {
        self.ended.as_fd()
    }

    fn end(&self) -> Option<GuestEnd> {
        let mut end = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        let gone = poll(&mut [PollFd::new(self.ended.as_fd(), PollFlags::POLLIN)], PollTimeout::ZERO);
        if end.is_none() && gone.is_ok_and(|ready| ready > 0) {
            self.wires.lock().unwrap_or_else(PoisonError::into_inner).finish();
            *end = Some(if self.stopped.load(Ordering::SeqCst) {
                GuestEnd::Stopped
            } else {
                reason(&self.guest.log())
            });
        }
        end.clone()
    }

    fn stats(&self) -> GuestStats {
        let mut stats = GuestStats::default();
        let count = |n: i64| u64::try_from(n).unwrap_or(0);
        for (name, target) in &self.targets.disks {
            let Ok(found) = self.guest.domain.get_block_stats(target) else { continue };
            let operations = |requests, bytes| Operations {
                count: count(requests),
                bytes: count(bytes),
                time: Duration::ZERO,
            };
            stats.disks.push(DiskStats {
                name: name.clone(),
                reads: operations(found.rd_req, found.rd_bytes),
                writes: operations(found.wr_req, found.wr_bytes),
                errors: count(found.errs),
                ..DiskStats::default()
            });
        }
        for (name, target) in &self.targets.interfaces {
            let Ok(found) = self.guest.domain.interface_stats(target) else { continue };
            let traffic = |packets, bytes, dropped, errors| Traffic {
                packets: count(packets),
                bytes: count(bytes),
                dropped: count(dropped),
                errors: count(errors),
            };
            // What the host sends is what the guest receives.
            stats.interfaces.push(InterfaceStats {
                name: name.clone(),
                received: traffic(found.tx_packets, found.tx_bytes, found.tx_drop, found.tx_errs),
                sent: traffic(found.rx_packets, found.rx_bytes, found.rx_drop, found.rx_errs),
            });
        }
        stats.devices = self.targets.devices.iter().map(|address| device(address)).collect();
        stats
    }
}

/// A device of the host is lost once another driver has it, or none: the kernel takes it from QEMU then.
fn device(address: &str) -> DeviceStats {
    let driver = fs::read_link(Path::new(PCI_DEVICES).join(address).join("driver"));
    let lost = !driver.is_ok_and(|driver| driver.ends_with("vfio-pci"));
    DeviceStats { name: address.to_owned(), lost, ..DeviceStats::default() }
}

/// libvirt's reason for a guest that stands still (`virDomainPausedReason`).
fn why_paused(reason: u32) -> Pause {
    match reason {
        sys::VIR_DOMAIN_PAUSED_IOERROR => Pause::Failed(
            "a disk of it has failed: the storage is full or broken; when it is mended, unpause the guest"
                .to_owned(),
        ),
        sys::VIR_DOMAIN_PAUSED_WATCHDOG => Pause::Failed("its watchdog has barked".to_owned()),
        sys::VIR_DOMAIN_PAUSED_CRASHED => Pause::Failed("its kernel has crashed".to_owned()),
        _ => Pause::Asked,
    }
}

/// Names of devices, which are those of the spec, with what libvirt calls them.
#[derive(Debug)]
pub(crate) struct Targets {
    disks: Vec<(String, String)>,
    interfaces: Vec<(String, String)>,
    /// Devices of the host, by their addresses.
    devices: Vec<String>,
}

impl Targets {
    /// Those of a guest that libvirt describes: it has the names as aliases.
    pub(crate) fn of(description: &Document<'_>, devices: &[Device]) -> Self {
        let of = |node: Node<'_, '_>| {
            let child = |name: &str| node.children().find(|c| c.has_tag_name(name));
            let name = child("alias")?.attribute("name")?.strip_prefix("ua-")?.to_owned();
            Some((name, child("target")?.attribute("dev")?.to_owned()))
        };
        let all =
            |kind: &str| description.descendants().filter(|n| n.has_tag_name(kind)).filter_map(of).collect();
        let devices = devices.iter().map(|d| d.address.to_string()).collect();
        Self { disks: all("disk"), interfaces: all("interface"), devices }
    }
}

/// Why QEMU ended: libvirt writes it to the guest's log.
fn reason(log: &Path) -> GuestEnd {
    for _ in 0..READINGS {
        if let Some(end) = fs::read(log).ok().and_then(|bytes| last_reason(&String::from_utf8_lossy(&bytes)))
        {
            return end;
        }
        std::thread::sleep(PAUSE);
    }
    GuestEnd::Failed(format!("QEMU is gone, and libvirt does not say why: see {}", log.display()))
}

/// The reason at the end of a log: only a line after the last start counts.
fn last_reason(log: &str) -> Option<GuestEnd> {
    let last = log.rsplit("starting up").next()?;
    let line = last
        .lines()
        .rev()
        .find_map(|l| l.split_once("shutting down, reason=").map(|(_, reason)| reason.trim()))?;
    Some(match line {
        "shutdown" => GuestEnd::PoweredOff,
        "destroyed" => GuestEnd::Stopped,
        "crashed" => {
            let said =
                last.lines().rev().find(|l| l.contains("qemu-system") || l.contains("terminating on signal"));
            match said {
                Some(said) => GuestEnd::Failed(format!("QEMU ended: {}", said.trim())),
                None => GuestEnd::Failed("QEMU was killed or crashed".to_owned()),
            }
        }
        other => GuestEnd::Failed(format!("libvirt says: {other}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "2026-11-21 10:00:00.000+0000: starting up libvirt version: 9.0.0\nLC_ALL=C qemu-system-x86_64 …\n\
        2026-11-21 10:00:09.000+0000: shutting down, reason=crashed\n\
        2026-11-21 11:00:00.000+0000: starting up libvirt version: 9.0.0\nchar device redirected to /dev/pts/0\n";

    #[test]
    fn the_reason_of_the_last_start_counts() {
        assert_eq!(last_reason(LOG), None);
        let ended = |reason: &str| last_reason(&format!("{LOG}2026: shutting down, reason={reason}\n"));
        assert_eq!(ended("shutdown"), Some(GuestEnd::PoweredOff));
        assert_eq!(ended("destroyed"), Some(GuestEnd::Stopped));
        assert!(matches!(ended("crashed"), Some(GuestEnd::Failed(_))));
    }

    #[test]
    fn devices_are_known_by_the_names_of_the_spec() {
        let text = "<domain><devices><disk><target dev='vda'/><alias name='ua-root'/></disk>\
            <disk><target dev='vdb'/><alias name='virtio-disk1'/></disk></devices></domain>";
        let targets = Targets::of(&Document::parse(text).unwrap(), &[]);
        assert_eq!(targets.disks, [("root".to_owned(), "vda".to_owned())]);
        assert!(targets.interfaces.is_empty());
    }
}
