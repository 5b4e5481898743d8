//! `pinion image inspect`: what is on a disk image, and what would boot.
//!
//! The image is opened read-only, and read by the process that reads it for guests. Changes nothing.

use std::path::Path;
use std::sync::{Arc, Mutex};

use pinion_launcher::image::{self, ReadLimits};
use pinion_map::bytes as size;
use serde::Serialize;
use vmm_block::{Access, DiskOptions, SharedDisk};
use vmm_image::{EntryReport, FileSystemKind, ImageReport, PartitionKind, PartitionReport};

use crate::arguments::{DiskFormat, ImageCommand, ImageOptions, InspectImageOptions, ReportFormat};
use crate::failure::Failure;
use crate::output;
use crate::table::Table;
use crate::wrap::{plain, wrapped};

/// What is said where there is nothing.
const NONE: &str = "-";

/// The image and what was found.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    image: &'a Path,
    boots_directly: bool,
    #[serde(flatten)]
    report: &'a ImageReport,
}

/// Runs the command.
///
/// # Errors
/// [`Failure::Invalid`] for what is no image; [`Failure::Silent`] with 1 where it does not boot directly.
pub(crate) fn run(options: &ImageOptions) -> Result<(), Failure> {
    let ImageCommand::Inspect(options) = &options.command;
    inspect(options)
}

fn inspect(options: &InspectImageOptions) -> Result<(), Failure> {
    let report = image::inspect(&open(options)?, ReadLimits::default()).map_err(Failure::invalid)?;
    let boots_directly = report.refusal.is_none();
    match options.output {
        ReportFormat::Json => {
            output::document("Image", &Document { image: &options.file, boots_directly, report: &report })?;
        }
        ReportFormat::Text => output::text(&text(&options.file, &report, output::width()))?,
    }
    if boots_directly { Ok(()) } else { Err(Failure::Silent(1)) }
}

fn open(options: &InspectImageOptions) -> Result<SharedDisk, Failure> {
    let format = options.format.map(|format| match format {
        DiskFormat::Raw => vmm_block::ImageFormat::Raw,
        DiskFormat::Qcow2 => vmm_block::ImageFormat::Qcow2,
    });
    let disk = vmm_block::open(&options.file, DiskOptions { access: Access::ReadOnly, format });
    Ok(Arc::new(Mutex::new(disk.map_err(Failure::invalid)?)))
}

fn text(file: &Path, report: &ImageReport, width: usize) -> String {
    let mut text = format!(
        "{}: {}, partition table {}\n",
        plain(&file.display().to_string()),
        size(report.size_bytes),
        report.table
    );
    if !report.partitions.is_empty() {
        text.push_str(&partitions(&report.partitions));
    }
    if let (Some(loader), Some(file)) = (report.loader, &report.configuration) {
        text.push_str(&wrapped(&format!("{loader}: "), &plain(file), 2, width));
    }
    for entry in &report.entries {
        text.push_str(&described(entry, width));
    }
    for note in &report.notes {
        text.push_str(&wrapped("note: ", &plain(note), 6, width));
    }
    text.push_str(&match &report.refusal {
        None => "It boots directly.\n".to_owned(),
        Some(why) => wrapped("It does not boot directly: ", &plain(why), 2, width),
    });
    text
}

fn partitions(partitions: &[PartitionReport]) -> String {
    let mut table = Table::new(&["NUMBER", "SIZE", "FOR", "HOLDS", "LABEL", "UUID"]);
    let or_none = |text: &str| if text.is_empty() { NONE.to_owned() } else { plain(text) };
    for partition in partitions {
        let number = match partition.number {
            0 => "disk".to_owned(),
            number => number.to_string(),
        };
        let holds = match &partition.problem {
            Some(why) => format!("{} ({})", partition.file_system, plain(why)),
            None => holds(partition.file_system),
        };
        table.row([
            number,
            size(partition.size_bytes),
            purpose(partition.kind).to_owned(),
            holds,
            or_none(&partition.label),
            or_none(&partition.uuid),
        ]);
    }
    table.picture(2)
}

fn holds(kind: FileSystemKind) -> String {
    if kind == FileSystemKind::Unknown { NONE.to_owned() } else { kind.to_string() }
}

fn purpose(kind: PartitionKind) -> &'static str {
    match kind {
        PartitionKind::Esp => "EFI system",
        PartitionKind::ExtendedBoot => "boot loader",
        PartitionKind::BiosBoot => "BIOS boot",
        PartitionKind::Data => "data",
    }
}

/// An entry; the one that boots has a star.
fn described(entry: &EntryReport, width: usize) -> String {
    let star = if entry.is_default { "*" } else { " " };
    let mut text = wrapped(&format!("{star} "), &plain(&entry.title), 4, width);
    let mut line = |name: &str, value: &str| {
        text.push_str(&wrapped(&format!("    {name}: "), &plain(value), 6, width));
    };
    line("kernel", &format!("partition {}: {}", entry.partition, entry.kernel));
    if !entry.initrds.is_empty() {
        line("initrd", &entry.initrds.join(" "));
    }
    if !entry.command_line.is_empty() {
        line("arguments", &entry.command_line);
    }
    text
}
