//! Which part may depend on which, and in how many versions.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::workspace::{Metadata, Package};

/// A part, and the parts that it may depend on besides itself. `*` is all.
const ARROWS: [(&str, &[&str]); 11] = [
    ("api", &[]),
    ("topology", &["api"]),
    ("vmm", &[]),
    ("launcher", &["api", "topology", "vmm"]),
    ("node-agent", &["api", "topology"]),
    ("device-plugin", &["api", "topology"]),
    ("controller", &["api", "topology"]),
    ("cli", &["*"]),
    ("lab", &[]),
    ("benches", &["*"]),
    ("xtask", &["lab"]),
];

/// Crates that hand types to each other, so that there must be one version of each.
const SINGLE: [&str; 12] = [
    "acpi_tables",
    "event-manager",
    "kvm-bindings",
    "kvm-ioctls",
    "linux-loader",
    "seccompiler",
    "virtio-bindings",
    "virtio-queue",
    "vm-allocator",
    "vm-memory",
    "vm-superio",
    "vmm-sys-util",
];

/// Dependencies that point the wrong way. Tests of every part may use the lab.
pub(super) fn check(metadata: &Metadata) -> Vec<String> {
    let mut findings = Vec::new();
    for package in metadata.members() {
        let from = part(package.folder());
        for dependency in package.dependencies.iter().filter(|d| d.path.is_some()) {
            let target = metadata.members().find(|p| p.name == dependency.name);
            let Some(to) = target.map(|p| part(p.folder())) else { continue };
            let for_tests = dependency.kind.as_deref() == Some("dev");
            if !(allowed(from, to) || for_tests && to == "lab") {
                findings.push(format!(
                    "{}: {from} may not depend on {to} ({})",
                    package.folder().join("Cargo.toml").display(),
                    dependency.name
                ));
            }
        }
    }
    findings
}

fn part(folder: &Path) -> &str {
    folder.iter().next().and_then(|f| f.to_str()).unwrap_or_default()
}

fn allowed(from: &str, to: &str) -> bool {
    let arrows = ARROWS.iter().find(|(part, _)| *part == from);
    arrows.is_some_and(|(_, targets)| from == to || targets.contains(&to) || targets.contains(&"*"))
}

/// Crates of which there is more than one version.
pub(super) fn versions(packages: &[Package]) -> Vec<String> {
    let mut found: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for package in packages.iter().filter(|p| SINGLE.contains(&p.name.as_str())) {
        found.entry(&package.name).or_default().insert(&package.version);
    }
    let several = found.into_iter().filter(|(_, versions)| versions.len() > 1);
    several.map(|(name, versions)| format!("{name} is in the tree in versions {versions:?}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrows_point_down_only() {
        assert!(allowed("launcher", "vmm") && allowed("vmm", "vmm") && allowed("cli", "launcher"));
        assert!(!allowed("vmm", "topology") && !allowed("lab", "api") && !allowed("api", "topology"));
        assert!(!allowed("new-part", "api"));
    }

    #[test]
    fn a_second_version_is_found() {
        let package = |version: &str| Package {
            id: version.into(),
            name: "vm-memory".into(),
            version: version.into(),
            license: None,
            source: None,
            manifest_path: "Cargo.toml".into(),
            dependencies: vec![],
            targets: vec![],
        };
        assert!(versions(&[package("0.18.0"), package("0.18.0")]).is_empty());
        assert_eq!(versions(&[package("0.18.0"), package("0.17.0")]).len(), 1);
    }
}
