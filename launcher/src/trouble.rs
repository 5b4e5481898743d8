//! Disks and devices that fail while the guest runs, and guests that stand still for it, told once for each new kind of trouble.
//!
//! Asked by the session at each check, on its thread. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::backend::{DeviceStats, DiskStats, GuestStats, Pause};

/// What was told already.
#[derive(Debug, Default)]
pub(crate) struct Trouble {
    told: BTreeMap<String, String>,
    counted: BTreeMap<String, u64>,
    lost: BTreeSet<String>,
    paused: Option<String>,
}

impl Trouble {
    /// Sentences about what failed since the last time, and had not failed in that way before.
    pub(crate) fn news(&mut self, stats: &GuestStats, pause: Option<&Pause>) -> Vec<String> {
        let mut news = self.of_disks(&stats.disks);
        let failed = pause.and_then(|pause| match pause {
            Pause::Asked => None,
            Pause::Failed(why) => Some(why.clone()),
        });
        if let Some(why) = failed.as_ref().filter(|why| self.paused.as_ref() != Some(*why)) {
            news.push(format!("it is paused: {why}"));
        }
        self.paused = failed;
        news.extend(stats.devices.iter().flat_map(|device| self.of_device(device)));
        news
    }

    fn of_device(&mut self, device: &DeviceStats) -> Vec<String> {
        let mut news = Vec::new();
        let fault = device.last_fault.as_ref();
        if let Some(why) = fault.filter(|why| self.told.get(&device.name) != Some(*why)) {
            self.told.insert(device.name.clone(), why.clone());
            news.push(format!("device {why}"));
        }
        if device.lost && self.lost.insert(device.name.clone()) {
            let gone = "the host took it back; the guest reads ones from it until it is started anew";
            news.push(format!("device {}: {gone}", device.name));
        }
        news
    }

    fn of_disks(&mut self, disks: &[DiskStats]) -> Vec<String> {
        let mut news = Vec::new();
        for disk in disks {
            let before = self.counted.insert(disk.name.clone(), disk.errors).unwrap_or(0);
            let Some(new) = disk.errors.checked_sub(before).filter(|new| *new > 0) else { continue };
            let why = disk.last_error.clone().unwrap_or_else(|| "the host does not say why".to_owned());
            if self.told.insert(disk.name.clone(), why.clone()).as_ref() == Some(&why) {
                continue;
            }
            let requests = if new == 1 { "request" } else { "requests" };
            news.push(format!(
                "disk {:?} failed {new} {requests}, and the guest saw an I/O error: {why}",
                disk.name
            ));
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(errors: u64, why: &str) -> GuestStats {
        let last_error = (errors > 0).then(|| why.to_owned());
        let disks = vec![DiskStats { name: "root".into(), errors, last_error, ..DiskStats::default() }];
        GuestStats { disks, ..GuestStats::default() }
    }

    #[test]
    fn a_device_that_is_lost_is_told_once() {
        let device = |lost, why: Option<&str>| {
            let last_fault = why.map(str::to_owned);
            let devices = vec![DeviceStats {
                name: "0000:31:00.0".into(),
                lost,
                faults: 1,
                last_fault,
                ..DeviceStats::default()
            }];
            GuestStats { devices, ..GuestStats::default() }
        };
        let mut trouble = Trouble::default();
        assert!(trouble.news(&device(false, None), None).is_empty());
        assert_eq!(trouble.news(&device(false, Some("0000:31:00.0: cannot reset it")), None).len(), 1);
        let news = trouble.news(&device(true, Some("0000:31:00.0: cannot reset it")), None);
        assert!(
            news.len() == 1 && news[0].starts_with("device 0000:31:00.0: the host took it back"),
            "{news:?}"
        );
        assert!(trouble.news(&device(true, Some("0000:31:00.0: cannot reset it")), None).is_empty());
    }

    #[test]
    fn a_guest_that_stands_still_is_told_once_for_each_time() {
        let (mut trouble, stats) = (Trouble::default(), GuestStats::default());
        let full = Pause::Failed("a disk is full".to_owned());
        assert!(trouble.news(&stats, Some(&Pause::Asked)).is_empty(), "whoever asked knows");
        assert_eq!(trouble.news(&stats, Some(&full)), ["it is paused: a disk is full"]);
        assert!(trouble.news(&stats, Some(&full)).is_empty());
        assert!(trouble.news(&stats, None).is_empty());
        assert_eq!(trouble.news(&stats, Some(&full)).len(), 1);
    }

    #[test]
    fn each_kind_of_trouble_is_told_once() {
        let mut trouble = Trouble::default();
        assert!(trouble.news(&disk(0, ""), None).is_empty());
        let full = "Cannot write to disk image /a: No space left on device";
        assert_eq!(
            trouble.news(&disk(2, full), None),
            [format!("disk \"root\" failed 2 requests, and the guest saw an I/O error: {full}")]
        );
        assert!(trouble.news(&disk(2, full), None).is_empty());
        assert!(trouble.news(&disk(9, full), None).is_empty(), "it is full still");
        assert_eq!(
            trouble.news(&disk(10, "Cannot read from disk image /a: Input/output error"), None).len(),
            1
        );
    }
}
