//! `cargo xtask docs`: documents that are generated, and rustdoc.
//!
//! `cargo xtask lint` compares the same documents with what would be generated.

use std::fs;

use anyhow::{Context, ensure};

use crate::workspace::{cargo, output, root, show};

/// Documents that a package's example prints: where each goes, package and example, and what the example is told.
const GENERATED: [(&str, [&str; 2], &[&str]); 6] = [
    ("docs/kubevirt-compatibility.md", ["pinion-api", "compatibility"], &[]),
    ("manifests/crds/virtualmachines.yaml", CRD, &["virtualmachines"]),
    ("manifests/crds/virtualmachineinstances.yaml", CRD, &["virtualmachineinstances"]),
    ("manifests/crds/virtualmachineinstancereplicasets.yaml", CRD, &["virtualmachineinstancereplicasets"]),
    ("manifests/crds/nodeledgers.yaml", CRD, &["nodeledgers"]),
    ("manifests/crds/nodeprofiles.yaml", CRD, &["nodeprofiles"]),
];
const CRD: [&str; 2] = ["pinion-crds", "crd"];

fn generated([package, example]: [&str; 2], words: &[&str]) -> anyhow::Result<String> {
    let command = ["run", "--quiet", "--locked", "-p", package, "--example", example, "--"];
    output(&mut cargo(&[&command, words].concat()))
}

/// Writes what is generated, then rustdoc.
pub(crate) fn docs() -> anyhow::Result<()> {
    for (path, example, words) in GENERATED {
        let text = generated(example, words)?;
        fs::write(root().join(path), text).with_context(|| format!("cannot write {path}"))?;
        println!("{path}");
    }
    let mut command = cargo(&["doc", "--workspace", "--no-deps", "--locked"]);
    let status = command.env("RUSTDOCFLAGS", "-D warnings").status()?;
    ensure!(status.success(), "`{}` failed ({status})", show(&command));
    Ok(())
}

/// Generated documents that are not what would be generated now.
pub(crate) fn outdated() -> anyhow::Result<Vec<String>> {
    let mut findings = Vec::new();
    for (path, example, words) in GENERATED {
        let now = generated(example, words)?;
        if fs::read_to_string(root().join(path)).ok().as_ref() != Some(&now) {
            findings.push(format!("{path} is out of date: `cargo xtask docs` writes it"));
        }
    }
    Ok(findings)
}
