//! Cargo's build folder where it is kept between runs, in the cache: of a fresh clone, only packages of others are the same.
//!
//! Called by the suite, before and after everything else. What the workspace's own packages left is of no use to the next
//! clone and goes; where more has gathered than is worth keeping, all of it does.

use std::fs;
use std::path::Path;

use pinion_lab::Cache;

use crate::fuzz;
use crate::workspace::{cargo, target};

/// Bytes that are kept at most.
const MOST: u64 = 16 << 30;
/// Profiles that the suite builds.
const PROFILES: [&str; 2] = ["dev", "emulated"];

/// Whether the build folder is in the cache.
fn is_kept() -> bool {
    target().starts_with(Cache::of_user().root())
}

/// Before the suite: too much is thrown away.
pub(crate) fn begin() {
    let folder = target();
    if is_kept() && bytes(&folder) > MOST {
        println!("{}: more than {} GiB, thrown away", folder.display(), MOST >> 30);
        // This very program may be in it, and runs on.
        let _ = fs::remove_dir_all(folder);
    }
}

/// After it: only packages of others stay.
pub(crate) fn end() {
    if !is_kept() {
        return;
    }
    // What cannot be thrown away counts for the next run.
    let _ = fuzz::clean();
    for profile in PROFILES {
        let _ = cargo(&["clean", "--quiet", "--workspace", "--profile", profile]).status();
    }
}

fn bytes(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.file_type() {
            Ok(kind) if kind.is_dir() => bytes(&entry.path()),
            _ => entry.metadata().map_or(0, |file| file.len()),
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_as_large_as_what_is_in_it() {
        let folder = std::env::temp_dir().join(format!("pinion-kept-{}", std::process::id()));
        fs::create_dir_all(folder.join("a")).unwrap();
        fs::write(folder.join("a/b"), [0; 10]).unwrap();
        fs::write(folder.join("c"), [0; 7]).unwrap();
        let found = bytes(&folder);
        fs::remove_dir_all(folder).unwrap();
        assert_eq!(found, 17);
    }
}
