//! Pinion beside QEMU in one lab host: the programs, the kernel and the initrd of both, and the figures of what ran.
//!
//! Used by benchmarks that compare. Everything in the lab is emulated: only the ratio of what ran side by side says
//! something.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use pinion_lab::{Cache, Files, Kernel, Lab, LabError, Shape};

/// Longer than any single thing takes.
pub const LONG: Duration = Duration::from_secs(180);

/// QEMU's, for the machines `microvm` and `q35`.
const FIRMWARE: [&str; 4] = ["qboot.rom", "linuxboot_dma.bin", "pvh.bin", "kvmvapic.bin"];

/// Why the two could not be set side by side.
#[derive(Debug, thiserror::Error)]
pub enum SideBySideError {
    /// The lab.
    #[error(transparent)]
    Lab(#[from] LabError),
    /// A program of this machine.
    #[error("`{0}` failed")]
    Program(String, #[source] std::io::Error),
    /// A command in the lab.
    #[error("`{command}` failed: {said}")]
    Failed {
        /// The command.
        command: String,
        /// What it printed.
        said: String,
    },
}

/// The controller, built as it is shipped.
///
/// # Errors
/// [`SideBySideError::Program`].
pub fn controller() -> Result<PathBuf, SideBySideError> {
    run(Command::new("cargo").args(["build", "--quiet", "--release", "-p", "pinion-controller"]))?;
    Ok(release().join("pinion-controller"))
}

/// One of our programs, built as it is shipped.
///
/// # Errors
/// [`SideBySideError::Program`].
pub fn program(name: &str) -> Result<PathBuf, SideBySideError> {
    run(Command::new("cargo").args([
        "build",
        "--quiet",
        "--release",
        "-p",
        "pinion-cli",
        "-p",
        "pinion-launcher",
        "-p",
        "pinion-libvirt",
    ]))?;
    Ok(release().join(name))
}

/// Boots a lab host that has Pinion, QEMU, and a kernel and an initrd for the guests of both.
///
/// # Errors
/// [`SideBySideError`].
pub fn lab(name: &str, shape: &Shape, initrd: &Path, folder: &Path) -> Result<Lab, SideBySideError> {
    lab_with(name, shape, initrd, folder, Files::new())
}

/// As [`lab`], with more files and disks.
///
/// # Errors
/// [`SideBySideError`].
pub fn lab_with(
    name: &str,
    shape: &Shape,
    initrd: &Path,
    folder: &Path,
    files: Files,
) -> Result<Lab, SideBySideError> {
    let kernel = Kernel::of_debian(&Cache::of_user())?;
    let mut files = files
        .with("/var/lib/pinion/debian/vmlinuz", kernel.image())
        .with("/var/lib/pinion/debian/initrd", initrd)
        .with_program("/usr/bin/qemu-system-x86_64", Path::new("/usr/bin/qemu-system-x86_64"))?;
    for name in ["pinion", "pinion-launcher", "pinion-image"] {
        let slim = folder.join(name);
        run(Command::new("strip").arg("-o").arg(&slim).arg(program(name)?))?;
        files = files.with_program(Path::new("/usr/bin").join(name), &slim)?;
    }
    for name in FIRMWARE {
        files = files.with(Path::new("/firmware").join(name), Path::new("/usr/share/qemu").join(name));
    }
    files = files.with("/firmware/bios-microvm.bin", "/usr/share/qemu/qboot.rom");
    files = files.with("/firmware/bios-256k.bin", "/usr/share/seabios/bios-256k.bin");
    let lab = Lab::boot(name, shape, &files)?;
    must(&lab, "mkdir -p /dev/hugepages && mount -t hugetlbfs none /dev/hugepages")?;
    Ok(lab)
}

/// Lab hosts for measuring. Emulation of a virtual machine inside a virtual machine now and then stops for good: then
/// there is another host.
#[derive(Debug)]
pub struct Hosts<F> {
    boot: F,
    lab: Lab,
    left: usize,
}

impl<F: FnMut() -> Lab> Hosts<F> {
    /// Boots the first of at most so many.
    pub fn new(most: usize, mut boot: F) -> Self {
        let lab = boot();
        Self { boot, lab, left: most.saturating_sub(1) }
    }

    /// The host that there is now.
    pub const fn lab(&self) -> &Lab {
        &self.lab
    }

    /// Measures; once more on a fresh host where that fails.
    ///
    /// # Errors
    /// What was said last, when there are no more hosts.
    pub fn measure<T>(
        &mut self,
        what: &str,
        measure: impl Fn(&Lab) -> Result<T, String>,
    ) -> Result<T, String> {
        loop {
            match measure(&self.lab) {
                Err(said) if self.left > 0 => println!("{what}: once more on a fresh host: {said}"),
                measured => return measured,
            }
            self.left -= 1;
            self.lab = (self.boot)();
        }
    }
}

/// A guest named `bench`: two dedicated CPUs, huge pages, and the kernel and initrd of the lab host. `devices` are the
/// fields below `devices`, as YAML in one line.
#[must_use]
pub fn spec(memory: &str, arguments: &str, devices: &str) -> String {
    format!(
        r#"
apiVersion: kubevirt.io/v1
kind: VirtualMachineInstance
metadata: {{name: bench}}
spec:
  domain:
    cpu: {{cores: 2, dedicatedCpuPlacement: true}}
    memory: {{guest: {memory}, hugepages: {{pageSize: 2Mi}}}}
    firmware:
      kernelBoot:
        kernelArgs: "{arguments}"
        container: {{image: "file:/var/lib/pinion/debian", kernelPath: /vmlinuz, initrdPath: /initrd}}
    devices: {{autoattachPodInterface: false, {devices}}}
"#
    )
}

/// Runs a command in the lab that must succeed, and gives what it printed.
///
/// # Errors
/// [`SideBySideError::Failed`].
pub fn must(lab: &Lab, command: &str) -> Result<String, SideBySideError> {
    let output = lab.sh(command, LONG)?;
    if output.success() {
        return Ok(output.text());
    }
    let said = format!("{}{}", output.text(), output.error_text());
    Err(SideBySideError::Failed { command: command.to_owned(), said })
}

/// The seconds between the two readings of `/proc/uptime` that a script has printed, and nothing else.
#[must_use]
pub fn elapsed(printed: &str) -> Option<f64> {
    let times: Vec<f64> = printed.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    match times.as_slice() {
        [start, end] => Some(end - start),
        _ => None,
    }
}

fn run(command: &mut Command) -> Result<(), SideBySideError> {
    let shown = command.get_program().to_string_lossy().into_owned();
    let status = command.status().map_err(|e| SideBySideError::Program(shown.clone(), e))?;
    if status.success() {
        Ok(())
    } else {
        Err(SideBySideError::Program(shown, std::io::ErrorKind::Other.into()))
    }
}

/// Where the release build is: beside this program's own folder.
#[must_use]
pub fn release() -> PathBuf {
    let own = std::env::current_exe().unwrap_or_default();
    own.parent().and_then(Path::parent).unwrap_or(Path::new(".")).to_owned()
}

/// The middle one of sorted figures.
#[must_use]
pub fn median(figures: &[f64]) -> f64 {
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Sorts, and shows the least, the median and the most.
#[must_use]
pub fn three(figures: &mut [f64]) -> String {
    figures.sort_by(f64::total_cmp);
    let end = |f: Option<&f64>| f.copied().unwrap_or(f64::NAN);
    format!("{:.2}  {:.2}  {:.2}", end(figures.first()), median(figures), end(figures.last()))
}
