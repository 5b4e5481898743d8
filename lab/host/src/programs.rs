//! Pinion's own programs, built for a lab host: optimised a little, since its CPUs are emulated, and without symbols.
//!
//! Called by tests on the thread that boots a lab, and by `cargo xtask test`, which has them built beforehand. Builds
//! nothing else.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::LabError;
use crate::debian::output;
use crate::image::target;

/// The profile of the workspace's `Cargo.toml`, and the folder below cargo's build folder.
const PROFILE: &str = "emulated";
/// Built by one command, whichever is asked for: cargo would build what they share again for each alone.
const PACKAGES: [&str; 4] = ["pinion-cli", "pinion-controller", "pinion-launcher", "pinion-libvirt"];

/// Pinion's programs, built when they are first asked for.
#[derive(Debug)]
pub struct Programs {
    folder: PathBuf,
}

impl Programs {
    /// Builds them where they are not up to date, once in the life of this process.
    ///
    /// # Errors
    /// [`LabError::Tool`] with what cargo said.
    pub fn built() -> Result<&'static Self, LabError> {
        static BUILT: OnceLock<Programs> = OnceLock::new();
        if let Some(built) = BUILT.get() {
            return Ok(built);
        }
        let folder = target();
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut build = Command::new(cargo);
        build
            .args(["build", "--quiet", "--locked", "--bins", "--profile", PROFILE, "--target-dir"])
            .arg(&folder);
        build.args(PACKAGES.iter().flat_map(|p| ["-p", p]));
        build.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."));
        output(&mut build)?;
        Ok(BUILT.get_or_init(|| Self { folder: folder.join(PROFILE) }))
    }

    /// An example of a package, built with a feature where it is not up to date: what stands for others' programs.
    ///
    /// # Errors
    /// [`LabError::Tool`] with what cargo said.
    pub fn example(&self, package: &str, name: &str, feature: &str) -> Result<PathBuf, LabError> {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut build = Command::new(cargo);
        build.args(["build", "--quiet", "--locked", "--profile", PROFILE, "--target-dir"]).arg(target());
        build.args(["-p", package, "--example", name, "--features", feature]);
        build.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."));
        output(&mut build)?;
        Ok(self.folder.join("examples").join(name))
    }

    /// A program, by its name.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}
