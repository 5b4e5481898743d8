//! Names: DNS labels and subdomains.

use std::collections::{HashMap, HashSet};

use crate::node::shorten;
use crate::path::FieldPath;
use crate::problem::{Findings, ProblemCode};

/// Longest DNS label. Source: RFC 1123.
const LONGEST_LABEL: usize = 63;
/// Longest DNS subdomain. Source: RFC 1123.
const LONGEST_SUBDOMAIN: usize = 253;

/// Whether a name is a DNS label.
fn is_label(name: &str) -> bool {
    name.len() <= LONGEST_LABEL
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && !name.is_empty()
        && !name.starts_with('-')
        && !name.ends_with('-')
}

/// A name must be a DNS label.
pub(super) fn label(name: &str, path: &FieldPath, findings: &mut Findings) {
    if !is_label(name) {
        let message = format!(
            "{:?} is not a DNS label: lower-case letters, digits and inner hyphens, at most {LONGEST_LABEL}",
            shorten(name)
        );
        findings.add(path, ProblemCode::Invalid, message);
    }
}

/// A name must be a DNS subdomain.
pub(super) fn subdomain(name: &str, path: &FieldPath, findings: &mut Findings) {
    if name.len() > LONGEST_SUBDOMAIN || !name.split('.').all(is_label) {
        let message = format!(
            "{:?} is not a DNS subdomain: DNS labels joined by dots, at most {LONGEST_SUBDOMAIN} characters",
            shorten(name)
        );
        findings.add(path, ProblemCode::Invalid, message);
    }
}

/// Every item of a list must have a name of its own. Empty names are reported when read.
pub(super) fn unique<'a>(names: impl Iterator<Item = &'a str>, list: &FieldPath, findings: &mut Findings) {
    let mut seen = HashMap::new();
    for (index, name) in names.enumerate().filter(|(_, name)| !name.is_empty()) {
        let path = list.index(index).field("name");
        match seen.insert(name, index) {
            Some(first) => {
                let message = format!(
                    "{:?} is the name of {} too: names must differ",
                    shorten(name),
                    list.index(first)
                );
                findings.add(&path, ProblemCode::DuplicateName, message);
            }
            None => label(name, &path, findings),
        }
    }
}

/// Names to look up.
pub(super) fn set<'a>(names: impl Iterator<Item = &'a str>) -> HashSet<&'a str> {
    names.collect()
}

/// The name of an item must be among others: of what, and in which list. Empty names are
/// reported when read.
pub(super) fn resolve(
    name: &str,
    among: &HashSet<&str>,
    (what, list): (&str, &str),
    item: &FieldPath,
    findings: &mut Findings,
) {
    if !name.is_empty() && !among.contains(name) {
        let message = format!("{:?} has no {what}: add one of that name to {list}", shorten(name));
        findings.add(&item.field("name"), ProblemCode::NotFound, message);
    }
}
