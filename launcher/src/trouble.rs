//! Disks that fail while the guest runs, told once for each new kind of trouble.
//!
//! Asked by the session at each check, on its thread. Pure.

use std::collections::BTreeMap;

use crate::backend::DiskStats;

/// What was told already.
#[derive(Debug, Default)]
pub(crate) struct Trouble {
    told: BTreeMap<String, String>,
    counted: BTreeMap<String, u64>,
}

impl Trouble {
    /// Sentences about what failed since the last time, and had not failed in that way before.
    pub(crate) fn news(&mut self, disks: &[DiskStats]) -> Vec<String> {
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

    fn disk(errors: u64, why: &str) -> Vec<DiskStats> {
        let last_error = (errors > 0).then(|| why.to_owned());
        vec![DiskStats { name: "root".into(), errors, last_error, ..DiskStats::default() }]
    }

    #[test]
    fn each_kind_of_trouble_is_told_once() {
        let mut trouble = Trouble::default();
        assert!(trouble.news(&disk(0, "")).is_empty());
        let full = "Cannot write to disk image /a: No space left on device";
        assert_eq!(
            trouble.news(&disk(2, full)),
            [format!("disk \"root\" failed 2 requests, and the guest saw an I/O error: {full}")]
        );
        assert!(trouble.news(&disk(2, full)).is_empty());
        assert!(trouble.news(&disk(9, full)).is_empty(), "it is full still");
        assert_eq!(trouble.news(&disk(10, "Cannot read from disk image /a: Input/output error")).len(), 1);
    }
}
