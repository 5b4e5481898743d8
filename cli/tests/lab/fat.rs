//! Disks that boot by Syslinux' or the Boot Loader Specification's files.

use std::io::{Cursor, Write};

/// A FAT file system of the size of a small boot partition.
pub(crate) fn fat(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut disk = Cursor::new(vec![0; 63 << 20]);
    fatfs::format_volume(&mut disk, fatfs::FormatVolumeOptions::new()).unwrap();
    let system = fatfs::FileSystem::new(&mut disk, fatfs::FsOptions::new()).unwrap();
    for (path, content) in files {
        let (folders, name) = path.rsplit_once('/').unwrap_or(("", path));
        let mut folder = system.root_dir();
        for part in folders.split('/').filter(|p| !p.is_empty()) {
            folder = folder.create_dir(part).unwrap();
        }
        folder.create_file(name).unwrap().write_all(content).unwrap();
    }
    system.unmount().unwrap();
    disk.into_inner()
}
