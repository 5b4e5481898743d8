//! Device nodes of a container: made by the container runtime as the host has them, whose root alone may open them. A launcher
//! in a pod is not root.
//!
//! Called by the desk before a guest is armed. Only nodes that the kubelet gave the container are there, and only those are
//! touched that are what they are called: a container could have put anything in their place. Nothing of the host's is changed:
//! the nodes are the container's own.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use procfs::process::Process;
use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Uid, chownat, fstat, openat, openat2, stat,
};

/// `/dev/kvm`, `/dev/net/tun`, by which QEMU opens taps that are there, and the folder of VFIO's nodes.
const SINGLE: [&str; 2] = ["dev/kvm", "dev/net/tun"];
const VFIO: &str = "dev/vfio";

/// Gives a process's user the nodes that its guest is run by.
pub(crate) fn give(pid: i32) -> io::Result<()> {
    let process = Process::new(pid).map_err(io::Error::other)?;
    let status = process.status().map_err(io::Error::other)?;
    if status.euid == 0 {
        return Ok(());
    }
    let root = format!("/proc/{pid}/root");
    let root = openat(CWD, root.as_str(), OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    for path in SINGLE {
        give_one(&root, Path::new(path), (status.euid, status.egid))?;
    }
    let Some(folder) = inside(&root, Path::new(VFIO), OFlags::RDONLY | OFlags::DIRECTORY)? else {
        return Ok(());
    };
    for entry in Dir::new(folder)? {
        let entry = entry?;
        if let Ok(name) = entry.file_name().to_str() {
            give_one(&root, &Path::new(VFIO).join(name), (status.euid, status.egid))?;
        }
    }
    Ok(())
}

/// Opens what is inside a container's root, which no link leads out of; `None` where there is nothing.
fn inside(root: &OwnedFd, path: &Path, flags: OFlags) -> io::Result<Option<OwnedFd>> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    match openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
        Ok(file) => Ok(Some(file)),
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::LOOP) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// A character device that has the same number as the host's of its name.
fn give_one(root: &OwnedFd, path: &Path, (uid, gid): (u32, u32)) -> io::Result<()> {
    let Some(node) = inside(root, path, OFlags::PATH | OFlags::NOFOLLOW)? else { return Ok(()) };
    let there = fstat(&node)?;
    let is_it = FileType::from_raw_mode(there.st_mode) == FileType::CharacterDevice
        && stat(Path::new("/").join(path))
            .is_ok_and(|host| host.st_rdev == there.st_rdev && host.st_dev != there.st_dev);
    if is_it {
        chownat(&node, "", Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)), AtFlags::EMPTY_PATH)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_the_hosts_is_given_to_anybody() {
        let before = stat("/dev/kvm").map(|kvm| (kvm.st_uid, kvm.st_gid));
        let pid = i32::try_from(std::process::id()).unwrap();
        // This process sees the host's own nodes.
        let root = openat(CWD, "/", OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
        give_one(&root, Path::new(SINGLE[0]), (4242, 4242)).unwrap();
        give_one(&root, Path::new("dev/null"), (4242, 4242)).unwrap();
        give_one(&root, Path::new("etc/passwd"), (4242, 4242)).unwrap();
        assert_eq!(stat("/dev/kvm").map(|kvm| (kvm.st_uid, kvm.st_gid)), before);
        assert!(give(pid).is_ok());
        assert!(give(-1).is_err());
    }
}
