//! Licences and origins of dependencies, by the rules of `deny.toml`.
//!
//! The file is one of cargo-deny's, which reads it too; here the two rules that matter are held
//! without building that program first.

use std::collections::BTreeMap;
use std::fs;

use anyhow::Context;
use serde::Deserialize;
use spdx::{Expression, ParseMode};

use crate::fuzz;
use crate::workspace::{Metadata, Package, root};

const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

#[derive(Debug, Deserialize)]
struct Deny {
    licenses: Licences,
}

#[derive(Debug, Deserialize)]
struct Licences {
    allow: Vec<String>,
    #[serde(default)]
    exceptions: Vec<Exception>,
}

#[derive(Debug, Deserialize)]
struct Exception {
    #[serde(rename = "crate")]
    name: String,
    allow: Vec<String>,
}

/// Dependencies that the rules refuse.
pub(super) fn check() -> anyhow::Result<Vec<String>> {
    let text = fs::read_to_string(root().join("deny.toml")).context("cannot read deny.toml")?;
    let rules: Deny = toml::from_str(&text).context("deny.toml")?;
    let mut packages = Metadata::read(None)?.packages;
    packages.extend(fuzz::metadata()?.packages);
    let unique: BTreeMap<&str, &Package> = packages.iter().map(|p| (p.id.as_str(), p)).collect();
    Ok(unique.into_values().filter_map(|p| refused(p, &rules.licenses)).collect())
}

fn refused(package: &Package, rules: &Licences) -> Option<String> {
    let of = format!("{} {}", package.name, package.version);
    if package.source.as_deref().is_some_and(|s| s != REGISTRY) {
        return Some(format!("{of} comes from {:?}, not from crates.io", package.source));
    }
    let Some(licence) = &package.license else { return Some(format!("{of} states no licence")) };
    let Ok(expression) = Expression::parse_mode(licence, ParseMode::LAX) else {
        return Some(format!("{of}: {licence:?} is no licence expression"));
    };
    let more = rules.exceptions.iter().filter(|e| e.name == package.name).flat_map(|e| &e.allow);
    let allowed: Vec<&String> = rules.allow.iter().chain(more).collect();
    let fits = expression.evaluate(|r| {
        let wanted = r.to_string();
        allowed.iter().any(|a| **a == wanted)
    });
    (!fits).then(|| format!("{of} is licensed {licence}, which deny.toml does not allow"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(licence: Option<&str>, source: &str) -> Package {
        Package {
            id: "x".into(),
            name: "x".into(),
            version: "1.0.0".into(),
            license: licence.map(str::to_owned),
            source: Some(source.into()),
            manifest_path: "Cargo.toml".into(),
            dependencies: vec![],
            targets: vec![],
        }
    }

    #[test]
    fn only_allowed_licences_pass() {
        let rules = Licences {
            allow: vec!["MIT".into(), "Apache-2.0".into()],
            exceptions: vec![Exception { name: "y".into(), allow: vec!["ISC".into()] }],
        };
        let refused = |licence, source| refused(&package(licence, source), &rules);
        assert_eq!(refused(Some("MIT OR GPL-3.0-only"), REGISTRY), None);
        assert_eq!(refused(Some("MIT/Apache-2.0"), REGISTRY), None);
        assert!(refused(Some("MIT AND GPL-3.0-only"), REGISTRY).is_some());
        assert!(refused(Some("ISC"), REGISTRY).is_some());
        assert!(refused(None, REGISTRY).is_some());
        assert!(refused(Some("MIT"), "git+https://example.org/x").is_some());
    }
}
