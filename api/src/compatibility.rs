//! `docs/kubevirt-compatibility.md`, made from the schema tree and the list of differences.

use std::fmt::Write as _;

use crate::differences::DIFFERENCES;
use crate::schema::{Choice, Field, Schema, Status, Type, Word};
use crate::{VirtualMachine, VirtualMachineInstance};

/// A field with its path and what became of it.
#[derive(Clone, Debug)]
pub struct FieldRow {
    /// Path: `[]` stands for an item of a list, `.*` for a value of a map.
    pub path: String,
    /// The field itself.
    pub field: &'static Field,
    /// Its status, or that of the object it is part of.
    pub status: Status,
    /// Whether the status is its own, not that of something above it.
    pub own: bool,
}

/// Every field below an object, in the order of the schema; `prefix` comes first in each path.
#[must_use]
pub fn fields(ty: &Type, prefix: &str) -> Vec<FieldRow> {
    let mut rows = Vec::new();
    collect(ty, prefix, None, &mut rows);
    rows
}

fn collect(ty: &Type, prefix: &str, above: Option<Status>, rows: &mut Vec<FieldRow>) {
    match *ty {
        Type::List(item) => collect(item, &format!("{prefix}[]"), above, rows),
        Type::Map(item) => collect(item, &format!("{prefix}.*"), above, rows),
        Type::Object(object) => {
            for field in object.fields {
                let dot = if prefix.is_empty() { "" } else { "." };
                let path = format!("{prefix}{dot}{}", field.name);
                // What is in a field of libvirt's, or of clusters, is so too, unless it says more of itself.
                let above = above.filter(|s| !speaks_for_most(*s) || field.status == Status::Part);
                let status = above.unwrap_or(field.status);
                rows.push(FieldRow { path: path.clone(), field, status, own: above.is_none() });
                let passes_on = matches!(
                    status,
                    Status::Planned(_)
                        | Status::Refused(_)
                        | Status::System(_)
                        | Status::Libvirt(_)
                        | Status::Cluster(_)
                        | Status::Host(_)
                );
                collect(&field.ty, &path, passes_on.then_some(status), rows);
            }
        }
        _ => {}
    }
}

/// Whether the status of an object holds for its parts only where they say nothing of themselves.
const fn speaks_for_most(status: Status) -> bool {
    matches!(status, Status::Libvirt(_) | Status::Cluster(_) | Status::Host(_))
}

/// Headings and the paths under them; a field goes to the longest that fits.
const SECTIONS: &[(&str, &str)] = &[
    ("VirtualMachineInstance: metadata", "metadata"),
    ("VirtualMachineInstance: top level", ""),
    ("Domain", "spec.domain"),
    ("CPU", "spec.domain.cpu"),
    ("Memory", "spec.domain.memory"),
    ("Resources and I/O threads", "spec.domain.resources"),
    ("Firmware", "spec.domain.firmware"),
    ("Clock", "spec.domain.clock"),
    ("Features", "spec.domain.features"),
    ("Devices", "spec.domain.devices"),
    ("Disks", "spec.domain.devices.disks"),
    ("Interfaces", "spec.domain.devices.interfaces"),
    ("Networks", "spec.networks"),
    ("Volumes", "spec.volumes"),
    ("Affinity", "spec.affinity"),
    ("Liveness probe", "spec.livenessProbe"),
    ("Readiness probe", "spec.readinessProbe"),
];

/// The whole page.
#[must_use]
pub fn compatibility_markdown() -> String {
    let machine: Vec<FieldRow> = fields(&VirtualMachine::TYPE, "")
        .into_iter()
        .filter(|row| !row.path.starts_with("spec.template.spec."))
        .filter(|row| !(row.path.starts_with("metadata.") || row.path.starts_with("spec.template.metadata.")))
        .collect();
    let instance = fields(&VirtualMachineInstance::TYPE, "");
    let mut page = String::from(INTRODUCTION);
    count(&mut page, machine.iter().chain(&instance));
    differences(&mut page);
    page.push_str(
        "\n## VirtualMachine\n\nThe fields of `spec.template.spec` are those of `spec` of a VirtualMachineInstance \
         below; those of `metadata` and `spec.template.metadata` are those of its `metadata`.\n\n",
    );
    table(&mut page, machine.iter());
    for (title, prefix) in SECTIONS {
        _ = write!(page, "\n## {title}\n\n");
        table(&mut page, instance.iter().filter(|row| section_of(&row.path) == *prefix));
    }
    page
}

const INTRODUCTION: &str = "# KubeVirt compatibility

Pinion reads `VirtualMachine` and `VirtualMachineInstance` of `kubevirt.io/v1`, as KubeVirt 1.9 defines them. This
page has a row for each of their fields:

- **works**: it does what KubeVirt says, with what the note adds;
- **libvirt**: it does what KubeVirt says on QEMU, through libvirt ([page](libvirt.md)), and the note says what there is natively;
- **cluster**: it does what KubeVirt says in a cluster, and the note says what to do on one host, where `pinion run` refuses it;
- **one host**: the other way round;
- **planned**: not implemented yet. A spec that uses it is refused, and the error names the path of the field;
- **refused**: it will not be implemented, for the reason in the note. A spec that uses it is refused likewise;
- **accepted**: written by the system (server-set metadata, status); taken in a dump and not acted on.

No field is accepted and then ignored. A planned or refused field that asks for nothing (`false`, empty text, an
empty list or map, null) is no problem.

The page is made from the same definitions that check specs (`api/src`), and a test holds it to them. To make it
again: `cargo run -p pinion-api --example compatibility > docs/kubevirt-compatibility.md`.

";

fn count<'a>(page: &mut String, rows: impl Iterator<Item = &'a FieldRow> + Clone) {
    let of = |label: &str| rows.clone().filter(|row| label_of(row.status) == label).count();
    _ = writeln!(
        page,
        "Of {} fields, {} work, {} more with libvirt, {} more in a cluster, {} are planned, {} are refused and {} are accepted.",
        rows.clone().count(),
        of("works"),
        of("libvirt"),
        of("cluster"),
        of("planned"),
        of("refused"),
        of("accepted")
    );
}

fn differences(page: &mut String) {
    page.push_str(
        "\n## Where Pinion differs on purpose\n\n| About | KubeVirt | Pinion |\n| --- | --- | --- |\n",
    );
    for difference in DIFFERENCES {
        _ = writeln!(page, "| {} | {} | {} |", difference.about, difference.kubevirt, difference.pinion);
    }
}

/// The longest prefix of [`SECTIONS`] that a path is at or below.
fn section_of(path: &str) -> &'static str {
    let below = |prefix: &str| {
        path.strip_prefix(prefix)
            .is_some_and(|rest| prefix.is_empty() || rest.is_empty() || rest.starts_with(['.', '[']))
    };
    match path {
        _ if path.starts_with("spec.domain.ioThreads") => "spec.domain.resources",
        _ => SECTIONS
            .iter()
            .map(|(_, prefix)| *prefix)
            .filter(|prefix| below(prefix))
            .max_by_key(|prefix| prefix.len())
            .unwrap_or_default(),
    }
}

fn table<'a>(page: &mut String, rows: impl Iterator<Item = &'a FieldRow>) {
    page.push_str("| Field | Type | Status | Note |\n| --- | --- | --- | --- |\n");
    for row in rows {
        let required = if row.field.required { ", required" } else { "" };
        let kind = type_name(&row.field.ty);
        let label = label_of(row.status);
        _ = writeln!(page, "| `{}` | {kind}{required} | {label} | {} |", row.path, note(row));
    }
}

fn label_of(status: Status) -> &'static str {
    match status {
        Status::Works(_)
        | Status::Only(..)
        | Status::NativeOnly(..)
        | Status::ClusterBoth(..)
        | Status::Part => "works",
        Status::Libvirt(_) => "libvirt",
        Status::Cluster(_) => "cluster",
        Status::Host(_) => "one host",
        Status::Planned(_) => "planned",
        Status::Refused(_) => "refused",
        Status::System(_) => "accepted",
    }
}

fn type_name(ty: &Type) -> String {
    match *ty {
        Type::Bool => "boolean".to_owned(),
        Type::String => "text".to_owned(),
        Type::Int32 => "int32".to_owned(),
        Type::Int64 => "int64".to_owned(),
        Type::Uint32 => "uint32".to_owned(),
        Type::Uint64 => "uint64".to_owned(),
        Type::Quantity => "quantity".to_owned(),
        Type::IntOrString => "integer or text".to_owned(),
        Type::Choice(_) => "choice".to_owned(),
        Type::Any => "any".to_owned(),
        Type::List(item) => format!("list of {}", type_name(item)),
        Type::Map(item) => format!("map of {}", type_name(item)),
        Type::Object(_) => "object".to_owned(),
    }
}

fn note(row: &FieldRow) -> String {
    let doc = row.field.doc;
    let own = match row.status {
        Status::Works("") | Status::Part => String::new(),
        Status::Works(text) => text.to_owned(),
        Status::Only(value, why) => format!("Only `{value}`: {why}."),
        Status::NativeOnly(value, why) => format!("`{}` with libvirt: natively, {why}.", !value),
        Status::Libvirt(text) if row.own => format!("Natively, {text}."),
        Status::Libvirt(_) => String::new(),
        Status::ClusterBoth(value, why) => format!("`{}` in a cluster only: {why}.", !value),
        Status::Planned(text) | Status::Refused(text) | Status::System(text) | Status::Host(text)
            if row.own =>
        {
            format!("{}.", upper_first(text))
        }
        Status::Cluster(text) if row.own => format!("{}.", upper_first(text)),
        Status::Planned(_)
        | Status::Refused(_)
        | Status::System(_)
        | Status::Cluster(_)
        | Status::Host(_) => String::new(),
    };
    let words = match row.field.ty {
        Type::Choice(choice) if row.own => words(choice),
        _ => String::new(),
    };
    let parts = [doc, &own, &words].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>();
    parts.join(" ").replace('|', "\\|")
}

fn words(choice: &Choice) -> String {
    let label = |word: &Word| match word.status {
        Status::Planned(text) => format!("`{}` planned ({text})", word.text),
        Status::Refused(text) => format!("`{}` refused ({text})", word.text),
        Status::Libvirt(text) => format!("`{}` with libvirt (natively, {text})", word.text),
        Status::Cluster(text) => format!("`{}` in a cluster ({text})", word.text),
        Status::Host(text) => format!("`{}` on one host ({text})", word.text),
        _ => format!("`{}` works", word.text),
    };
    format!("{}.", choice.values.iter().map(label).collect::<Vec<_>>().join("; "))
}

fn upper_first(text: &str) -> String {
    let mut chars = text.chars();
    let first: String = chars.next().map(|c| c.to_uppercase().collect()).unwrap_or_default();
    format!("{first}{}", chars.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_page_is_up_to_date() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/kubevirt-compatibility.md");
        let committed = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            committed == compatibility_markdown(),
            "{path} is out of date: cargo run -p pinion-api --example compatibility > docs/kubevirt-compatibility.md"
        );
    }

    #[test]
    fn every_field_has_a_row() {
        let page = compatibility_markdown();
        for row in fields(&VirtualMachineInstance::TYPE, "") {
            assert!(page.contains(&format!("\n| `{}` |", row.path)), "{}", row.path);
        }
    }
}
