//! `cargo xtask image`: Pinion as container images, in OCI archives, made without a container engine.
//!
//! The programs are linked to libraries of this machine, which come along; there is no shell and no package in them.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, ensure};
use clap::Args;
use pinion_oci::Image;

use crate::workspace::{cargo, show, target};

/// An image: its name, without the tag that manifests ask for, its packages, and its programs: the first is run.
struct Recipe {
    name: &'static str,
    package: &'static str,
    programs: &'static [&'static str],
    /// Whether QEMU is in it.
    qemu: bool,
}

const IMAGES: [Recipe; 4] = [
    // The agent and the device plugin.
    Recipe { name: "pinion", package: "pinion-cli", programs: &["pinion"], qemu: false },
    // What runs in the pod of each guest.
    Recipe {
        name: "launcher",
        package: "pinion-launcher",
        programs: &["pinion-launcher", "pinion-image"],
        qemu: false,
    },
    // The same for guests on QEMU.
    Recipe {
        name: "launcher-libvirt",
        package: "pinion-libvirt",
        programs: &["pinion-launcher-libvirt"],
        qemu: true,
    },
    Recipe {
        name: "controller",
        package: "pinion-controller",
        programs: &["pinion-controller"],
        qemu: false,
    },
];

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The profile of cargo that programs are built with; `emulated` builds faster, for labs
    #[arg(long, default_value = "release")]
    profile: String,
    /// Folder that the archives go to [default: images in cargo's build folder]
    #[arg(long, short)]
    output: Option<PathBuf>,
}

/// Where archives are, unless another folder is asked for.
pub(crate) fn folder() -> PathBuf {
    target().join("images")
}

/// Carries out `cargo xtask image`.
pub(crate) fn image(arguments: &Arguments) -> anyhow::Result<()> {
    let mut words = vec!["build", "--locked", "--profile", &arguments.profile, "--bins"];
    words.extend(IMAGES.iter().flat_map(|image| ["-p", image.package]));
    let mut build = cargo(&words);
    let shown = show(&build);
    ensure!(build.status().with_context(|| format!("cannot run `{shown}`"))?.success(), "`{shown}` failed");
    let built = target().join(if arguments.profile == "dev" { "debug" } else { &arguments.profile });
    let folder = arguments.output.clone().unwrap_or_else(folder);
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    for recipe in &IMAGES {
        let name = format!("pinion.dev/{}:{}", recipe.name, env!("CARGO_PKG_VERSION"));
        let mut programs = recipe.programs.iter();
        let first = programs.next().copied().unwrap_or_default();
        let mut image = Image::of_program(&name, &format!("/usr/bin/{first}"), &built.join(first))?;
        for program in programs {
            image = image.with_file(format!("/usr/bin/{program}"), built.join(program));
        }
        if recipe.qemu {
            image = image.with_qemu()?;
        }
        let to = folder.join(format!("{}.tar", recipe.name));
        image.write(&to)?;
        println!(
            "{name}: {:.1} MiB in {}",
            fs::metadata(&to)?.len() as f64 / f64::from(1 << 20),
            to.display()
        );
    }
    Ok(())
}
