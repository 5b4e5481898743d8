//! The folders of labs: one for each that runs, and what is kept of those that failed.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::LabError;

/// What is kept of a lab that failed.
const RECORDS: [&str; 4] = ["console", "journal", "qemu.log", "cpus"];
/// Failed labs kept, the youngest.
const KEPT: usize = 20;

static LABS: AtomicU64 = AtomicU64::new(0);

/// Makes the folder of a new lab, named by its name, this process and a number; and clears away
/// what processes left that were killed.
pub(crate) fn folder(below: &Path, name: &str) -> Result<PathBuf, LabError> {
    let number = LABS.fetch_add(1, Ordering::Relaxed);
    let folder = below.join(format!("{name}.{}.{number}", std::process::id()));
    fs::create_dir_all(&folder).map_err(LabError::file("make the folder", &folder))?;
    clear(below);
    Ok(folder)
}

/// Takes away all but the records.
pub(crate) fn strip(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if !RECORDS.iter().any(|r| entry.file_name() == *r) {
            let path = entry.path();
            let _ = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
        }
    }
}

fn clear(below: &Path) {
    let mut left: Vec<_> = fs::read_dir(below)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|e| process(&e.file_name().to_string_lossy()).is_some_and(is_gone))
        .filter_map(|e| Some((e.metadata().and_then(|m| m.modified()).ok()?, e.path())))
        .collect();
    left.sort();
    for (number, (_, folder)) in left.iter().rev().enumerate() {
        if number < KEPT {
            strip(folder);
        } else {
            let _ = fs::remove_dir_all(folder);
        }
    }
}

/// The process in the name of a lab's folder.
fn process(name: &str) -> Option<u32> {
    name.rsplit('.').nth(1)?.parse().ok()
}

fn is_gone(process: u32) -> bool {
    !Path::new("/proc").join(process.to_string()).exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_killed_processes_left_is_stripped_and_what_runs_is_not_touched() {
        let below = std::env::temp_dir().join(format!("pinion-kept-{}", std::process::id()));
        let ours = folder(&below, "one").unwrap();
        // No process has the highest number that there can be.
        let dead = below.join("two.4194304.0");
        fs::create_dir_all(dead.join("root")).unwrap();
        for folder in [&ours, &dead] {
            fs::write(folder.join("console"), "text").unwrap();
            fs::write(folder.join("nvme1.img"), "image").unwrap();
        }
        let other = folder(&below, "one").unwrap();
        assert_ne!(ours, other);
        assert!(ours.join("nvme1.img").exists());
        assert!(dead.join("console").exists());
        assert!(!dead.join("nvme1.img").exists() && !dead.join("root").exists());
        fs::remove_dir_all(&below).unwrap();
    }
}
