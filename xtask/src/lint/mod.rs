//! `cargo xtask lint`: what holds for every file and every package of the tree.
//!
//! Called alone and by `cargo xtask test`. Reads; changes nothing.

mod arrows;
mod licences;
mod links;
mod sources;

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, ensure};

use crate::docs;
use crate::fuzz::{self, FUZZ_FOLDERS};
use crate::step::{Steps, Tally};
use crate::workspace::{Metadata, cargo, output, root, show};

/// A check, and what it found.
type Check = fn() -> anyhow::Result<Vec<String>>;

/// All checks that cargo does not do itself.
const CHECKS: [(&str, Check); 6] = [
    ("dependencies point the right way", || Ok(arrows::check(&Metadata::read(None)?))),
    ("one version of each rust-vmm crate", versions),
    ("sizes, headers, names, unsafe code and paths in sources", || sources::check(&files()?)),
    ("licences and sources of dependencies", licences::check),
    ("links between documents", || links::check(&files()?)),
    ("generated files are up to date", docs::outdated),
];

/// Carries out all checks.
pub(crate) fn lint(steps: &mut Steps) {
    run(steps, "formatting", &["fmt", "--all", "--check"]);
    for folder in FUZZ_FOLDERS {
        let manifest = format!("{folder}/Cargo.toml");
        let name = format!("formatting of {folder}");
        run(steps, &name, &["fmt", "--check", "--manifest-path", &manifest]);
    }
    let clippy = ["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"];
    run(steps, "clippy", &clippy);
    for (name, check) in CHECKS {
        steps.step(name, "cargo xtask lint", || {
            let findings = check()?;
            for finding in &findings {
                println!("{finding}");
            }
            Ok(if findings.is_empty() { Tally::PASSED } else { Tally::FAILED })
        });
    }
}

/// A step that is one cargo command.
pub(crate) fn run(steps: &mut Steps, name: &str, words: &[&str]) -> bool {
    let mut command = cargo(words);
    let shown = show(&command);
    steps.step(name, &shown, || {
        let status = command.status().with_context(|| format!("cannot run `{shown}`"))?;
        ensure!(status.success(), "`{shown}` failed ({status})");
        Ok(Tally::PASSED)
    })
}

/// All files that are, or would be, in the tree.
fn files() -> anyhow::Result<Vec<PathBuf>> {
    let words = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
    let list = output(Command::new("git").args(words).current_dir(root()))?;
    let mut files: Vec<_> = list.split('\0').filter(|n| !n.is_empty()).map(PathBuf::from).collect();
    files.retain(|f| root().join(f).is_file());
    files.sort();
    files.dedup();
    Ok(files)
}

fn versions() -> anyhow::Result<Vec<String>> {
    let mut packages = Metadata::read(None)?.packages;
    packages.extend(fuzz::metadata()?.packages);
    Ok(arrows::versions(&packages))
}
