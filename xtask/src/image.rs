//! `cargo xtask image`: Pinion as a container image, in an OCI archive, made without a container engine.
//!
//! The programs are linked to libraries of this machine, which come along; there is no shell and no package in it.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, ensure};
use clap::Args;
use pinion_oci::Image;

use crate::workspace::{cargo, show, target};

/// Its name, and the tag that manifests ask for.
const NAME: &str = concat!("pinion.dev/pinion:", env!("CARGO_PKG_VERSION"));
/// Those that run in pods of nodes.
const PROGRAM: &str = "pinion";

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The profile of cargo that programs are built with; `emulated` builds faster, for labs
    #[arg(long, default_value = "release")]
    profile: String,
    /// Where the archive goes [default: images/pinion.tar in cargo's build folder]
    #[arg(long, short)]
    output: Option<PathBuf>,
}

/// Carries out `cargo xtask image`.
pub(crate) fn image(arguments: &Arguments) -> anyhow::Result<()> {
    let mut build = cargo(&["build", "--locked", "--profile", &arguments.profile, "-p", "pinion-cli"]);
    let shown = show(&build);
    ensure!(build.status().with_context(|| format!("cannot run `{shown}`"))?.success(), "`{shown}` failed");
    let program =
        target().join(if arguments.profile == "dev" { "debug" } else { &arguments.profile }).join(PROGRAM);
    let to = arguments.output.clone().unwrap_or_else(|| target().join("images/pinion.tar"));
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    Image::of_program(NAME, "/usr/bin/pinion", &program)?.write(&to)?;
    let mib = fs::metadata(&to)?.len() >> 20;
    println!("{NAME}: {mib} MiB in {}", to.display());
    Ok(())
}
