//! How many labs run at once on this machine, over all processes.

use std::fs::{self, File, OpenOptions};
use std::thread;
use std::time::Duration;

use crate::{Cache, LabError};

/// What a lab keeps busy.
const CORES: usize = 2;
const MIB: u64 = 6 * 1024;
const MOST: u64 = 8;
const LOOK: Duration = Duration::from_millis(200);

/// The right to run a lab, or several that belong together; dropping it, or dying, gives it back.
#[derive(Debug)]
pub struct Slot {
    _lock: File,
}

impl Slot {
    /// Waits for one. On a small machine there is one in all: who holds a lab must not wait for another.
    ///
    /// # Errors
    /// When the cache folder cannot be written.
    pub fn wait(cache: &Cache) -> Result<Self, LabError> {
        let folder = cache.root().join("slots");
        fs::create_dir_all(&folder).map_err(LabError::file("make the folder", &folder))?;
        let slots = slots();
        let mut told = false;
        loop {
            for number in 0..slots {
                let path = folder.join(number.to_string());
                let lock = OpenOptions::new()
                    .write(true)
                    .create(true)
                    .truncate(false)
                    .open(&path)
                    .map_err(LabError::file("open", &path))?;
                if lock.try_lock().is_ok() {
                    return Ok(Self { _lock: lock });
                }
            }
            if !told {
                eprintln!("waiting for another lab on this machine to end");
                told = true;
            }
            thread::sleep(LOOK);
        }
    }
}

/// As many as cores and memory of this machine allow, and at least one.
fn slots() -> u64 {
    let cores = thread::available_parallelism().map_or(1, usize::from) / CORES;
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib =
        memory.lines().find_map(|l| l.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse().ok());
    allowed(u64::try_from(cores).unwrap_or(MOST), kib.unwrap_or(0) / 1024)
}

fn allowed(cores: u64, mib: u64) -> u64 {
    cores.min(mib / MIB).clamp(1, MOST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labs_at_once_follow_cores_and_memory() {
        assert_eq!(allowed(1, 24 << 10), 1);
        assert_eq!(allowed(8, 24 << 10), 4);
        assert_eq!(allowed(0, 1 << 10), 1);
        assert_eq!(allowed(128, 1 << 20), MOST);
    }
}
