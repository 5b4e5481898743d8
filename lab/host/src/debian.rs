//! Debian's own kernel and busybox, unpacked into the cache; never installed on this machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{Cache, LabError};

const KERNEL: &str = "linux-image-cloud-amd64";
const BUSYBOX: &str = "busybox-static";

/// A kernel and its modules.
#[derive(Clone, Debug)]
pub struct Kernel {
    root: PathBuf,
    release: String,
}

impl Kernel {
    /// Debian's cloud kernel: from the cache, else from Debian.
    ///
    /// # Errors
    /// When neither has it.
    pub fn of_debian(cache: &Cache) -> Result<Self, LabError> {
        if let Some(root) = cache.entries("kernel").into_iter().next() {
            return Self::below(&root);
        }
        let package = dependency(KERNEL)?;
        let root = cache.entry("kernel", &package, |folder| fetch(&package, folder))?;
        Self::below(&root)
    }

    /// Whether the cache has it.
    #[must_use]
    pub fn is_cached(cache: &Cache) -> bool {
        !cache.entries("kernel").is_empty() && !cache.entries("busybox").is_empty()
    }

    /// Its release, as `uname -r` prints it.
    #[must_use]
    pub fn release(&self) -> &str {
        &self.release
    }

    /// Its compressed image (a bzImage).
    #[must_use]
    pub fn image(&self) -> PathBuf {
        self.root.join("boot").join(format!("vmlinuz-{}", self.release))
    }

    /// The folder of its modules.
    #[must_use]
    pub fn modules(&self) -> PathBuf {
        self.root.join("lib/modules").join(&self.release)
    }

    /// Copies modules and all that they need below the root of a system, with the index that
    /// `modprobe` reads. Some may be missing: kernels differ in what they have built in.
    pub(crate) fn install(&self, names: &[&str], root: &Path, busybox: &Path) -> Result<(), LabError> {
        let folder = Path::new("lib/modules").join(&self.release);
        let to = root.join(&folder);
        fs::create_dir_all(&to).map_err(LabError::file("make the folder", &to))?;
        let mut wanted: Vec<String> = names.iter().map(|&n| n.to_owned()).collect();
        let mut done = std::collections::BTreeSet::new();
        while let Some(name) = wanted.pop() {
            let Some(module) = find_module(&self.root.join(&folder), &name) else { continue };
            if !done.insert(module.clone()) {
                continue;
            }
            let bytes = fs::read(&module).map_err(LabError::file("read", &module))?;
            wanted.extend(needs(&bytes));
            let name = module.file_name().unwrap_or_default();
            fs::write(to.join(name), bytes).map_err(LabError::file("write", to.join(name)))?;
        }
        output(Command::new(busybox).args(["depmod", "-b"]).arg(root).arg(&self.release)).map(drop)
    }

    /// The file of a module by its name.
    ///
    /// # Errors
    /// When the kernel has no such module.
    pub fn module(&self, name: &str) -> Result<PathBuf, LabError> {
        find_module(&self.root.join("lib/modules"), name)
            .ok_or_else(|| LabError::Package(format!("{KERNEL} ({name}.ko)")))
    }

    fn below(root: &Path) -> Result<Self, LabError> {
        let modules = root.join("lib/modules");
        let mut names = fs::read_dir(&modules).map_err(LabError::file("read the folder", &modules))?;
        let release = names.find_map(|e| e.ok()?.file_name().into_string().ok());
        let release = release.ok_or_else(|| LabError::Package(KERNEL.to_owned()))?;
        Ok(Self { root: root.to_owned(), release })
    }
}

/// Debian's static busybox: from the cache, else from Debian.
///
/// # Errors
/// When neither has it.
pub fn busybox(cache: &Cache) -> Result<PathBuf, LabError> {
    let cached = cache.entries("busybox").into_iter().next();
    let root = match cached {
        Some(root) => root,
        None => cache.entry("busybox", BUSYBOX, |folder| fetch(BUSYBOX, folder))?,
    };
    let places = ["bin/busybox", "usr/bin/busybox"];
    let found = places.iter().map(|p| root.join(p)).find(|p| p.is_file());
    found.ok_or_else(|| LabError::Package(BUSYBOX.to_owned()))
}

/// A program of a Debian package that needs no other package: from the cache, else from Debian; never installed.
///
/// # Errors
/// When neither has it.
pub fn debian_program(cache: &Cache, package: &str, program: &str) -> Result<PathBuf, LabError> {
    let root = cache.entry("programs", package, |folder| fetch(package, folder))?;
    let found = root.join(program);
    if found.is_file() { Ok(found) } else { Err(LabError::Package(package.to_owned())) }
}

fn fetch(package: &str, folder: &Path) -> Result<(), LabError> {
    let missing = |_| LabError::Package(package.to_owned());
    output(Command::new("apt-get").args(["download", "-qq", package]).current_dir(folder))
        .map_err(missing)?;
    let archive = fs::read_dir(folder)
        .map_err(LabError::file("read the folder", folder))?
        .filter_map(|e| Some(e.ok()?.path()))
        .find(|p| p.extension().is_some_and(|x| x == "deb"))
        .ok_or_else(|| LabError::Package(package.to_owned()))?;
    output(Command::new("dpkg-deb").arg("-x").arg(&archive).arg(folder))?;
    fs::remove_file(&archive).map_err(LabError::file("remove", &archive))
}

/// The package that a meta package depends on.
fn dependency(package: &str) -> Result<String, LabError> {
    let text = output(Command::new("apt-cache").args(["depends", package]))
        .map_err(|_| LabError::Package(package.to_owned()))?;
    let found = text.lines().find_map(|l| l.trim().strip_prefix("Depends: ").map(str::to_owned));
    found.ok_or_else(|| LabError::Package(package.to_owned()))
}

/// Runs a program and gives its output.
pub(crate) fn output(command: &mut Command) -> Result<String, LabError> {
    let shown = format!("{command:?}");
    let failed = |reason: String| LabError::Tool { command: shown.clone(), reason };
    let done = command.output().map_err(|e| failed(e.to_string()))?;
    if done.status.success() {
        return Ok(String::from_utf8_lossy(&done.stdout).into_owned());
    }
    Err(failed(String::from_utf8_lossy(&done.stderr).trim().to_owned()))
}

/// A module's file; its name may have `-` or `_`.
fn find_module(folder: &Path, name: &str) -> Option<PathBuf> {
    let same = |file: &str| file.replace('-', "_") == format!("{}.ko", name.replace('-', "_"));
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).ok()?.flatten() {
            if entry.file_type().is_ok_and(|t| t.is_dir()) {
                folders.push(entry.path());
            } else if same(&entry.file_name().to_string_lossy()) {
                return Some(entry.path());
            }
        }
    }
    None
}

/// Names of the modules that a module needs, from what its builder noted in it.
fn needs(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|w| w == KEY) else { return Vec::new() };
    let value = module.get(at + KEY.len()..).unwrap_or_default();
    let value = value.split(|b| *b == 0).next().unwrap_or_default();
    let names = value.split(|b| *b == b',').filter(|n| !n.is_empty());
    names.map(|n| String::from_utf8_lossy(n).into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_says_what_it_needs() {
        assert_eq!(needs(b"x\0license=GPL\0depends=kvm,irqbypass\0retpoline=Y\0"), ["kvm", "irqbypass"]);
        assert!(needs(b"x\0depends=\0name=kvm\0").is_empty());
        assert!(needs(b"").is_empty());
    }
}
