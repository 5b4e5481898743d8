//! `cargo xtask docs`: documents that are generated, and rustdoc.
//!
//! `cargo xtask lint` compares the same documents with what would be generated.

use std::fs;

use anyhow::{Context, ensure};

use crate::workspace::{cargo, output, root, show};

/// A generated document, and the cargo command that prints it.
const GENERATED: [(&str, &[&str]); 1] = [(
    "docs/kubevirt-compatibility.md",
    &["run", "--quiet", "--locked", "-p", "pinion-api", "--example", "compatibility"],
)];

/// Writes what is generated, then rustdoc.
pub(crate) fn docs() -> anyhow::Result<()> {
    for (path, words) in GENERATED {
        let text = output(&mut cargo(words))?;
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
    for (path, words) in GENERATED {
        let now = output(&mut cargo(words))?;
        if fs::read_to_string(root().join(path)).ok().as_ref() != Some(&now) {
            findings.push(format!("{path} is out of date: `cargo xtask docs` writes it"));
        }
    }
    Ok(findings)
}
