//! A guest that runs, or has ended.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use pinion_launcher::backend::{
    DiskStats, GuestEnd, GuestStats, InterfaceStats, Operations, RunningGuest, Traffic,
};
use virt::connect::Connect;
use virt::domain::Domain;
use virt::sys;

use crate::backend::{self, Guest};
use crate::console::Wires;
use crate::error::LibvirtError;
use crate::process;

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
    /// Names of disks and interfaces, with what libvirt calls them.
    disks: Vec<(String, String)>,
    interfaces: Vec<(String, String)>,
    stopped: AtomicBool,
    end: Mutex<Option<GuestEnd>>,
}

impl Running {
    pub(crate) fn new(guest: Guest, ended: OwnedFd, wires: Wires) -> Result<Self, LibvirtError> {
        let description = guest.description()?;
        Ok(Self {
            disks: targets(&description, "disk"),
            interfaces: targets(&description, "interface"),
            guest,
            ended,
            wires: Mutex::new(wires),
            stopped: AtomicBool::new(false),
            end: Mutex::new(None),
        })
    }

    /// Does something with the domain; once more by another connection where the daemon was started anew.
    fn with_domain(&self, action: impl Fn(&Domain) -> Result<u32, virt::error::Error>) {
        if action(&self.guest.domain).is_ok() {
            return;
        }
        let again = backend::connect().ok().and_then(|connect: Connect| {
            let domain = Domain::lookup_by_name(&connect, &self.guest.name).ok()?;
            action(&domain).ok()
        });
        if again.is_none() {
            eprintln!(
                "pinion-launcher-libvirt: libvirt does not act on {:?}: is its daemon running?",
                self.guest.name
            );
        }
    }
}

impl RunningGuest for Running {
    fn power_button(&self) {
        self.with_domain(|domain| domain.shutdown_flags(sys::VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN));
    }

    fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        self.with_domain(|domain| domain.destroy().map(|()| 0));
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
                reason(&self.guest.name)
            });
        }
        end.clone()
    }

    fn stats(&self) -> GuestStats {
        let mut stats = GuestStats::default();
        let count = |n: i64| u64::try_from(n).unwrap_or(0);
        for (name, target) in &self.disks {
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
                errors: count(found.errs.max(0)),
                ..DiskStats::default()
            });
        }
        for (name, target) in &self.interfaces {
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
        stats
    }
}

/// Names of devices with their targets: names are those of the spec, which libvirt has as aliases.
fn targets(description: &str, kind: &str) -> Vec<(String, String)> {
    let Ok(document) = roxmltree::Document::parse(description) else { return Vec::new() };
    let of = |node: roxmltree::Node<'_, '_>| {
        let child = |name: &str| node.children().find(|c| c.has_tag_name(name));
        let name = child("alias")?.attribute("name")?.strip_prefix("ua-")?.to_owned();
        Some((name, child("target")?.attribute("dev")?.to_owned()))
    };
    document.descendants().filter(|n| n.has_tag_name(kind)).filter_map(of).collect()
}

/// Why QEMU ended: libvirt writes it to the guest's log.
fn reason(name: &str) -> GuestEnd {
    let log = process::log(name);
    for _ in 0..READINGS {
        if let Some(end) = fs::read(&log).ok().and_then(|bytes| last_reason(&String::from_utf8_lossy(&bytes)))
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
        assert_eq!(targets(text, "disk"), [("root".to_owned(), "vda".to_owned())]);
    }
}
