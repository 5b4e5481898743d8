//! Packing files into an initramfs.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};
use std::process::{Command, Stdio};

use crate::LabError;

/// A folder that becomes an initramfs.
#[derive(Debug)]
pub(crate) struct Tree {
    root: PathBuf,
}

impl Tree {
    /// An empty folder in place of whatever is there.
    pub(crate) fn new(root: PathBuf) -> Result<Self, LabError> {
        let _ = fs::remove_dir_all(&root);
        for folder in ["bin", "dev", "proc", "sys", "tmp", "run", "lib/modules", "etc"] {
            let path = root.join(folder);
            fs::create_dir_all(&path).map_err(LabError::file("make the folder", &path))?;
        }
        Ok(Self { root })
    }

    /// The folder.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Copies a file; its permissions come along.
    pub(crate) fn file(&self, place: &Path, file: &Path) -> Result<(), LabError> {
        let to = self.place(place)?;
        fs::copy(file, &to).map(drop).map_err(LabError::file("copy", file))
    }

    /// Writes an executable text.
    pub(crate) fn script(&self, place: &str, text: &str) -> Result<(), LabError> {
        let to = self.place(Path::new(place))?;
        fs::write(&to, text).map_err(LabError::file("write", &to))?;
        fs::set_permissions(&to, fs::Permissions::from_mode(0o755))
            .map_err(LabError::file("make executable", &to))
    }

    /// Busybox, with links for all that it can do.
    pub(crate) fn busybox(&self, busybox: &Path) -> Result<(), LabError> {
        self.file(Path::new("/bin/busybox"), busybox)?;
        let list = crate::debian::output(Command::new(busybox).arg("--list"))?;
        for name in list.lines().filter(|n| *n != "busybox") {
            let link = self.root.join("bin").join(name);
            symlink("busybox", &link).map_err(LabError::file("link", &link))?;
        }
        Ok(())
    }

    /// Packs it.
    pub(crate) fn pack(&self, to: &Path) -> Result<(), LabError> {
        let command = "find . -exec touch -h -d @0 {} + && find . -print0 | LC_ALL=C sort -z | \
             cpio --null --create --format=newc --quiet --reproducible --owner=+0:+0";
        let failed = |reason: String| LabError::Tool { command: command.to_owned(), reason };
        let target = File::create(to).map_err(LabError::file("create", to))?;
        let done = Command::new("sh")
            .args(["-c", command])
            .current_dir(&self.root)
            .stdout(target)
            .stderr(Stdio::piped())
            .output()
            .map_err(|e| failed(e.to_string()))?;
        if done.status.success() {
            return Ok(());
        }
        Err(failed(String::from_utf8_lossy(&done.stderr).into_owned()))
    }

    fn place(&self, place: &Path) -> Result<PathBuf, LabError> {
        let inside: PathBuf = place.components().filter(|c| matches!(c, Component::Normal(_))).collect();
        let to = self.root.join(inside);
        if let Some(folder) = to.parent() {
            fs::create_dir_all(folder).map_err(LabError::file("make the folder", folder))?;
        }
        Ok(to)
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}

/// Appends a line to a text file that must exist already.
pub(crate) fn append(path: &Path, line: &str) {
    if let Ok(mut file) = File::options().append(true).open(path) {
        let _ = writeln!(file, "{line}");
    }
}
