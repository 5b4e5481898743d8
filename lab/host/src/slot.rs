//! How many labs run at once on this machine, over all processes.

use std::fs::{self, File, OpenOptions};
use std::thread;
use std::time::Duration;

use crate::{Cache, LabError};

/// Labs at once: each keeps two cores busy and takes some GiB.
const SLOTS: u32 = 2;
const LOOK: Duration = Duration::from_millis(200);

/// The right to run a lab; dropping it, or dying, gives it back.
#[derive(Debug)]
pub(crate) struct Slot {
    _lock: File,
}

impl Slot {
    /// Waits for one.
    pub(crate) fn wait(cache: &Cache) -> Result<Self, LabError> {
        let folder = cache.root().join("slots");
        fs::create_dir_all(&folder).map_err(LabError::file("make the folder", &folder))?;
        loop {
            for number in 0..SLOTS {
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
            thread::sleep(LOOK);
        }
    }
}
