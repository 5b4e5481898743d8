//! Files below a folder that no link leads out of: what is in the folder may be anybody's.

use std::fs::File;
use std::io;
use std::path::Path;

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::Mode;

/// Who may use a file that is made: its user and group, as in the folder of a pod.
const MADE: Mode = Mode::from_bits_truncate(0o660);

/// Opens a file below a folder. A pipe in its place does not block.
///
/// # Errors
/// From the operating system.
pub(crate) fn open_inside(root: &Path, inside: &Path, flags: OFlag) -> io::Result<File> {
    let folder = open(root, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    // To the kernel, what is inside begins at the root.
    let inside = inside.strip_prefix("/").unwrap_or(inside);
    let made = if flags.contains(OFlag::O_CREAT) { MADE } else { Mode::empty() };
    let how = OpenHow::new()
        .flags(flags | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)
        .mode(made)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    Ok(File::from(openat2(&folder, inside, how)?))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_are_followed_inside_and_never_out() {
        let folder = tempfile::tempdir().unwrap();
        let (root, outside) = (folder.path().join("root"), folder.path().join("secret"));
        fs::create_dir(&root).unwrap();
        fs::write(&outside, "no").unwrap();
        fs::write(root.join("file"), "yes").unwrap();
        symlink("/file", root.join("absolute")).unwrap();
        symlink(&outside, root.join("out")).unwrap();
        symlink("../secret", root.join("up")).unwrap();
        let open = |name: &str| {
            open_inside(&root, Path::new(name), OFlag::O_RDONLY).and_then(io::read_to_string).ok()
        };
        for name in ["file", "/file", "absolute"] {
            assert_eq!(open(name).as_deref(), Some("yes"), "{name}");
        }
        for name in ["out", "up", "../secret", "none"] {
            assert_eq!(open(name), None, "{name}");
        }
    }
}
